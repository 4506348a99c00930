from __future__ import annotations

from typing import get_args

import pytest

from dskd_export.precision.targets import TARGETS, Target


def test_every_target_has_facts():
    assert set(TARGETS) == set(get_args(Target))


@pytest.mark.parametrize("facts", TARGETS.values(), ids=TARGETS)
def test_fp32_is_the_last_resort(facts):
    assert facts.precisions[-1] == "fp32"
    assert len(set(facts.precisions)) == len(facts.precisions)


def test_jetpack_6_reads_no_bf16():
    assert "bf16" not in TARGETS["jetson-orin"].precisions
    assert "fp8" not in TARGETS["jetson-orin"].precisions
