from __future__ import annotations

import numpy as np
import pytest

from dskd_export.errors import DataError
from dskd_export.precision.calibration import Calibration


def _calibration(hashes: tuple[str, ...]) -> Calibration:
    return Calibration(np.zeros((len(hashes), 3, 2, 2), np.float32), np.zeros(len(hashes), np.int64), hashes, 0)


def test_images_that_are_judged_are_refused_with_their_number():
    with pytest.raises(DataError, match="2 of 3"):
        _calibration(("a", "b", "c")).check_disjoint(["c", "x", "a"])


def test_other_images_pass():
    _calibration(("a", "b")).check_disjoint(["c"])


def test_no_images():
    with pytest.raises(DataError, match=r"export\.calibration\.images"):
        _calibration(())


def test_rows_labels_and_hashes_go_together():
    with pytest.raises(ValueError, match="number"):
        Calibration(np.zeros((2, 3, 2, 2), np.float32), np.zeros(2, np.int64), ("a",), 0)
