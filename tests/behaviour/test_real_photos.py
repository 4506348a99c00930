"""One line from an image folder and a checkpoint of ImageNet's thousand classes to a report, on real photographs.

They lie beside the checkout and may not be part of it; without them the test is skipped.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from readme_blocks import ROOT

from dskd_compress.cli import main
from dskd_compress.run_folder import STAGE_NAMES, RunFolder
from dskd_export.documents.base import read_document
from dskd_export.documents.training import TrainingDocument

DATA = ROOT.parent / "shared" / "data"
PHOTOS = DATA / "imagenet_val1300.tar"
TEACHER = DATA / "mobilenetv2_100.same_pad_in1k.safetensors"
# Synsets of ImageNet are numbered along the tree of what they mean.
GROUPS = {"bird": (1514668, 1622779), "dog": (2085620, 2113978), "insect": (2165105, 2281787)}
OF_CLASS = {"train": 16, "val": 8}

pytestmark = [
    pytest.mark.usefixtures("no_document_yet"),
    pytest.mark.skipif(not (PHOTOS.is_file() and TEACHER.is_file()), reason="the photographs are not here"),
]


def lay_out(folder: Path) -> Path:
    """An image folder of three classes of animals, each from many of ImageNet's."""
    with tarfile.open(PHOTOS) as tar:
        members = sorted(
            (member for member in tar.getmembers() if member.name.endswith(".JPEG")),
            key=lambda member: member.name,
        )
        for name, (first, last) in GROUPS.items():
            mine = [one for one in members if first <= int(one.name.split("/")[0].removeprefix("n")) <= last]
            for split, count in OF_CLASS.items():
                (folder / split / name).mkdir(parents=True)
                for member in [mine.pop(0) for _ in range(count)]:
                    content = tar.extractfile(member)
                    assert content is not None
                    (folder / split / name / Path(member.name).name).write_bytes(content.read())
    return folder


def test_from_photos_and_a_checkpoint_to_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path / "photos")
    overlay = "{mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}"  # what these weights were trained with
    line = [
        *("run", "--data", "photos", "--out", "run", "--teacher", "mobilenetv2_100"),
        *("--teacher-checkpoint", str(TEACHER)),
        *("--set", f"teacher.kwargs={{pad_type: same, pretrained_cfg_overlay: {overlay}}}"),
        *("--student", "test_efficientnet", "--method", "kd", "--target", "cpu", "--precision", "fp32"),
        *("--epochs", "1", "--batch-size", "16", "--input-size", "96", "--device", "cpu", "--amp", "fp32"),
        *("--set", "data.workers=0", "--set", "benchmark.batches=[1]", "--set", "benchmark.threads=1"),
        *("--set", "benchmark.min_seconds=0.02", "--set", "benchmark.min_iterations=10"),
        *("--set", "benchmark.max_warmup_seconds=0.1", "--set", "benchmark.runners=[onnxruntime]"),
    ]
    # Three steps make no good student: the verdict may be any, the report is written all the same.
    assert main([*line, "--json"]) in (0, 5, 6)
    out, err = capsys.readouterr()
    document = json.loads(out)
    stages = [name for name in STAGE_NAMES if name not in ("train", "tune")]
    assert [(one["stage"], one["ran"]) for one in document["stages"]] == [(name, True) for name in stages]
    assert "1000 classes in its weights, 3 classes in the data" in " ".join(err.split())
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert document["report"] == "run/report.html"
    assert all(name in page for name in ("mobilenetv2_100", "test_efficientnet"))

    folder = RunFolder(Path("run"))
    made = read_document(folder / "distill.json", TrainingDocument)
    assert (made.data.train_images, made.data.val_images) == (48, 24)
    assert made.teacher_probe is not None
    assert made.teacher_accuracy is not None
    assert made.teacher_accuracy.top1.value > 0.7, "the probe reads the animals off ImageNet's features"
    # Both the run and the same line know what was decided.
    assert folder.read_recipe().teacher.probe is not None
    for again in (["run", "run"], line):
        main([*again, "--to", "export"])
        assert capsys.readouterr().out.count("unchanged, skipped") == 2
