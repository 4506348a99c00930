from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from blocked_imports import block_imports
from deployment_support import plain_bundle
from export_document_support import make_provenance

from dskd_compress.cli import main
from dskd_export.bundle import open_bundle, pack_bundle
from dskd_export.bundle.results import results_folder
from dskd_export.documents.base import DataFacts
from dskd_export.documents.validation import Judgement, StudentJudgement, ValidationDocument
from dskd_export.telemetry.host import device_name
from dskd_export.validation.verdicts import conclude

pytestmark = pytest.mark.usefixtures("no_document_yet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "bundle"
    plain_bundle(path)
    return path


@pytest.mark.parametrize("of_the_run", [True, False])
def test_all_of_it(folder: Path, tmp_path: Path, of_the_run: bool, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert (
        main(["deploy", str(folder.parent if of_the_run else folder), "--out", str(out), "--precision", "fp32"])
        == 0
    )
    said, err = capsys.readouterr()
    count = sum(path.is_file() for path in out.rglob("*")) - 1
    assert said == f"Deployment: {out}, resnet18_fp32, {count} files\nNext: read {out / 'README.md'}\n"
    assert err == ""
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "cpp",
        "deployment.json",
        "docker",
        "triton",
    ]
    assert sorted(path.name for path in (out / "docker").glob("Docker*")) == [
        "Dockerfile.jetson",
        "Dockerfile.server",
    ]


def test_every_option(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"engine")
    options = ["--artifact", "triton", "--precision", "int8", "--provider", "tensorrt", "--engine", str(engine)]
    options += ["--max-batch", "4", "--model-name", "bolts", "--json"]
    assert main(["deploy", str(folder), "-o", str(out), *options]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.pop("path") == str(out)
    assert document == json.loads((out / "deployment.json").read_bytes())
    assert (document["precision"], document["name"], document["targets"]) == ("int8", "bolts", ["triton"])
    assert document["bundle_sha256"] == open_bundle(folder).sha256
    config = (out / "triton/bolts/config.pbtxt").read_text()
    assert "max_batch_size: 4\n" in config
    assert 'backend: "tensorrt"\n' in config


def test_a_device(folder: Path, tmp_path: Path) -> None:
    arguments = ["--artifact", "docker", "--platform", "jetson", "--out", str(tmp_path / "out")]
    arguments += ["--precision", "fp32"]
    assert main(["deploy", str(folder), *arguments]) == 0
    assert [path.name for path in (tmp_path / "out/docker").glob("Docker*")] == ["Dockerfile.jetson"]


def test_force(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    given = ["deploy", str(folder), "--precision", "fp32", "--out", str(out)]
    assert main([*given, "--artifact", "triton"]) == 0
    assert main([*given, "--artifact", "cpp"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert str(out) in error
    assert "--force" in hint
    assert main([*given, "--artifact", "cpp", "--force"]) == 0
    assert not (out / "triton").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--precision", "bf16"], 2, "bf16"),
        (["--model-name", "../x"], 2, "'../x'"),
        (["--artifact", "kserve"], 2, "kserve"),
        (["--platform", "phone"], 2, "phone"),
        (["--provider", "rocm"], 2, "rocm"),
        (["--max-batch", "0"], 2, "--max-batch"),
        (["--engine", "nowhere"], 2, "nowhere is missing"),
    ],
)
def test_what_is_refused(
    folder: Path, tmp_path: Path, arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--precision", "fp32", "--out", str(tmp_path / "out"), *arguments]
    assert main(["deploy", str(folder), *given]) == code
    err = capsys.readouterr().err
    assert message in err.splitlines()[0]
    assert err.splitlines()[1].startswith("hint: ")
    assert not (tmp_path / "out").exists()


def test_a_damaged_a_packed_and_a_missing_bundle(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = pack_bundle(folder, tmp_path / "b.tar.gz")
    assert main(["deploy", str(packed), "--out", str(tmp_path / "out")]) == 2
    assert f"Unpack it first: dskd-compress bundle unpack {packed}" in capsys.readouterr().err
    assert main(["deploy", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 3
    assert "no such bundle" in capsys.readouterr().err
    with (folder / "model.fp32.onnx").open("ab") as file:
        file.write(b"x")
    assert main(["deploy", str(folder), "--out", str(tmp_path / "out")]) == 3
    assert "is not the file that was exported" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def write_verdicts(folder: Path, bundle: Path, **verdicts: str) -> None:
    """Write a validation of a bundle: the verdict on the student, then on each precision."""
    student = StudentJudgement(verdict=verdicts.pop("student"), reason="as planted", checks=[])  # type: ignore[arg-type]
    judgements = [
        Judgement(
            runner=f"onnxruntime:cpu:{name}",
            precision=name,
            provider="cpu",
            verdict=verdict,  # type: ignore[arg-type]
            reason=f"{name} as planted",
            size_mb={"fp32": 4.0, "fp16": 2.0, "int8": 1.0}[name],
        )
        for name, verdict in verdicts.items()
    ]
    verdict, reason = conclude(student, [], judgements)
    document = ValidationDocument(
        verdict=verdict,
        reason=reason,
        student=student,
        reference="torch:cpu:fp32",
        accuracy={},
        judgements=judgements,
        preprocess=None,
        checks=[],
        passed=verdict == "PASS",
        data=DataFacts(
            source="x", sha256="0", sha256_of="content", train_images=None, val_images=300, classes=["cat", "dog"]
        ),
        bundle_sha256=open_bundle(bundle).sha256,
        provenance=make_provenance("dskd-compress validate"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "validation.json").write_text(document.model_dump_json(), encoding="utf-8")


def deployed(source: Path, out: Path, *more: str) -> str:
    assert main(["deploy", str(source), "--artifact", "triton", "--out", str(out), *more]) == 0
    return str(json.loads((out / "deployment.json").read_bytes())["precision"])


@pytest.mark.parametrize(
    ("verdicts", "precision"),
    [
        ({"student": "PASS", "fp32": "PASS", "fp16": "PASS", "int8": "PASS"}, "int8"),
        ({"student": "PASS", "fp32": "PASS", "fp16": "PASS", "int8": "FAIL"}, "fp16"),
        ({"student": "NOT JUDGED", "fp32": "PASS", "fp16": "NOT SHOWN", "int8": "FAIL"}, "fp32"),
    ],
)
def test_the_winner_is_deployed(
    folder: Path, tmp_path: Path, verdicts: dict[str, str], precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_verdicts(folder.parent, folder, **verdicts)
    assert deployed(folder.parent, tmp_path / "out") == precision
    said, err = capsys.readouterr()
    assert f"Precision: {precision}." in said
    assert ("warning:" in err) is (verdicts["student"] == "NOT JUDGED")
    assert deployed(folder.parent, tmp_path / "other", "--precision", "fp32") == "fp32"


@pytest.mark.parametrize(
    "verdicts",
    [
        {"student": "FAIL", "fp32": "PASS", "int8": "PASS"},
        {"student": "PASS", "fp32": "FAIL", "int8": "FAIL"},
        {"student": "PASS", "fp32": "NOT SHOWN", "int8": "FAIL"},
    ],
)
def test_what_does_not_pass_has_to_be_named(
    folder: Path, tmp_path: Path, verdicts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_verdicts(folder.parent, folder, **verdicts)
    assert main(["deploy", str(folder.parent), "--out", str(tmp_path / "out")]) == 2
    named = capsys.readouterr().err.rpartition("--precision ")[2].strip()
    assert deployed(folder.parent, tmp_path / "out", "--precision", named) == named == "fp32"


def test_without_a_validation_of_this_bundle_nothing_is_chosen(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in (folder, folder.parent):
        assert main(["deploy", str(source), "--out", str(tmp_path / "out")]) == 2
        assert f"dskd-compress validate {source}" in capsys.readouterr().err
    write_verdicts(folder.parent, folder, student="PASS", fp32="PASS", int8="PASS")
    path = folder.parent / "validation.json"
    path.write_text(path.read_text().replace(open_bundle(folder).sha256, "0" * 64), encoding="utf-8")
    assert main(["deploy", str(folder.parent), "--out", str(tmp_path / "out")]) == 2


def test_the_results_of_a_bundle_on_one_device(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_verdicts(Path("results/bundle/jetson-orin"), folder, student="PASS", fp32="PASS", int8="PASS")
    assert deployed(folder, tmp_path / "out") == "int8"
    write_verdicts(Path("results/bundle/jetson-thor"), folder, student="PASS", fp32="PASS", int8="FAIL")
    assert main(["deploy", str(folder), "--out", str(tmp_path / "two")]) == 2  # for which of them?
    write_verdicts(results_folder(folder, device_name()), folder, student="PASS", fp32="PASS", int8="FAIL")
    assert deployed(folder, tmp_path / "here") == "fp32"


NOT_THERE = ("torch", "timm", "torchvision", "onnx", "onnxruntime", "google", "scipy")


def test_it_runs_where_nothing_is_installed_but_the_base(folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dskd_compress", "deploy", str(folder), "--precision", "fp32", "--out", "out"],
        cwd=tmp_path,
        env=block_imports(tmp_path / "blocker", *NOT_THERE),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/deployment.json").is_file()
