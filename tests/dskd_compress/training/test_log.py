from __future__ import annotations

from pathlib import Path

import pytest

from dskd_compress.training.log import TrainingLog
from dskd_export.documents.training import DiagnosisRecord, EpochRecord, StepRecord
from dskd_export.report.load import load_run


def step(number: int, epoch: int = 0, loss: float = 1.0) -> StepRecord:
    return StepRecord(
        step=number, epoch=epoch, losses={"loss": loss}, grad_norm=None, learning_rate=0.1, images_per_s=9.0
    )


def end(epoch: int, number: int) -> EpochRecord:
    return EpochRecord(
        epoch=epoch, step=number, train_loss=1, val_loss=1, top1=0.5, top5=None, best=True, seconds=1
    )


# Two epochs of three steps.
RECORDS = [step(1), step(2), step(3), end(0, 3), step(4, 1), step(5, 1), step(6, 1), end(1, 6)]
TEXT = "".join(record.model_dump_json() + "\n" for record in RECORDS)


def reopen(path: Path, steps: int, epochs: int) -> str:
    TrainingLog(path, steps, epochs).close()
    return path.read_text(encoding="utf-8")


def lines(*chosen: int) -> str:
    return "".join(TEXT.splitlines(keepends=True)[index] for index in chosen)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_every_record_is_there_when_write_returns(tmp_path: Path) -> None:
    path = tmp_path / "run" / "train.jsonl"
    log = TrainingLog(path, 0, 0)
    assert path.read_text() == ""
    for count, record in enumerate(RECORDS, 1):
        log.write(record)
        assert path.read_text(encoding="utf-8") == lines(*range(count))
    log.close()


def test_a_new_training_begins_a_new_log(path: Path) -> None:
    assert reopen(path, 0, 0) == ""


@pytest.mark.parametrize(
    ("steps", "epochs", "kept"),
    [
        (2, 0, (0, 1)),
        (3, 0, (0, 1, 2)),  # saved after the last step of an epoch: its end comes again
        (3, 1, (0, 1, 2, 3)),
        (5, 1, (0, 1, 2, 3, 4, 5)),
        (6, 2, tuple(range(8))),
        (99, 99, tuple(range(8))),
    ],
)
def test_a_resumed_one_goes_back_to_its_checkpoint(
    steps: int, epochs: int, kept: tuple[int, ...], path: Path
) -> None:
    assert reopen(path, steps, epochs) == lines(*kept)


def close_look(number: int) -> DiagnosisRecord:
    return DiagnosisRecord(step=number, epoch=0, gradient_norms={"ce": 1.0}, gradient_at={}, teacher=None)


def test_close_looks_are_kept_up_to_the_checkpoint(path: Path) -> None:
    looks = [close_look(2), close_look(4)]
    with path.open("a", encoding="utf-8") as file:
        file.writelines(look.model_dump_json() + "\n" for look in looks)
    log = TrainingLog(path, 3, 1)
    log.close()
    assert log.diagnoses == looks[:1]
    assert path.read_text(encoding="utf-8") == lines(0, 1, 2, 3) + looks[0].model_dump_json() + "\n"


def test_it_tells_how_far_the_dropped_records_reached(path: Path) -> None:
    log = TrainingLog(path, 3, 1)
    log.close()
    assert log.reached == {"step": 6, "epoch": 1}
    new = TrainingLog(path, 0, 0)
    new.close()
    assert new.reached == {}


@pytest.mark.parametrize("cut", [1, 2, 40, 100])
def test_half_a_last_line_is_dropped(cut: int, path: Path) -> None:
    """Cut by one character it is a whole record; without its end of line the next would follow on it."""
    path.write_text(TEXT[:-cut], encoding="utf-8")
    assert reopen(path, 6, 2) == lines(*range(7))


def test_what_is_written_after_half_a_line_can_be_read(path: Path) -> None:
    path.write_text(TEXT[: len(lines(0, 1, 2, 3, 4)) + 20], encoding="utf-8")
    log = TrainingLog(path, 5, 1)
    for record in RECORDS[5:]:
        log.write(record)
    log.close()
    history = load_run(path.parent).student_history
    assert history is not None
    assert [record.step for record in history.steps] == [1, 2, 3, 4, 5, 6]
    assert not history.cut_off


@pytest.mark.parametrize("line", ["{}\n", "[]\n", "null\n", '{"step": 4}\n', "\x00\x00\n", "{\n", "\n"])
def test_nothing_after_a_damaged_line_counts(line: str, path: Path) -> None:
    path.write_text(lines(0, 1) + line + lines(2, 3), encoding="utf-8")
    assert reopen(path, 6, 2) == lines(0, 1)


def test_bytes_that_are_no_text(path: Path) -> None:
    path.write_bytes(lines(0).encode() + b"\xff\xfe\n")
    assert reopen(path, 6, 2) == lines(0)


def test_half_a_character_at_the_end_is_half_a_line(path: Path) -> None:
    """Resuming drops it, and so does the report."""
    path.write_bytes(lines(0, 1).encode() + b'{"kind":"\xc3')
    history = load_run(path.parent).student_history
    assert history is not None
    assert history.cut_off
    assert len(history.steps) == 2
    assert reopen(path, 6, 2) == lines(0, 1)


def test_what_some_take_for_a_line_end_is_none(path: Path) -> None:
    odd = StepRecord(
        step=1, epoch=0, losses={"a\u2028b\x85": 1.0}, grad_norm=None, learning_rate=0.1, images_per_s=9.0
    )
    path.write_text(odd.model_dump_json() + "\n" + lines(1), encoding="utf-8")
    kept = path.read_bytes()
    TrainingLog(path, 6, 2).close()
    assert path.read_bytes() == kept
    history = load_run(path.parent).student_history
    assert history is not None
    assert len(history.steps) == 2
