from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_support import (
    bundle_arguments,
    contents,
    external_model,
    make_calibration,
    make_golden,
    make_model,
    make_models,
    make_provenance,
    make_spec,
)

from dskd_export.bundle import BundledModel, open_bundle, write_bundle
from dskd_export.errors import BundleError, EnvironmentProblem

FP32 = {"fp32": make_models()["fp32"]}


def write_fp32(folder: Path, **changes: Any) -> None:
    arguments = bundle_arguments() | {"models": FP32, "calibration": None} | changes
    write_bundle(folder, **arguments)


def test_what_is_written(folder: Path) -> None:
    found = contents(folder)
    assert sorted(found) == [
        "calibration.json",
        "golden.npz",
        "labels.txt",
        "manifest.json",
        "model.fp16.onnx",
        "model.fp16.onnx.data",
        "model.fp32.onnx",
        "model.int8.onnx",
        "spec.json",
    ]
    arguments = bundle_arguments()
    assert found["model.fp32.onnx"] == arguments["models"]["fp32"].proto
    assert found["model.fp16.onnx.data"] == arguments["models"]["fp16"].weights
    assert found["spec.json"].decode() == make_spec().to_json()
    assert found["labels.txt"].decode().splitlines() == list(make_spec().classes)
    assert json.loads(found["calibration.json"]) == make_calibration().model_dump(mode="json")
    manifest = json.loads(found.pop("manifest.json"))
    assert manifest["schema_version"] == 2
    assert manifest["provenance"] == make_provenance().model_dump(mode="json")
    assert manifest["models"]["fp16"] == {"producer": "a converter 1.0", "details": {"kept_in_fp32": ["norm"]}}
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in found.items()
    }


def test_two_builds_in_two_folders_have_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 2e9)
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(2e9))
    arguments = bundle_arguments()
    arguments["models"] = dict(reversed(arguments["models"].items()))
    versions = dict(reversed(make_provenance().versions.items()))
    arguments["provenance"] = make_provenance(versions=versions)
    write_bundle(tmp_path / "again", **arguments)
    assert contents(tmp_path / "again") == contents(folder)


def test_fp32_alone_needs_no_calibration(tmp_path: Path) -> None:
    write_fp32(tmp_path / "b")
    assert open_bundle(tmp_path / "b").calibration is None


def test_a_new_bundle_replaces_the_old_as_a_whole(folder: Path) -> None:
    write_fp32(folder)
    assert open_bundle(folder).precisions == ("fp32",)
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_through_a_link_the_target_is_replaced(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder, target_is_directory=True)
    write_fp32(link)
    assert link.is_symlink()
    assert open_bundle(folder).precisions == ("fp32",)


def test_a_failure_leaves_the_old_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(folder)
    real = Path.write_bytes

    def disk_fills_up(self: Path, data: bytes) -> int:
        if self.name == "golden.npz":
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", disk_fills_up)
    with pytest.raises(EnvironmentProblem, match="No space"):
        write_fp32(folder)
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]
    open_bundle(folder)


@pytest.mark.parametrize("others", [[], ["manifest.json"]])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, others: list[str]) -> None:
    for name in ("thesis.tex", *others):
        (tmp_path / name).write_text("years of work")
    before = contents(tmp_path)
    with pytest.raises(BundleError, match="no bundle"):
        write_fp32(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "models", [{}, {"FP 32": FP32["fp32"]}, {"../fp32": FP32["fp32"]}, {"f" * 33: FP32["fp32"]}]
)
def test_precisions_are_words(tmp_path: Path, models: dict[str, BundledModel]) -> None:
    with pytest.raises(ValueError, match="precisions"):
        write_fp32(tmp_path / "b", models=models)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("text", ["/home/me/model", "~/model", "C:\\models", "d:/models"])
@pytest.mark.parametrize(
    ("where", "change"),
    [
        (r"provenance\.teacher_weights", lambda text: {"provenance": make_provenance(teacher_weights=text)}),
        (
            r"models\.fp32\.details\.list\[1\]",
            lambda text: {"models": {"fp32": replace(FP32["fp32"], details={"list": ["fine", text]})}},
        ),
        (
            r"calibration\.precisions\.int8\.details\.cache",
            lambda text: {
                "models": make_models(),
                "calibration": make_calibration().model_copy(
                    update={
                        "precisions": {
                            "int8": make_calibration()
                            .precisions["int8"]
                            .model_copy(update={"details": {"cache": text}})
                        }
                    }
                ),
            },
        ),
    ],
)
def test_absolute_paths_stay_out(
    tmp_path: Path, text: str, where: str, change: Callable[[str], dict[str, Any]]
) -> None:
    with pytest.raises(ValueError, match=where):
        write_fp32(tmp_path / "b", **change(text))
    assert not (tmp_path / "b").exists()


def test_numbers_that_json_cannot_say_stay_out(tmp_path: Path) -> None:
    model = replace(FP32["fp32"], details={"error": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        write_fp32(tmp_path / "b", models={"fp32": model})


def elsewhere(location: str) -> BundledModel:
    proto, weights = external_model("model.fp32.onnx")
    return BundledModel(proto.replace(b"model.fp32.onnx.data", location.encode()), "a tool", weights)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"golden": make_golden(spec=make_spec(height=9))}, r"golden\.npz: input is"),
        (
            {"models": {"fp32": BundledModel(b"thirty-two", "a tool")}},
            r"bundle/model\.fp32\.onnx.*ONNX model",
        ),
        ({"models": {"fp32": elsewhere("/etc/machine-id-0123")}}, "machine-id.*outside"),
        (
            {"models": {"fp32": replace(elsewhere("model.fp32.onnx.data"), weights=None)}},
            r"model\.fp32\.onnx\.data, which is missing",
        ),
        (
            {"models": {"fp32": replace(FP32["fp32"], weights=b"spare")}},
            r"does not use model\.fp32\.onnx\.data",
        ),
        ({"models": make_models()}, r"lists model\.int8\.onnx without calibration\.json"),
        ({"calibration": make_calibration()}, r"calibration\.json.*int8"),
        (
            {
                "models": {
                    "fp32": BundledModel(
                        make_model(make_spec(std=(1, 1, 1)).to_metadata()).SerializeToString(), "a tool"
                    )
                }
            },
            r"different spec than spec\.json",
        ),
    ],
)
def test_what_could_not_be_opened_is_not_written(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        write_fp32(tmp_path / "bundle", **changes)
    assert ".tmp" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dskd_export.bundle import manifest

    monkeypatch.setattr(manifest, "_MAX_MODEL", 10)
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx has [\d,]+ bytes.* 10 "):
        write_fp32(tmp_path / "b")


def test_a_model_of_another_operator_set(tmp_path: Path) -> None:
    """Some types need a newer one than the spec's; everything else must be the same."""
    newer = make_model(make_spec(opset=21).to_metadata()).SerializeToString()
    models = {**FP32, "bf16": BundledModel(newer, "a tool")}
    write_fp32(tmp_path / "b", models=models)
    bundle = open_bundle(tmp_path / "b")
    assert bundle.precisions == ("bf16", "fp32")
    np.testing.assert_array_equal(bundle.golden().input, make_golden().input)
