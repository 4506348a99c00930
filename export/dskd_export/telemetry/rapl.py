"""Energy of CPU packages by RAPL, through the kernel's powercap: Intel and AMD.

https://docs.kernel.org/power/powercap/powercap.html: `energy_uj` counts µJ and starts again after
`max_energy_range_uj`. Since 2020 kernels let only root read it (CVE-2020-8694).
"""

from __future__ import annotations

from pathlib import Path

from dskd_export.telemetry.reading import Total
from dskd_export.telemetry.sysfs import Attribute, find_paths, read_number, read_text


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
        """Package -> joules since this object was made."""
        values = {name: counter.joules() for name, counter in self._counters.items()}
        return {name: value for name, value in values.items() if value is not None}

    def close(self) -> None:
        """Close the files."""
        for counter in self._counters.values():
            counter.attribute.close()
        self._counters = {}


class _Counter:
    """One counter that is made to go on where it starts again."""

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
