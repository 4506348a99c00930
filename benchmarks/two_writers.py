"""Start two commands on one run folder, at random offsets, for all pairs that write; check every record.

    python benchmarks/two_writers.py [--offsets 20] [--minutes N] [--seed 0] [--write]

A finished tiny run on digits is copied without its checkpoints, so that the trainings train again. One command
starts in the copy, and the second at a random moment while the first runs, or just after. The second must be
refused, naming the first, or run alone. Then every file that a stage recorded is hashed again, and each training
log is compared with its document. With --write the figures go to results/two_writers.json.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

from finished_run import PATIENCE_S, make_finished_run, read_seconds  # first: sets the path
from measurement import finish_check, make_check_parser
from process_support import exit_codes, start
from writers_support import IN_USE, false_statements, leftovers, output_of

from dskd_compress.run_folder import RunFolder

COMMANDS = ("train", "distill", "export", "validate", "benchmark", "report", "run")
SETTINGS = ("benchmark.batches=[1]", "benchmark.teacher=false", "benchmark.max_warmup_seconds=0.01")


def make_command(command: str, folder: RunFolder) -> list[str]:
    """Make the command line; `run` repeats all stages from distill."""
    return [command, str(folder.path), *(["--from", "distill"] if command == "run" else [])]


def run_round(base: RunFolder, first: str, second: str, offset_s: float, place: Path) -> dict[str, Any]:
    """Start two commands in a copy of the base, and record the outcome."""
    folder = RunFolder(place / "run")
    shutil.copytree(base.path, folder.path)
    logs = [place / "first", place / "second"]
    processes = [start(make_command(first, folder), logs[0])]
    time.sleep(offset_s)
    processes.append(start(make_command(second, folder), logs[1]))
    codes = exit_codes(*processes, timeout_s=PATIENCE_S)
    refused = [code == 4 and bool(IN_USE.search(output_of(path))) for code, path in zip(codes, logs, strict=True)]
    wrong = false_statements(folder) + leftovers(folder)
    wrong += [
        f"{command} ended with {code}: {output_of(path)[-300:]}"
        for command, code, path, no in zip((first, second), codes, logs, refused, strict=True)
        if code not in (0, 5) and not no
    ]
    if all(refused):
        wrong.append("both were refused")
    shutil.rmtree(place)
    return {"offset_s": round(offset_s, 3), "codes": codes, "refused": sum(refused), "wrong": wrong}


def main() -> None:
    """Run all pairs, print a table, and with --write save the figures."""
    parser = make_check_parser(__doc__)
    parser.add_argument("--offsets", type=int, default=20, help="of each pair")
    parser.add_argument("--minutes", type=float, help="start no round after so many minutes")
    arguments, started = parser.parse_args(), time.monotonic()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        base = make_finished_run(place, *SETTINGS)
        shutil.rmtree(base.path / "checkpoint")
        seconds = read_seconds(base)
        seconds["run"] = sum(seconds.values()) - seconds["train"]
        rounds: dict[tuple[str, str], list[dict[str, Any]]] = {pair: [] for pair in product(COMMANDS, COMMANDS)}
        for number, (first, second) in product(range(arguments.offsets), draw.sample(list(rounds), len(rounds))):
            if arguments.minutes is not None and time.monotonic() - started > 60 * arguments.minutes:
                break
            (inner := place / f"{first}-{second}-{number}").mkdir()
            one = run_round(base, first, second, draw.uniform(0, 1.1 * seconds[first]), inner)
            rounds[first, second].append(one)
            print(first, second, json.dumps(one), flush=True)
    rows = [
        {
            "first": first,
            "second": second,
            "refused": sum(one["refused"] for one in made),
            "wrong": [text for one in made for text in one["wrong"]],
            "rounds": made,
        }
        for (first, second), made in rounds.items()
    ]
    print(f"{'first':>10} {'second':>10} {'rounds':>7} {'refused':>8} {'both ran':>9} {'wrong':>6}")
    for row in rows:
        count, refused, wrong = len(row["rounds"]), row["refused"], len(row["wrong"])
        print(f"{row['first']:>10} {row['second']:>10} {count:7} {refused:8} {count - refused:9} {wrong:6}")
    document = {
        "pairs": rows,
        "rounds": sum(len(row["rounds"]) for row in rows),
        "refused": sum(row["refused"] for row in rows),
        "wrong": sum(len(row["wrong"]) for row in rows),
        "seconds_alone": {name: round(value, 2) for name, value in seconds.items()},
    }
    finish_check("two_writers.json", document, arguments, failed=document["wrong"] > 0, details="pairs")


if __name__ == "__main__":
    main()
