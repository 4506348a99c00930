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
from dskd_export.documents import Provenance
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


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module as if it lay in a checkout of its own."""
    package = tmp_path / "export" / "dskd_export"
    package.mkdir(parents=True)
    (package / "provenance.py").write_text("one")
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    return tmp_path


def test_the_commit_of_a_checkout_and_whether_it_was_changed(checkout: Path) -> None:
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "first")
    head = git(checkout, "rev-parse", "HEAD")
    assert commit() == head[:12]
    (checkout / "untracked").write_text("not of the code")
    assert commit() == head[:12]
    (checkout / "export" / "dskd_export" / "provenance.py").write_text("two")
    assert commit() == f"{head[:12]}+dirty"


def test_no_commit_outside_a_checkout_without_commits_or_without_git(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commit() is None
    git(checkout, "init", "-q")
    assert commit() is None
    monkeypatch.setenv("PATH", "")
    assert commit() is None
