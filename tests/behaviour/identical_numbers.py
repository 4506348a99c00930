"""Print every number that a refactoring must leave bit-identical, and compare it with the committed ones.

    python tests/behaviour/identical_numbers.py --against tests/behaviour/identical_numbers.txt
    python tests/behaviour/identical_numbers.py --only dskd kd --against tests/behaviour/identical_numbers.txt
    python tests/behaviour/identical_numbers.py --out tests/behaviour/identical_numbers.txt

It drives the command line of the interpreter it runs under, on digits, on one CPU thread, in a temporary folder.
It reads the files that the commands leave and imports nothing of the project, so modules may move. Where a flag is
renamed, only `COMMANDS` changes. The exit code is 1 where a number differs, 2 where a command left no files.

What is run: the demo recipe through all stages with fp16 and int8 models; its bundle, validated and benchmarked
without torch; a comparison of two methods over two seeds; 20 steps of each method and of some of its variants.

One line a number, sorted. A float is in hexadecimal, which is exact; bytes are a sha256:

- every loss term, gradient norm, learning rate and monitor of each of the 20 steps, and the epoch's end;
- the tensors of student.safetensors: names, types, shapes, bytes;
- every ONNX model (the whole graph, and its weights alone), the arrays of golden.npz, labels.txt, spec.json;
- every value of validation.json, compare.json, distill.json, teacher.json, export.json, manifest.json and
  calibration.json;
- the exit codes, the names of all files written, and which rows benchmark.json holds.

What is left out, and why:

- times, rates, memory, energy and telemetry: they vary between runs. Of benchmark.json only the rows' names stay;
- provenance (command, dates, commit, versions, host), `producer` and the header fields of ONNX files: they name
  the tree and its libraries. The first lines of the output do that instead;
- hashes and sizes of whole files: they cover the fields above. Hashes of data, images and the initial
  student stay;
- sentences (reason, detail, causes, notes): they may be reworded;
- stages/*.json: hashes of settings, inputs and outputs, with provenance;
- report, model card, compare.md, recipe.yaml and checkpoints, but for their names: they repeat the numbers.

Floats depend on the CPU and on the versions of torch, timm, onnx and onnxruntime. Where the header of the
committed lines names others, first write the lines of the older commit on this machine, and compare with those.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

# The one place that knows the command line. {work}: the temporary folder; {recipe}: the file of the pair.
_TRAINED = "--teacher-checkpoint {work}/teacher/teacher.safetensors"
_FEW = "--set method.stats_batches=5"
_QUICK = (
    "--set benchmark.min_seconds=0.02 --set benchmark.min_iterations=10 --set benchmark.max_warmup_seconds=0.02"
)
_DISTILL = f"distill {{recipe}} --out {{work}}/{{label}} {_TRAINED} "
COMMANDS = {
    "demo": "run digits/resnet18-to-mobilenetv3_small_050 --out {work}/demo --precision fp16,int8 --device cpu "
    "--set teacher.train.epochs=1 --set teacher.train.warmup_epochs=0 --set teacher.train.threads=1 "
    f"--set train.epochs=1 --set train.warmup_epochs=0 --set train.threads=1 --set benchmark.batches=[1] {_QUICK}",
    "bundle": "validate {work}/demo/bundle --images {work}/digits --out {work}/bundle",
    "bundle-benchmark": f"benchmark {{work}}/demo/bundle --batch 1 --out {{work}}/bundle-benchmark {_QUICK}",
    "teacher": "train {recipe} --out {work}/teacher --epochs 2 --batch-size 16 --lr 0.003 --device cpu "
    "--set teacher.train.optimizer=adamw --set teacher.train.threads=1",
    "compare": "compare {recipe} --methods none,kd --seeds 0,1 --out {work}/compare "
    "--set teacher.checkpoint={work}/teacher/teacher.safetensors",
    "none": _DISTILL + "--method none",
    "kd": _DISTILL + "--method kd",
    "dkd": _DISTILL + "--method dkd",
    "dist": _DISTILL + "--method dist",
    "fitnet": _DISTILL + f"--method fitnet {_FEW}",
    "lshfm": _DISTILL + f"--method lshfm {_FEW}",
    "diffkd": _DISTILL + f"--method diffkd {_FEW}",
    "dskd": _DISTILL + f"--method dskd {_FEW}",
    "dskd-map": _DISTILL + f"--method dskd {_FEW} --set method.tap=map --set method.lsh_on=location",
    "dskd-paper": _DISTILL + f"--method dskd {_FEW} --set method.preset=paper",
    "dskd-choices": _DISTILL + f"--method dskd {_FEW} --set method.start=sdedit --set method.draws=2 "
    "--set method.target_mix=0.3 --set method.guide_target=teacher_if_correct --set method.correct_only=true "
    "--set method.guide_schedule=linear_decay --set method.head_schedule=linear_growth "
    "--set method.hash_bias=median --set method.denoiser_data=both --set method.denoiser_norm=ln "
    "--set method.logit_loss=kl --set train.grad_accumulation=2 --set train.ema_decay=0.9",
    "dskd-vit": _DISTILL + f"--method dskd {_FEW} --student test_vit",
    "lshfm-map": _DISTILL + f"--method lshfm {_FEW} --set method.tap=map --set method.hash_bias=median",
    "diffkd-vector": _DISTILL + f"--method diffkd {_FEW} --set method.tap=vector --set method.ae_channels=32",
}
NEEDS = {"bundle": ("demo",), "bundle-benchmark": ("demo",), "demo": (), "teacher": ()}  # others: the teacher

DOCUMENTS = (
    "validation.json",
    "compare.json",
    "distill.json",
    "teacher.json",
    "export.json",
    "manifest.json",
    "spec.json",
)
VARYING = {
    "provenance",
    "commits",
    "producer",
    "seconds",
    "images_per_s",
    "data_wait",
    "peak_memory_mb",
    "size",
    "size_mb",
}
SENTENCES = {"reason", "detail", "native_reason", "causes", "note", "notes"}
KEPT_HASHES = ("data.sha256", "initial_sha256", "image_sha256")
ROW = ("model", "runner", "provider", "precision", "batch", "streams", "part")


def iter_leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and text of each value of a JSON document that two runs have in common."""
    if isinstance(value, dict):
        for key, inner in value.items():
            deeper = f"{path}.{key}" if path else key
            hashes = key.endswith("sha256") and not deeper.endswith(KEPT_HASHES)
            if key not in VARYING | SENTENCES and not hashes:
                yield from iter_leaves(inner, deeper)
    elif isinstance(value, list):
        yield f"{path}.count", str(len(value))
        for number, inner in enumerate(value):
            yield from iter_leaves(inner, f"{path}[{number}]")
    else:
        yield path.replace(" ", "_"), value.hex() if isinstance(value, float) else json.dumps(value)


def hash_bytes(*parts: bytes) -> str:
    """Hash parts with their lengths, so that a byte cannot move from one to the next unseen."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def read_tensors(path: Path) -> Iterator[tuple[str, str]]:
    """Hash the tensors of a safetensors file without its metadata."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    parts = []
    for name, tensor in sorted(header.items()):
        if name != "__metadata__":
            first, last = tensor["data_offsets"]
            parts += [f"{name} {tensor['dtype']} {tensor['shape']}".encode(), content[end + first : end + last]]
    yield "tensors", str(len(parts) // 2)
    yield "sha256", hash_bytes(*parts)


def read_training(path: Path) -> Iterator[tuple[str, str]]:
    """Read a training log: all numbers of every step, and the ends of the epochs."""
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        kind, step = record.pop("kind"), record.pop("step")
        for key, text in iter_leaves(record):
            yield f"step-{step:03d}.{'' if kind == 'step' else kind + '.'}{key}", text


def read_model(path: Path) -> Iterator[tuple[str, str]]:
    """Hash an ONNX model without what names its producer, and its weights alone."""
    import onnx

    model = onnx.load(path)
    for entry in model.metadata_props:
        yield f"metadata.{entry.key}", hash_values(entry.value)
    for field in ("metadata_props", "producer_name", "producer_version", "doc_string"):
        model.ClearField(field)
    yield "nodes", str(len(model.graph.node))
    yield "sha256", hash_bytes(model.SerializeToString(deterministic=True))
    weights = sorted(model.graph.initializer, key=lambda tensor: tensor.name)
    yield "weights", hash_bytes(*(tensor.SerializeToString(deterministic=True) for tensor in weights))


def hash_values(text: str) -> str:
    """Hash a text; JSON without what varies between runs."""
    try:
        leaves = sorted(iter_leaves(json.loads(text)))
    except ValueError:
        leaves = [("", text)]
    return hash_bytes(*(f"{path} {value}".encode() for path, value in leaves))


def read_arrays(path: Path) -> Iterator[tuple[str, str]]:
    """Hash each array of an .npz file."""
    import numpy as np

    with np.load(path) as arrays:
        for name, array in arrays.items():
            yield name, hash_bytes(f"{array.dtype} {array.shape}".encode(), array.tobytes())


def read_benchmark(path: Path) -> Iterator[tuple[str, str]]:
    """List the rows of a benchmark, without what was measured."""
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        yield "-".join(str(row[key]) for key in ROW), "unavailable" if row["unavailable"] else "measured"


def read_document(path: Path) -> Iterator[tuple[str, str]]:
    """List the values of a JSON document."""
    yield from iter_leaves(json.loads(path.read_text(encoding="utf-8")))


def read_calibration(path: Path) -> Iterator[tuple[str, str]]:
    """Hash the list of the calibration images."""
    yield "values", hash_values(path.read_text(encoding="utf-8"))


def read_bytes(path: Path) -> Iterator[tuple[str, str]]:
    """Hash a whole file."""
    yield "sha256", hash_bytes(path.read_bytes())


READERS: dict[str, Callable[[Path], Iterator[tuple[str, str]]]] = {
    **dict.fromkeys(DOCUMENTS, read_document),
    "benchmark.json": read_benchmark,
    "train.jsonl": read_training,
    "teacher.train.jsonl": read_training,
    "golden.npz": read_arrays,
    "labels.txt": read_bytes,
    "calibration.json": read_calibration,
    ".safetensors": read_tensors,
    ".onnx": read_model,
}


def read_folder(folder: Path, label: str) -> Iterator[str]:
    """Yield a line for each file of a folder, and for each number in it."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.name.endswith(".lock"):
            continue
        yield f"{label}/{name} written"
        reader = READERS.get(path.name) or READERS.get(path.suffix)
        if reader is not None and path.parent.name != "stages":
            yield from (f"{label}/{name}/{key} {text}" for key, text in reader(path))


def write_digits(folder: Path) -> None:
    """Write every fifth of scikit-learn's digits as CLASS/NUMBER.png."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number in range(0, len(digits.target), 5):
        path = folder / str(digits.target[number]) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[number] * 15.9375).round().astype("uint8")).convert("RGB").save(path)


def run_command(label: str, work: Path) -> Iterator[str]:
    """Run one of `COMMANDS` and yield its lines.

    Raises:
        SystemExit: it left no files; its own output is printed.
    """
    line = COMMANDS[label].format(work=work, label=label, recipe=work / "pair.yaml")
    environment = {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }
    began = time.perf_counter()
    command = [sys.executable, "-m", "dskd_compress", *shlex.split(line)]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    print(f"{label}: exit code {done.returncode}, {time.perf_counter() - began:.1f} s", file=sys.stderr)
    lines = [text.replace(str(work), "WORK") for text in read_folder(work / label, label)]
    if not lines:
        print(f"{shlex.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}", file=sys.stderr)
        raise SystemExit(2)
    yield f"{label} exit-code-{done.returncode}"
    yield from lines


def describe_machine() -> list[str]:
    """Name what the numbers depend on, for the first lines of the output."""
    root = subprocess.run(
        [sys.executable, "-c", "import dskd_compress as d; print(d.__path__[0])"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tempfile.gettempdir(),
    ).stdout.strip()

    def git(*arguments: str) -> str:
        line = ["git", "-C", root, *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=False).stdout.strip()

    changed = " with changes" if git("status", "--porcelain", "--untracked-files=no", ":/") else ""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    packages = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "numpy")
    return [
        f"# commit {git('rev-parse', '--short=7', 'HEAD')}{changed}",
        f"# {', '.join(f'{name} {version(name)}' for name in packages)}",
        f"# {cpu.group(1) if cpu else 'unknown CPU'}, {os.cpu_count()} cores, "
        f"Python {'.'.join(map(str, sys.version_info[:3]))}",
    ]


def select_commands(only: Sequence[str]) -> list[str]:
    """List the commands to run, in order: the named ones with what they need, or all."""
    wanted = set(only or COMMANDS)
    for label in tuple(wanted):
        wanted.update(NEEDS.get(label, ("teacher",)))
    return [label for label in COMMANDS if label in wanted]


def compare_lines(before: Sequence[str], after: Sequence[str], labels: Sequence[str]) -> int:
    """Print what differs between the lines of the commands that were run; returns how many lines."""
    for old, new in zip(before, after, strict=False):
        if old.startswith("#") and old != new and "commit" not in old:
            print(f"These numbers may differ for another reason: then {old[2:]}; now {new[2:]}", file=sys.stderr)
    table = []
    for lines in (before, after):
        pairs = (line.split(" ", 1) for line in lines if not line.startswith("#"))
        table.append({key: text for key, text in pairs if key.split("/")[0] in labels})
    keys = [key for key in sorted(table[0] | table[1]) if table[0].get(key) != table[1].get(key)]
    for key in keys:
        print(f"{key}\n  - {table[0].get(key, 'missing')}\n  + {table[1].get(key, 'missing')}")
    print(f"{len(keys)} of {len(table[0] | table[1])} lines differ", file=sys.stderr)
    return len(keys)


def main() -> int:
    """Run the commands, then print, write or compare the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the lines")
    parser.add_argument("--against", type=Path, metavar="FILE", help="print differences; exit code 1 when any")
    parser.add_argument("--only", nargs="+", default=(), choices=list(COMMANDS), metavar="COMMAND")
    arguments = parser.parse_args()
    before = arguments.against.read_text(encoding="utf-8").splitlines() if arguments.against else None
    labels = select_commands(arguments.only)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        write_digits(work / "digits")
        (work / "pair.yaml").write_bytes((HERE / "identical_numbers.yaml").read_bytes())
        numbers = sorted(line for label in labels for line in run_command(label, work))
    lines = [*describe_machine(), *numbers]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = f"{time.perf_counter() - began:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of CPU time"
    print(f"{len(numbers)} lines in {seconds}", file=sys.stderr)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if before is not None:
        return 1 if compare_lines(before, lines, labels) else 0
    if not arguments.out:
        print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
