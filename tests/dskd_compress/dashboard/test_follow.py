"""A log that grows, is cut in half, and is begun anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from dskd_compress.dashboard.follow import Follower
from dskd_export.documents.training import StepRecord
from dskd_export.errors import DataError
from dskd_export.files.atomic import write_atomic


def step(number: int) -> StepRecord:
    return StepRecord(
        step=number, epoch=0, losses={"loss": 1.0 / number}, grad_norm=None, learning_rate=0.1, images_per_s=10.0
    )


def lines(*numbers: int) -> str:
    return "".join(step(number).model_dump_json() + "\n" for number in numbers)


def test_only_what_is_new_comes(tmp_path: Path) -> None:
    log = tmp_path / "train.jsonl"
    follower = Follower(log)
    assert follower.read() == ([], False)
    log.write_text(lines(1, 2))
    assert follower.read() == ([step(1), step(2)], True)
    assert follower.read() == ([], False)
    with log.open("a") as file:
        file.write(lines(3))
    assert follower.read() == ([step(3)], False)


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    log = tmp_path / "train.jsonl"
    whole = lines(1, 2)
    log.write_text(whole[:-30])
    follower = Follower(log)
    assert follower.read() == ([step(1)], True)
    with log.open("a") as file:
        file.write(whole[-30:])
    assert follower.read() == ([step(2)], False)


@pytest.mark.parametrize("numbers", [(1,), (1, 2, 3, 4)])
def test_a_log_that_is_replaced_begins_anew(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    log = tmp_path / "train.jsonl"
    log.write_text(lines(1, 2))
    follower = Follower(log)
    follower.read()
    write_atomic(log, lines(*numbers))  # as a resumed training does
    assert follower.read() == ([step(number) for number in numbers], True)


def test_a_log_that_is_cut_begins_anew(tmp_path: Path) -> None:
    log = tmp_path / "train.jsonl"
    log.write_text(lines(1, 2))
    follower = Follower(log)
    follower.read()
    log.write_text(lines(1))
    assert follower.read() == ([step(1)], True)


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    log = tmp_path / "train.jsonl"
    log.write_text(lines(1) + '{"kind": "poem"}\n')
    with pytest.raises(DataError, match=r"train\.jsonl, line 2"):
        Follower(log).read()
