"""Read clocks, temperatures, and what holds clocks down: cooling devices, over-current alarms, the CPU's counters.

- https://docs.kernel.org/admin-guide/pm/cpufreq.html: `scaling_cur_freq`, in kHz
- https://docs.kernel.org/driver-api/devfreq.html: `cur_freq`, in Hz
- Jetson: the GPU is `17000000.gpu` (Orin, L4T 36), `17000000.ga10b` (35), `gpu-gpc-0` (Thor), `57000000.gpu`
  (Nano); the memory controller is the devfreq `bwmgr` (Thor) or, for root, a clock in debugfs.
- https://docs.kernel.org/driver-api/thermal/sysfs-api.html: `thermal_zone*`, `cooling_device*`
- Jetson Linux Developer Guide r36.4.3, "Jetson Orin Nano Series, Jetson Orin NX Series and Jetson AGX Orin Series"
  (address in `rails`): cooling devices `*-throttle-alert` and `hot-surface-alert`; `oc1`, `oc2`,
  `oc3_event_cnt` count under-voltage, average and instantaneous over-current
- x86 counts in `thermal_throttle/*_throttle_count` of each CPU (arch/x86/kernel/cpu/mce/therm_throt.c)
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from dskd_export.telemetry.sysfs import Attribute, find_paths, open_attribute, read_text

_GPUS = ("gpu-gpc-0", "*.gpu", "*.ga10b", "*.gv11b", "*.gp10b", "*.gb10b")
_EMC = ("sys/class/devfreq/bwmgr/cur_freq", "sys/kernel/debug/bpmp/debug/clk/emc/rate")
# On x86 each core is a policy, and asking wakes it: a few stand for all.
_MOST_POLICIES = 8


class Clocks:
    """The clocks that this machine reports; files stay open."""

    def __init__(self, root: Path = Path("/")) -> None:
        gpus = [path for name in _GPUS for path in find_paths(root, f"sys/class/devfreq/{name}/cur_freq")]
        self._gpu = _first([*gpus, *find_paths(root, "sys/devices/gpu.0/devfreq/*/cur_freq")])
        self._emc = _first([root / path for path in _EMC])
        self._cpus = [
            attribute
            for policy in _policies(root)
            if (attribute := open_attribute(policy / "scaling_cur_freq")) is not None
        ]

    def read(self) -> dict[str, float]:
        """Read the MHz of `cpu` (the fastest policy: it has the work), `gpu` and `emc`, where known."""
        cpus = [value for attribute in self._cpus if (value := attribute.number()) is not None]
        found = {"cpu": max(cpus) / 1e3} if cpus else {}
        for name, attribute in (("gpu", self._gpu), ("emc", self._emc)):
            value = None if attribute is None else attribute.number()
            if value:  # 0 and none: switched off
                found[name] = value / 1e6
        return found

    def close(self) -> None:
        """Close the files."""
        for attribute in (*self._cpus, self._gpu, self._emc):
            if attribute is not None:
                attribute.close()


def clocks_mhz(root: Path = Path("/")) -> dict[str, float]:
    """Read the clocks in MHz: `cpu`, `gpu`, `emc`, as far as this machine reports them."""
    clocks = Clocks(root)
    try:
        return clocks.read()
    finally:
        clocks.close()


def _first(paths: list[Path]) -> Attribute | None:
    return next((attribute for path in paths if (attribute := open_attribute(path)) is not None), None)


def _policies(root: Path) -> list[Path]:
    """The policies of CPUs that this process may use, a few that are spread over all."""
    policies = find_paths(root, "sys/devices/system/cpu/cpufreq/policy*")
    if root == Path("/"):
        usable = os.sched_getaffinity(0)
        policies = [path for path in policies if usable & _members(path)] or policies
    step = -(-len(policies) // _MOST_POLICIES) or 1
    return policies[::step]


def _members(policy: Path) -> set[int]:
    try:
        return {int(cpu) for cpu in (policy / "affected_cpus").read_text(encoding="ascii").split()}
    except (OSError, ValueError):
        return set()


# Cooling devices that slow a chip down. Fans are none of these; a TCC offset is a setting.
_SLOWING = re.compile(r".*-alert|(thermal-)?cpufreq.*|(thermal-)?devfreq.*|intel_powerclamp")
_COLDEST_C = -40.0  # below: a sensor that is off reads -256 on a Jetson

_ALARMS = {
    "oc1": "under-voltage alarm (OC1)",
    "oc2": "average over-current alarm (OC2)",
    "oc3": "instantaneous over-current alarm (OC3)",
}


class Thermal:
    """The thermal state that this machine reports; files stay open."""

    def __init__(self, root: Path = Path("/")) -> None:
        zones = find_paths(root, "sys/class/thermal/thermal_zone*")
        self._zones = _open_attributes(
            {(read_text(zone / "type") or zone.name).removesuffix("-thermal"): zone / "temp" for zone in zones}
        )
        slowing = {
            kind: device / "cur_state"
            for device in find_paths(root, "sys/class/thermal/cooling_device*")
            if _SLOWING.fullmatch(kind := read_text(device / "type") or "")
        }
        self._slowing = _open_attributes(slowing)
        self._events = _open_attributes({**_alarms(root), **_throttle_counts(root)})

    def temperatures_c(self) -> dict[str, float]:
        """Read sensor -> degrees Celsius, without sensors that are off."""
        found = {name: value / 1e3 for name, value in _read_values(self._zones).items()}
        return {name: value for name, value in found.items() if value > _COLDEST_C}

    def throttling(self) -> frozenset[str]:
        """List the cooling devices that slow a chip down now."""
        return frozenset(name for name, state in _read_values(self._slowing).items() if state > 0)

    def events(self) -> dict[str, int]:
        """Read cause -> times that it slowed a chip down since the machine started."""
        return {name: int(value) for name, value in _read_values(self._events).items()}

    def close(self) -> None:
        """Close the files."""
        for attributes in (self._zones, self._slowing, self._events):
            for attribute in attributes.values():
                attribute.close()


def _alarms(root: Path) -> dict[str, Path]:
    return {
        _ALARMS.get(path.name.split("_")[0], path.name): path
        for folder in find_paths(root, "sys/class/hwmon/hwmon*")
        if read_text(folder / "name") == "soctherm_oc"
        for path in find_paths(folder, "oc*_event_cnt")
    }


def _throttle_counts(root: Path) -> dict[str, Path]:
    """One counter a package: all CPUs of a package show the same."""
    packages: dict[str, Path] = {}
    for path in find_paths(root, "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/package_throttle_count"):
        package = read_text(path.parent.parent / "topology/physical_package_id") or "0"
        packages.setdefault(f"thermal throttling of CPU package {package}", path)
    return packages


def _open_attributes(paths: dict[str, Path]) -> dict[str, Attribute]:
    opened = {name: open_attribute(path) for name, path in paths.items()}
    return {name: attribute for name, attribute in opened.items() if attribute is not None}


def _read_values(attributes: dict[str, Attribute]) -> dict[str, float]:
    values = {name: attribute.number() for name, attribute in attributes.items()}
    return {name: value for name, value in values.items() if value is not None}
