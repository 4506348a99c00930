"""Check everything that a run needs before any work: all faults at once, each with the command that removes it.

Each file has the checks of one thing. Nothing is written, nothing is downloaded and no model computes. The checks
are those of the stages where these are cheap; a model is checked by its shapes.
"""

from __future__ import annotations

from dskd_compress.preflight.check import ReadyRun, check_run, find_reasons
from dskd_compress.preflight.document import Preflight

__all__ = ["Preflight", "ReadyRun", "check_run", "find_reasons"]
