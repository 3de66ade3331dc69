"""Power sensors as the kernel shows them, in a folder of our own."""

from __future__ import annotations

import time

import pytest
from denoised.daemon.board.power import CORE_W, IDLE_W, CounterMeter, MeterError, ModelMeter, RailMeter, find_meter


def ina3221(root, number, rails):
    chip = root / f"class/hwmon/hwmon{number}"
    chip.mkdir(parents=True)
    (chip / "name").write_text("ina3221\n")
    for channel, (label, mv, ma) in rails.items():
        (chip / f"in{channel}_label").write_text(f"{label}\n")
        (chip / f"in{channel}_input").write_text(f"{mv}\n")
        (chip / f"curr{channel}_input").write_text(f"{ma}\n")
    return chip


def rapl(root, zones):
    for folder, (name, uj) in zones.items():
        zone = root / "class/powercap" / folder
        zone.mkdir(parents=True)
        (zone / "name").write_text(f"{name}\n")
        (zone / "energy_uj").write_text(f"{uj}\n")
        (zone / "max_energy_range_uj").write_text("1000000\n")


def test_an_orin_nano_is_read_at_the_rail_that_carries_the_whole_module(tmp_path):
    (tmp_path / "class/hwmon/hwmon0").mkdir(parents=True)
    (tmp_path / "class/hwmon/hwmon0/name").write_text("cpu_thermal\n")
    ina3221(tmp_path, 1, {1: ("VDD_IN", 5000, 1200), 2: ("VDD_CPU_GPU_CV", 5000, 400), 3: ("VDD_SOC", 5000, 300)})
    meter = find_meter(tmp_path)
    assert meter.method == "power rails VDD_IN"
    assert meter.measured
    meter.start()
    assert meter.stop() == pytest.approx(6.0)


def test_a_board_without_a_total_adds_up_its_rails_but_not_the_unconnected_nor_the_sum_of_shunts(tmp_path):
    rails = {1: ("VDD_GPU_SOC", 10000, 500), 2: ("NC", 0, 0), 3: ("VDD_CPU_CV", 10000, 200), 7: ("sum of shunt voltages", 3, 3)}
    ina3221(tmp_path, 4, rails)
    meter = find_meter(tmp_path)
    assert meter.method == "power rails VDD_GPU_SOC, VDD_CPU_CV"
    meter.start()
    assert meter.stop() == pytest.approx(7.0)


def test_a_rail_is_watched_all_the_time(tmp_path):
    chip = ina3221(tmp_path, 1, {1: ("VDD_IN", 5000, 1000)})
    meter = find_meter(tmp_path)
    assert isinstance(meter, RailMeter)
    meter.start()
    (chip / "curr1_input").write_text("3000\n")
    while len(meter._seen) < 4:
        time.sleep(0.01)
    (chip / "curr1_input").write_text("1000\n")
    assert 7.5 < meter.stop() < 15.0


def test_a_rail_that_stops_answering_is_an_error_and_not_a_number(tmp_path):
    chip = ina3221(tmp_path, 1, {1: ("VDD_IN", 5000, 1000)})
    meter = find_meter(tmp_path)
    (chip / "curr1_input").unlink()
    meter.start()
    with pytest.raises(MeterError, match="VDD_IN"):
        meter.stop()


def test_a_pc_is_read_at_its_energy_counters_which_wrap(tmp_path):
    rapl(tmp_path, {"intel-rapl:0": ("package-0", 900_000), "intel-rapl:0:0": ("core", 1), "intel-rapl:1": ("package-1", 5)})
    meter = find_meter(tmp_path)
    assert isinstance(meter, CounterMeter)
    assert meter.method == "energy counters package-0, package-1"
    began = time.monotonic()
    meter.start()
    (tmp_path / "class/powercap/intel-rapl:0/energy_uj").write_text("100000\n")  # past its range: 0.2 J
    power_w = meter.stop()
    assert power_w >= 0.2 / (time.monotonic() - began)  # 0.2 J in less time than that


def test_the_counter_of_the_whole_machine_goes_before_those_of_its_parts(tmp_path):
    rapl(tmp_path, {"intel-rapl:0": ("package-0", 1), "intel-rapl:1": ("psys", 1)})
    assert find_meter(tmp_path).method == "energy counters psys"


def test_a_counter_that_only_root_may_read_is_no_counter(tmp_path):
    rapl(tmp_path, {"intel-rapl:0": ("package-0", "")})
    assert isinstance(find_meter(tmp_path), ModelMeter)


def test_without_a_sensor_power_is_modelled_and_said_so(tmp_path):
    meter = find_meter(tmp_path)
    assert not meter.measured
    assert meter.method.startswith("modelled: ")
    meter.start()
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert IDLE_W < meter.stop() < IDLE_W + 64 * CORE_W
