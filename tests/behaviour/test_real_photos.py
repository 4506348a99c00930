"""The ordinary job in one command: from a folder of photos and an ImageNet checkpoint to a decision.

The photographs lie next to the checkout and may not be part of it; without them the test is skipped.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from readme_blocks import ROOT

from dskd_compress.cli import main
from dskd_compress.run_folder import STAGE_NAMES, RunFolder
from dskd_compress.show.validation import decision_in
from dskd_export.documents.base import read_document
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.training import TrainingDocument
from dskd_export.documents.validation import ValidationDocument

DATA = ROOT.parent / "shared" / "data"
PHOTOS = DATA / "imagenet_val1300.tar"
TEACHER = DATA / "mobilenetv2_100.same_pad_in1k.safetensors"
# Synsets of ImageNet are numbered along the tree of what they mean.
GROUPS = {
    "other_animal": (0, 2085619),
    "dog": (2085620, 2113978),
    "insect": (2165105, 2281787),
    "object": (2600000, 3240000),
}

pytestmark = [
    pytest.mark.usefixtures("no_document_yet"),
    pytest.mark.skipif(not (PHOTOS.is_file() and TEACHER.is_file()), reason="the photographs are not here"),
]

# What an engineer types, and below what keeps it short: the defaults train 30 epochs at 224 px.
LINE = [
    *("run", "--data", "photos", "--teacher", "mobilenetv2_100", "--teacher-checkpoint", str(TEACHER)),
    *("--student", "mobilenetv3_small_100", "--target", "jetson-orin", "--out", "run"),
]
SHORT = [
    *("--epochs", "1", "--input-size", "64", "--device", "cpu", "--amp", "fp32", "--batch", "1"),
    *("--set", "data.workers=0", "--set", "benchmark.threads=1", "--set", "benchmark.min_seconds=0.02"),
    *("--set", "benchmark.min_iterations=10", "--set", "benchmark.max_warmup_seconds=0.1"),
    *("--set", "benchmark.runners=[onnxruntime]", "--set", "export.quantize.search=false"),
    *("--set", "export.calibration.images=32"),
]


def lay_out(folder: Path) -> None:
    """An image folder of four classes, each from many of ImageNet's: every fourth photo is for validation."""
    with tarfile.open(PHOTOS) as tar:
        members = sorted(
            (member for member in tar.getmembers() if member.name.endswith(".JPEG")),
            key=lambda member: member.name,
        )
        grouped = [
            (name, member)
            for name, (first, last) in GROUPS.items()
            for member in members
            if first <= int(member.name.split("/")[0].removeprefix("n")) <= last
        ]
        for index, (name, member) in enumerate(grouped):
            content = tar.extractfile(member)
            assert content is not None
            path = folder / ("val" if index % 4 == 3 else "train") / name / Path(member.name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())


def test_one_command_from_photos_and_a_checkpoint_to_a_decision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path / "photos")
    # Seven steps from random weights: far below the teacher, whatever the seed.
    assert main([*LINE, *SHORT]) == 5
    out, err = capsys.readouterr()
    assert "starts from random weights" in err
    assert "150 validation images are too few" in err

    folder = RunFolder(Path("run"))
    made = read_document(folder / "distill.json", TrainingDocument)
    assert (made.data.train_images, made.data.val_images) == (453, 150)
    assert made.teacher_probe is not None
    assert made.teacher_accuracy is not None
    assert made.teacher_accuracy.top1.value > 0.5, "the classifier reads the groups off ImageNet's features"
    models = {path.name for path in folder.bundle.glob("*.onnx")}
    assert models == {"model.fp32.onnx", "model.fp16.onnx", "model.int8.onnx"}

    # One answer: on the terminal, in the documents, in the report and in the model card.
    validation = read_document(folder / "validation.json", ValidationDocument)
    timed = read_document(folder / "benchmark.json", BenchmarkDocument)
    assert timed.bundle_sha256 == validation.bundle_sha256
    assert validation.student is not None
    assert (validation.verdict, validation.student.verdict, validation.target) == ("FAIL", "FAIL", "jetson-orin")
    lost = made.teacher_accuracy.top1.value - validation.accuracy["torch:cpu:fp32"].top1.value
    sentence = f"Do not ship: the student is {100 * lost:.1f} points below its teacher."
    decision = decision_in(folder.path)
    assert (decision.verdict, decision.sentence, decision.device) == ("FAIL", sentence, "jetson-orin")
    decided = [line for line in out.splitlines() if line.startswith(("Do not ship", "Ship ", "Not shown"))]
    assert decided == [sentence]
    for name in ("report.md", "MODEL_CARD.md"):
        assert f"\n**FAIL**: {sentence}\n" in (folder / name).read_text(encoding="utf-8")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert sentence in page
    assert "Not measured on jetson-orin" in page
    assert {row.precision for row in timed.rows if row.model == "student" and row.latency} == {
        "fp32",
        "fp16",
        "int8",
    }

    # The run has kept the command: it repeats nothing, and neither does the same line.
    for again in (["run", "run"], [*LINE, *SHORT]):
        assert main([*again, "--json"]) == 5
        document = json.loads(capsys.readouterr().out)
        assert {one["stage"] for one in document["stages"]} == {*STAGE_NAMES} - {"train", "tune"}
        assert not any(one["ran"] for one in document["stages"])
        assert (document["decision"], document["ship"]) == (sentence, None)
