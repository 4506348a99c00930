from __future__ import annotations

import pytest
from diagnosis_support import Digits, train_teacher


@pytest.fixture(scope="session")
def digits() -> Digits:
    return train_teacher()
