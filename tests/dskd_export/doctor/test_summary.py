from __future__ import annotations

import re

import pytest

from dskd_export import codes
from dskd_export.codes import Code
from dskd_export.doctor import PACKAGES, Finding, diagnose, summarise
from dskd_export.doctor.finding import make_finding


def machine(*changes: Finding, gpu: bool = False, torch: str = "2.13.0+cpu") -> list[Finding]:
    """The findings of a machine that has everything, with changes."""
    findings = [
        *(
            make_finding(one.code, "ok", one.name, found=[torch if one.name == "torch" else "9"])
            for one in PACKAGES
        ),
        make_finding(codes.GPU, "ok", "a GPU", found=["L4"] if gpu else []),
        make_finding(codes.ORT_IMPORT, "ok", "it imports", found=["cpu", "cuda"] if gpu else ["cpu"]),
        make_finding(codes.TENSORRT, "ok", "tensorrt 10", found=["tensorrt"]),
    ]
    changed = {one.number for one in changes}
    return [one for one in findings if one.number not in changed] + list(changes)


def without(code: Code, what: str = "it is not installed") -> Finding:
    return make_finding(code, "warning", what)


NO_TENSORRT = make_finding(codes.TENSORRT, "ok", "TensorRT is not installed; it is optional")


def test_a_machine_that_can_do_everything() -> None:
    summary = summarise(machine(gpu=True, torch="2.13.0"))
    assert (summary.cannot, summary.rest) == ({}, "")
    assert len(summary.can) == 9
    assert summary.lines()[1:] == ["Cannot: nothing is missing.", "For the rest: nothing is needed"]


def test_a_machine_without_a_gpu() -> None:
    summary = summarise(machine())
    assert set(summary.cannot.values()) == {"no NVIDIA GPU"}
    assert [name for name in summary.cannot if "GPU" in name or "TensorRT" in name] == list(summary.cannot)
    assert "pip" not in summary.rest


@pytest.mark.parametrize(
    ("findings", "lost", "extras"),
    [
        ([without(codes.MODELOPT)], ["export bf16, fp8 and int8 for a GPU"], "quant"),
        (
            [without(codes.MODELOPT), without(codes.ONNXCONVERTER)],
            ["export fp16", "export bf16, fp8 and int8 for a GPU"],
            "quant",
        ),
        ([without(codes.ONNXCONVERTER)], [], None),
        ([NO_TENSORRT], ["build TensorRT engines"], "tensorrt"),
        ([without(codes.TORCH), NO_TENSORRT], ["train", "export"], "train,tensorrt"),
        ([without(codes.ONNXRUNTIME), without(codes.ORT_IMPORT)], ["validate", "export"], "onnx"),
    ],
)
def test_what_is_missing_names_its_extra(findings: list[Finding], lost: list[str], extras: str | None) -> None:
    summary = summarise(machine(*findings, gpu=True, torch="2.13.0"))
    for name in lost:
        assert any(one.startswith(name) for one in summary.cannot), name
        assert not any(one.startswith(name) and one in summary.cannot for one in summary.can)
    found = re.search(r"dskd-compress\[(.*)\]", summary.rest)
    assert (found and found[1]) == extras


def test_a_gpu_that_the_packages_do_not_use() -> None:
    summary = summarise([*machine(gpu=True), make_finding(codes.ORT_IMPORT, "ok", "it imports", found=["cpu"])])
    assert set(summary.cannot) == {"train on the GPU", "validate and benchmark on the GPU"}
    assert "onnxruntime-gpu" in summary.rest


def test_tensorrt_for_rtx_builds_without_a_gpu() -> None:
    rtx = make_finding(codes.TENSORRT, "ok", "tensorrt_rtx 1.7", found=["tensorrt_rtx"])
    assert "build TensorRT engines" in summarise(machine(rtx)).can


def test_this_machine() -> None:
    """The real findings are the ones that the table knows."""
    summary = summarise(diagnose())
    assert {"train on the CPU", "export fp32", "validate and benchmark on the CPU"} <= set(summary.can)
    assert len(summary.lines()) == 3
