"""Rails, clocks, temperatures and throttling from planted trees of sysfs."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from telemetry_support import (
    AGX_ORIN,
    NANO,
    ORIN_NANO,
    ORIN_NX,
    RAPL,
    SERVER,
    THOR,
    Tree,
    cooling,
    over_current,
    plant,
    policies,
)

from dskd_export.telemetry import rails
from dskd_export.telemetry.clocks import clocks_mhz
from dskd_export.telemetry.rails import BOARDS, total_of
from dskd_export.telemetry.system import SystemSource


@pytest.mark.parametrize(
    ("tree", "rails_w", "total"),
    [
        (ORIN_NANO, {"VDD_IN": 9.250304, "VDD_CPU_GPU_CV": 1.9904, "VDD_SOC": 1.512704}, 9.250304),
        (ORIN_NX, {"VDD_IN": 12.0384, "VDD_CPU_GPU_CV": 4.1, "VDD_SOC": 2.35}, 12.0384),
        (
            AGX_ORIN,
            {"VDD_GPU_SOC": 2.63088, "VDD_CPU_CV": 1.50272, "VIN_SYS_5V0": 4.86864, "VDDQ_VDD2_1V8AO": 0.4968},
            2.63088 + 1.50272 + 4.86864,  # the memory's rail is part of VIN_SYS_5V0
        ),
        (
            THOR,
            {"VDD_GPU": 7.7056, "VDD_CPU_SOC_MSS": 11.5584, "VIN_SYS_5V0": 8.85312, "VIN": 40.5},
            7.7056 + 11.5584 + 8.85312,  # VIN holds the carrier board as well
        ),
        (NANO, {"POM_5V_IN": 2.875, "POM_5V_GPU": 0.12}, 2.875),
    ],
    ids=["Orin Nano", "Orin NX", "AGX Orin", "Thor", "Nano"],
)
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_rails(tmp_path: Path, tree: Tree, rails_w: dict[str, float], total: float, device: str) -> None:
    source = SystemSource(device, plant(tmp_path, tree))
    reading = source.read()
    source.close()
    assert reading.power_w == pytest.approx(rails_w)
    assert source.total is not None
    assert source.reason == ""
    assert source.total.scope == "the module"
    assert sum(reading.power_w[rail] for rail in source.total.rails) == pytest.approx(total)


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (ORIN_NANO, {"cpu": 1728.0, "gpu": 1020.0}),  # the memory's clock is for root
        (ORIN_NX, {"cpu": 1984.0, "gpu": 918.0, "emc": 3199.0}),
        (AGX_ORIN, {"cpu": 2201.6, "gpu": 1300.5}),
        (THOR, {"cpu": 2601.0, "gpu": 1575.0, "emc": 4266.0}),
        (NANO, {"gpu": 921.6}),
        (SERVER, {"cpu": 3400.0}),
        ({}, {}),
    ],
    ids=["Orin Nano", "Orin NX", "AGX Orin", "Thor", "Nano", "server", "container"],
)
def test_clocks(tmp_path: Path, tree: Tree, expected: dict[str, float]) -> None:
    assert clocks_mhz(plant(tmp_path, tree)) == pytest.approx(expected)


def test_a_gpu_that_is_off_has_no_clock(tmp_path: Path) -> None:
    plant(tmp_path, THOR, {"sys/class/devfreq/gpu-gpc-0/cur_freq": "0"})
    assert "gpu" not in clocks_mhz(tmp_path)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_many_policies_are_few_files(tmp_path: Path) -> None:
    plant(tmp_path, policies(**{f"policy{cpu}": 1000000 + cpu for cpu in range(128)}))
    before = open_files()
    source = SystemSource("cpu", tmp_path)
    assert open_files() - before == 8
    assert source.read().clocks_mhz["cpu"] == pytest.approx(1000.112)
    source.close()
    assert open_files() == before


def test_temperatures(tmp_path: Path) -> None:
    source = SystemSource("cpu", plant(tmp_path, ORIN_NANO))
    assert source.read().temperatures_c == {"cpu": 51.187, "gpu": 50.218, "tj": 51.5}  # cv0 is off
    (tmp_path / "sys/class/thermal/thermal_zone1/temp").write_text("83500\n")
    assert source.read().temperatures_c["gpu"] == 83.5
    source.close()


def test_throttling_of_a_jetson(tmp_path: Path) -> None:
    source = SystemSource("cuda:0", plant(tmp_path, ORIN_NANO))
    first = source.read()
    assert first.throttling == frozenset()  # the fan's state is none
    plant(tmp_path, over_current(0, 17, 27390), cooling({"pwm-fan": 3, "gpu-throttle-alert": 1}))
    second = source.read()
    source.close()
    # The planted second device takes the place of the CPU's alert, whose file stays open.
    assert second.throttling == {"cpu-throttle-alert"}
    assert {cause: second.events[cause] - first.events[cause] for cause in first.events} == {
        "under-voltage alarm (OC1)": 0,
        "average over-current alarm (OC2)": 2,
        "instantaneous over-current alarm (OC3)": 0,
    }


def test_throttling_of_thor_by_its_clocks(tmp_path: Path) -> None:
    alert = {"cpufreq-cpu0": 0, "gpu-throttle-alert": 1, "devfreq-gpu-gpc-0": 18}
    source = SystemSource("cuda:0", plant(tmp_path, THOR, cooling(alert)))
    assert source.read().throttling == {"gpu-throttle-alert", "devfreq-gpu-gpc-0"}
    source.close()


def test_a_server_has_no_rails(tmp_path: Path) -> None:
    source = SystemSource("cpu", plant(tmp_path, SERVER))
    reading = source.read()
    source.close()
    assert reading.power_w == {}
    assert source.total is None
    assert source.reason == "the system shows no energy counter of the CPU (powercap, RAPL)"
    assert reading.temperatures_c == {"x86_pkg_temp": 48.0}
    assert reading.throttling == frozenset()  # a processor's state and a TCC offset are none
    assert reading.events == {"thermal throttling of CPU package 0": 41}


def test_rapl_counts_on_where_its_counter_starts_again(tmp_path: Path) -> None:
    plant(tmp_path, SERVER, RAPL)
    source = SystemSource("cpu", tmp_path)
    assert source.total is not None
    assert (source.total.rails, source.total.scope) == (("package-0",), "the CPU package")
    counter = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    counts = [261_000_000, 262_000_000_000, 500_000, 1_500_000]
    joules = []
    for count in counts:
        counter.write_text(f"{count}\n")
        joules.append(source.read().energy_j["package-0"])
    source.close()
    assert joules == pytest.approx([0.0, 261739.0, 261739.0 + 143.32885 + 0.5, 261739.0 + 143.32885 + 1.5])


def test_rapl_is_no_energy_of_a_gpu(tmp_path: Path) -> None:
    source = SystemSource("cuda:0", plant(tmp_path, SERVER, RAPL))
    assert source.total is None
    assert source.reason == "sysfs does not show the power of this GPU"
    source.close()


def test_rapl_that_only_root_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, SERVER, RAPL)

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(rails, "Attribute", refuse)  # the tests may run as root, who may read everything
    source = SystemSource("cpu", tmp_path)
    assert source.total is None
    assert source.reason == "the energy counter of the CPU, intel-rapl:0/energy_uj: Permission denied"
    source.close()


def test_a_rail_that_is_not_there(tmp_path: Path) -> None:
    plant(tmp_path, AGX_ORIN)
    (tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr2_input").unlink()
    source = SystemSource("cpu", tmp_path)
    assert source.total is None
    assert source.reason == (
        "the total of AGX Orin needs the rail VDD_CPU_CV, which cannot be read "
        "(rail VDD_CPU_CV: No such file or directory)"
    )
    assert set(source.read().power_w) == {"VDD_GPU_SOC", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}
    source.close()


def test_a_channel_that_is_off(tmp_path: Path) -> None:
    """A disabled channel answers ENODATA; a planted empty file answers nothing as well."""
    plant(tmp_path, ORIN_NX, {"sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/in1_input": ""})
    source = SystemSource("cpu", tmp_path)
    assert source.total is None
    assert "rail VDD_IN: the monitor gives no value; the channel may be off" in source.reason
    source.close()


def test_a_monitor_that_stops_answering(tmp_path: Path) -> None:
    source = SystemSource("cpu", plant(tmp_path, ORIN_NX))
    (tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/in1_input").write_text("")
    assert set(source.read().power_w) == {"VDD_CPU_GPU_CV", "VDD_SOC"}  # not 0 W
    source.close()


def test_the_same_monitor_through_two_links(tmp_path: Path) -> None:
    plant(tmp_path, ORIN_NX)
    (tmp_path / "sys/class/hwmon/hwmon1").symlink_to(tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1")
    source = SystemSource("cpu", tmp_path)
    assert len(source.read().power_w) == 3
    source.close()


def test_a_monitor_of_the_class_alone(tmp_path: Path) -> None:
    """A container may see /sys/class and not the drivers."""
    plant(
        tmp_path,
        {
            name.replace("bus/i2c/drivers/ina3221/1-0040/hwmon", "class/hwmon"): text
            for name, text in ORIN_NX.items()
        },
    )
    source = SystemSource("cpu", tmp_path)
    assert source.read().power_w["VDD_IN"] == pytest.approx(12.0384)
    source.close()


def test_unknown_rails_have_no_total() -> None:
    assert total_of(["VDD_B", "VDD_A"]) == (None, "which of the rails VDD_A, VDD_B is the total is not known")
    assert total_of([]) == (None, "there are no power rails")


def test_boards_are_told_apart() -> None:
    for board in BOARDS:
        assert board.marker in board.total
        assert [other.name for other in BOARDS if other.marker in board.total] == [board.name]
