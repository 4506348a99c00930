"""Checks that find a fault of a distillation within 100 steps: what was seen, what it means, what to change.

One check a file, pure over numbers; `diagnosis.py` takes the numbers from a running training.
"""

from __future__ import annotations

from dskd_compress.training.diagnosis.diagnosis import Diagnosis, as_error
from dskd_compress.training.diagnosis.symptom import Symptom
from dskd_compress.training.diagnosis.teacher import changed_symptom, not_optimized_symptom
from dskd_compress.training.diagnosis.teacher_input import Formats

__all__ = ["Diagnosis", "Formats", "Symptom", "as_error", "changed_symptom", "not_optimized_symptom"]
