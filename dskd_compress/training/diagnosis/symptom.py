"""What a check answers with."""

from __future__ import annotations

from dataclasses import dataclass

from dskd_export.documents.training import FindingKind


@dataclass(frozen=True)
class Symptom:
    """A fault, in three sentences: what was seen, what it means, what to change."""

    kind: FindingKind
    term: str | None  # loss term, module or monitor that shows it
    seen: str
    means: str
    cure: str
