"""Trees of sysfs and lines of tegrastats as boards show them.

Layouts by the Jetson Linux Developer Guide (r36.4.3 for Orin, r38.4 for Thor; addresses in
`dskd_export.telemetry.rails` and `.tegrastats`) and the kernel's device trees tegra234-p3701.dtsi and
-p3767.dtsi. Values of lines as users of these boards published them: Orin Nano in L4T 36.4, AGX Orin in
36.4.4 and 39.2, Thor in 38.2, 38.4 and 39.2 (lesomnus/tegra-exporter `stats/parse_test.go`, among others).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Tree = Mapping[str, str]


def plant(root: Path, *trees: Tree) -> Path:
    """Write files below a folder that stands for the root of a file system."""
    for tree in trees:
        for name, text in tree.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n", encoding="utf-8")
    return root


def ina3221(where: str, rails: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """A monitor with rails as (mV, mA), and the channels that are none."""
    tree = {
        f"{where}/name": "ina3221",
        f"{where}/in7_label": "sum of shunt voltages",
        f"{where}/in7_input": "8080",
    }
    for channel, (rail, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        tree[f"{where}/in{channel}_label"] = rail
        tree[f"{where}/in{channel}_input"] = str(millivolts)
        tree[f"{where}/curr{channel}_input"] = str(milliamperes)
        tree[f"{where}/in{channel + 3}_input"] = "1240"  # the shunt's voltage, in µV, without a label
    return tree


def zones(**temperatures: int | str) -> dict[str, str]:
    """Thermal zones in milli-degrees."""
    tree = {}
    for number, (name, value) in enumerate(temperatures.items()):
        tree[f"sys/class/thermal/thermal_zone{number}/type"] = f"{name}-thermal"
        tree[f"sys/class/thermal/thermal_zone{number}/temp"] = str(value)
    return tree


def cooling(devices: Mapping[str, int]) -> dict[str, str]:
    """Cooling devices and their states."""
    tree = {}
    for number, (kind, state) in enumerate(devices.items()):
        tree[f"sys/class/thermal/cooling_device{number}/type"] = kind
        tree[f"sys/class/thermal/cooling_device{number}/cur_state"] = str(state)
    return tree


def over_current(*counts: int) -> dict[str, str]:
    """The alarm counters oc1, oc2, oc3."""
    folder = "sys/class/hwmon/hwmon9"
    events = {f"{folder}/oc{number}_event_cnt": str(count) for number, count in enumerate(counts, 1)}
    return {f"{folder}/name": "soctherm_oc", **events}


def policies(**kilohertz: int) -> dict[str, str]:
    """CPU clocks: policy0=1510400."""
    return {
        f"sys/devices/system/cpu/cpufreq/{policy}/scaling_cur_freq": str(clock)
        for policy, clock in kilohertz.items()
    }


def release(major: int, revision: str) -> str:
    return (
        f"# R{major} (release), REVISION: {revision}, GCID: 41062509, BOARD: generic, EABI: aarch64, "
        "DATE: Mon Jun 16 16:07:13 UTC 2025\n# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia"
    )


_ORIN_INA = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"

ORIN_NANO: Tree = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "etc/nv_tegra_release": release(36, "4.7"),
    "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet",
    "etc/nvpmodel.conf": (
        "< PARAM TYPE=FILE NAME=CPU_ONLINE >\n< PM_CONFIG DEFAULT=1 >\n< POWER_MODEL ID=0 NAME=15W >\n"
        "CPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=25W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >"
    ),
    **ina3221(_ORIN_INA, {"VDD_IN": (4984, 1856), "VDD_CPU_GPU_CV": (4976, 400), "VDD_SOC": (4976, 304)}),
    "sys/class/devfreq/17000000.gpu/cur_freq": "1020000000",
    **policies(policy0=1728000, policy4=729600),
    **zones(cpu=51187, gpu=50218, cv0=-256000, tj=51500),
    **cooling({"pwm-fan": 2, "cpu-throttle-alert": 0, "gpu-throttle-alert": 0, "hot-surface-alert": 0}),
    **over_current(0, 15, 27390),
}

ORIN_NX: Tree = {
    "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0",
    "etc/nv_tegra_release": release(36, "4.4"),
    "var/lib/nvpmodel/status": "pmode:0000",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=10W >",
    **ina3221(_ORIN_INA, {"VDD_IN": (5016, 2400), "VDD_CPU_GPU_CV": (5000, 820), "VDD_SOC": (5000, 470)}),
    "sys/class/devfreq/17000000.gpu/cur_freq": "918000000",
    "sys/kernel/debug/bpmp/debug/clk/emc/rate": "3199000000",
    **policies(policy0=1984000),
    **zones(cpu=60062, gpu=58906, tj=60600),
    **cooling({"pwm-fan": 1, "cpu-throttle-alert": 0, "gpu-throttle-alert": 0}),
    **over_current(0, 0, 0),
}

AGX_ORIN: Tree = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "etc/nv_tegra_release": release(36, "4.4"),
    "var/lib/nvpmodel/status": "pmode:0000",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=3 NAME=MODE_50W >",
    **ina3221(_ORIN_INA, {"VDD_GPU_SOC": (18792, 140), "VDD_CPU_CV": (18784, 80), "VIN_SYS_5V0": (4968, 980)}),
    **ina3221(
        "sys/bus/i2c/drivers/ina3221/1-0041/hwmon/hwmon2",
        {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (4968, 100)},
    ),
    "sys/class/devfreq/17000000.gpu/cur_freq": "1300500000",
    **policies(policy0=2201600, policy4=729600, policy8=1113600),
    **zones(cpu=52562, soc0=49093, tj=52562),
    **cooling({"cpu-throttle-alert": 0, "gpu-throttle-alert": 0}),
    **over_current(0, 0, 0),
}

THOR: Tree = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "etc/nv_tegra_release": release(38, "4.0"),
    "var/lib/nvpmodel/status": "pmode:0001",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=120W >",
    **ina3221(
        "sys/bus/i2c/drivers/ina3221/2-0040/hwmon/hwmon4",
        {"VDD_GPU": (12040, 640), "VDD_CPU_SOC_MSS": (12040, 960), "VIN_SYS_5V0": (5088, 1740)},
    ),
    "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon6/name": "ina238",
    "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon6/in1_label": "VIN",
    "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon6/in1_input": "24010",
    "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon6/power1_input": "40500000",
    "sys/class/devfreq/gpu-gpc-0/cur_freq": "1575000000",
    "sys/class/devfreq/gpu-nvd-0/cur_freq": "1692000000",
    "sys/class/devfreq/bwmgr/cur_freq": "4266000000",
    **policies(policy0=2601000),
    **zones(cpu=53700, gpu=55000, soc012=55100, tj=55100),
    **cooling({"cpufreq-cpu0": 0, "gpu-throttle-alert": 0, "devfreq-gpu-gpc-0": 0}),
    **over_current(0, 8, 813),
}

# L4T 32: a Nano with NVIDIA's own driver of the monitor.
NANO: Tree = {
    "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
    "etc/nv_tegra_release": release(32, "7.1"),
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0": "POM_5V_IN",
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input": "2875",
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_1": "POM_5V_GPU",
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power1_input": "120",
    "sys/devices/gpu.0/devfreq/57000000.gpu/cur_freq": "921600000",
}

SERVER: Tree = {
    "sys/class/hwmon/hwmon0/name": "nvme",
    "sys/class/hwmon/hwmon0/in1_label": "VDD_IN",  # a label alone makes no monitor of a Jetson
    "sys/class/hwmon/hwmon0/in1_input": "4984",
    **policies(policy0=2100000, policy1=3400000),
    "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
    "sys/class/thermal/thermal_zone0/temp": "48000",
    **cooling({"Processor": 3, "TCC Offset": 10, "intel_powerclamp": -1}),
    "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "41",
    "sys/devices/system/cpu/cpu0/topology/physical_package_id": "0",
    "sys/devices/system/cpu/cpu1/thermal_throttle/package_throttle_count": "41",
    "sys/devices/system/cpu/cpu1/topology/physical_package_id": "0",
}

RAPL: Tree = {
    "sys/class/powercap/intel-rapl:0/name": "package-0",
    "sys/class/powercap/intel-rapl:0/energy_uj": "261000000",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850",
    "sys/class/powercap/intel-rapl:0:0/name": "dram",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "99000000",
}

LINES = {
    "Orin Nano, 36.4": (
        "10-08-2026 04:35:02 RAM 6712/7620MB (lfb 12x4MB) SWAP 369/3810MB (cached 8MB) "
        "CPU [38%@1497,2%@729,off,off,0%@729,0%@729] EMC_FREQ 61%@2133 GR3D_FREQ 99%@[612] NVDEC off "
        "NVJPG off VIC off OFA off APE 200 cpu@57.125C soc2@55.093C soc0@56.625C gpu@58.625C tj@58.312C "
        "cv0@-256C VDD_IN 16321mW/11204mW VDD_CPU_GPU_CV 7104mW/4944mW VDD_SOC 3120mW/3659mW"
    ),
    "Orin NX, 36.4, no root": (
        "07-25-2026 17:56:56 RAM 5338/15607MB (lfb 3x4MB) SWAP 0/7803MB (cached 0MB) CPU [1%@1984,0%@1984] "
        "GR3D_FREQ 0% cpu@56.5C gpu@55.062C tj@56.812C VDD_IN 5348mW/5348mW VDD_CPU_GPU_CV 1067mW/1067mW "
        "VDD_SOC 1384mW/1384mW"
    ),
    "AGX Orin, 36.4": (
        "05-09-2026 18:42:07 RAM 18202/62841MB (lfb 466x4MB) SWAP 86/31420MB (cached 0MB) "
        "CPU [16%@1949,6%@1761] EMC_FREQ 3%@2133 GR3D_FREQ 0%@[0,0] NVENC 78%@166 NVDEC off PVA0_FREQ off "
        "APE 174 cpu@52.343C soc2@48.343C tj@52.343C VDD_GPU_SOC 2412mW/2412mW VDD_CPU_CV 1607mW/1607mW "
        "VIN_SYS_5V0 4607mW/4657mW"
    ),
    "AGX Orin, 39.2": (
        "07-17-2026 15:15:27 RAM 8179/62817MB (lfb 1x4MB) CPU [35%@729,24%@729] GR3D_FREQ 32% "
        "cpu@51.968C/51.968C gpu@47.125C/47.125C tj@51.968C/51.968C VDD_GPU_SOC 4385mW/3787mW/4385mW "
        "VDD_CPU_CV 1196mW/897mW/1196mW VIN_SYS_5V0 5552mW/5274mW/5552mW"
    ),
    "Thor, 38.2": (
        "05-14-2026 21:36:35 RAM 26063/125772MB (lfb 35x4MB) CPU [2%@972,0%@972] cpu@30.468C tj@31.218C "
        "soc012@30.218C VDD_GPU -392mW/-392mW VDD_CPU_SOC_MSS 3924mW/3835mW VIN_SYS_5V0 5064mW/5055mW "
        "VIN 15004mW/15096mW"
    ),
    "Thor, 39.2": (
        "07-23-2026 15:29:27 RAM 9091/125811MB (lfb 19x4MB) SWAP 0/2048MB (cached 0MB) CPU [40%@972,16%@2214] "
        "EMC_FREQ 7%@3200 GR3D_FREQ @[314,315,314] NVENC0_FREQ @1556 VIC 59%@423 OFA_FREQ @1556 PVA0_FREQ off "
        "APE 300 cpu@34.312C/34.843C tj@35.906C/35.906C gpu@35.906C/35.906C VDD_GPU 4925mW/4925mW/4925mW "
        "VDD_CPU_SOC_MSS 7953mW/8332mW/8710mW VIN_SYS_5V0 6667mW/6717mW/6767mW"
    ),
    "Nano, 32.7": (
        "RAM 1766/3964MB (lfb 197x4MB) SWAP 0/2048MB (cached 0MB) CPU [24%@1224,15%@1224] EMC_FREQ 0% "
        "GR3D_FREQ 50%@921 PLL@21C CPU@25C PMIC@100C GPU@23.5C AO@33.5C thermal@24.5C POM_5V_IN 2545/2547 "
        "POM_5V_GPU 0/0 POM_5V_CPU 549/529"
    ),
}
