"""Read power from sysfs: the rails of a Jetson and which are the module's total; elsewhere RAPL's CPU packages.

The total is known by the names of the rails, which differ from board to board. Rails that are part
of another rail are never added to it. Sources:

- Orin Nano, Orin NX, AGX Orin: Jetson Linux Developer Guide r36.4.3, "Jetson Orin Nano Series, Jetson
  Orin NX Series and Jetson AGX Orin Series", "Software-Based Power Consumption Modeling":
  https://docs.nvidia.com/jetson/archives/r36.4.3/DeveloperGuide/SD/PlatformPowerAndPerformance/JetsonOrinNanoSeriesJetsonOrinNxSeriesAndJetsonAgxOrinSeries.html
  VDD_IN is the power of the whole module. AGX Orin has no such rail; its VIN_SYS_5V0 holds the power
  of VDDQ_VDD2_1V8AO. Channels as in arch/arm64/boot/dts/nvidia/tegra234-p3701.dtsi and -p3767.dtsi.
- AGX Thor: https://docs.nvidia.com/jetson/archives/r38.4/DeveloperGuide/SD/PlatformPowerAndPerformance/JetsonThor.html
  VIN, by an INA238 on the carrier board, is the power of module and carrier together
  (https://forums.developer.nvidia.com/t/question-about-power-monitor-with-additional-load-on-jetson-thor/366461)
  and so is shown, but is not the module's.
- Xavier NX, AGX Xavier: the chapter of r35 for these, and
  https://forums.developer.nvidia.com/t/interpretation-of-jetson-nx-power-rail/200883 and
  https://forums.developer.nvidia.com/t/xavier-jetson-total-power-consumption/81016
- Nano: https://forums.developer.nvidia.com/t/power-consumption-monitoring/73608

RAPL, on Intel and AMD: https://docs.kernel.org/power/powercap/powercap.html. `energy_uj` counts µJ and starts
again after `max_energy_range_uj`. Since 2020 kernels let only root read it (CVE-2020-8694).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from dskd_export.telemetry.reading import Total
from dskd_export.telemetry.sysfs import Attribute, find_paths, read_number, read_text

_MODULE = "the module"


@dataclass(frozen=True)
class Board:
    """How a kind of board names its rails.

    Attributes:
        name: for people.
        marker: a rail that only this kind has.
        total: rails whose sum is the module's power.
    """

    name: str
    marker: str
    total: tuple[str, ...]


BOARDS: tuple[Board, ...] = (
    Board("Orin Nano, Orin NX, Xavier NX or TX2", "VDD_IN", ("VDD_IN",)),
    Board("AGX Orin", "VDD_GPU_SOC", ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")),
    Board("AGX Thor", "VDD_CPU_SOC_MSS", ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0")),
    Board("AGX Xavier", "SYS5V", ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V")),
    Board("Nano", "POM_5V_IN", ("POM_5V_IN",)),
)


def total_of(rails: Collection[str]) -> tuple[Total | None, str]:
    """Find the module's total among these rails; else None and the reason."""
    if not rails:
        return None, "there are no power rails"
    board = next((board for board in BOARDS if board.marker in rails), None)
    if board is None:
        return None, f"which of the rails {', '.join(sorted(rails))} is the total is not known"
    lacking = [rail for rail in board.total if rail not in rails]
    if lacking:
        return None, f"the total of {board.name} needs the rail {' and '.join(lacking)}, which cannot be read"
    return Total(board.total, _MODULE), ""


class Rail:
    """One rail of a power monitor: a power, or a voltage and a current."""

    def __init__(self, name: str, factors: tuple[Attribute, ...], unit_w: float) -> None:
        self.name = name
        self._factors = factors
        self._unit_w = unit_w

    def power_w(self) -> float | None:
        """Read the watts; None if the monitor does not answer. An idle rail may read a little below 0."""
        power = self._unit_w
        for factor in self._factors:
            value = factor.number()
            if value is None:
                return None
            power *= value
        return power

    def close(self) -> None:
        """Close its files."""
        for factor in self._factors:
            factor.close()


def open_rails(root: Path = Path("/")) -> tuple[list[Rail], list[str]]:
    """Open all rails that can be read; list why others cannot.

    Layouts: hwmon of the kernel's ina3221 driver (`inN_label`, `inN_input` in mV, `currN_input` in
    mA; https://docs.kernel.org/hwmon/ina3221.html) and ina238 (`power1_input` in µW;
    https://docs.kernel.org/hwmon/ina238.html), and `iio:device` of NVIDIA's ina3221x driver up to
    L4T 32 (`rail_name_N`, `in_powerN_input` in mW).
    """
    rails: dict[str, Rail] = {}
    problems: list[str] = []
    for name, files, unit_w in (*_hwmon_channels(root), *_iio_channels(root)):
        if name in rails:
            continue
        opened: list[Attribute] = []
        try:
            for file in files:
                opened.append(Attribute(file))
            rail = Rail(name, tuple(opened), unit_w)
            if rail.power_w() is None:
                raise OSError(0, "the monitor gives no value; the channel may be off")
        except OSError as error:
            problems.append(f"rail {name}: {error.strerror}")
            for attribute in opened:
                attribute.close()
            continue
        rails[name] = rail
    return list(rails.values()), problems


def _hwmon_channels(root: Path) -> Iterator[tuple[str, tuple[Path, ...], float]]:
    by_driver = find_paths(root, "sys/bus/i2c/drivers/ina*/*/hwmon/hwmon*")
    by_class = [
        folder
        for folder in find_paths(root, "sys/class/hwmon/hwmon*")
        if (read_text(folder / "name") or "").startswith("ina")
    ]
    for folder in {path.resolve(): path for path in (*by_driver, *by_class)}.values():
        for label in find_paths(folder, "in*_label"):
            channel = label.name[len("in") : -len("_label")]
            name = read_text(label)
            # NC: not connected. Channel 7 of the ina3221 is "sum of shunt voltages", no rail.
            if not name or name == "NC" or "shunt" in name:
                continue
            power, current = folder / f"power{channel}_input", folder / f"curr{channel}_input"
            if power.exists():
                yield name, (power,), 1e-6
            else:
                yield name, (folder / f"in{channel}_input", current), 1e-6  # mV * mA


def _iio_channels(root: Path) -> Iterator[tuple[str, tuple[Path, ...], float]]:
    for label in find_paths(root, "sys/bus/i2c/drivers/ina3221x/*/iio*device*/rail_name_*"):
        name = read_text(label)
        if name and name != "NC":
            yield name, (label.parent / f"in_power{label.name.removeprefix('rail_name_')}_input",), 1e-3


class Rapl:
    """The counters of all packages.

    Attributes:
        total: the packages together; None where one cannot be read.
        reason: why not.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._counters: dict[str, _Counter] = {}
        self.total: Total | None = None
        self.reason = "the system shows no energy counter of the CPU (powercap, RAPL)"
        for zone in find_paths(root, "sys/class/powercap/intel-rapl:*"):
            name = read_text(zone / "name") or ""
            if not name.startswith("package"):
                continue  # core, dram, psys: parts of a package, or another thing
            try:
                self._counters[name] = _Counter(zone)
            except OSError as error:
                self.close()
                self.reason = f"the energy counter of the CPU, {zone.name}/energy_uj: {error.strerror}"
                return
        if self._counters:
            scope = "the CPU package" if len(self._counters) == 1 else "the CPU packages"
            self.total, self.reason = Total(tuple(self._counters), scope), ""

    def energy_j(self) -> dict[str, float]:
        """Read package -> joules since this object was made."""
        values = {name: counter.joules() for name, counter in self._counters.items()}
        return {name: value for name, value in values.items() if value is not None}

    def close(self) -> None:
        """Close the files."""
        for counter in self._counters.values():
            counter.attribute.close()
        self._counters = {}


class _Counter:
    """A counter that continues across the overflow of the kernel's."""

    def __init__(self, zone: Path) -> None:
        self.attribute = Attribute(zone / "energy_uj")
        self._range_uj = read_number(zone / "max_energy_range_uj") or 0.0
        self._last_uj = self.attribute.number()
        self._sum_uj = 0.0

    def joules(self) -> float | None:
        now_uj = self.attribute.number()
        if now_uj is None:
            return None
        if self._last_uj is not None:
            step_uj = now_uj - self._last_uj
            self._sum_uj += step_uj if step_uj >= 0 else step_uj + self._range_uj
        self._last_uj = now_uj
        return self._sum_uj * 1e-6
