"""The folders of earlier trainings, and what differs between two of them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dskd_compress.run_folder import RunFolder
from dskd_compress.run_folder.earlier import (
    KEPT,
    describe_changes,
    discard_oldest,
    keep_training,
    list_earlier,
    next_earlier,
)

BEFORE = {
    "seed": 0,
    "student": {"name": "resnet18", "pretrained": False},
    "train": {"lr": 0.1, "milestones": [1, 2]},
    "inputs": {"data": "a", "teacher": "b"},
}


def changed(**sections: object) -> dict[str, object]:
    return {**BEFORE, **sections}


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (BEFORE, ""),
        (changed(student={"name": "resnet34", "pretrained": False}), "student.name: resnet18 -> resnet34"),
        (changed(seed=1, inputs={"data": "c"}), "seed: 0 -> 1"),
        (
            changed(train={"lr": None, "milestones": [1]}),
            "train.lr: 0.1 -> null, train.milestones: [1, 2] -> [1]",
        ),
        (changed(inputs={"data": "a", "teacher": "c"}), "the teacher's weights changed"),
        (changed(inputs={"data": "c", "teacher": "c", "x": "d"}), "the images and the teacher's weights changed"),
        (
            {"seed": 1, "student": {"name": "a\n", "pretrained": True}, "train": {"lr": 1.0}},
            'seed: 0 -> 1, student.name: resnet18 -> "a\\n", student.pretrained: false -> true, 2 more',
        ),
    ],
)
def test_what_changed(after: dict[str, object], text: str) -> None:
    assert describe_changes(BEFORE, after) == text


def make_run(path: Path) -> RunFolder:
    for name in ("recipe.yaml", "student.safetensors", "bundle/spec.json", "checkpoint/student/last.pt"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    return RunFolder(path)


def names(folder: RunFolder) -> list[str]:
    return sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file())


@pytest.mark.parametrize("links", [True, False])
def test_a_training_is_kept_with_links_and_without(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    folder = make_run(tmp_path / "run")
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    kept = keep_training(folder)
    assert names(kept) == ["checkpoint/student/last.pt", "recipe.yaml", "student.safetensors"]
    assert (kept / "student.safetensors").samefile(folder / "student.safetensors") == links
    assert (kept / "student.safetensors").read_text() == "student.safetensors"


def test_the_newest_ones_stay(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    assert next_earlier(folder).path.name == "1"
    for _ in range(11):
        keep_training(folder)
    (folder.earlier / "notes").mkdir()
    discard_oldest(folder)
    assert [one.path.name for one in list_earlier(folder)] == ["11", "10"][:KEPT]
    assert sorted(path.name for path in folder.earlier.iterdir()) == ["10", "11", "notes"]
    assert next_earlier(folder).path.name == "12"
