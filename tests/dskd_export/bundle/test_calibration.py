from __future__ import annotations

import pytest
from bundle_support import make_calibration
from pydantic import ValidationError

from dskd_export.bundle import CalibrationFacts, PrecisionCalibration


@pytest.mark.parametrize(
    ("method", "percentile", "valid"),
    [
        ("max", None, True),
        ("entropy", None, True),
        ("ranges", None, True),
        ("percentile", 99.99, True),
        ("percentile", None, False),
        ("max", 99.99, False),
        ("percentile", 0, False),
        ("guess", None, False),
    ],
)
def test_methods(method: str, percentile: float | None, valid: bool) -> None:
    fields = {"method": method, "percentile": percentile, "producer": "a tool 1.0"}
    if valid:
        assert PrecisionCalibration.model_validate(fields).method == method
    else:
        with pytest.raises(ValidationError):
            PrecisionCalibration.model_validate(fields)


@pytest.mark.parametrize(
    "changes",
    [
        {"shared_images": 3},
        {"image_sha256": []},
        {"image_sha256": ["ab"]},
        {"precisions": {}},
        {"split": "validation"},
        {"surprise": 1},
    ],
)
def test_what_is_no_calibration(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CalibrationFacts.model_validate(make_calibration().model_dump() | changes)


def test_it_survives_json() -> None:
    assert CalibrationFacts.model_validate_json(make_calibration().model_dump_json()) == make_calibration()
