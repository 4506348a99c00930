"""Parse and read `tegrastats`, NVIDIA's tool on every Jetson.

Format: Jetson Linux Developer Guide, "tegrastats Utility",
https://docs.nvidia.com/jetson/archives/r36.4.3/DeveloperGuide/AT/JetsonLinuxDevelopmentTools/TegrastatsUtility.html
(r38.4, r39.2 and l4t-32.7 likewise). A rail is `NAME now/average` in mW, since L4T 36 with the unit
(`VDD_IN 5263mW/5263mW`), since L4T 39 with a maximum as third; the first number is the one to integrate, the
average runs since the tool was started. A temperature is `name@44.1C`, since L4T 39 with a maximum.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from dskd_export.telemetry.rails import total_of
from dskd_export.telemetry.reading import Reading, SourceError

INTERVAL_MS = 100
# A tool that starts up may be slow; one that runs and misses this many lines hangs.
_FIRST_LINE_S = 5.0
_LINES_MISSED = 10
_END_S = 2.0
_COLDEST_C = -40.0  # a sensor that is off reads -256

_NUMBER = r"-?\d+(?:\.\d+)?"
_RAIL = re.compile(rf"(?<!\S)([A-Z][A-Za-z0-9_]*) ({_NUMBER})(?:mW)?/{_NUMBER}(?:mW)?(?:/{_NUMBER}mW)?(?!\S)")
_TEMPERATURE = re.compile(rf"(?<!\S)([A-Za-z][A-Za-z0-9_]*)@({_NUMBER})C(?:/{_NUMBER}C)?(?!\S)")
_ENGINE = re.compile(r"(?<!\S)(EMC_FREQ|GR3D_FREQ) (?:\d+%)?(?:@\[?(\d+(?:,\d+)*)\]?)?(?!\S)")
_CPUS = re.compile(r"(?<!\S)CPU \[([^\]]*)\]")
_RAM = re.compile(r"(?<!\S)RAM \d+/\d+MB")


@dataclass(frozen=True)
class Line:
    """One line of tegrastats.

    Attributes:
        power_mw: rail -> mW now.
        temperatures_c: sensor -> degrees Celsius, without sensors that are off.
        cpu_mhz: of each core, without cores that are off.
        gpu_mhz: of the fastest part of the GPU; None: unknown, or the GPU is off.
        emc_mhz: memory controller; None without root.
    """

    power_mw: dict[str, float] = field(default_factory=dict)
    temperatures_c: dict[str, float] = field(default_factory=dict)
    cpu_mhz: list[float] = field(default_factory=list)
    gpu_mhz: float | None = None
    emc_mhz: float | None = None


def parse_line(text: str) -> Line | None:
    """Parse a line; None for a text that is no line of tegrastats."""
    if _RAM.search(text) is None:
        return None
    cpus = _CPUS.search(text)
    engines = dict(_ENGINE.findall(text))
    temperatures = {name: float(value) for name, value in _TEMPERATURE.findall(text)}
    return Line(
        power_mw={name: float(value) for name, value in _RAIL.findall(text)},
        temperatures_c={name: value for name, value in temperatures.items() if value > _COLDEST_C},
        cpu_mhz=[float(clock) for clock in re.findall(r"\d+%@(\d+)", cpus[1] if cpus else "")],
        gpu_mhz=_fastest(engines.get("GR3D_FREQ", "")),
        emc_mhz=_fastest(engines.get("EMC_FREQ", "")),
    )


def _fastest(clocks: str) -> float | None:
    """Return the highest of several clocks; None for none and for 0: the GPU is off."""
    return max((float(clock) for clock in clocks.split(",") if clock), default=0.0) or None


class TegrastatsSource:
    """A tegrastats process, ended when this is closed. Other ones are left alone.

    Args:
        command: its name or path.
        interval_ms: between its lines.

    Raises:
        SourceError: it is not installed, or prints no line.
    """

    def __init__(self, command: str | Path = "tegrastats", interval_ms: int = INTERVAL_MS) -> None:
        found = shutil.which(command)
        if found is None:
            raise SourceError(f"{command} is not installed")
        self.name = "tegrastats"
        self._missed_s = max(1.0, _LINES_MISSED * interval_ms / 1e3)
        self._rest = b""
        self._last_words = ""
        # A separate process group, so that what a wrapper script started ends with it.
        self._process = subprocess.Popen(
            [found, "--interval", str(interval_ms)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        try:
            first = self._next_line(_FIRST_LINE_S)
        except BaseException:
            self.close()
            raise
        self.total, self.reason = total_of(first.power_mw)
        if self.total is None:
            self.reason = f"tegrastats: {self.reason}"

    def read(self) -> Reading:
        """Wait for the next line and return its values.

        Raises:
            SourceError: it ended, or hangs.
        """
        line = self._next_line(self._missed_s)
        clocks = {"cpu": max(line.cpu_mhz, default=None), "gpu": line.gpu_mhz, "emc": line.emc_mhz}
        return Reading(
            power_w={rail: power / 1e3 for rail, power in line.power_mw.items()},
            clocks_mhz={name: clock for name, clock in clocks.items() if clock is not None},
            temperatures_c=line.temperatures_c,
        )

    def others(self) -> list[str]:
        """Return nothing: the lines do not name processes."""
        return []

    def close(self) -> None:
        """End it and all that it started, if necessary by force."""
        if self._process.returncode is not None:
            return
        # Not reaped before the last signal: until then its number is no other process's.
        self._signal(signal.SIGTERM)
        self._exit_code(_END_S)
        self._signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _exit_code(self, patience_s: float) -> int | None:
        """Return its exit code, or minus the signal that ended it; None if it still runs after that time."""
        until = time.monotonic() + patience_s
        while True:
            ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if ended is not None:
                return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            if time.monotonic() >= until:
                return None
            time.sleep(0.01)

    def _next_line(self, patience_s: float) -> Line:
        """Wait for a complete line and return the newest."""
        until = time.monotonic() + patience_s
        while True:
            lines = self._whole_lines(max(0.0, until - time.monotonic()))
            parsed = [(parse_line(line), line) for line in lines]
            words = [line for known, line in parsed if known is None and line.strip()]
            self._last_words = words[-1] if words else self._last_words
            newest = next((known for known, _ in reversed(parsed) if known is not None), None)
            if newest is not None:
                return newest
            if time.monotonic() >= until:
                raise SourceError(f"tegrastats printed no line for {patience_s:g} s{self._said()}")

    def _whole_lines(self, patience_s: float) -> list[str]:
        """Return the complete lines that arrived within that time."""
        ready, _, _ = select.select([self._pipe], [], [], patience_s)
        if not ready:
            return []
        ended = False
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._pipe, 1 << 16):
                self._rest += chunk
            ended = True
        *lines, self._rest = self._rest.split(b"\n")
        if ended and not lines:
            raise SourceError(f"tegrastats ended with {self._exit_code(_END_S)}{self._said()}")
        return [line.decode("utf-8", "replace") for line in lines]

    def _said(self) -> str:
        return f": {self._last_words.strip()[-200:]}" if self._last_words else ""
