from __future__ import annotations

from typing import get_args

import pytest

from dskd_export.documents.base import DeviceFacts
from dskd_export.documents.runner_name import RunnerName
from dskd_export.precision.targets import TARGETS, Target, find_target, is_measured_on


def test_every_target_has_facts():
    assert set(TARGETS) == set(get_args(Target))


@pytest.mark.parametrize("facts", TARGETS.values(), ids=TARGETS)
def test_fp32_is_the_last_resort(facts):
    assert facts.precisions[-1] == "fp32"
    assert len(set(facts.precisions)) == len(facts.precisions)


def test_jetpack_6_reads_no_bf16():
    assert "bf16" not in TARGETS["jetson-orin"].precisions
    assert "fp8" not in TARGETS["jetson-orin"].precisions


XEON = DeviceFacts(device="cpu", cpu="Intel Xeon", cores=8, memory_gb=32, platform="Linux")
ORIN = XEON.model_copy(update={"cpu": "Cortex-A78AE, NVIDIA Jetson Orin Nano"})
ADA = XEON.model_copy(update={"device": "cuda:0", "gpu": "NVIDIA L4", "compute_capability": "8.9"})
CPU, CUDA, ENGINE = (
    RunnerName(name) for name in ("onnxruntime:cpu:int8", "onnxruntime:cuda:fp16", "tensorrt:cuda:fp16")
)


@pytest.mark.parametrize(
    ("target", "device", "runner", "measured"),
    [
        # Bundles from before targets count everywhere, those of a newer version nowhere.
        (None, XEON, CPU, True),
        ("some-new-board", XEON, CPU, False),
        # A CPU: its own rows on any machine, and engines, which are built where they are to run.
        ("cpu", XEON, CPU, True),
        ("cpu", ADA, CPU, True),
        ("cpu", ADA, CUDA, False),
        ("cpu", ORIN, ENGINE, True),
        # A board: all of it, by its name where only its CPU was used.
        ("jetson-orin", ORIN, CPU, True),
        ("jetson-orin", ORIN.model_copy(update={"gpu": "Orin", "compute_capability": "8.7"}), ENGINE, True),
        ("jetson-orin", XEON.model_copy(update={"gpu": "a GPU", "compute_capability": "8.7"}), ENGINE, True),
        ("jetson-orin", XEON, CPU, False),
        ("jetson-orin", ADA, CUDA, False),
        ("jetson-thor", ORIN, CPU, False),
        ("jetson-thor", XEON.model_copy(update={"cpu": "Neoverse, NVIDIA Jetson AGX Thor"}), CPU, True),
        # A GPU: not the CPU next to it.
        ("ada", ADA, CUDA, True),
        ("ada", ADA, ENGINE, True),
        ("ada", ADA, CPU, False),
        ("hopper", ADA, CUDA, False),
        ("ada", ADA.model_copy(update={"compute_capability": None}), CUDA, False),
        ("ada", XEON, CPU, False),
    ],
)
def test_a_device_is_recognised_as_the_target(
    target: str | None, device: DeviceFacts, runner: RunnerName, measured: bool
) -> None:
    assert is_measured_on(target, device, runner) is measured


def test_no_two_targets_share_a_compute_capability() -> None:
    known = [one for facts in TARGETS.values() for one in facts.compute_capabilities]
    assert len(known) == len(set(known))
    assert all(facts.compute_capabilities for name, facts in TARGETS.items() if name != "cpu")


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
