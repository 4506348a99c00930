from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import make_model

from dskd_compress.training.checkpoint import CheckpointStore, Progress
from dskd_export.errors import CheckpointError

CPU = torch.device("cpu")
PROGRESS = Progress(
    step=7,
    epoch=1,
    batch=2,
    best_epoch=0,
    best={"top1": {"value": 0.5, "low": 0.4, "high": 0.6}, "top5": None, "images": 100},
    last={"images": 100},
    train_seconds=1.25,
    train_images=224,
    epoch_loss_sum=3.5,
)
STATE = {"module": {"weight": torch.arange(4.0)}, "ema": None, "optimizer": {"state": {}, "param_groups": []}}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoint" / "student", "settings")


def test_nothing_is_made_before_there_is_something_to_save(store: CheckpointStore) -> None:
    assert store.load(CPU) is None
    assert not store.folder.exists()


def test_progress_and_state_come_back(store: CheckpointStore) -> None:
    store.save(PROGRESS, STATE)
    found = store.load(CPU)
    assert found is not None
    progress, state = found
    assert progress == PROGRESS
    assert torch.equal(state["module"]["weight"], STATE["module"]["weight"])  # type: ignore[index]
    assert state["ema"] is None
    assert [path.name for path in store.folder.iterdir()] == ["last.pt"]


def test_the_newest_state_replaces_the_last(store: CheckpointStore) -> None:
    store.save(Progress(step=1), STATE)
    store.save(Progress(step=2), STATE)
    found = store.load(CPU)
    assert found is not None
    assert found[0].step == 2


def test_the_best_student_comes_back_bit_for_bit(store: CheckpointStore) -> None:
    model = make_model("test_resnet")
    store.save_best(model)
    expected = model.state_dict()
    found = store.load_best()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_other_settings(store: CheckpointStore) -> None:
    store.save(PROGRESS, STATE)
    store.save_best(make_model("test_resnet"))
    other = CheckpointStore(store.folder, "other settings")
    assert other.load(CPU) is None
    with pytest.raises(CheckpointError, match=r"best\.pt is of a training with other settings.*Delete"):
        other.load_best()


@pytest.mark.parametrize(
    "content",
    [b"", b"junk", {"format": 1}, [1, 2], {"format": 1, "settings_sha256": "settings", "progress": {"stp": 1}}],
    ids=str,
)
def test_a_damaged_state(content: object, store: CheckpointStore) -> None:
    store.folder.mkdir(parents=True)
    if isinstance(content, bytes):
        store.last_path.write_bytes(content)
    else:
        torch.save(content, store.last_path)
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged.*Delete .* to train from the start"):
        store.load(CPU)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_state(share: float, store: CheckpointStore) -> None:
    store.save(PROGRESS, STATE)
    store.save_best(make_model("test_resnet"))
    for path in (store.last_path, store.best_path):
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged"):
        store.load(CPU)
    with pytest.raises(CheckpointError, match=r"best\.pt is damaged"):
        store.load_best()


def test_a_missing_best(store: CheckpointStore) -> None:
    with pytest.raises(CheckpointError, match=r"best\.pt is missing"):
        store.load_best()


class RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code ran",)


def test_code_in_a_checkpoint_is_not_run(store: CheckpointStore, capsys: pytest.CaptureFixture[str]) -> None:
    store.folder.mkdir(parents=True)
    torch.save({"format": 1, "settings_sha256": "settings", "progress": RunsCode()}, store.last_path)
    with pytest.raises(CheckpointError, match="damaged"):
        store.load(CPU)
    assert capsys.readouterr().out == ""


def test_a_write_that_fails_leaves_the_old_state(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(Progress(step=1), STATE)

    def fail(self: Path, target: Path) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="power cut"):
        store.save(Progress(step=2), STATE)
    monkeypatch.undo()
    found = store.load(CPU)
    assert found is not None
    assert found[0].step == 1
    assert [path.name for path in store.folder.iterdir()] == ["last.pt"]
