from __future__ import annotations

import datetime
import importlib.metadata
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dskd_compress
from dskd_export import provenance
from dskd_export.documents.base import Provenance
from dskd_export.provenance import Stopwatch, command_line, commit, versions


def test_a_stopwatch_tells_when_and_how_long() -> None:
    before = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    watch = Stopwatch()
    time.sleep(0.02)
    found = watch.provenance(seed=7, device="cpu", recipe_sha256="a" * 64)
    assert isinstance(found, Provenance)
    started = datetime.datetime.fromisoformat(found.started_at)
    assert started.utcoffset() == datetime.timedelta(0)
    assert before <= started <= datetime.datetime.now(datetime.timezone.utc)
    assert 0.02 <= found.seconds <= watch.seconds
    assert (found.seed, found.device.device, found.recipe_sha256) == (7, "cpu", "a" * 64)
    assert found.device.cores >= 1
    assert Provenance.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    "arguments", [["run"], ["distill", "my recipe.yaml", "--set", "train.lr=0.1"], ["report", "it's", "$HOME"]]
)
def test_the_command_can_be_pasted_into_a_shell(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/some/where/dskd-compress", *arguments])
    assert shlex.split(command_line()) == ["dskd-compress", *arguments]
    assert "/some/where" not in command_line()


def test_versions_are_those_installed() -> None:
    found = versions()
    assert found["dskd-compress"] == dskd_compress.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    for package in ("torch", "timm", "numpy", "onnxruntime"):
        assert found[package] == importlib.metadata.version(package)


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_PACKAGES", ("numpy", "surely-no-package-of-this-name"))
    assert set(versions()) == {"dskd-compress", "python", "numpy"}


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *identity, "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit_all(folder: Path) -> str:
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return git(folder, "rev-parse", "HEAD")[:12]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module as if it were in a separate checkout."""
    package = tmp_path / "export" / "dskd_export"
    package.mkdir(parents=True)
    (package / "provenance.py").write_text("one")
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    return tmp_path


def test_the_commit_of_a_checkout_and_whether_it_was_changed(checkout: Path) -> None:
    (checkout / "results").mkdir()
    (checkout / "results" / "benchmark.json").write_text("{}")
    head = commit_all(checkout)
    assert commit() == head
    (checkout / "untracked").write_text("not of the code")
    (checkout / "results" / "benchmark.json").write_text("measured")
    (checkout / "export" / "dskd_export" / "provenance.py").chmod(0o755)
    assert commit() == head, "results and modes are no code"
    (checkout / "export" / "dskd_export" / "provenance.py").write_text("two")
    assert commit() == f"{head}+dirty"


def test_the_commit_is_that_of_the_start(checkout: Path) -> None:
    head = commit_all(checkout)
    watch = Stopwatch()
    (checkout / "export" / "dskd_export" / "provenance.py").write_text("edited during the training")
    found = watch.provenance(seed=0, device="cpu", recipe_sha256="a" * 64)
    assert (found.commit, found.code) == (head, f"commit {head}")
    assert found.model_copy(update={"commit": None}).code == f"dskd-compress {dskd_compress.__version__}"


@pytest.mark.parametrize("place", ["vendor/dskd_export", "vendor/export/dskd_export"])
def test_the_repository_of_a_user_is_not_this_one(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / place
    package.mkdir(parents=True)
    (package / "provenance.py").write_text("one")
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    commit_all(tmp_path)
    assert commit() is None


def test_installed_into_a_repository_that_ignores_it(checkout: Path) -> None:
    (checkout / ".gitignore").write_text("export/")
    commit_all(checkout)
    assert commit() is None


def test_in_a_hook_of_another_repository(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = commit_all(checkout)
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert commit() == head


def test_no_commit_outside_a_checkout_without_commits_or_without_git(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commit() is None
    git(checkout, "init", "-q")
    assert commit() is None
    monkeypatch.setenv("PATH", "")
    assert commit() is None
