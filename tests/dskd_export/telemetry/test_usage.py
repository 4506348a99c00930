"""What a process holds, by the kernel's own count."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

from dskd_export.telemetry.usage import give_back, peak_mb, resident_mb


def test_what_is_held_and_given_back() -> None:
    give_back()
    before = resident_mb()
    assert before is not None
    held = np.ones(8_000_000)  # 64 MB
    grown = resident_mb()
    assert grown is not None
    assert grown - before == pytest.approx(64.0, abs=4.0)
    del held
    give_back()
    after = resident_mb()
    assert after is not None
    assert after - before < 8.0
    peak = peak_mb()
    assert peak is not None
    assert peak == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, rel=0.05)


def test_recorded(tmp_path: Path) -> None:
    assert (resident_mb(tmp_path), peak_mb(tmp_path)) == (None, None)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text("Name:\tx\nVmHWM:\t  2000 kB\nVmRSS:\t  1000 kB\n")
    assert (resident_mb(tmp_path), peak_mb(tmp_path)) == (1.024, 2.048)
