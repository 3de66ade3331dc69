"""Recorded boards: what their kernels show, as files in a folder of our own, and what has to be read there.

A tree holds what a board has below /sys, and beside it of /etc, /var and /usr. Numbers of zones and chips are those of the
record; `renumbered` gives the same board after a boot in which all drivers came in another order.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from denoised.config.tree import Board as BoardConfig
from denoised.daemon.board import sysfs
from denoised.daemon.board.board import find_board

OFF = b"\0EAGAIN"
"""A file of a block that is powered off: opening works, reading answers EAGAIN."""
DEAD = b"\0EIO"
"""A file behind a dead bus: opening works, reading fails."""
Files = Mapping[str, str | bytes]


@dataclass(frozen=True)
class Recorded:
    """Files, and what they say."""

    files: Files
    kind: str
    name: str
    temp_c: float | None
    throttle_c: float
    power_w: float | None = None
    rails: tuple[str, ...] = ()
    power_from: str = ""
    mode: str | None = None
    speed: float | None = None
    fan: float | None = None
    throttled: bool | None = None
    throttle_events: int | None = None
    under_voltage: bool | None = None
    over_current_events: int | None = None
    unknown: tuple[str, ...] = ()
    """What does not answer on this board, in good order as it is."""
    traits: Mapping[str, object] = field(default_factory=dict)


def zones(rows: list[tuple[str, str | bytes]], trips: Mapping[str, float]) -> dict[str, str | bytes]:
    found: dict[str, str | bytes] = {}
    for n, (kind, temp) in enumerate(rows):
        folder = f"sys/class/thermal/thermal_zone{n}"
        found |= {f"{folder}/type": kind, f"{folder}/temp": temp}
        for t, (trip, at) in enumerate(trips.items()):
            found |= {f"{folder}/trip_point_{t}_type": trip.rstrip("0123456789"), f"{folder}/trip_point_{t}_temp": f"{at:g}"}
    return found


def chip(number: int, name: str, **files: str | bytes) -> dict[str, str | bytes]:
    return {f"sys/class/hwmon/hwmon{number}/{n}": text for n, text in {"name": name, **files}.items()}


def ina3221(number: int, *channels: tuple[int, str, int, int], crit_ma: int | None = None) -> dict[str, str | bytes]:
    files: dict[str, str] = {}
    for n, label, mv, ma in channels:
        files |= {f"in{n}_label": label, f"in{n}_input": str(mv), f"curr{n}_input": str(ma)}
    return chip(number, "ina3221", **files, **({"curr1_crit": str(crit_ma)} if crit_ma else {}))


def policy(number: int, lowest: int, top: int, now: int) -> dict[str, str | bytes]:
    folder = f"sys/devices/system/cpu/cpufreq/policy{number}"
    values = {"cpuinfo_min_freq": lowest, "cpuinfo_max_freq": top, "scaling_max_freq": top, "scaling_cur_freq": now}
    return {f"{folder}/{name}": str(value) for name, value in values.items()}


def cooler(number: int, kind: str, state: int, most: int) -> dict[str, str | bytes]:
    folder = f"sys/class/thermal/cooling_device{number}"
    return {f"{folder}/type": kind, f"{folder}/cur_state": str(state), f"{folder}/max_state": str(most)}


def gpu(folder: str, node: str, steps: str, now: int, load: int | None) -> dict[str, str | bytes]:
    base, top = f"sys/class/devfreq/{folder}", steps.split()[-1]
    found: dict[str, str | bytes] = {f"{base}/available_frequencies": steps, f"{base}/cur_freq": str(now)}
    found |= {f"{base}/max_freq": top, f"{base}/min_freq": steps.split()[0], f"{base}/device/of_node/name": f"{node}\0"}
    return found | ({f"{base}/device/load": str(load)} if load is not None else {})


def device_tree(model: str, *compatible: str) -> dict[str, str | bytes]:
    base = "sys/firmware/devicetree/base"
    return {f"{base}/model": f"{model}\0".encode(), f"{base}/compatible": "\0".join((*compatible, "")).encode()}


ORIN_TRIPS = {"passive": 99000, "hot": 103000, "critical": 104500}
ORIN_COOLERS = cooler(0, "pwm-fan", 2, 4) | cooler(1, "cpufreq-cpu0", 0, 12) | cooler(2, "17000000.gpu", 0, 10)
OC = {"oc1_event_cnt": "0", "oc2_event_cnt": "1", "oc3_event_cnt": "41", "oc3_throt_en": "1"}
ORIN_NANO_GPU = "306000000 408000000 612000000 918000000 1020000000"
ORIN_NANO_CONF = """# POWER MODEL DEFINITIONS
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
GPU MAX_FREQ 612000000
< POWER_MODEL NAME=25W ID=1 >
GPU MAX_FREQ 918000000
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
GPU MAX_FREQ -1
< PM_CONFIG DEFAULT=1 >
"""
JP6 = ["cpu", "gpu", "cv0", "cv1", "cv2", "soc0", "soc1", "soc2", "tj"]
PMIC = """   3V7_WL_SW_A current(0)=0.09270000A
   VDD_CORE_A current(7)=2.43430000A
 3V7_WL_SW_V volt(8)=3.70000000V
   VDD_CORE_V volt(15)=0.87530000V
     EXT5V_V volt(24)=5.08000000V
      BATT_V volt(25)=0.00000000V"""
VCGENCMD = f"""#!/bin/sh
case "$1" in
  get_throttled) echo throttled=0x50000;;
  pmic_read_adc) cat <<'END'
{PMIC}
END
  ;;
  *) echo 'error=1 error_msg="Command not registered"'; exit 1;;
esac
"""
PI5 = device_tree("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b", "brcm,bcm2712")
PI5_TRIPS = {"critical": 110000, "active1": 50000, "active2": 60000}

BOARDS = {
    "orin-nano-jetpack-6": Recorded(
        device_tree("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "nvidia,p3768-0000+p3767-0005-super")
        | zones([(f"{n}-thermal", OFF if n[:2] == "cv" else str(48000 + 125 * i)) for i, n in enumerate(JP6)], ORIN_TRIPS)
        | chip(0, "pwmfan", pwm1="102")
        | ina3221(1, (1, "VDD_IN", 5040, 1176), (2, "VDD_CPU_GPU_CV", 5040, 288), (3, "VDD_SOC", 5040, 304), (7, "sum", 3, 3))
        | chip(2, "soctherm_oc", **OC)
        | chip(3, "pwm_tach", rpm="1520")
        | policy(0, 115200, 1728000, 729600)
        | policy(4, 115200, 1728000, 883200)
        | gpu("17000000.gpu", "gpu", ORIN_NANO_GPU, 306000000, 0)
        | {"sys/class/devfreq/15480000.nvdec/cur_freq": "1", "sys/class/devfreq/15480000.nvdec/device/of_node/name": "nvdec"}
        | ORIN_COOLERS
        | {"etc/nvpmodel.conf": ORIN_NANO_CONF, "var/lib/nvpmodel/status": "pmode:0001\n"},
        kind="jetson",
        name="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        temp_c=49.0,
        throttle_c=99.0,
        power_w=5.04 * 1.176,
        rails=("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"),
        power_from="power rails VDD_IN",
        mode="25W",
        speed=729600 / 1728000,
        fan=0.4,
        throttled=False,
        throttle_events=0,
        under_voltage=False,
        over_current_events=42,
        unknown=("zone cv0", "zone cv1", "zone cv2"),
        traits={"full_w": 20.0, "idle_w": 4.0, "critical_c": 104.5},
    ),
    "orin-nano-jetpack-5": Recorded(
        device_tree("NVIDIA Orin Nano Developer Kit", "nvidia,p3767-0005", "nvidia,tegra234")
        | zones([("CPU-therm", "61000"), ("GPU-therm", OFF), ("CV0-therm", OFF), ("tj-therm", "61500")], ORIN_TRIPS)
        | ina3221(4, (1, "VDD_IN", 5000, 2400), (2, "VDD_CPU_GPU_CV", 5000, 1200), (3, "VDD_SOC", 5000, 500))
        | policy(0, 115200, 1510400, 1510400)
        | gpu("17000000.ga10b", "ga10b", "306000000 624750000", 624750000, 980)
        | cooler(0, "gpu-throttle-alert", 0, 1)
        | cooler(1, "thermal-cpufreq-0", 3, 12)
        | {"etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=7W >\n"}
        | {"var/lib/nvpmodel/status": "pmode:0001"},
        kind="jetson",
        name="NVIDIA Orin Nano Developer Kit",
        temp_c=61.5,
        throttle_c=99.0,
        power_w=12.0,
        rails=("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"),
        power_from="power rails VDD_IN",
        mode="7W",
        speed=1.0,
        throttled=True,
        throttle_events=1,
        unknown=("zone gpu", "zone cv0"),
        traits={"full_w": 7.0},
    ),
    "orin-nx": Recorded(
        device_tree("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "nvidia,p3768-0000+p3767-0000")
        | zones([("cpu-thermal", "70031"), ("tj-thermal", "71312")], ORIN_TRIPS)
        | ina3221(3, (1, "VDD_IN", 4960, 3400), (2, "VDD_CPU_GPU_CV", 4960, 2000), (3, "VDD_SOC", 4960, 600), crit_ma=7784)
        | chip(5, "soctherm_oc", **{**OC, "oc1_event_cnt": "2"})
        | policy(0, 115200, 1984000, 1497600),
        kind="jetson",
        name="NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        temp_c=71.312,
        throttle_c=99.0,
        power_w=4.96 * 3.4,
        rails=("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"),
        power_from="power rails VDD_IN",
        speed=1497600 / 1984000,
        under_voltage=False,
        over_current_events=42,
        traits={"full_w": 16.9},
    ),
    "agx-orin": Recorded(
        device_tree("NVIDIA Jetson AGX Orin Developer Kit", "nvidia,p3737-0000+p3701-0000")
        | zones([("cpu-thermal", "45000"), ("gpu-thermal", OFF), ("soc0-thermal", "44000"), ("tj-thermal", "")], ORIN_TRIPS)
        | ina3221(2, (1, "VDD_GPU_SOC", 19000, 200), (2, "VDD_CPU_CV", 19000, 40), (3, "VIN_SYS_5V0", 5000, 700))
        | ina3221(3, (1, "NC", 0, 0), (2, "VDDQ_VDD2_1V8AO", 5000, 100), (3, "NC", 0, 0)),
        kind="jetson",
        name="NVIDIA Jetson AGX Orin Developer Kit",
        temp_c=45.0,
        throttle_c=99.0,
        power_w=3.8 + 0.76 + 3.5,
        rails=("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"),
        power_from="power rails VDD_CPU_CV, VDD_GPU_SOC, VIN_SYS_5V0",
        unknown=("zone gpu", "zone tj"),
    ),
    "agx-thor-jetpack-7": Recorded(
        device_tree("NVIDIA Jetson AGX Thor Developer Kit", "nvidia,p4071-0000+p3834-0008", "nvidia,tegra264")
        | zones([("cpu-thermal", "50000"), ("gpu-thermal", "51000"), ("tj-thermal", "51500")], {"critical": 118000})
        | ina3221(0, (1, "VDD_GPU", 12000, 1000), (2, "VDD_CPU_SOC_MSS", 12000, 900), (3, "VIN", 12000, 2500))
        | policy(0, 972000, 2601000, 2601000)
        | gpu("gpu-gpc-0", "", "315000000 1575000000", 315000000, None),
        kind="jetson",
        name="NVIDIA Jetson AGX Thor Developer Kit",
        temp_c=51.5,
        throttle_c=99.0,
        power_w=30.0,
        rails=("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN"),
        power_from="power rails VIN",
        speed=1.0,
        traits={"critical_c": 118.0},
    ),
    "pi-4": Recorded(
        device_tree("Raspberry Pi 4 Model B Rev 1.4", "raspberrypi,4-model-b", "brcm,bcm2711")
        | zones([("cpu-thermal", "81790")], {"critical": 110000})
        | chip(0, "cpu_thermal", temp1_input="81790")
        | chip(1, "rpi_volt", in0_lcrit_alarm="0")
        | policy(0, 600000, 1800000, 1500000)
        | {"sys/devices/platform/soc/soc:firmware/get_throttled": "e0008\n"},
        kind="raspberry-pi",
        name="Raspberry Pi 4 Model B Rev 1.4",
        temp_c=81.79,
        throttle_c=80.0,
        speed=1500000 / 1800000,
        throttled=True,
        throttle_events=1,
        under_voltage=False,
        traits={"full_w": 6.0, "critical_c": 110.0, "has_power": False},
    ),
    "pi-5": Recorded(  # its kernel has no get_throttled, and no tool of the firmware is installed
        PI5
        | zones([("cpu-thermal", "52950")], PI5_TRIPS)
        | chip(0, "cpu_thermal", temp1_input="52950")
        | chip(1, "rp1_adc", in1_input="1470")
        | chip(2, "pwmfan", fan1_input="2830", pwm1="75")
        | chip(3, "rpi_volt", in0_lcrit_alarm="1")
        | cooler(0, "pwm-fan", 1, 4)
        | policy(0, 1500000, 2400000, 1500000)
        | {"sys/firmware/devicetree/base/chosen/power/max_current": (3000).to_bytes(4, "big")},
        kind="raspberry-pi",
        name="Raspberry Pi 5 Model B Rev 1.0",
        temp_c=52.95,
        throttle_c=80.0,
        speed=0.625,
        fan=75 / 255,
        under_voltage=True,
        unknown=("throttle word",),
        traits={"supply_a": 3.0, "full_w": 8.0},
    ),
    "pi-5-with-vcgencmd": Recorded(
        PI5
        | zones([("cpu-thermal", "60650")], PI5_TRIPS)
        | policy(0, 1500000, 2400000, 2400000)
        | {"usr/bin/vcgencmd": VCGENCMD, "boot/firmware/config.txt": "[pi5]\n# cooler\ntemp_limit=75\n"},
        kind="raspberry-pi",
        name="Raspberry Pi 5 Model B Rev 1.0",
        temp_c=60.65,
        throttle_c=75.0,
        power_w=0.0927 * 3.7 + 2.4343 * 0.8753,
        rails=("3V7_WL_SW", "VDD_CORE"),
        power_from="PMIC rails by vcgencmd pmic_read_adc (the board without USB and 5 V consumers)",
        speed=1.0,
        throttled=False,
        throttle_events=1,
        under_voltage=False,
        traits={"full_w": 4.51, "supply_a": None},
    ),
    "pi-5-with-get-throttled": Recorded(
        PI5
        | zones([("cpu-thermal", "52950")], PI5_TRIPS)
        | {"sys/devices/platform/soc@107c000000:firmware/firmware:x/get_throttled": "0x0"}
        | {"sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "0x10001"},
        kind="raspberry-pi",
        name="Raspberry Pi 5 Model B Rev 1.0",
        temp_c=52.95,
        throttle_c=80.0,
        throttled=False,
        throttle_events=0,
        under_voltage=True,
    ),
    "pc": Recorded(
        zones([("acpitz", "27800")], {"critical": 119000})
        | chip(0, "nvme", temp1_input="71850", temp1_crit="84850")
        | chip(1, "coretemp", temp1_input="47000", temp1_label="Package id 0", temp1_max="90000", temp1_crit="100000")
        | cooler(0, "Processor", 0, 10)
        | cooler(1, "intel_powerclamp", -1, 50)
        | cooler(2, "TCC Offset", 10, 63)
        | policy(0, 800000, 4200000, 2100000)
        | {f"sys/devices/system/cpu/cpu{n}/thermal_throttle/core_throttle_count": "7" for n in range(2)}
        | {"proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) Core(TM) i5-8365UE CPU @ 1.60GHz\n"},
        kind="generic",
        name="Intel(R) Core(TM) i5-8365UE CPU @ 1.60GHz",
        temp_c=47.0,
        throttle_c=90.0,
        speed=0.5,
        throttled=False,
        throttle_events=7,
        traits={"critical_c": 100.0},
    ),
    "pc-with-a-zone": Recorded(  # whose trip points are switched off; those of its sensor in hwmon count
        zones([("x86_pkg_temp", "61000")], {"passive": -274000})
        | chip(0, "coretemp", temp1_input="62000", temp1_label="Package id 0", temp1_max="100000", temp1_crit="100000")
        | {"sys/class/powercap/intel-rapl:0/constraint_0_power_limit_uw": "15000000"}
        | {"proc/cpuinfo": "model name\t: Intel(R) N100\n"},
        kind="generic",
        name="Intel(R) N100",
        temp_c=61.0,
        throttle_c=95.0,
        traits={"critical_c": 100.0, "full_w": 15.0},
    ),
    "odd-vendor-board": Recorded(  # text with a unit, degrees, nothing, below zero, a wireless chip that is hotter than all
        device_tree("ACME Edge 3", "acme,edge3", "rockchip,rk3588")
        | zones([("soc-thermal", "-5500"), ("bigcore0-thermal", "45.2'C"), ("gpu-thermal", "46"), ("npu-thermal", "")], {})
        | {"sys/class/thermal/thermal_zone8/type": "wlan0", "sys/class/thermal/thermal_zone8/temp": "93000"}
        | {"sys/class/thermal/thermal_zone0/trip_point_0_type": "passive"}
        | {"sys/class/thermal/thermal_zone0/trip_point_0_temp": "75000"}
        | {"sys/class/thermal/thermal_zone0/trip_point_1_type": "critical"}
        | {"sys/class/thermal/thermal_zone0/trip_point_1_temp": "-274000"}
        | chip(0, "ina226", power1_input="7250000", label="12V_IN")
        | policy(0, 408000, 1800000, 408000)
        | policy(4, 408000, 2400000, 1200000),
        kind="generic",
        name="ACME Edge 3",
        temp_c=-5.5,
        throttle_c=75.0,
        power_w=7.25,
        rails=("12V_IN",),
        power_from="power rails 12V_IN",
        speed=0.5,
        unknown=("zone bigcore0", "zone gpu", "zone npu"),
    ),
}


def lay(root: Path, files: Files) -> Path:
    """Writes the tree below `root`; what answers with an error is a link to where the kernel gives one."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text == DEAD:
            path.symlink_to("/proc/self/mem")
        elif text != OFF:
            path.write_bytes(text if isinstance(text, bytes) else f"{text}\n".encode())
        if name.endswith("/vcgencmd"):
            path.chmod(0o755)
    return root


def off(root: Path, files: Files) -> set[Path]:
    return {root / name for name, text in files.items() if text == OFF}


def renumbered(files: Files) -> Files:
    return {
        re.sub(r"(thermal_zone|hwmon|cooling_device)(\d+)\b", lambda m: f"{m[1]}{97 - int(m[2]) * 7}", name): text
        for name, text in files.items()
    }


@pytest.fixture(params=list(BOARDS))
def recorded(request):
    return BOARDS[request.param]


@pytest.fixture
def board_of(tmp_path, monkeypatch):
    """board_of(files, kind="auto") -> the board that is found in these files, laid out below tmp_path."""
    sleeping: set[Path] = set()
    read = sysfs.read

    def with_blocks_off(path: Path) -> str:
        if path in sleeping:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
        return read(path)

    monkeypatch.setattr(sysfs, "read", with_blocks_off)

    def board(files: Files, kind: Any = "auto", keep: Path | None = None):
        lay(tmp_path, files)
        sleeping.update(off(tmp_path, files))
        return find_board(BoardConfig(kind=kind, sysfs_root=str(tmp_path / "sys")), keep)

    return board


@pytest.fixture
def renumbered_of():
    return renumbered
