"""Every architecture of timm as a teacher and as a student.

    python benchmarks/sweep/sweep.py shapes --shard 1/4    taps of all architectures, on the meta device
    python benchmarks/sweep/sweep.py steps --shard 1/4     two real steps of DSKD a model class, in both roles
    python benchmarks/sweep/sweep.py export --shard 1/4    each model class to ONNX, compared with torch
    python benchmarks/sweep/sweep.py table                 joins the shards into the committed tables

Each architecture is one line of a shard's file; an interrupted shard resumes where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import torch
from export_parity import export_json, export_page, export_with_parity
from pair_steps import train_with_partners

from dskd_compress.catalogue.survey import survey_architecture
from dskd_compress.timm_import import import_timm

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PACKAGED = HERE.parents[1] / "dskd_compress" / "architectures.json"


def list_architectures() -> list[str]:
    """List all names of timm without the CIFAR networks; neighbours of a family lie in different shards."""
    timm = import_timm()
    own = set(timm.list_models(module="dskd_compress")) | {
        name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("dskd_compress")
    }
    return [name for name in timm.list_models() if name not in own]


def read_versions() -> dict[str, str]:
    return {"timm": import_timm().__version__, "torch": torch.__version__.split("+")[0]}


def read_export_versions() -> dict[str, str]:
    """Read the versions of timm, torch and the packages of an export."""
    return read_versions() | {name: version(name) for name in ("onnx", "onnxscript", "onnxruntime")}


def run(kind: str, names: Iterable[str], shard: str, one: Callable[[str], dict[str, Any]], folder: Path) -> None:
    index, of = map(int, shard.split("/"))
    mine = list(names)[index - 1 :: of]
    path = folder / f"{kind}-{index}-of-{of}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    done = {line["name"] for line in _lines(path)}
    with path.open("a", encoding="utf-8") as file:
        for number, name in enumerate(mine, 1):
            if name in done:
                continue
            began = time.perf_counter()
            try:
                line = one(name)
            except Exception as error:  # what is not typed is a bug, and is counted as one
                line = {"name": name, "unexplained": f"{type(error).__name__}: {error}"}
            file.write(json.dumps(line) + "\n")
            file.flush()
            print(f"{number}/{len(mine)} {name} {time.perf_counter() - began:.1f} s", flush=True)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _join_shards(folder: Path, kind: str) -> list[dict[str, Any]]:
    found = {line["name"]: line for path in sorted(folder.glob(f"{kind}-*.jsonl")) for line in _lines(path)}
    return [found[name] for name in sorted(found)]


def one_survey(name: str) -> dict[str, Any]:
    return survey_architecture(name).model_dump(mode="json", exclude_defaults=True)


def representatives() -> list[str]:
    """Choose the smallest architecture of each model class with taps, and one of each class without."""
    table = json.loads(PACKAGED.read_text(encoding="utf-8"))["architectures"]
    of_class: dict[str, list[str]] = defaultdict(list)
    for name, facts in table.items():
        of_class[facts["model_class"]].append(name)
    return sorted(
        min(names, key=lambda name: (table[name].get("parameters") or float("inf"), name))
        for names in of_class.values()
    )


def write_tables(folder: Path) -> None:
    RESULTS.mkdir(exist_ok=True)
    script = "python benchmarks/sweep/sweep.py"
    command = f"{script} shapes; {script} steps; {script} table"
    shapes, steps = _join_shards(folder, "shapes"), _join_shards(folder, "steps")
    if shapes:
        surveys = {line.pop("name"): line for line in shapes}
        document = {"versions": read_versions(), "command": command, "architectures": surveys}
        head = json.dumps({**document, "architectures": {}})[:-2]
        rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(survey)}" for name, survey in surveys.items())
        PACKAGED.write_text(f"{head}\n{rows}\n}}}}\n", encoding="utf-8")
    if steps:
        text = json.dumps({"versions": read_versions(), "command": command, "classes": steps}, indent=1)
        (RESULTS / "steps.json").write_text(text + "\n", encoding="utf-8")
    (RESULTS / "README.md").write_text(_markdown(command), encoding="utf-8")
    if exports := _join_shards(folder, "export"):
        command = "python benchmarks/sweep/sweep.py export; python benchmarks/sweep/sweep.py table"
        for name, made in (("export.json", export_json), ("export.md", export_page)):
            (RESULTS / name).write_text(made(exports, read_export_versions(), command), encoding="utf-8")


def _markdown(command: str) -> str:
    document = json.loads(PACKAGED.read_text(encoding="utf-8"))
    table: dict[str, dict[str, Any]] = document["architectures"]
    resolved = [facts for facts in table.values() if facts.get("taps")]
    refused = {
        name: facts["refused"]["model"] for name, facts in table.items() if "model" in facts.get("refused", {})
    }
    unexplained = {name: facts["unexplained"] for name, facts in table.items() if "unexplained" in facts}
    layouts = Counter(facts["taps"]["map"]["layout"] if "map" in facts["taps"] else "none" for facts in resolved)
    heads = Counter(facts["heads"]["vector"][0] if facts["heads"]["vector"] else "none" for facts in resolved)
    lines = [
        "# All architectures of timm as teachers and students",
        "",
        f"timm {document['versions']['timm']}, torch {document['versions']['torch']}. Made by:",
        "",
        "```sh",
        *command.split("; "),
        "```",
        "",
        f"## Taps of {len(table)} architectures, by their shapes",
        "",
        f"{len(resolved)} resolved ({len(resolved) / len(table):.2%}), {len(refused)} refused with a reason, "
        f"{len(unexplained)} unexplained. All figures: `dskd_compress/architectures.json`.",
        "",
        "| map tap | architectures |",
        "|---|---|",
        *[f"| {layout} | {count} |" for layout, count in layouts.most_common()],
        "",
        "| way from the vector to logits, simplest of the right shape | architectures |",
        "|---|---|",
        *[f"| {path} | {count} |" for path, count in heads.most_common()],
        "",
        "| refused | why |",
        "|---|---|",
        *[f"| {name} | {reason} |" for name, reason in {**refused, **unexplained}.items()],
    ]
    path = RESULTS / "steps.json"
    if path.is_file():
        classes = json.loads(path.read_text(encoding="utf-8"))["classes"]
        good = [line for line in classes if line.get("passed")]
        lines += [
            "",
            f"## Two steps of DSKD for each of {len(classes)} model classes",
            "",
            f"{len(good)} of {len(classes)} trained as student and taught as teacher, against a CNN and a ViT; "
            "losses finite, student changed, teacher not. Random weights; a `!` marks a role that was refused.",
            "",
            "| class | architecture | input | as student | as teacher | refused |",
            "|---|---|---|---|---|---|",
            *[_row(line) for line in classes],
        ]
    return "\n".join(lines) + "\n"


def _row(line: dict[str, Any]) -> str:
    cells = {role: line.get(role) or {} for role in ("student", "teacher")}
    shown = [", ".join(f"{partner}: {tap}" for partner, tap in cell.items()) or "!" for cell in cells.values()]
    reason = line.get("refused") or line.get("unexplained") or ""
    size = line.get("size")
    return f"| {line.get('model_class')} | {line['name']} | {size or ''} | {shown[0]} | {shown[1]} | {reason} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("shapes", "steps", "export", "table"))
    parser.add_argument("--shard", default="1/1", metavar="I/N")
    parser.add_argument("--folder", type=Path, default=Path("runs/sweep"), help="folder of the shards' files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "shapes":
        run("shapes", list_architectures(), options.shard, one_survey, options.folder)
    elif options.what in ("steps", "export"):
        table = json.loads(PACKAGED.read_text(encoding="utf-8"))["architectures"]
        classes = {name: table[name]["model_class"] for name in representatives()}
        one = export_with_parity if options.what == "export" else train_with_partners
        run(
            options.what,
            classes,
            options.shard,
            lambda name: {"model_class": classes[name], **one(name)},
            options.folder,
        )
    else:
        write_tables(options.folder)


if __name__ == "__main__":
    main()
