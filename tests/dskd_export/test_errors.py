from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import pytest

from dskd_export import errors
from dskd_export.errors import (
    DataError,
    DskdError,
    EnvironmentProblem,
    MissingExtra,
    SeveralProblems,
    UsageError,
    require,
)

CLASSES = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, DskdError)]


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn = re.findall(r"([│├└─ ]*)([A-Z]\w+) +(?:exit code|(\d+) )", errors.__doc__ or "")
    parents: list[type[DskdError]] = []
    found = set()
    for branch, name, code in drawn:
        depth = len(branch.rstrip()) // 4 if branch.strip() else 0
        kind = getattr(errors, name)
        parents = [*parents[:depth], kind]
        if depth:
            assert kind.__bases__ == (parents[depth - 1],), name
            assert kind.exit_code == int(code), name
        found.add(kind)
    assert found == set(CLASSES)


def test_message_and_hint_are_apart_and_together() -> None:
    error = DskdError("It is broken.", "Mend it.")
    assert (error.message, error.hint, str(error)) == ("It is broken.", "Mend it.", "It is broken. Mend it.")
    assert str(DskdError("It is broken.")) == "It is broken."
    assert error.exit_code == 1  # only a subclass is the user's to mend


@pytest.mark.parametrize(
    ("kinds", "code"),
    [
        ([EnvironmentProblem, MissingExtra], 4),
        ([EnvironmentProblem, DataError], 3),
        ([DataError, EnvironmentProblem, UsageError], 2),
    ],
)
def test_several_problems_have_the_smallest_code(kinds: list[type[DskdError]], code: int) -> None:
    problems = [
        kind("onnx", "onnx") if kind is MissingExtra else kind("It is broken.", "Mend it.") for kind in kinds
    ]
    error = SeveralProblems("This cannot start", problems)
    assert (error.exit_code, error.problems) == (code, tuple(problems))
    assert [line[:5] for line in error.message.splitlines() if line[3:4] == "."] == [
        f"{number:3}. " for number in range(1, len(kinds) + 1)
    ]


def test_a_listed_command_stays_on_one_line_and_prose_does_not() -> None:
    command = "Install it with: pip install " + " ".join(["a-package-of-some-length"] * 9)
    problems = [
        DataError("It is broken " * 20, command),
        DataError("Short.", "Repair the file or delete it. " * 8),
    ]
    lines = SeveralProblems("This cannot start", problems).message.splitlines()
    assert f"     {command}" in lines
    assert [line for line in lines if len(line) > 80] == [f"     {command}"]


def test_require_gives_the_module() -> None:
    assert require("json", "onnx").dumps({}) == "{}"


def test_missing_extra_names_the_command() -> None:
    with pytest.raises(MissingExtra) as caught:
        require("no_such_module_here", "onnx")
    assert "no_such_module_here is not installed" in str(caught.value)
    assert "pip install 'dskd-compress[onnx]'" in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_module_that_lacks_something_else_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import no_such_module_here")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
        require("half_installed", "onnx")
    assert "half_installed" not in sys.modules
