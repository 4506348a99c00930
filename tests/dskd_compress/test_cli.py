from __future__ import annotations

import errno
import json
import os
import re
import resource
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

import dskd_export
from dskd_compress import cli, console
from dskd_compress.cli import describe, main
from dskd_export import codes, errors

COMMANDS = (
    "run",
    "train",
    "distill",
    "tune",
    "export",
    "build",
    "validate",
    "ab",
    "benchmark",
    "fleet",
    "compare",
    "dashboard",
    "report",
    "deploy",
    "doctor",
    "bundle verify",
    "bundle show",
    "bundle pack",
    "bundle unpack",
    "models list",
    "models inspect",
    "models suggest",
    "push-to-hub",
    "recipes list",
    "recipes show",
    "recipes init",
    "recipes schema",
    "recipes check",
)
GROUPS = ("", "bundle", "models", "recipes")
# Not pydantic: newer Typers import it themselves.
HEAVY = (
    "torch",
    "timm",
    "torchvision",
    "onnx",
    "onnxruntime",
    "sklearn",
    "numpy",
    "yaml",
    "PIL",
    "dskd_compress.config",
)
LIMIT_S = 0.5


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(console, "_document_written", False)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "dskd_compress", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def tree(command: Any, path: str = "") -> Iterator[str]:
    """Names of all leaves of the app, as they are typed."""
    below = getattr(command, "commands", None)
    if below is None:
        yield path
        return
    for name, child in below.items():
        yield from tree(child, f"{path} {name}".strip())


def test_the_commands_are_these():
    """A command or group more or less is a decision, not an accident."""
    assert sorted(tree(typer.main.get_command(cli.app))) == sorted(COMMANDS)


def test_no_help_loads_what_it_does_not_show():
    program = (
        "import sys; from dskd_compress.cli import main\n"
        "assert all(main([*line.split(), '--help']) == 0 for line in sys.argv[1:])\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *GROUPS, *COMMANDS],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = set(done.stderr.split())
    assert {"typer", "dskd_compress.commands.run"} <= loaded  # the list is there, so what follows means something
    assert loaded.isdisjoint(HEAVY), sorted(loaded & set(HEAVY))
    assert done.stdout.count("Usage: ") == len(GROUPS) + len(COMMANDS)


@pytest.mark.parametrize("name", ["", "run", "models list"])
def test_help_is_fast(name):
    # The processor's time, which other work stretches less than the clock's; the best of a few tries.
    assert any(_cpu_seconds_of_help(name) < LIMIT_S for _ in range(5))


def _cpu_seconds_of_help(name: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(*name.split(), "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    assert main([*name.split(), "-h"]) == 0
    text = capsys.readouterr().out
    assert "Examples" in text
    assert f"dskd-compress {name}" in text.split("Examples")[1]
    assert "--json" in text


@pytest.mark.parametrize("name", [*GROUPS, *COMMANDS])
def test_an_extra_in_a_help_keeps_its_brackets(name, capsys, monkeypatch):
    """The help is Rich markup, which takes `[hub]` for a style."""
    monkeypatch.setenv("COLUMNS", "200")
    command = typer.main.get_command(cli.app)
    for part in name.split():
        command = command.commands[part]
    written = "".join([command.help or "", *(getattr(one, "help", None) or "" for one in command.params)])
    main([*name.split(), "--help"])
    shown = capsys.readouterr().out
    named = re.findall(r"dskd-compress\\?\[(\w+)", written)
    assert written.count("dskd-compress[") == 0, "escape the bracket: \\["
    assert named or not re.search(r"pip install\W+dskd-compress", written)
    assert all(f"'dskd-compress[{extra}]'" in shown for extra in named)
    assert bool(named) == (name == "push-to-hub")


@pytest.mark.parametrize("extra", sorted(set(errors.EXTRA_OF.values())))
def test_an_extra_in_an_error_keeps_its_brackets(extra, monkeypatch, capsys):
    monkeypatch.setattr(cli, "app", raising(errors.MissingExtra("module", extra)))
    assert main(["run", "--json"]) == 4
    out, err = capsys.readouterr()
    assert f"pip install 'dskd-compress[{extra}]'" in err
    assert f"pip install 'dskd-compress[{extra}]'" in json.loads(out)["error"]["hint"]


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dskd-compress {dskd_export.__version__}\n"


def test_no_command_shows_the_help():
    done = run()
    assert done.returncode == 2
    assert "Usage: dskd-compress" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "train"),
        (["run", "--bogus"], "--bogus"),
        (["export"], "RUN"),
        (["run", "--seed", "many"], "--seed"),
        (["doctor", "--for", "fun"], "fun"),
        (["recipes", "shwo", "x"], "shwo"),
    ],
)
def test_usage_errors(arguments, expected, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert expected in err.splitlines()[0]
    assert re.search(r"^hint: See: dskd-compress.* --help$", err, flags=re.MULTILINE)
    assert "Traceback" not in err


CODES = [
    (errors.SeveralProblems("m", [errors.DataError("bad", "fix"), errors.MissingExtra("onnx", "onnx")]), 3),
    (errors.UsageError("m", "h"), 2),
    (errors.RecipeError("m", "h"), 2),
    (errors.DataError("m", "h"), 3),
    (errors.BundleError("m", "h"), 3),
    (errors.ModelError("m", "h"), 3),
    (errors.CheckpointError("m", "h"), 3),
    (errors.TapError("m", "h"), 3),
    (errors.TrainingDiverged("m", "h"), 3),
    (errors.DiagnosisError("m", "h"), 3),
    (errors.EnvironmentProblem("m", "h"), 4),
    (errors.MissingExtra("onnx", "onnx"), 4),
    (errors.ProviderLacksKernel("m", "h"), 4),
    (errors.ProcessLost("m", "h"), 4),
    (errors.GateFailed("m", "h"), 5),
    (errors.NotShown("too few images"), 6),
    (errors.Interrupted("m", "h"), 130),
    (KeyboardInterrupt(), 130),
    (typer.Abort(), 130),
    (OSError(errno.ENOSPC, "No space left on device", "runs/x/student.safetensors"), 4),
    (OSError(errno.EDQUOT, "Disk quota exceeded", "runs/x"), 4),
    (PermissionError(errno.EACCES, "Permission denied", "runs/x"), 4),
    (OSError(errno.EROFS, "Read-only file system", "runs/x"), 4),
    (OSError(errno.ENOSPC, "No space left on device"), 4),
    (MemoryError(), 4),
    (OSError(errno.EIO, "Input/output error", "x"), 4),
    (OSError(errno.ESTALE, "Stale file handle", "x"), 4),
    (OSError(errno.EXDEV, "Invalid cross-device link", "x"), 4),
    (OSError(errno.ENOTCONN, "Transport endpoint is not connected"), 4),
    (OSError(errno.EFBIG, "File too large", "x"), 4),
    (OSError(errno.EBADF, "Bad file descriptor"), 1),
    (OSError("without a number"), 1),
    (FileNotFoundError(errno.ENOENT, "No such file", "x"), 1),
    (AssertionError("m"), 1),
    (ValueError(), 1),
    (RecursionError("deep"), 1),
]


def raising(error: BaseException) -> Callable[..., None]:
    def app(**_: object) -> None:
        raise error

    return app


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: type(value).__name__)
def test_exit_codes_and_messages(error, code, monkeypatch, capsys):
    monkeypatch.setattr(cli, "app", raising(error))
    assert main(["run", "--json"]) == code
    out, err = capsys.readouterr()
    document = json.loads(out.splitlines()[-1])["error"]
    assert set(document) - {"faults"} == {"kind", "code", "message", "hint", "exit_code"}
    assert document["code"] is None
    assert document["exit_code"] == code
    assert err.startswith(document["message"] if code == 130 else f"error: {document['message']}\n")
    assert "Traceback" not in err
    if isinstance(error, errors.DskdError):
        assert (document["kind"], document["message"]) == (type(error).__name__, error.message)
        assert document["hint"] == error.hint
    if isinstance(error, OSError) and code == 4 and error.filename:
        assert error.filename in document["message"]
    assert ("this is a bug in dskd-compress" in document["message"]) == (code == 1)
    assert ("--debug" in (document["hint"] or "")) == (code == 1)


def test_a_code_stands_before_the_message_and_in_the_document(monkeypatch, capsys):
    monkeypatch.setattr(cli, "app", raising(errors.EnvironmentProblem("no library", code=codes.LIBNVINFER)))
    assert main(["run", "--json"]) == 4
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["error"]["code"] == "DSKD-E204"
    assert err.splitlines()[0] == "error: DSKD-E204: no library"
    assert err.splitlines()[1].startswith("hint: Install TensorRT")


def test_every_error_class_is_in_the_table():
    def all_below(kind: type[errors.DskdError]) -> set[type]:
        return {kind}.union(*(all_below(below) for below in kind.__subclasses__()))

    own = {kind for kind in all_below(errors.DskdError) if kind.__module__ == errors.__name__}
    assert own - {errors.DskdError} <= {type(error) for error, _ in CODES}


@pytest.mark.parametrize("error", [RuntimeError("odd"), errors.DataError("bad", "fix")])
@pytest.mark.parametrize("line", [["--debug", "run"], ["run", "--debug"], ["run", "x", "--debug", "--json"]])
def test_debug_shows_the_traceback_anywhere_on_the_line(error, line, monkeypatch, capsys):
    seen = []

    def app(args: list[str], **_: object) -> None:
        seen.extend(args)
        raise error

    monkeypatch.setattr(cli, "app", app)
    main(line)
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert str(error) in err
    assert "--debug" not in seen


def test_words_after_two_dashes_are_no_options(monkeypatch, capsys):
    seen = []

    def app(args: list[str], **_: object) -> None:
        seen.extend(args)
        raise errors.DataError("bad")

    monkeypatch.setattr(cli, "app", app)
    main(["run", "--", "--debug", "--json"])
    out, err = capsys.readouterr()
    assert seen == ["run", "--", "--debug", "--json"]
    assert out == ""
    assert err == "error: bad\n"


def test_a_gate_that_fails_leaves_the_document_last(monkeypatch, capsys):
    def app(**_: object) -> None:
        console.Output(json_output=True).result({"passed": False})
        raise errors.GateFailed("top-1 agreement is 0.9, the limit is 1.0", "Look at validation.json.")

    monkeypatch.setattr(cli, "app", app)
    assert main(["validate", "runs/x", "--json"]) == 5
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1]) == {"passed": False}
    assert "top-1 agreement" in err


def test_an_interrupt_inside_a_command(monkeypatch, capsys):
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dskd_compress.recipe.list_recipes", interrupt)
    assert main(["recipes", "list"]) == 130
    assert capsys.readouterr().err.strip() == "Interrupted."


def test_gpu_out_of_memory(monkeypatch):
    class OutOfMemoryError(RuntimeError):
        pass

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError))
    failure = describe(OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"))
    assert failure.exit_code == 4
    assert failure.message == "The GPU is out of memory: CUDA out of memory. Tried to allocate 2 GiB"
    assert "batch_size" in (failure.hint or "")
    assert failure.code == codes.GPU_MEMORY


def test_control_sequences_do_not_reach_the_terminal(monkeypatch, capsys):
    monkeypatch.setattr(cli, "app", raising(errors.DataError("bad file \x1b[2J\udcff.jpg\nsecond line")))
    main(["run"])
    err = capsys.readouterr().err
    assert err == "error: bad file \\x1b[2J\\udcff.jpg\nsecond line\n"


def test_a_full_disk():
    """The whole way, against the kernel's own full device."""
    done = subprocess.run(
        f"{sys.executable} -m dskd_compress recipes schema > /dev/full",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 4
    assert done.stderr.startswith("error: Standard output cannot be written: No space left on device")


@pytest.mark.parametrize("arguments", [["recipes", "schema"], ["--help"]])
def test_a_reader_that_leaves_is_no_error(arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "dskd_compress", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    assert (process.wait(timeout=60), err) == (141, "")
    process.stderr.close()


def test_shell_completion():
    done = run(_DSKD_COMPRESS_COMPLETE="complete_bash", COMP_WORDS="dskd-compress rec", COMP_CWORD="1")
    assert (done.returncode, done.stdout.split()) == (0, ["recipes"])
    words = "dskd-compress recipes show digits/"
    done = run(_DSKD_COMPRESS_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="3")
    assert "digits/resnet18-to-mobilenetv3_small_050" in done.stdout


@pytest.mark.parametrize(
    ("module", "extra"), [("torch", "train"), ("timm.data", "train"), ("onnxruntime", "onnx")]
)
def test_an_import_that_an_extra_brings_names_the_extra(module: str, extra: str) -> None:
    failure = describe(ModuleNotFoundError(f"No module named '{module}'", name=module))
    assert failure.exit_code == 4
    assert failure.hint == f"Install it with: pip install 'dskd-compress[{extra}]'"


def test_an_import_that_no_extra_brings_is_our_bug() -> None:
    assert describe(ModuleNotFoundError("No module named 'lost'", name="lost")).exit_code == 1
