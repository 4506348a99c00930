"""Each tracker with its real library, its files read back by that library; nothing goes over a network."""

from __future__ import annotations

import importlib.util
import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dskd_compress.config import TrackingSection
from dskd_compress.training.trackers import Trackers, check_trackers, open_trackers
from dskd_compress.training.trackers.base import collect_scalars
from dskd_export.documents.training import (
    DiagnosisRecord,
    EpochRecord,
    Finding,
    StepRecord,
    TeacherFacts,
    TrainingRecord,
)
from dskd_export.errors import MissingExtra

SETTINGS = {"name": "digits/small", "train": {"lr": 0.1, "milestones": [1, 2]}}


def step(number: int) -> StepRecord:
    return StepRecord(
        step=number,
        epoch=0,
        losses={"loss": 2 / number, "ce": 1 / number},
        grad_norm=None,
        learning_rate=0.1,
        images_per_s=9.0,
        monitors={"hash_agreement": 0.75},
    )


def end(epoch: int, number: int) -> EpochRecord:
    return EpochRecord(
        epoch=epoch, step=number, train_loss=1, val_loss=0.5, top1=0.25, top5=None, best=True, seconds=1
    )


def close_look(number: int) -> DiagnosisRecord:
    finding = Finding(
        kind="dead_term", step=number, term="lsh", severity="warning", seen="Seen.", means="Means.", cure="Cure."
    )
    return DiagnosisRecord(
        step=number,
        epoch=0,
        gradient_norms={"ce": 0.5, "lsh": None},
        gradient_at={},
        teacher=TeacherFacts(accuracy=0.9, confidence=0.8, input_mean=0.1, input_std=1.1),
        findings=[finding],
    )


# Two epochs of three steps, with a close look at step 2.
RECORDS: list[TrainingRecord] = [
    step(1), step(2), close_look(2), step(3), end(0, 3), step(4), step(5), step(6), end(1, 6)
]  # fmt: skip


def tracked(
    kind: str,
    folder: Path,
    records: list[TrainingRecord],
    *,
    resumed: bool = False,
    reached: dict[str, int] | None = None,
    every: int = 1,
) -> None:
    warnings: list[str] = []
    trackers = open_trackers(
        TrackingSection(trackers=(kind,), every_steps=every),  # type: ignore[arg-type]
        folder,
        role="student",
        settings=SETTINGS,
        resumed=resumed,
        reached=reached or {},
        warn=warnings.append,
    )
    for record in records:
        trackers.log(record)
    trackers.finish()
    assert warnings == []


Scalars = dict[str, list[tuple[int, float]]]


def read_tensorboard(folder: Path) -> dict[str, Scalars]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runs = {}
    for place in sorted((folder / "tensorboard").iterdir()):
        events = EventAccumulator(str(place)).Reload()
        runs[place.name] = {
            name: [(event.step, event.value) for event in events.Scalars(name)]
            for name in events.Tags()["scalars"]
        }
    return runs


def read_mlflow(folder: Path) -> dict[str, Scalars]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(folder / "mlflow").resolve().as_uri())
    (experiment,) = [e for e in client.search_experiments() if e.name == "dskd-compress"]
    return {
        run.info.run_id: {
            name: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
        for run in client.search_runs([experiment.experiment_id])
    }


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """Records of a log in LevelDB's format: blocks of 32 KiB, parts of a record behind headers of 7 bytes."""
    place, whole = 0, b""
    while place + 7 <= len(data):
        if (room := 32768 - (place + 7) % 32768) < 7:  # the file's own seven bytes count for the first block
            place += room
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # all of a record, or its last part
            yield whole
            whole = b""


def read_wandb(folder: Path) -> dict[str, Scalars]:
    """Offline runs; a run that was resumed has several files under one id."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # a process of its own writes the files, and may be at it still
    runs: dict[str, Scalars] = {}
    for path in sorted((folder / "wandb").rglob("*.wandb"), key=lambda path: path.parent.name):
        if path.parent.is_symlink():
            continue
        scalars = runs.setdefault(path.stem.removeprefix("run-"), {})
        for data in leveldb_records(path.read_bytes()[7:]):  # after wandb's own seven bytes
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") != "history":
                continue
            row: dict[str, Any] = {
                (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
                for item in record.history.item
            }
            for name, value in row.items():
                if not name.startswith("_"):
                    scalars.setdefault(name, []).append((row["_step"], value))
    return runs


READERS: dict[str, Callable[[Path], dict[str, Scalars]]] = {
    "tensorboard": read_tensorboard,
    "mlflow": read_mlflow,
    "wandb": read_wandb,
}
KINDS = list(READERS)


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_read_back(kind: str, tmp_path: Path) -> None:
    tracked(kind, tmp_path, RECORDS)
    (scalars,) = READERS[kind](tmp_path).values()
    assert scalars["train/loss"] == [(n, pytest.approx(2 / n)) for n in range(1, 7)]
    assert scalars["monitor/hash_agreement"] == [(n, 0.75) for n in range(1, 7)]
    assert scalars["epoch/top1"] == [(3, 0.25), (6, 0.25)]
    assert scalars["gradient/ce"] == [(2, 0.5)]
    assert scalars["teacher/accuracy"] == [(2, pytest.approx(0.9))]
    # What was not measured is nowhere, not even as 0.
    assert not {"train/grad_norm", "epoch/top5", "gradient/lsh"} & scalars.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_goes_on_under_its_id_and_says_nothing_twice(kind: str, tmp_path: Path) -> None:
    """Killed after step 5, with its checkpoint at step 3: steps 4 and 5 are made again."""
    tracked(kind, tmp_path, RECORDS[:7])
    reached = {"step": 5, "epoch": 0, "diagnosis": 2}
    tracked(kind, tmp_path, RECORDS[5:], resumed=True, reached=reached)
    (scalars,) = READERS[kind](tmp_path).values()
    assert [number for number, _ in scalars["train/loss"]] == [1, 2, 3, 4, 5, 6]
    assert [number for number, _ in scalars["epoch/top1"]] == [3, 6]
    assert [number for number, _ in scalars["gradient/ce"]] == [2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_training_is_a_new_run(kind: str, tmp_path: Path) -> None:
    for _ in range(2):
        tracked(kind, tmp_path, RECORDS[:2])
    assert len(READERS[kind](tmp_path)) == 2


@pytest.mark.parametrize("kind", KINDS[:1])
def test_steps_are_thinned_and_nothing_else(kind: str, tmp_path: Path) -> None:
    tracked(kind, tmp_path, RECORDS, every=3)
    (scalars,) = READERS[kind](tmp_path).values()
    assert [number for number, _ in scalars["train/loss"]] == [1, 3, 6]
    assert [number for number, _ in scalars["epoch/top1"]] == [3, 6]
    assert [number for number, _ in scalars["gradient/ce"]] == [2]


def test_findings_and_settings_are_kept(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    tracked("mlflow", tmp_path, RECORDS)
    client = MlflowClient(tracking_uri=(tmp_path / "mlflow").resolve().as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("dskd-compress").experiment_id])
    assert run.data.tags["finding.2"] == "dead_term: Seen. Means. Cure."
    assert run.data.params == {"name": "digits/small", "train.lr": "0.1", "train.milestones": "[1, 2]"}
    assert run.info.run_name == "digits/small student"
    assert run.info.status == "FINISHED"


# --- failures


class Failing:
    """A tracker whose disk is full from the second record on."""

    def __init__(self) -> None:
        self.seen = 0

    def log(self, record: TrainingRecord) -> None:
        self.seen += 1
        if self.seen > 1:
            raise OSError(28, "No space left on device")

    def finish(self) -> None:
        raise AssertionError("it was given up")


class Keeping:
    def __init__(self) -> None:
        self.records: list[TrainingRecord] = []
        self.finished = False

    def log(self, record: TrainingRecord) -> None:
        self.records.append(record)

    def finish(self) -> None:
        self.finished = True


def test_a_tracker_that_fails_is_warned_of_once_and_the_others_go_on() -> None:
    failing, keeping = Failing(), Keeping()
    warnings: list[str] = []
    trackers = Trackers({"wandb": failing, "mlflow": keeping}, 1, {}, warnings.append)
    for record in RECORDS:
        trackers.log(record)
    trackers.finish()
    assert warnings == [
        "wandb failed and gets no more records: [Errno 28] No space left on device. train.jsonl has every record."
    ]
    assert failing.seen == 2
    assert keeping.records == RECORDS
    assert keeping.finished


def test_a_tracker_that_cannot_be_opened_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    warnings: list[str] = []
    trackers = open_trackers(
        TrackingSection(trackers=("tensorboard",)),
        tmp_path,
        role="student",
        settings=SETTINGS,
        resumed=False,
        reached={},
        warn=warnings.append,
    )
    trackers.log(step(1))
    trackers.finish()
    assert len(warnings) == 1
    assert warnings[0].startswith("tensorboard is left out: ")


def test_a_tracker_that_is_not_installed_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"wandb is not installed.*pip install 'dskd-compress\[wandb\]'"):
        check_trackers(TrackingSection(trackers=("wandb",)))
    check_trackers(TrackingSection())


def test_no_library_is_imported_unless_asked_for(tmp_path: Path) -> None:
    code = (
        "import sys; from dskd_compress.training.trackers import *; from dskd_compress.config import *; "
        "from pathlib import Path; "
        f"open_trackers(TrackingSection(), Path({str(tmp_path)!r}), role='student', settings={{}}, resumed=False, "
        "reached={}, warn=print); "
        "print([name for name in ('tensorboard', 'wandb', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_id_begins_a_new_run(tmp_path: Path) -> None:
    (tmp_path / "student.json").write_text("{")
    tracked("tensorboard", tmp_path, RECORDS, resumed=True)
    assert len(read_tensorboard(tmp_path)) == 1
    assert json.loads((tmp_path / "student.json").read_text())["run"]


def test_names_are_the_same_everywhere() -> None:
    assert set(collect_scalars(step(1))) == {
        "train/loss", "train/ce", "train/learning_rate", "train/images_per_s", "monitor/hash_agreement"
    }  # fmt: skip
    assert collect_scalars(close_look(1))["diagnosis/findings"] == 1
