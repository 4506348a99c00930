"""Kill `run` at random moments in each of its stages, start it again, and compare it with a run never killed.

    python benchmarks/kill_run.py [--kills 20] [--seed 0] [--write]

One kill per stage, then again from the first. For each kill a copy of the finished run is reset to before that
stage; `run` starts, and gets SIGKILL at a random moment of the stage. The same command then runs to the end.
Student and bundle must have the same sha256, all records must be true, and the folder must hold the same files,
no more. With --write the figures go to results/kill_run.json.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from finished_run import PATIENCE_S, make_finished_run, read_seconds  # first: sets the path
from measurement import finish_check, make_check_parser
from process_support import exit_codes, start
from run_support import SMALL_STAGES
from writers_support import false_statements, files_of, leftovers, output_of, without_stages

from dskd_compress.run_folder import RunFolder
from dskd_export.files.atomic import sha256_file


def kill_once(base: RunFolder, stage: str, delay_s: float, place: Path) -> dict[str, Any]:
    """Kill one run in a stage, start it again, and list the differences."""
    folder, log = RunFolder(place / "run"), place / "log"
    shutil.copytree(base.path, folder.path)
    without_stages(folder, SMALL_STAGES[SMALL_STAGES.index(stage) :])
    command = ["run", str(folder.path)]
    process = start(command, log)
    while process.exitcode is None and not (log.exists() and f"{stage}: " in output_of(log)):
        time.sleep(0.01)
    process.join(delay_s)
    killed = process.exitcode is None
    if killed:
        os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    half = leftovers(folder)
    (code,) = exit_codes(start(command, log), timeout_s=PATIENCE_S)
    wrong = false_statements(folder) + leftovers(folder)
    wrong += [
        f"{name} differs"
        for name in ("student.safetensors", "bundle/manifest.json")
        if sha256_file(folder / name) != sha256_file(base / name)
    ]
    wrong += sorted(files_of(folder) ^ files_of(base))
    if code not in (0, 5):
        wrong.append(f"it ended with {code}: {output_of(log)[-300:]}")
    shutil.rmtree(place)
    return {
        "stage": stage,
        "delay_s": round(delay_s, 3),
        "killed": killed,
        "left_by_the_kill": half,
        "wrong": wrong,
    }


def main() -> None:
    """Run, compare, print, and with --write save the figures."""
    parser = make_check_parser(__doc__)
    parser.add_argument("--kills", type=int, default=20)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        base = make_finished_run(place, "train.checkpoint_steps=3")
        seconds = read_seconds(base)
        kills = []
        while sum(kill["killed"] for kill in kills) < arguments.kills:
            stage = SMALL_STAGES[len(kills) % len(SMALL_STAGES)]
            (inner := place / f"kill-{len(kills)}").mkdir()
            kill = kill_once(base, stage, draw.uniform(0, seconds[stage]), inner)
            kills.append(kill)
            print(json.dumps(kill), flush=True)
        digests = {name: sha256_file(base / name) for name in ("student.safetensors", "bundle/manifest.json")}
    document = {
        "kills": kills,
        "killed": sum(kill["killed"] for kill in kills),
        "wrong": sum(len(kill["wrong"]) for kill in kills),
        "sha256": digests,
    }
    finish_check("kill_run.json", document, arguments, failed=document["wrong"] > 0, details="kills")


if __name__ == "__main__":
    main()
