from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import make_model

from dskd_compress.training.checkpoint import CheckpointStore, OtherTraining, Progress
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


def names(store: CheckpointStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def steps(store: CheckpointStore) -> tuple[int, list[str]]:
    """The step that a new process goes on from, and the damaged files that it tells of."""
    new = CheckpointStore(store.folder, store.settings_sha256, store.keep)
    found = new.load(CPU)
    return (0 if found is None else found[0].step), [path.name for path in new.passed_over]


def test_nothing_is_made_before_there_is_something_to_save(store: CheckpointStore) -> None:
    assert store.load(CPU) is None
    assert not store.folder.exists()


def test_progress_and_state_come_back(store: CheckpointStore) -> None:
    store.save_best(make_model("test_resnet"), 0)
    store.save(PROGRESS, STATE)
    found = store.load(CPU)
    assert found is not None
    progress, state = found
    assert progress == PROGRESS
    assert torch.equal(state["module"]["weight"], STATE["module"]["weight"])  # type: ignore[index]
    assert state["ema"] is None
    assert names(store) == ["best-0000.pt", "last.pt"]


def test_the_newest_state_replaces_the_last(store: CheckpointStore) -> None:
    store.save(Progress(step=1), STATE)
    store.save(Progress(step=2), STATE)
    found = store.load(CPU)
    assert found is not None
    assert found[0].step == 2


def test_the_best_student_comes_back_bit_for_bit(store: CheckpointStore) -> None:
    model = make_model("test_resnet")
    store.save_best(model, 0)
    expected = model.state_dict()
    found = store.load_best(0)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_other_settings(store: CheckpointStore) -> None:
    store.save(PROGRESS, STATE)
    store.save_best(make_model("test_resnet"), 0)
    other = CheckpointStore(store.folder, "other settings")
    assert other.load(CPU) is None
    assert other.other == OtherTraining(PROGRESS.step, 0.5, None)
    with pytest.raises(CheckpointError, match=r"best-0000\.pt is of a training with other settings.*Delete"):
        other.load_best(0)


@pytest.mark.parametrize(
    "content",
    [b"", b"junk", {"format": 3}, [1, 2], {"format": 3, "settings_sha256": "settings", "progress": {"stp": 1}}],
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
    store.save_best(make_model("test_resnet"), 0)
    for path in (store.last_path, store.best_path(0)):
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged"):
        store.load(CPU)
    with pytest.raises(CheckpointError, match=r"best-0000\.pt is damaged"):
        store.load_best(0)


def test_a_missing_best(store: CheckpointStore) -> None:
    with pytest.raises(CheckpointError, match=r"best-0000\.pt is missing"):
        store.load_best(0)


class RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code ran",)


def test_code_in_a_checkpoint_is_not_run(store: CheckpointStore, capsys: pytest.CaptureFixture[str]) -> None:
    store.folder.mkdir(parents=True)
    torch.save({"format": 3, "settings_sha256": "settings", "progress": RunsCode()}, store.last_path)
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


def progress(step: int, best_epoch: int = -1) -> Progress:
    return Progress(step=step, best_epoch=best_epoch)


def test_older_states_are_kept_by_their_step_and_no_more_of_them(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "settings", keep=3)
    for step in (5, 10, 15, 20):
        store.save(progress(step), STATE)
    assert names(store) == ["last.pt", "step-0000000010.pt", "step-0000000015.pt"]
    # A new process goes on with them, also with fewer.
    resumed = CheckpointStore(tmp_path, "settings", keep=2)
    assert resumed.load(CPU) is not None
    resumed.save(progress(25), STATE)
    assert names(store) == ["last.pt", "step-0000000020.pt"]


def test_the_same_step_twice_is_one_state(tmp_path: Path) -> None:
    """The last step of an epoch, and the end of that epoch."""
    store = CheckpointStore(tmp_path, "settings", keep=2)
    store.save(progress(5), STATE)
    store.save(progress(5), STATE)
    assert names(store) == ["last.pt"]


@pytest.mark.parametrize("damage", ["cut", "missing", "its best is cut", "its best is missing"])
def test_a_damaged_newest_state_gives_way_to_the_one_before(damage: str, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "settings", keep=2)
    store.save_best(make_model("test_resnet"), 0)
    store.save(progress(5, 0), STATE)
    store.save_best(make_model("test_resnet"), 1)
    store.save(progress(10, 1), STATE)
    assert names(store) == ["best-0000.pt", "best-0001.pt", "last.pt", "step-0000000005.pt"]
    assert steps(store) == (10, [])
    path = store.best_path(1) if "best" in damage else store.last_path
    if "cut" in damage:
        path.write_bytes(path.read_bytes()[:1000])
    else:
        path.unlink()
    assert steps(store) == (5, [] if damage == "missing" else ["last.pt"])

    # Going on from there: the damaged one is not kept as an older one, and the best one is that of the state.
    again = CheckpointStore(tmp_path, "settings", keep=2)
    assert again.load(CPU) is not None
    again.save(progress(7, 0), STATE)
    assert names(store) == ["best-0000.pt", "last.pt", "step-0000000005.pt"]
    assert steps(store) == (7, [])


def test_a_kill_between_the_two_renamings_loses_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path, "settings", keep=2)
    store.save(progress(5), STATE)
    real, done = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        if done:
            raise KeyboardInterrupt
        done.append(target)
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        store.save(progress(10), STATE)
    monkeypatch.undo()
    assert done == [tmp_path / "step-0000000005.pt"]
    assert names(store) == ["step-0000000005.pt"]
    assert steps(store) == (5, [])


def test_the_best_student_of_an_older_state_is_not_replaced_by_one_that_no_state_speaks_of(tmp_path: Path) -> None:
    """A kill between the best student and the state: the state still finds its own."""
    store = CheckpointStore(tmp_path, "settings")
    first, second = make_model("test_resnet", seed=0), make_model("test_resnet", seed=1)
    store.save_best(first, 0)
    store.save(progress(5, 0), STATE)
    store.save_best(second, 1)
    new = CheckpointStore(tmp_path, "settings")
    found = new.load(CPU)
    assert found is not None
    best = new.load_best(found[0].best_epoch)
    assert all(torch.equal(best[name], tensor) for name, tensor in first.state_dict().items())
    new.save(progress(6, 0), STATE)
    assert names(store) == ["best-0000.pt", "last.pt"]


def test_what_others_left_goes_with_the_first_state(tmp_path: Path) -> None:
    old = CheckpointStore(tmp_path, "other settings", keep=2)
    old.save_best(make_model("test_resnet"), 3)
    old.save(progress(5, 3), STATE)
    old.save(progress(10, 3), STATE)
    (tmp_path / ".last.0badcafe.tmp.pt").write_bytes(b"half")
    store = CheckpointStore(tmp_path, "settings", keep=2)
    assert store.load(CPU) is None
    assert store.passed_over == []
    store.save(progress(1), STATE)
    assert names(store) == ["last.pt"]


def test_all_damaged(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "settings", keep=2)
    store.save(progress(5), STATE)
    store.save(progress(10), STATE)
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged"):
        CheckpointStore(tmp_path, "settings", keep=2).load(CPU)
