from __future__ import annotations

import getpass
import json
from pathlib import Path

import pytest
from deployment_support import odd_bundle, plain_bundle

from dskd_export.bundle import Bundle
from dskd_export.deployment import TARGETS, make_plan, write, write_deployment
from dskd_export.errors import BundleError, EnvironmentProblem, UsageError
from dskd_export.files.atomic import sha256_file


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return plain_bundle(tmp_path / "bundle")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_document_lists_every_file(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "a/new/folder"
    document = write_deployment(out, make_plan(bundle, precision="fp16"))
    there = {name: sha256_file(out / name) for name in contents(out) if name != "deployment.json"}
    assert document.files == there
    assert json.loads((out / "deployment.json").read_bytes()) == document.model_dump(mode="json")
    assert (document.precision, document.name, document.targets) == ("fp16", "resnet18_fp16", TARGETS)
    assert {name.split("/")[0] for name in there} == {*TARGETS, "README.md"}


@pytest.mark.parametrize("make", [plain_bundle, odd_bundle])
def test_the_same_bytes_anywhere(make: object, tmp_path: Path) -> None:
    made = []
    for name in ("one", "another place"):
        bundle = make(tmp_path / name / "bundle")  # type: ignore[operator]
        engine = tmp_path / name / "some.engine"
        engine.write_bytes(b"engine")
        write_deployment(tmp_path / name / "out", make_plan(bundle, engine=engine))
        made.append(contents(tmp_path / name / "out"))
    assert made[0] == made[1]
    texts = b"".join(data for name, data in made[0].items() if "/bundle/" not in name)
    for told in (str(tmp_path), str(Path.home()) + "/", f"/{getpass.getuser()}/", "some.engine"):
        assert told.encode() not in texts


def test_targets_have_one_order(bundle: Bundle, tmp_path: Path) -> None:
    plan = make_plan(bundle)
    write_deployment(tmp_path / "a", plan, ["cpp", "triton"])
    write_deployment(tmp_path / "b", plan, ["triton", "cpp", "cpp"])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize(("targets", "message"), [(["trtion"], "target 'trtion'"), ([], "No target")])
def test_targets_that_are_none(bundle: Bundle, tmp_path: Path, targets: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        write_deployment(tmp_path / "out", make_plan(bundle), targets)
    assert not (tmp_path / "out").exists()


def test_an_older_deployment_is_replaced_when_asked(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder will do
    write_deployment(out, make_plan(bundle), ["triton"])
    before = contents(out)
    with pytest.raises(UsageError, match="--force"):
        write_deployment(out, make_plan(bundle), ["cpp"])
    assert contents(out) == before
    write_deployment(out, make_plan(bundle), ["cpp"], force=True)
    assert not (out / "triton").exists()
    assert (out / "cpp").is_dir()


@pytest.mark.parametrize("force", [False, True])
def test_anything_else_is_left_alone(bundle: Bundle, tmp_path: Path, force: bool) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="no deployment"):
        write_deployment(out, make_plan(bundle), force=force)
    assert contents(out) == {"thesis.txt": b"years of work"}


@pytest.mark.parametrize("inside", [".", "deploy", "a/b"])
def test_not_into_the_bundle(bundle: Bundle, inside: str) -> None:
    before = contents(bundle.folder)
    with pytest.raises(UsageError, match=r"inside the bundle.*--out"):
        write_deployment(bundle.folder / inside, make_plan(bundle), force=True)
    assert contents(bundle.folder) == before


@pytest.mark.parametrize("old", [False, True])
def test_whole_or_not_at_all(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    out = tmp_path / "out"
    if old:
        write_deployment(out, make_plan(bundle), ["triton"])
    before = contents(tmp_path)
    real, seen = write.write_content, []

    def put(path: Path, content: object) -> None:
        seen.append(path)
        if len(seen) == 9:
            raise OSError(28, "No space left on device", str(path))
        real(path, content)  # type: ignore[arg-type]

    monkeypatch.setattr(write, "write_content", put)
    with pytest.raises(EnvironmentProblem, match=r"out.*No space left on device"):
        write_deployment(out, make_plan(bundle), force=True)
    assert contents(tmp_path) == before
    assert out.exists() == old


@pytest.mark.parametrize("name", ["model.fp32.onnx", "golden.npz", "model.fp16.onnx.data", "manifest.json"])
def test_a_bundle_that_was_altered_since(bundle: Bundle, tmp_path: Path, name: str) -> None:
    data = bytearray((bundle.folder / name).read_bytes())
    data[-2] ^= 1
    (bundle.folder / name).write_bytes(data)
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        write_deployment(tmp_path / "out", make_plan(bundle))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]
