"""One small run through all stages, shared by the tests that only look at it."""

from __future__ import annotations

import pytest
from gate_support import make_photo_run
from run_support import QUIET, Finished, small_recipe

from dskd_compress import console
from dskd_compress.run_folder import RunFolder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Trained, distilled, exported, validated, timed and reported."""
    from dskd_compress.stages.pipeline import run_pipeline

    recipe = small_recipe()
    folder = RunFolder(tmp_path_factory.mktemp("finished") / "run")
    return Finished(recipe, folder, tuple(run_pipeline(recipe, folder, QUIET)))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A student of real photographs, exported in fp32, fp16 and int8. Copy it before changing anything in it."""
    return make_photo_run(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def no_document_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: nothing was printed with --json."""
    monkeypatch.setattr(console, "_document_written", False)
