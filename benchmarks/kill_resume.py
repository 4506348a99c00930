"""Kill a distillation ten times, at random moments, and compare its student with that of a run never killed.

    python benchmarks/kill_resume.py [--kills 10] [--seed 0] [--write]

A tiny distillation on digits, with weight average, mixed images and noise within the sampler, checkpoints
every three steps and two of them kept. Each round starts the command line in a separate process and sends it
SIGKILL after 1 to 30 more steps, anywhere in the next step or, in every third round, while a checkpoint is being
written (a half-written file exists). A last start runs to the end. With --write the figures go to
results/kill_resume.json.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / "tests" / "helpers"), str(ROOT / "export"), str(ROOT)]

from measurement import finish_check, make_check_parser  # noqa: E402
from run_support import small_recipe  # noqa: E402

from dskd_compress.recipe import dump_recipe  # noqa: E402
from dskd_compress.run_folder import RunFolder  # noqa: E402
from dskd_export.files.atomic import sha256_file  # noqa: E402

SETTINGS = (
    "train.epochs=20",
    "train.ema_decay=0.9",
    "train.warmup_epochs=1",
    "train.checkpoint_steps=3",
    "train.keep_checkpoints=2",
    "data.augment.mixup=0.2",
    "method.start=sdedit",
    "teacher.train.epochs=1",
)


def start(command: str, recipe: Path, out: Path) -> subprocess.Popen[str]:
    """Start the command line."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "export")])
    return subprocess.Popen(
        [sys.executable, "-m", "dskd_compress", command, str(recipe), "--out", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(command: str, recipe: Path, out: Path) -> None:
    """Run a command to its end."""
    process = start(command, recipe, out)
    _, error = process.communicate()
    if process.returncode != 0:
        raise SystemExit(error)


def read_last_step(folder: RunFolder) -> int:
    """Read the last step with a complete line in the log."""
    path = folder.log("student")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def kill_once(recipe: Path, folder: RunFolder, draw: random.Random, in_write: bool) -> dict[str, Any] | None:
    """Start, wait, kill; None: the run ended before."""
    before = read_last_step(folder)
    process = start("distill", recipe, folder.path)
    checkpoints = folder.checkpoints("student")
    wanted = before + draw.randint(1, 30)
    while process.poll() is None and read_last_step(folder) < wanted:
        time.sleep(0.002)
    if in_write:
        # Its temporary file is there for as long as a checkpoint is being written and synced.
        while process.poll() is None and not list(checkpoints.glob(".last.*")):
            pass
    else:
        deadline = time.monotonic() + draw.uniform(0, 0.2)  # anywhere in the step that follows
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
    half_written = len(list(checkpoints.glob(".last.*")))
    process.send_signal(signal.SIGKILL)
    _, error = process.communicate()
    if process.returncode != -signal.SIGKILL:
        if process.returncode != 0:
            raise SystemExit(error)
        return None
    return {
        "steps_before": before,
        "steps_logged": read_last_step(folder),
        "half_written_checkpoints": max(half_written, len(list(checkpoints.glob(".last.*")))),
    }


def main() -> None:
    """Run, compare, print, and with --write save the figures."""
    parser = make_check_parser(__doc__)
    parser.add_argument("--kills", type=int, default=10)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        recipe = place / "recipe.yaml"
        recipe.write_text(dump_recipe(small_recipe(*SETTINGS)), encoding="utf-8")
        whole, killed = RunFolder(place / "whole"), RunFolder(place / "killed")
        finish("train", recipe, whole.path)
        killed.create()
        (killed / "teacher.safetensors").write_bytes((whole / "teacher.safetensors").read_bytes())
        finish("distill", recipe, whole.path)
        kills = []
        while len(kills) < arguments.kills:
            kill = kill_once(recipe, killed, draw, in_write=len(kills) % 3 == 2)
            if kill is None:
                raise SystemExit(f"The run ended after {len(kills)} kills; give it more epochs.")
            kills.append(kill)
            print(json.dumps(kill), flush=True)
        finish("distill", recipe, killed.path)
        digests = [sha256_file(folder.weights("student")) for folder in (whole, killed)]
        document = {
            "kills": kills,
            "steps": read_last_step(whole),
            "sha256_never_killed": digests[0],
            "sha256_killed": digests[1],
            "identical": digests[0] == digests[1],
            "settings": list(SETTINGS),
        }
    finish_check("kill_resume.json", document, arguments, failed=not document["identical"], details="kills")


if __name__ == "__main__":
    main()
