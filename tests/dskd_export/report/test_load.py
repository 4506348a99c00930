from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dskd_export.errors import DataError
from dskd_export.report.load import load_run


def test_everything_is_read(full_run: Path) -> None:
    run = load_run(full_run)
    assert run.student is not None
    assert run.student_history is not None
    assert len(run.student_history.steps) == run.student.steps
    assert [epoch.epoch for epoch in run.student_history.epochs] == list(range(30))
    assert run.benchmark is not None
    keys = {row.samples_key for row in run.benchmark.rows if row.samples_key}
    assert keys == set(run.samples)
    assert len(run.stages) == 5


def test_a_resumed_run_counts_each_step_once(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    lines = (folder / "train.jsonl").read_text().splitlines()
    again = lines[50].replace('"images_per_s":812.0', '"images_per_s":99.0')
    (folder / "train.jsonl").write_text("\n".join([*lines, again]) + "\n")
    history = load_run(folder).student_history
    assert history is not None
    assert len(history.steps) == 4 * 45
    assert [step.images_per_s for step in history.steps].count(99.0) == 1
    assert not history.cut_off


def test_half_a_last_line_is_left_out_and_told(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    path = folder / "train.jsonl"
    path.write_text(path.read_text() + '{"kind":"step","st')
    history = load_run(folder).student_history
    assert history is not None
    assert history.cut_off
    assert len(history.steps) == 4 * 45


def test_a_damaged_line_is_named(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    path = folder / "train.jsonl"
    lines = path.read_text().splitlines()
    lines[6] = lines[6].replace('"epoch":0', '"epoch":"x"')
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"train\.jsonl, line 7: .*epoch"):
        load_run(folder)


@pytest.mark.parametrize(
    "name", ["distill.json", "benchmark.samples.npz", "bundle/manifest.json", "bundle/spec.json"]
)
def test_a_damaged_file_is_named(make_run: Callable[..., Path], name: str) -> None:
    folder = make_run()
    (folder / name).write_text("[not this]")
    with pytest.raises(DataError, match=name.rsplit("/", 1)[-1]):
        load_run(folder)


def test_samples_are_never_unpickled(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    np.savez(folder / "benchmark.samples.npz", evil=np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"samples\.npz"):
        load_run(folder)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"validation\.json"):
        load_run(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        load_run(tmp_path / "nowhere")


@pytest.mark.parametrize("array", [np.array([np.nan]), np.array(["x"]), np.array([1j]), np.array([np.inf])])
def test_samples_are_seconds(make_run: Callable[..., Path], array: np.ndarray) -> None:
    folder = make_run()
    np.savez(folder / "benchmark.samples.npz", key=array)
    with pytest.raises(DataError, match=r"benchmark\.samples\.npz"):
        load_run(folder)


@pytest.mark.parametrize("name", ["bundle/spec.json", "bundle/manifest.json", "distill.json", "train.jsonl"])
def test_one_byte_that_is_no_text(make_run: Callable[..., Path], name: str) -> None:
    folder = make_run()
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:100] + b"\xff" + data[100:])
    with pytest.raises(DataError, match=f"{name}.*JSON"):
        load_run(folder)
