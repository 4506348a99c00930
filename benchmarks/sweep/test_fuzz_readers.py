"""Every reader of a user's files, with 300 damaged ones; all 10,000 are run by hand (fuzz_readers.py)."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz_readers import Reader, fuzz, readers, watch_for_hangs
from sweep import RESULTS

TABLE = json.loads((RESULTS / "readers.json").read_text(encoding="utf-8"))["readers"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Reader]]:
    before = signal.getsignal(signal.SIGALRM)
    watch_for_hangs()
    yield {reader.name: reader for reader in readers(tmp_path_factory.mktemp("sound"))}
    signal.signal(signal.SIGALRM, before)


def test_the_table_is_of_these_readers_and_without_faults(made: dict[str, Reader]) -> None:
    assert [row["reader"] for row in TABLE] == list(made)
    assert all(row["cases"] >= 10_000 and row["faults"] == 0 for row in TABLE)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # zipfile's, while a damaged file is made
@pytest.mark.parametrize("name", [row["reader"] for row in TABLE])
def test_damaged_files_are_read_or_refused(name: str, made: dict[str, Reader], tmp_path: Path) -> None:
    outcomes = list(fuzz(made[name], range(300), 0, tmp_path))
    assert [f"case {one.case}: {one.fault}" for one in outcomes if one.fault] == []
    assert len({one.answer for one in outcomes}) > 1 or name in _ONE_ANSWER


# A damaged cell is timed again, a damaged line ends what is kept of a log, and no byte of a bundle may differ.
_ONE_ANSWER = {
    *("benchmark.partial/*.json", "benchmark.partial/*.npz", "train.jsonl, resumed"),
    *("bundle.tar.gz", "golden.npz"),
    "config.json of timm",  # what is wrong in it is not used, and named
}
