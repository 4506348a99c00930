from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from bundle_support import (
    canonical,
    contents,
    make_calibration,
    make_golden,
    make_model,
    make_provenance,
    make_spec,
    replace_file,
    rewrite_manifest,
)

from dskd_export.bundle import open_bundle
from dskd_export.bundle import verify as verify_module
from dskd_export.errors import BundleError, UsageError
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner

FILES = (
    *("spec.json", "labels.txt", "calibration.json", "golden.npz"),
    *("model.fp32.onnx", "model.fp16.onnx", "model.fp16.onnx.data", "model.int8.onnx"),
)


def test_open_gives_it_all_back(folder: Path) -> None:
    bundle = open_bundle(folder)
    assert bundle.folder == folder
    assert bundle.spec == make_spec()
    assert bundle.precisions == ("fp16", "fp32", "int8")
    assert bundle.model_path("fp16") == folder / "model.fp16.onnx"
    assert bundle.sha256 == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert bundle.manifest.provenance == make_provenance()
    assert bundle.manifest.models["int8"].producer == "a quantiser 2.0"
    assert bundle.calibration == make_calibration()
    np.testing.assert_array_equal(bundle.golden().logits, make_golden().logits)


def test_it_opens_elsewhere_and_through_a_link(folder: Path, tmp_path: Path) -> None:
    moved = folder.rename(tmp_path / "on the device")
    (tmp_path / "link").symlink_to(moved, target_is_directory=True)
    assert open_bundle(tmp_path / "link").sha256 == open_bundle(moved).sha256


def test_unknown_precision_lists_those_there(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"fp8.* fp16, fp32, int8") as caught:
        open_bundle(folder).model("fp8")
    assert str(caught.value.hint).endswith("dskd-compress export RUN --precision fp16,int8,fp8")
    with pytest.raises(UsageError) as caught:
        open_bundle(folder).model("fp12")
    assert "export" not in str(caught.value.hint)


def test_a_runner_gets_what_was_verified(folder: Path) -> None:
    bundle = open_bundle(folder)
    feeds = {"input": make_golden().input}
    assert bundle.model("fp32") == (folder / "model.fp32.onnx").read_bytes()
    assert bundle.model("fp16") == folder / "model.fp16.onnx"
    with (
        OnnxRuntimeRunner(bundle.model("fp32"), threads=1) as one,
        OnnxRuntimeRunner(bundle.model("fp16"), threads=1) as two,
    ):
        np.testing.assert_array_equal(one.infer(feeds)["logits"], two.infer(feeds)["logits"])


@pytest.mark.parametrize("name", ["golden.npz", "model.fp32.onnx", "model.fp16.onnx", "model.fp16.onnx.data"])
@pytest.mark.parametrize("change", ["flip", "cut", "link"])
def test_altered_after_opening(folder: Path, name: str, change: str, tmp_path: Path) -> None:
    bundle = open_bundle(folder)
    path = folder / name
    data = path.read_bytes()
    if change == "link":
        path.unlink()
        (tmp_path / "other").write_bytes(data)
        path.symlink_to(tmp_path / "other")
    else:
        path.write_bytes(data[:-1] if change == "cut" else bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(BundleError, match=name):
        _ = bundle.golden() if name == "golden.npz" else bundle.model(name.split(".")[1])


# --- damaged and hostile bundles, one of each kind with its message; test_hostile.py has the crowd


def test_nothing_there(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    run.mkdir()
    (run / "recipe.yaml").touch()
    with pytest.raises(BundleError, match="no such bundle") as caught:
        open_bundle(run / "bundle")
    assert str(caught.value.hint).endswith(f"dskd-compress export '{run}'")
    with pytest.raises(BundleError, match="is not a bundle"):
        open_bundle(tmp_path)
    (tmp_path / "manifest.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"manifest\.json is not a plain"):
        open_bundle(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_missing(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        open_bundle(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", ["flip", "cut", "grow"])
def test_altered(folder: Path, name: str, change: str) -> None:
    path = folder / name
    data = path.read_bytes()
    changed = {"flip": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-1], "grow": data + b"\0"}[change]
    path.write_bytes(changed)
    with pytest.raises(BundleError, match=f"{name} is not the file"):
        open_bundle(folder)


@pytest.mark.parametrize("name", ["extra.txt", ".hidden", "model.bf16.onnx", "SPEC.JSON", "two\nlines"])
def test_extra(folder: Path, name: str) -> None:
    (folder / name).write_text("")
    with pytest.raises(BundleError, match="not in the manifest") as caught:
        open_bundle(folder)
    assert name.splitlines()[0] in caught.value.message
    assert "\n" not in str(caught.value)


def test_links_folders_and_pipes_are_no_files(folder: Path, tmp_path: Path) -> None:
    path = folder / "model.fp32.onnx"
    elsewhere = path.rename(tmp_path / "model")
    for make in (lambda: path.symlink_to(elsewhere), path.mkdir, lambda: os.mkfifo(path)):
        make()
        with pytest.raises(BundleError, match=r"model\.fp32\.onnx is not a plain file"):
            open_bundle(folder)
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_file_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(BundleError, match=r"manifest\.json.*Permission denied"):
        open_bundle(folder)


def test_sizes_are_bounded_before_anything_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "read_verified", lambda *_: pytest.fail("something was read"))
    monkeypatch.setattr(verify_module, "check_hash", lambda *_: pytest.fail("something was read"))
    rewrite_manifest(folder, lambda m: m["files"]["golden.npz"].update(size=(1 << 30) + 1))
    with pytest.raises(BundleError, match=r"golden\.npz.*1,073,741,825.*1,073,741,824"):
        open_bundle(folder)


def test_a_file_of_another_size_is_not_read(folder: Path) -> None:
    with (folder / "golden.npz").open("r+b") as file:
        file.truncate(1 << 40)  # sparse: takes no room, and would take an hour to read
    with pytest.raises(BundleError, match="1,099,511,627,776 bytes"):
        open_bundle(folder)


def test_a_manifest_without_end(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match=r"manifest\.json.*1,099,511,627,776 bytes"):
        open_bundle(folder)


CONTENT: list[tuple[str, bytes, str]] = [
    ("spec.json", b"{}", r"spec\.json: architecture: is required"),
    ("spec.json", b"[" * 100_000, r"spec\.json: its JSON is nested too deeply"),
    ("spec.json", b'{"height": 1, "height": 1}', "twice"),
    ("spec.json", make_spec(std=(0.3, 0.3, 0.3)).to_json().encode(), "different spec"),
    ("spec.json", make_spec(height=10**18).to_json().encode(), "golden images of this spec"),
    ("labels.txt", b"class 1\nclass 0\n", "classes"),
    ("labels.txt", b"\xff\n", "classes"),
    ("calibration.json", b"{}", r"calibration\.json: seed: is required"),
    (
        "calibration.json",
        canonical(make_calibration().model_dump(mode="json") | {"shared_images": 1}),
        "shared_images: must be 0",
    ),
    (
        "calibration.json",
        canonical(
            make_calibration().model_dump(mode="json")
            | {"precisions": {"fp16": {"method": "max", "producer": "x"}}}
        ),
        "no entry for int8",
    ),
    ("golden.npz", make_golden(seed=1).to_bytes()[:-1], "golden images of this spec"),
    ("golden.npz", make_golden().to_bytes().replace(b"False", b"False "), "golden images of this spec"),
    ("golden.npz", make_golden().to_bytes().replace(b"labels.npy", b"evils!.npy"), "damaged near byte"),
    ("model.fp32.onnx", b"no protobuf", "ONNX model"),
    ("model.fp32.onnx", make_model(make_spec(mean=(0, 0, 0)).to_metadata()).SerializeToString(), "different spec"),
    ("model.fp16.onnx", make_model().SerializeToString(), r"does not use model\.fp16\.onnx\.data"),
    ("model.fp16.onnx.data", b"short", r"byte [\d,]+ of model\.fp16\.onnx\.data.* 5"),
]


@pytest.mark.parametrize(("name", "data", "message"), CONTENT)
def test_what_a_file_holds_is_checked_even_where_its_hash_is_right(
    folder: Path, name: str, data: bytes, message: str
) -> None:
    replace_file(folder, name, data)
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(folder)
    assert "\n" not in str(caught.value)


def test_replacing_a_file_with_itself_is_fine(folder: Path) -> None:
    """Or the tests above would prove nothing."""
    for name, data in contents(folder).items():
        if name != "manifest.json":
            replace_file(folder, name, data)
    open_bundle(folder)


def test_a_calibration_of_what_is_not_there(folder: Path) -> None:
    def without(manifest: dict) -> None:
        del manifest["models"]["int8"], manifest["files"]["model.int8.onnx"]

    rewrite_manifest(folder, without)
    (folder / "model.int8.onnx").unlink()
    with pytest.raises(BundleError, match=r"calibration\.json.*int8"):
        open_bundle(folder)


def test_the_spec_in_the_model_may_be_left_out(folder: Path) -> None:
    assert b"dskd_spec" not in (folder / "model.int8.onnx").read_bytes()
    assert b"dskd_spec" in (folder / "model.fp32.onnx").read_bytes()
    assert json.loads((folder / "spec.json").read_bytes())["opset"] == 20


def test_a_folder_in_it(folder: Path) -> None:
    (folder / "sub").mkdir()
    with pytest.raises(BundleError, match="'sub'"):
        open_bundle(folder)
