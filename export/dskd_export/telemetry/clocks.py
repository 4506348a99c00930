"""Clocks of CPU, GPU and memory controller, from cpufreq and devfreq.

- https://docs.kernel.org/admin-guide/pm/cpufreq.html: `scaling_cur_freq`, in kHz
- https://docs.kernel.org/driver-api/devfreq.html: `cur_freq`, in Hz
- Jetson: the GPU is `17000000.gpu` (Orin, L4T 36), `17000000.ga10b` (35), `gpu-gpc-0` (Thor), `57000000.gpu`
  (Nano); the memory controller is the devfreq `bwmgr` (Thor) or, for root, a clock in debugfs.
"""

from __future__ import annotations

import os
from pathlib import Path

from dskd_export.telemetry.sysfs import Attribute, find_paths, open_attribute

_GPUS = ("gpu-gpc-0", "*.gpu", "*.ga10b", "*.gv11b", "*.gp10b", "*.gb10b")
_EMC = ("sys/class/devfreq/bwmgr/cur_freq", "sys/kernel/debug/bpmp/debug/clk/emc/rate")
# On x86 each core is a policy, and asking wakes it: a few stand for all.
_MOST_POLICIES = 8


class Clocks:
    """The clocks that this machine shows; files stay open."""

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
        """MHz of `cpu` (the fastest of the policies: it has the work), `gpu` and `emc`, where known."""
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
    """The clocks now, MHz: `cpu`, `gpu`, `emc`, those of them that this machine shows."""
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
