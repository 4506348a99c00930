"""Every command in a fresh home folder: it leaves no file there and connects to no other machine.

What the process and its children send is seen by strace, since libraries call home from native threads.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import forked_commands
import pytest
import typer.main
import yaml
from PIL import Image

from dskd_compress.cli import app

# Loopback is fine: processes of one training meet there. A name server is not, wherever it listens.
_INTERNET = re.compile(r"sin6?_port=htons\((?P<port>\d+)\).*?\"(?P<address>[0-9a-f.:]+)\"")
_STRACE = ("strace", "-f", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg,sendmmsg")

_ONE_EPOCH = {"epochs": 1, "batch_size": 8, "threads": 1, "optimizer": "adamw"}
RECIPE = {
    "name": "small",
    "teacher": {"name": "test_resnet", "pretrained": False, "train": _ONE_EPOCH},
    "student": {"name": "test_efficientnet", "pretrained": False},
    "data": {"source": "photos", "input_size": 32, "workers": 0},
    "train": _ONE_EPOCH,
    "export": {"golden_images": 2, "exporter": "legacy"},
    "validate": {"batches": [1]},
    "benchmark": {
        "batches": [1],
        "threads": 1,
        "min_seconds": 0.05,
        "min_iterations": 10,
        "max_warmup_seconds": 0.1,
        "runners": ["onnxruntime"],
    },
}

# `dskd_compress` first, as in the program: it switches telemetry off.
_IMPORTS = ("dskd_compress.cli", "dskd_compress.stages.distill", "onnxruntime")

_SHORT = ("threads=1", "min_seconds=0.05", "min_iterations=10", "max_warmup_seconds=0.1")
_INT8 = ["--precision", "int8", "--set", "export.calibration.images=4", "--set", "export.quantize.search=false"]
_QUICK = ["--batch", "1", *(word for key in _SHORT for word in ("--set", f"benchmark.{key}"))]
_READY = ["--set", "teacher.train=null", "--set", "teacher.checkpoint=run/teacher.safetensors"]
_HERE = ["--remote-command", f"{sys.executable} -m dskd_compress"]

# In this order: `run` makes the folder that the others read, those in the middle change it.
COMMANDS = {
    "run": ["run", "small.yaml", "--out", "run"],
    "train": ["train", "small.yaml", "--out", "trained"],
    "distill": ["distill", "run", "--set", "tracking.trackers=[tensorboard,wandb,mlflow]"],
    "tune": ["tune", "run", "--set", "tune.epochs=1"],
    "export": ["export", "run", "--set", "export.exporter=dynamo", "--set", "export.teacher=false", *_INT8],
    "build": ["build", "run", "--backend", "tensorrt-rtx", "--precision", "fp32", "--compute-capability", "sm86"],
    "validate": ["validate", "run/bundle", "--out", "validated", "--precision", "fp32"],
    "benchmark": ["benchmark", "run/bundle", "--out", "timed", "--precision", "fp32", *_QUICK],
    "ab": ["ab", "run/bundle", "run/bundle", "--out", "compared_speed", "--precision", "fp32", *_QUICK],
    "fleet": ["fleet", "run/bundle", "--on", "local", "--out", "fleet", "--precision", "fp32", *_QUICK, *_HERE],
    "report": ["report", "run"],
    "compare": ["compare", "small.yaml", "--methods", "none", "--seeds", "0", "--out", "compared", *_READY],
    "dashboard": ["dashboard", "run", "--once"],
    "deploy": ["deploy", "run", "--out", "deploy", "--precision", "fp32"],
    "doctor": ["doctor"],
    "push-to-hub": ["push-to-hub", "run", "--repo", "me/small", "--dry-run"],
    "bundle verify": ["bundle", "verify", "run"],
    "bundle show": ["bundle", "show", "run"],
    "bundle pack": ["bundle", "pack", "run", "--out", "bundle.tar.gz"],
    "bundle unpack": ["bundle", "unpack", "bundle.tar.gz", "--out", "unpacked"],
    "models list": ["models", "list", "resnet1*"],
    "models inspect": ["models", "inspect", "test_resnet"],
    "models suggest": ["models", "suggest", "--teacher", "resnet18", "--limit", "1"],
    "recipes list": ["recipes", "list"],
    "recipes show": ["recipes", "show", "small.yaml"],
    "recipes init": ["recipes", "init", "-"],
    "recipes schema": ["recipes", "schema"],
    "recipes check": ["recipes", "check", "small.yaml"],
}


@dataclass(frozen=True)
class Seen:
    """What a command left at home and where it connected to; `calls` is None where strace cannot watch."""

    code: int
    printed: str
    left: list[str]
    calls: list[str] | None


def can_trace() -> bool:
    """Whether strace is here and allowed to watch, which some containers forbid."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run([*_STRACE, "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


def watch(commands: dict[str, list[str]], folder: Path, modules: tuple[str, ...] = ()) -> dict[str, Seen]:
    """Run commands with a fresh HOME each and no variable but those that a login sets.

    Args:
        commands: name -> command line, of `dskd-compress` or `-c` and Python code.
        folder: where they run.
        modules: imported before the first command; what that leaves or calls stands under `imports`.
    """
    home, log = folder / "home", folder / "strace.txt"
    home.mkdir()
    strace = [*_STRACE, "-o", str(log)] if can_trace() else []
    done = subprocess.run(
        [*strace, sys.executable, forked_commands.__file__, json.dumps([modules, commands])],
        cwd=folder,
        env={"HOME": str(home), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    found = json.loads((folder / forked_commands.FOUND).read_text(encoding="utf-8"))
    calls = read_calls(log) if strace else {}
    outputs = {name: folder / forked_commands.OUTPUT / str(number) for number, name in enumerate(found)}
    return {
        name: Seen(
            code,
            outputs[name].read_text(encoding="utf-8") if outputs[name].is_file() else "",
            left,
            calls.get(number, []) if strace else None,
        )
        for number, (name, (code, left)) in enumerate(found.items())
    }


def read_calls(log: Path) -> dict[int, list[str]]:
    """Number of the command, 0 before the first -> the addresses that it connected to."""
    number, calls = 0, dict[int, list[str]]()
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        found = _INTERNET.search(line)
        if found is None:
            continue
        if found["address"] == forked_commands.MARK:
            number = int(found["port"])
        elif found["port"] == "53" or not found["address"].startswith(("127.", "::1")):
            calls.setdefault(number, []).append(f"{found['address']}:{found['port']}")
    assert number, "no command was marked"
    return calls


def leaves(command: object, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Names of all commands, `bundle pack` among them."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(path)
        return
    for name, one in inner.items():
        yield from leaves(one, (*path, name))


def test_every_command_is_here() -> None:
    assert sorted(COMMANDS) == sorted(leaves(typer.main.get_command(app)))


def test_a_file_at_home_and_a_call_of_a_child_are_seen(tmp_path: Path) -> None:
    child = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))"
    code = (
        "import pathlib, socket, subprocess, sys; (pathlib.Path.home() / '.cache').mkdir(); "
        "(pathlib.Path.home() / '.cache/id').touch(); "
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 4000)); "
        f"subprocess.run([sys.executable, '-c', {child!r}])"
    )
    found = watch({"before": ["-c", "pass"], "bad": ["-c", code], "after": ["-c", "print(1)"]}, tmp_path)
    assert {name: (seen.code, seen.left) for name, seen in found.items()} == {
        "imports": (0, []),
        "before": (0, []),
        "bad": (0, [".cache/id"]),
        "after": (0, []),
    }
    assert [seen.printed for seen in found.values()] == ["", "", "", "1\n"]
    if found["bad"].calls is None:
        pytest.skip("strace cannot watch here: apt-get install strace")
    assert [seen.calls for seen in found.values()] == [[], [], ["192.0.2.1:53"], []]


@pytest.mark.parametrize("package", ["dskd_export", "dskd_compress"])
def test_a_package_switches_telemetry_off_and_respects_the_user(package: str) -> None:
    code = (
        f"import {package}, os; print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    )
    environment = {"PATH": os.environ["PATH"], "HF_HUB_DISABLE_TELEMETRY": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["1", "0"]


def test_no_command_leaves_a_file_at_home_or_calls_anybody(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    for split, count in (("train", 12), ("val", 4)):
        for shade, name in enumerate(("dark", "light")):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                image = Image.new("RGB", (32, 32), (100 * shade + number, number, 0))
                image.save(tmp_path / f"photos/{split}/{name}/{number}.png")
    found = watch(COMMANDS, tmp_path, _IMPORTS)
    assert found.keys() == {"imports", *COMMANDS}
    assert {name: (seen.left, seen.calls) for name, seen in found.items() if seen.left or seen.calls} == {}
    # Of one epoch the student is not good enough to ship, and `run` ends with its verdict.
    fine = {"run": (0, 5, 6)}
    assert {name: seen.printed for name, seen in found.items() if seen.code not in fine.get(name, (0,))} == {}
