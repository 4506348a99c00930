from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dskd_export import bundle as bundle_module
from dskd_export.bundle import open_bundle, write_bundle
from dskd_export.errors import BundleError, EnvironmentProblem, UsageError
from dskd_export.golden import Golden
from dskd_export.spec import ModelSpec

PROVENANCE = {"student": "resnet18", "seed": 0, "versions": {"numpy": "2"}, "list": [1, "a"], "none": None}
MODELS = {"fp32": b"thirty-two", "fp16": b"sixteen"}


@pytest.fixture
def folder(tmp_path: Path, spec: ModelSpec, golden: Golden) -> Path:
    path = tmp_path / "run" / "bundle"
    write_bundle(path, spec=spec, models=MODELS, golden=golden, provenance=PROVENANCE)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written(folder: Path, spec: ModelSpec, golden: Golden) -> None:
    found = contents(folder)
    assert sorted(found) == ["golden.npz", "manifest.json", "model.fp16.onnx", "model.fp32.onnx", "spec.json"]
    assert found["model.fp32.onnx"] == b"thirty-two"
    assert found["spec.json"].decode() == spec.to_json()
    manifest = json.loads(found.pop("manifest.json"))
    assert manifest["schema_version"] == 1
    assert manifest["provenance"] == PROVENANCE
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in found.items()
    }


def test_open_gives_it_all_back(folder: Path, spec: ModelSpec, golden: Golden) -> None:
    bundle = open_bundle(folder)
    assert bundle.spec == spec
    assert bundle.precisions == ("fp16", "fp32")
    assert bundle.model_path("fp16").read_bytes() == b"sixteen"
    assert bundle.sha256 == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert bundle.manifest.provenance == PROVENANCE
    np.testing.assert_array_equal(bundle.golden().logits, golden.logits)


def test_it_opens_elsewhere_and_through_a_link(folder: Path, tmp_path: Path) -> None:
    moved = folder.rename(tmp_path / "on the device")
    (tmp_path / "link").symlink_to(moved, target_is_directory=True)
    assert open_bundle(tmp_path / "link").sha256 == open_bundle(moved).sha256


def test_same_arguments_give_the_same_bytes(
    folder: Path, tmp_path: Path, spec: ModelSpec, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 2e9)
    provenance = dict(reversed(PROVENANCE.items()))
    models = dict(reversed(MODELS.items()))
    write_bundle(tmp_path / "again", spec=spec, models=models, golden=golden, provenance=provenance)
    assert contents(tmp_path / "again") == contents(folder)


def test_a_new_bundle_replaces_the_old_as_a_whole(folder: Path, spec: ModelSpec, golden: Golden) -> None:
    write_bundle(folder, spec=spec, models={"fp32": b"new"}, golden=golden, provenance={})
    bundle = open_bundle(folder)
    assert bundle.precisions == ("fp32",)
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_through_a_link_the_target_is_replaced(
    folder: Path, tmp_path: Path, spec: ModelSpec, golden: Golden
) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder, target_is_directory=True)
    write_bundle(link, spec=spec, models={"fp32": b"new"}, golden=golden, provenance={})
    assert link.is_symlink()
    assert open_bundle(folder).precisions == ("fp32",)


def test_a_failure_leaves_the_old_bundle(
    folder: Path, spec: ModelSpec, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(folder)
    real = Path.write_bytes

    def disk_fills_up(self: Path, data: bytes) -> int:
        if self.name == "golden.npz":
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", disk_fills_up)
    with pytest.raises(EnvironmentProblem, match=r"bundle cannot be written: No space"):
        write_bundle(folder, spec=spec, models={"fp32": b"new"}, golden=golden, provenance={})
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]
    open_bundle(folder)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, spec: ModelSpec, golden: Golden) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="not a bundle, and is left alone"):
        write_bundle(tmp_path, spec=spec, models=MODELS, golden=golden, provenance={})
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


@pytest.mark.parametrize("models", [{}, {"FP 32": b""}, {"../fp32": b""}])
def test_precisions_are_words(tmp_path: Path, spec: ModelSpec, golden: Golden, models: dict) -> None:
    with pytest.raises(ValueError, match="not names of precisions"):
        write_bundle(tmp_path / "b", spec=spec, models=models, golden=golden, provenance={})
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("text", ["/home/me/model", "~/model", "C:\\models", "d:/models"])
def test_absolute_paths_stay_out(tmp_path: Path, spec: ModelSpec, golden: Golden, text: str) -> None:
    provenance = {"nested": {"list": ["fine", text]}}
    with pytest.raises(ValueError, match=r"provenance\.nested\.list\[1\]"):
        write_bundle(tmp_path / "b", spec=spec, models=MODELS, golden=golden, provenance=provenance)


def test_golden_images_must_fit(tmp_path: Path, make_spec: Callable[..., ModelSpec], golden: Golden) -> None:
    with pytest.raises(BundleError, match=r"golden\.npz: input is"):
        write_bundle(tmp_path / "b", spec=make_spec(height=9), models=MODELS, golden=golden, provenance={})


def test_unknown_precision_lists_those_there(folder: Path) -> None:
    with pytest.raises(UsageError, match="no model of precision int8; it holds fp16, fp32"):
        open_bundle(folder).model_path("int8")


# --- damaged and hostile bundles


def rewrite_manifest(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no such bundle"):
        open_bundle(tmp_path / "none")
    with pytest.raises(BundleError, match="is not a bundle"):
        open_bundle(tmp_path)


@pytest.mark.parametrize("name", ["spec.json", "golden.npz", "model.fp32.onnx"])
def test_missing(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        open_bundle(folder)


@pytest.mark.parametrize("name", ["spec.json", "golden.npz", "model.fp32.onnx"])
@pytest.mark.parametrize("change", ["flip", "cut", "grow"])
def test_altered(folder: Path, name: str, change: str) -> None:
    path = folder / name
    data = path.read_bytes()
    changed = {"flip": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-1], "grow": data + b"\0"}[change]
    path.write_bytes(changed)
    with pytest.raises(BundleError, match=f"{name} is not the file that was exported"):
        open_bundle(folder)


def test_altered_after_opening(folder: Path) -> None:
    bundle = open_bundle(folder)
    (folder / "golden.npz").write_bytes(b"other")
    with pytest.raises(BundleError, match="was altered"):
        bundle.golden()


@pytest.mark.parametrize("name", ["extra.txt", ".hidden", "model.int8.onnx"])
def test_extra(folder: Path, name: str) -> None:
    (folder / name).write_text("")
    with pytest.raises(BundleError, match=rf"{name} is not in the manifest"):
        open_bundle(folder)


def test_links_and_folders_are_no_files(folder: Path, tmp_path: Path) -> None:
    path = folder / "model.fp32.onnx"
    elsewhere = path.rename(tmp_path / "model")
    path.symlink_to(elsewhere)
    with pytest.raises(BundleError, match="not a plain file"):
        open_bundle(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(BundleError, match="not a plain file"):
        open_bundle(folder)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(BundleError, match="not a plain file"):
        open_bundle(folder)


def test_a_linked_manifest(folder: Path, tmp_path: Path) -> None:
    path = folder / "manifest.json"
    path.symlink_to(path.rename(tmp_path / "manifest.json"))
    with pytest.raises(BundleError, match="not a plain file"):
        open_bundle(folder)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "sub/model.fp32.onnx", "..", "", "manifest.json", "model.fp32.onnx\n"]
)
def test_names_that_lead_elsewhere(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_text("secret")
    facts = {"sha256": hashlib.sha256(b"secret").hexdigest(), "size": 6}
    rewrite_manifest(folder, lambda manifest: manifest["files"].update({name: facts}))
    with pytest.raises(BundleError, match="no file of a bundle"):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["files"].pop("spec.json"), "does not name spec.json"),
        (lambda m: m["files"].pop("golden.npz"), "does not name golden.npz"),
        (lambda m: [m["files"].pop(name) for name in ("model.fp16.onnx", "model.fp32.onnx")], "name a model"),
        (lambda m: m.update(schema_version=2), "schema_version"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m["files"]["spec.json"].update(sha256="abc"), r"files\.spec\.json\.sha256"),
        (lambda m: m["files"]["spec.json"].update(size=-1), r"files\.spec\.json\.size"),
    ],
)
def test_a_manifest_that_is_none(folder: Path, change: Callable[[dict], object], message: str) -> None:
    rewrite_manifest(folder, change)
    with pytest.raises(BundleError, match=message):
        open_bundle(folder)


def test_a_broken_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match=r"manifest\.json: document"):
        open_bundle(folder)


def test_a_valid_manifest_of_an_invalid_spec(folder: Path) -> None:
    path = folder / "spec.json"
    path.write_text("{}")
    facts = {"sha256": hashlib.sha256(b"{}").hexdigest(), "size": 2}
    rewrite_manifest(folder, lambda manifest: manifest["files"].update({"spec.json": facts}))
    with pytest.raises(BundleError, match=r"spec\.json: architecture"):
        open_bundle(folder)


def test_sizes_are_bounded_before_anything_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / "golden.npz").open("r+b") as file:
        file.truncate((1 << 30) + 1)  # sparse: takes no room
    monkeypatch.setattr(bundle_module, "sha256_file", lambda path: pytest.fail(f"{path} was read"))
    rewrite_manifest(folder, lambda m: m.update(files=dict(sorted(m["files"].items()))))
    with pytest.raises(BundleError, match=r"1,073,741,825 bytes; at most 1,073,741,824"):
        open_bundle(folder)
