"""Read sysfs: the power rails of a Jetson, elsewhere the CPU's energy counters."""

from __future__ import annotations

from pathlib import Path

from dskd_export.telemetry.clocks import Clocks, Thermal
from dskd_export.telemetry.jetson import is_jetson
from dskd_export.telemetry.rails import Rapl, open_rails, total_of
from dskd_export.telemetry.reading import Reading, Total


class SystemSource:
    """Rails, clocks, temperatures and throttling from sysfs; needs no root and no service.

    Args:
        device: `cpu` or `cuda:0`. A Jetson's rails include both; elsewhere RAPL covers the CPU alone.
        root: of the file system; another one for a recorded tree.
    """

    name = "sysfs"

    def __init__(self, device: str = "cpu", root: Path = Path("/")) -> None:
        self._rails, problems = open_rails(root)
        self._clocks, self._thermal = Clocks(root), Thermal(root)
        self._rapl: Rapl | None = None
        self.total: Total | None
        self.total, self.reason = total_of([rail.name for rail in self._rails])
        if self.total is None and not self._rails and not is_jetson(root):
            if device.startswith("cuda"):
                self.reason = "sysfs does not show the power of this GPU"
            else:
                self._rapl = Rapl(root)
                self.total, self.reason = self._rapl.total, self._rapl.reason
        if self.total is None and problems:
            self.reason = f"{self.reason} ({'; '.join(problems)})"

    def read(self) -> Reading:
        """Read all values that are available."""
        powers = {rail.name: rail.power_w() for rail in self._rails}
        return Reading(
            power_w={name: power for name, power in powers.items() if power is not None},
            energy_j={} if self._rapl is None else self._rapl.energy_j(),
            clocks_mhz=self._clocks.read(),
            temperatures_c=self._thermal.temperatures_c(),
            throttling=self._thermal.throttling(),
            events=self._thermal.events(),
        )

    def others(self) -> list[str]:
        """Return nothing: sysfs does not list processes."""
        return []

    def close(self) -> None:
        """Close all files."""
        for rail in self._rails:
            rail.close()
        self._clocks.close()
        self._thermal.close()
        if self._rapl is not None:
            self._rapl.close()
