"""Power sensors as the kernel shows them, in a folder of our own."""

from __future__ import annotations

import os

import pytest
from denoised.daemon.board.power import Counters, Pmic, Rails, find_counters, find_pmic, find_rails, pmic_rails
from denoised.daemon.board.sysfs import Look
from denoised.daemon.board.vcgencmd import find_vcgencmd


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


def rails_in(root) -> Rails:
    found = find_rails(root)
    assert found
    return found


def counters_in(root) -> Counters:
    found = find_counters(root)
    assert found
    return found


def test_the_rail_that_carries_the_whole_module_is_its_power_and_the_others_are_parts(tmp_path):
    ina3221(tmp_path, 1, {1: ("VDD_IN", 5000, 1200), 2: ("VDD_CPU_GPU_CV", 5000, 400), 3: ("VDD_SOC", 5000, 300)})
    watts = rails_in(tmp_path).read(Look(), 0.0)
    assert watts.total == pytest.approx(6.0)
    assert watts.rails == pytest.approx({"VDD_IN": 6.0, "VDD_CPU_GPU_CV": 2.0, "VDD_SOC": 1.5})


def test_a_board_without_a_total_adds_up_its_rails_but_not_the_unconnected_nor_the_sum_of_shunts(tmp_path):
    rails = {1: ("VDD_GPU_SOC", 10000, 500), 2: ("NC", 0, 0), 3: ("VDD_CPU_CV", 10000, 200), 7: ("sum of shunt voltages", 3, 3)}
    ina3221(tmp_path, 4, rails)
    source = rails_in(tmp_path)
    assert source.words == "power rails VDD_CPU_CV, VDD_GPU_SOC"
    assert source.read(Look(), 0.0).total == pytest.approx(7.0)


def test_a_rail_that_does_not_answer_leaves_no_total_and_says_why(tmp_path):
    chip = ina3221(tmp_path, 1, {1: ("VDD_A", 5000, 1000), 2: ("VDD_B", 5000, 2000)})
    source, look = rails_in(tmp_path), Look()
    (chip / "curr1_input").write_text("5 A\n")
    watts = source.read(look, 0.0)
    assert watts.total is None
    assert watts.rails == {"VDD_A": None, "VDD_B": pytest.approx(10.0)}
    assert look.problems == {"rail VDD_A": f"{chip}/curr1_input: expected a number in mA, found '5 A'"}


def test_the_offset_of_an_idle_rail_is_no_negative_power(tmp_path):
    ina3221(tmp_path, 1, {1: ("VDD_IN", 5000, -8)})
    assert rails_in(tmp_path).read(Look(), 0.0).total == 0.0


def test_a_pc_is_read_at_its_energy_counters_which_wrap(tmp_path):
    rapl(tmp_path, {"intel-rapl:0": ("package-0", 900_000), "intel-rapl:0:0": ("core", 1), "intel-rapl:1": ("package-1", 5)})
    source = counters_in(tmp_path)
    assert source.words == "energy counters package-0, package-1"
    assert source.read(Look(), 10.0).total is None  # it only begins
    (tmp_path / "class/powercap/intel-rapl:0/energy_uj").write_text("100000\n")  # past its range: 0.2 J
    assert source.read(Look(), 10.5).total == pytest.approx(0.4)


def test_a_counter_that_failed_once_begins_anew(tmp_path):
    rapl(tmp_path, {"intel-rapl:0": ("psys", 0)})
    source, counter = counters_in(tmp_path), tmp_path / "class/powercap/intel-rapl:0/energy_uj"
    source.read(Look(), 0.0)
    counter.write_text("garbage")
    assert source.read(Look(), 1.0).total is None
    counter.write_text("500000")
    assert source.read(Look(), 2.0).total is None
    counter.write_text("700000")
    assert source.read(Look(), 3.0).total == pytest.approx(0.2)


def test_the_counter_of_the_whole_machine_goes_before_those_of_its_parts(tmp_path):
    rapl(tmp_path, {"intel-rapl:0": ("package-0", 1), "intel-rapl:1": ("psys", 1)})
    assert counters_in(tmp_path).words == "energy counters psys"


def test_a_counter_that_only_root_may_read_is_no_counter(tmp_path):
    rapl(tmp_path, {"intel-rapl:0": ("package-0", "")})
    assert find_counters(tmp_path) is None


def test_the_pmics_rails_are_those_that_have_both_a_current_and_a_voltage():
    answer = " VDD_CORE_A current(7)=2.0A\n VDD_CORE_V volt(15)=0.75V\n EXT5V_V volt(24)=5.1V\n DDR_A current(3)=0.1A\nrubbish"
    assert pmic_rails(answer) == {"VDD_CORE": 1.5}
    assert pmic_rails('error=1 error_msg="Command not registered"') == {}


@pytest.fixture
def firmware(tmp_path):
    """A firmware's tool that counts how often it was asked and answers what stands in the file `answer`."""
    tool = tmp_path / "usr/bin/vcgencmd"
    tool.parent.mkdir(parents=True)
    tool.write_text(f"#!/bin/sh\ncd {tmp_path}\necho >> asked\n. ./answer\n")
    tool.chmod(0o755)
    found = find_vcgencmd(tmp_path)
    assert found
    return found


def test_the_pmic_is_asked_at_most_once_a_second(tmp_path, firmware):
    (tmp_path / "answer").write_text("echo VDD_CORE_A 'current(7)=2.0A'; echo VDD_CORE_V 'volt(15)=0.75V'")
    source = find_pmic(firmware, 0.0)
    assert isinstance(source, Pmic)
    assert [source.read(Look(), at / 10).total for at in range(21)] == [1.5] * 21
    assert (tmp_path / "asked").read_text().count("\n") == 3  # at 0, 1 and 2 s


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("echo 'error=1 error_msg=\"Command not registered\"'", 'error=1 error_msg="Command not registered"'),
        ("echo no such device >&2; exit 1", "no such device"),
        ("echo hello", "no rail with current and voltage in its answer"),
        ("exec sleep 5", "no answer in 0.5 s"),
    ],
)
def test_a_pmic_that_does_not_answer_is_unknown_and_says_why(tmp_path, firmware, answer, why):
    (tmp_path / "answer").write_text(answer)
    look = Look()
    assert Pmic(firmware).read(look, 0.0).total is None
    assert look.problems["PMIC"].endswith(why)
    assert find_pmic(firmware, 0.0) is None


def test_a_tool_that_hung_is_left_alone_for_a_minute(tmp_path, firmware):
    (tmp_path / "answer").write_text("exec sleep 5")
    for now in (0.0, 1.0, 59.0):
        look = Look()
        assert firmware.ask("get_throttled", look, "word", now) is None
        assert look.problems["word"].endswith("get_throttled: no answer in 0.5 s")
    (tmp_path / "answer").write_text("echo throttled=0x0")
    assert firmware.ask("get_throttled", Look(), "word", 60.0) == "throttled=0x0"
    assert (tmp_path / "asked").read_text().count("\n") == 2


def test_a_tool_that_may_not_be_run_or_has_gone_is_none(tmp_path, firmware):
    os.rename(firmware.path, tmp_path / "moved")
    assert find_vcgencmd(tmp_path) is None
    assert find_pmic(firmware, 0.0) is None
