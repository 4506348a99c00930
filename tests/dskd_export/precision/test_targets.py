from __future__ import annotations

from typing import get_args

import pytest

from dskd_export.precision.targets import TARGETS, Target, find_target


def test_every_target_has_facts():
    assert set(TARGETS) == set(get_args(Target))


@pytest.mark.parametrize("facts", TARGETS.values(), ids=TARGETS)
def test_fp32_is_the_last_resort(facts):
    assert facts.precisions[-1] == "fp32"
    assert len(set(facts.precisions)) == len(facts.precisions)


def test_jetpack_6_reads_no_bf16():
    assert "bf16" not in TARGETS["jetson-orin"].precisions
    assert "fp8" not in TARGETS["jetson-orin"].precisions


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("sm87", "jetson-orin"),
        ("sm_87", "jetson-orin"),
        ("8.7", "jetson-orin"),
        ("AGX Orin", "jetson-orin"),
        ("orin-nano", "jetson-orin"),
        ("thor", "jetson-thor"),
        ("sm_110", "jetson-thor"),
        ("sm_86", "ampere"),
        ("12.0", "blackwell"),
        ("sm_120a", "blackwell"),
        ("CPU", "cpu"),
        ("7.2", None),
        ("explorinate", None),
        ("", None),
    ],
)
def test_a_target_by_its_compute_capability_or_its_name(text, target):
    assert find_target(text) == target


def test_a_compute_capability_has_one_target():
    known = [one for facts in TARGETS.values() for one in facts.compute_capabilities]
    assert len(known) == len(set(known))
    assert all(find_target(name) == name for name in TARGETS)
