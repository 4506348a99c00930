"""Damaged files for every reader of user files.

    python benchmarks/sweep/fuzz_readers.py --cases 10000

Each reader gets so many files, each damaged in another way (mutations.py); the same seed gives the same files.
Allowed are a result or one of the errors of `dskd_export.errors` (`NotElf` of the ELF reader, which `doctor`
catches), within 2 s of processor time and 1 GB of memory. Everything else is a fault: the script keeps the file
under --keep and ends with 1. Writes results/readers.json and results/readers.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import resource
import shlex
import signal
import sys
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "helpers"))

import numpy as np
import torch
from bundle_support import bundle_arguments, make_golden, make_model, make_spec, sign
from library_support import fat_binary, library_bytes
from mutations import (
    Mutation,
    damage_bytes,
    damage_json,
    damage_lines,
    damage_safetensors,
    damage_tar,
    damage_zip,
)
from PIL import Image
from pydantic import BaseModel
from safetensors.torch import save
from sweep import RESULTS, read_versions

from dskd_compress.checkpoints import read_weights
from dskd_compress.config import TeacherSection
from dskd_compress.dashboard.follow import Follower
from dskd_compress.data.arrays import open_npz_file
from dskd_compress.data.tars import open_tar
from dskd_compress.label_space.class_names import read_class_names
from dskd_compress.recipe import load_recipe, read_recipe_text
from dskd_compress.recipe.files import DEFAULT_RECIPE
from dskd_compress.teachers.cache.rows import RowStore, open_rows
from dskd_compress.teachers.classes import read_class_map
from dskd_compress.teachers.probe import load_probe
from dskd_compress.teachers.stated_input import find_stated_input
from dskd_compress.timm_import import import_timm
from dskd_compress.training.log import TrainingLog
from dskd_compress.weights import WeightsInfo, read_info
from dskd_export.benchmark.store import CellStore, FinishedCell
from dskd_export.bundle import pack_bundle, verify_packed, write_bundle
from dskd_export.bundle.calibration import CalibrationFacts
from dskd_export.bundle.golden import Golden
from dskd_export.bundle.manifest import Manifest
from dskd_export.bundle.onnx_file import read_onnx
from dskd_export.bundle.strict_json import load_document
from dskd_export.documents.base import Accuracy, Document, StageRecord, read_document
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.export import ExportDocument
from dskd_export.documents.runner_name import RunnerName
from dskd_export.documents.training import (
    DiagnosisRecord,
    EpochRecord,
    StepRecord,
    TeacherProbeFacts,
    TrainingDocument,
)
from dskd_export.documents.validation import ValidationDocument
from dskd_export.engine.document import BuildDocument
from dskd_export.errors import DskdError
from dskd_export.report.load import load_run
from dskd_export.runtime.elf import NotElf, read_kernels, read_needed
from dskd_export.runtime.image_scan import LeftOut
from dskd_export.runtime.labelled_images import open_labelled
from dskd_export.spec import ModelSpec

MOST_SECONDS, MOST_BYTES = 2.0, 1_000_000_000
HANGS_AFTER_S = 30


@dataclass(frozen=True)
class Reader:
    """A reader of a kind of file.

    Attributes:
        name: in the table.
        file: name of the file, relative to a folder that holds what `around` made.
        seed: a sound file.
        damage: another file of it.
        read: takes the path of the file.
        around: writes the files that must lie next to it.
    """

    name: str
    file: str
    seed: bytes
    damage: Mutation
    read: Callable[[Path], object]
    around: Callable[[Path], object] = lambda folder: None


@dataclass(frozen=True)
class Outcome:
    """Outcome of reading a file."""

    case: int
    answer: str
    seconds: float
    memory: int
    fault: str


def example_of(kind: Any) -> Any:
    """Make a value of a type with every field, as JSON."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: example_of(field.annotation) for name, field in kind.model_fields.items()}
    if isinstance(kind, type) and issubclass(kind, RunnerName):
        return "onnxruntime:cpu:fp32"
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return inner[0]
    if origin in (Union, UnionType):
        return example_of(inner[0])
    if origin is list:
        return [example_of(inner[0])] * 2
    if origin is tuple:
        return [example_of(one) for one in (inner[:1] * 2 if inner[-1] is Ellipsis else inner)]
    if origin is dict:
        return {name: example_of(inner[1]) for name in ("a", "b")}
    if origin is not None:  # Annotated
        return example_of(inner[0])
    simple: dict[Any, Any] = {str: "a" * 64, int: 3, float: 0.5, bool: True, Any: {"x": [1, "y", None]}}
    return simple[kind]


def readers(folder: Path) -> Iterator[Reader]:
    """List all readers.

    Args:
        folder: for what is needed to make sound files.
    """
    yield from _documents()
    yield from _bundle(folder)
    yield from _training(folder)
    yield from _data()


def _json_of(model: type[BaseModel], **changes: object) -> bytes:
    return model.model_validate(example_of(model) | changes).model_dump_json(indent=2).encode()


def _documents() -> Iterator[Reader]:
    kinds: dict[str, type[Document]] = {
        "distill.json": TrainingDocument,
        "export.json": ExportDocument,
        "validation.json": ValidationDocument,
        "benchmark.json": BenchmarkDocument,
        "stages/distill.json": StageRecord,
        "model.fp32.build.json": BuildDocument,
        "accuracy.json": Accuracy,
    }
    for name, kind in kinds.items():
        yield Reader(name, name, _json_of(kind), damage_json, lambda path, kind=kind: read_document(path, kind))
    spec, calibration = make_spec(class_descriptions=tuple("abcdefg")), bundle_arguments()["calibration"]
    yield Reader("spec.json", "spec.json", spec.to_json().encode(), damage_json, ModelSpec.read)
    yield Reader(
        "calibration.json",
        "calibration.json",
        calibration.model_dump_json().encode(),
        damage_json,
        lambda path: load_document(path.read_bytes(), CalibrationFacts, str(path)),
    )
    samples = io.BytesIO()
    np.savez_compressed(samples, **{"a" * 64: np.linspace(1e-3, 2e-3, 50)})
    row = example_of(FinishedCell)
    cell = _json_of(FinishedCell, depends_on=CellStore(Path(), [])._depends_on, rows=row["rows"][:1])
    yield Reader(
        "benchmark.partial/*.json",
        "benchmark.partial/cell.json",
        cell,
        damage_json,
        lambda path: CellStore(path.parents[1], []).get("cell"),
        lambda folder: (folder / "benchmark.partial/cell.npz").write_bytes(samples.getvalue()),
    )
    yield Reader(
        "benchmark.partial/*.npz",
        "benchmark.partial/cell.npz",
        samples.getvalue(),
        damage_zip,
        lambda path: CellStore(path.parents[1], []).get("cell"),
        lambda folder: (folder / "benchmark.partial/cell.json").write_bytes(cell),
    )
    yield Reader(
        "benchmark.samples.npz",
        "benchmark.samples.npz",
        samples.getvalue(),
        damage_zip,
        lambda path: load_run(path.parent),
        lambda folder: (folder / "distill.json").write_bytes(_json_of(TrainingDocument)),
    )


def _bundle(folder: Path) -> Iterator[Reader]:
    write_bundle(folder / "bundle", **bundle_arguments())
    manifest = (folder / "bundle/manifest.json").read_bytes()

    def signed(data: bytes, rng: random.Random) -> bytes:
        made = damage_json(data, rng)
        with contextlib.suppress(ValueError, AttributeError, RecursionError):
            return sign(json.loads(made)) if rng.random() < 0.8 else made
        return made

    def parse(path: Path) -> object:
        return Manifest.parse(path.read_bytes(), str(path))

    yield Reader("manifest.json", "manifest.json", manifest, signed, parse)
    yield Reader(
        "manifest.json, report",
        "bundle/manifest.json",
        manifest,
        damage_json,
        lambda path: load_run(path.parents[1]),
    )
    golden = make_golden()
    yield Reader(
        "golden.npz",
        "golden.npz",
        golden.to_bytes(),
        damage_zip,
        lambda path: Golden.from_bytes(path.read_bytes(), make_spec(), str(path)),
    )
    yield Reader(
        "model.fp32.onnx",
        "model.fp32.onnx",
        make_model().SerializeToString(deterministic=True),
        damage_bytes,
        lambda path: read_onnx(path.read_bytes(), str(path), weights_name="w", weights_size=None),
    )
    pack_bundle(folder / "bundle", folder / "bundle.tar.gz")
    yield Reader(
        "bundle.tar.gz", "bundle.tar.gz", (folder / "bundle.tar.gz").read_bytes(), damage_bytes, verify_packed
    )
    yield Reader(
        "libx.so",
        "libx.so",
        library_bytes(["libc.so.6"], soname="libx.so.1", runpath="$ORIGIN", content=fat_binary([80], [90])),
        damage_bytes,
        lambda path: (read_kernels(path), read_needed(path)),
    )


def _training(folder: Path) -> Iterator[Reader]:
    records = [_json_of(kind, kind=name) for kind, name in _RECORDS] * 2
    lines = b"".join(json.dumps(json.loads(record)).encode() + b"\n" for record in records)

    def resume(path: Path) -> None:
        TrainingLog(path, 100, 100).close()

    yield Reader("train.jsonl, resumed", "train.jsonl", lines, damage_lines, resume)
    yield Reader("train.jsonl, report", "train.jsonl", lines, damage_lines, lambda path: load_run(path.parent))
    yield Reader("train.jsonl, dashboard", "train.jsonl", lines, damage_lines, lambda path: Follower(path).read())
    tensors = {"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}
    weights = save(tensors, {"dskd_compress": _json_of(WeightsInfo).decode()})
    yield Reader("student.safetensors, info", "student.safetensors", weights, damage_safetensors, read_info)
    yield Reader("student.safetensors, weights", "w.safetensors", weights, damage_safetensors, read_weights)
    hub = json.dumps(
        {
            "architecture": "resnet18",
            "num_classes": 2,
            "label_names": ["a", "b"],
            "pretrained_cfg": import_timm().models.get_pretrained_cfg("resnet18").to_dict(),
        }
    )
    teacher = TeacherSection(name="resnet18")
    yield Reader(
        "config.json of timm",
        "config.json",
        hub.encode(),
        damage_json,
        lambda path: find_stated_input(teacher, path.parent / "no weights", {}),
    )
    probe = save(tensors, {"dskd_compress_probe": _json_of(TeacherProbeFacts).decode()})
    yield Reader("teacher_probe.safetensors", "p.safetensors", probe, damage_safetensors, load_probe)
    open_rows(folder / "cache", 5, (3,), np.float32, {}).write(np.arange(5), np.ones((5, 3), np.float32))
    for name in ("rows.npy", "checksums.npy"):
        yield Reader(
            f"teacher_cache/{name}",
            f"cache/{name}",
            (folder / "cache" / name).read_bytes(),
            damage_bytes,
            lambda path: RowStore(path.parent).read(np.arange(5)),
            lambda to, name=name: [
                (to / "cache" / one).write_bytes((folder / "cache" / one).read_bytes())
                for one in ("rows.npy", "checksums.npy")
                if one != name
            ],
        )


_RECORDS: tuple[tuple[type[Document], str], ...] = (
    (StepRecord, "step"),
    (EpochRecord, "epoch"),
    (DiagnosisRecord, "diagnosis"),
)


def _data() -> Iterator[Reader]:
    recipe = read_recipe_text(DEFAULT_RECIPE).encode()
    yield Reader("recipe.yaml", "recipe.yaml", recipe, damage_bytes, lambda path: load_recipe(str(path)))
    made = load_recipe(DEFAULT_RECIPE).model_dump(mode="json", include={"teacher", "student", "data"})
    yield Reader(
        "recipe.yaml, values",
        "recipe.yaml",
        json.dumps(made).encode(),
        damage_json,
        lambda path: load_recipe(str(path)),
    )
    yield Reader("class_map.yaml", "map.yaml", b"cat: tabby\ndog: 7\n7: 3\n", damage_bytes, read_class_map)
    yield Reader(
        "class_names.txt", "names.txt", b"cat\ndog\n", damage_bytes, lambda path: read_class_names(str(path), 2)
    )
    arrays = io.BytesIO()
    pixels, labels = np.zeros((4, 4, 4, 3), np.uint8), np.array([0, 1, 0, 1])
    np.savez(arrays, x=pixels, y=labels, classes=np.array(["cat", "dog"]), x_val=pixels, y_val=labels)
    yield Reader(
        "images.npz", "images.npz", arrays.getvalue(), damage_zip, lambda path: open_npz_file(path, "train", None)
    )
    plain = io.BytesIO()
    np.savez_compressed(plain, x=pixels, y=labels)
    yield Reader(
        "images.npz, numbers",
        "images.npz",
        plain.getvalue(),
        damage_zip,
        lambda path: open_npz_file(path, "train", None),
    )
    yield Reader("images.tar", "images.tar", _tar(), damage_tar, _read_tar)
    table = b"file,label\na.png,cat\nb.png,dog\na.png,cat\n"

    def with_images(folder: Path) -> None:
        for name in ("a.png", "b.png"):
            (folder / name).write_bytes(_png())

    yield Reader(
        "labels.csv",
        "labels.csv",
        table,
        damage_bytes,
        lambda path: open_labelled(path.parent, ["cat", "dog"]),
        with_images,
    )


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    return buffer.getvalue()


def _tar() -> bytes:
    """Make a tar of plain members, a long name, a link, and extended headers of GNU tar and pax."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("train/a/1.png", "train/b/2.png", f"train/b/{'x' * 120}.png", "val/a/ü.png", "val/b/4.png"):
            member = tarfile.TarInfo(name)
            member.size = len(_png())
            tar.addfile(member, io.BytesIO(_png()))
        link = tarfile.TarInfo("val/b/5.png")
        link.type, link.linkname = tarfile.LNKTYPE, "val/b/4.png"
        tar.addfile(link)
    return buffer.getvalue()


def _read_tar(path: Path) -> None:
    for images in open_tar(path, "train", None, LeftOut()):
        for index in range(len(images or ())):
            with contextlib.suppress(OSError):
                images.image(index)  # type: ignore[union-attr]


def fuzz(reader: Reader, cases: range, seed: int, folder: Path) -> Iterator[Outcome]:
    """Run a reader on damaged files, one at a time."""
    path = folder / reader.file
    path.parent.mkdir(parents=True, exist_ok=True)
    reader.around(folder)
    path.write_bytes(reader.seed)
    reader.read(path)  # a sound file is read, or nothing is shown by damaged ones
    for case in cases:
        path.unlink(missing_ok=True)
        path.write_bytes(reader.damage(reader.seed, random.Random(f"{seed}/{reader.name}/{case}")))
        yield _try(reader, path, case)


def _try(reader: Reader, path: Path, case: int) -> Outcome:
    fault = ""
    before = _reset_peak()
    began = time.process_time()
    signal.setitimer(signal.ITIMER_REAL, HANGS_AFTER_S)
    try:
        reader.read(path)
        answer = "read"
    except (DskdError, NotElf) as error:
        answer = type(error).__name__
        if not str(error).strip() or "pydantic" in str(error):
            fault = f"raises {str(error)[:200]!r}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        answer, fault = "fault", f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds, memory = time.process_time() - began, _peak() - before
    if seconds > MOST_SECONDS:
        fault = fault or f"takes {seconds:.1f} s"
    if memory > MOST_BYTES:
        fault = fault or f"takes {memory / 1e6:.0f} MB"
    return Outcome(case, answer, seconds, memory, fault)


class Hangs(BaseException):
    """A reader that hangs."""


def _hangs(*_: object) -> None:
    raise Hangs(f"nothing within {HANGS_AFTER_S} s")


def watch_for_hangs() -> None:
    """Turn the alarm of a hanging reader into a fault."""
    signal.signal(signal.SIGALRM, _hangs)


def _reset_peak() -> int:
    """Reset the peak memory of this process; returns the current memory in bytes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(f"{name}:"))


def _row(reader: Reader, outcomes: list[Outcome]) -> dict[str, Any]:
    return {
        "reader": reader.name,
        "cases": len(outcomes),
        "outcomes": dict(sorted(Counter(one.answer for one in outcomes).items())),
        "most_seconds": round(max(one.seconds for one in outcomes), 3),
        "most_mb": round(max(one.memory for one in outcomes) / 1e6, 1),
        "faults": sum(bool(one.fault) for one in outcomes),
    }


def _table(document: dict[str, Any]) -> str:
    head = ["# Damaged files for every reader", "", f"```sh\n{document['command']}\n```", ""]
    head += [f"Versions: {', '.join(f'{name} {number}' for name, number in document['versions'].items())}.", ""]
    head += [
        "| reader | files | read | refused | faults | longest, s | most memory, MB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in document["readers"]:
        read = row["outcomes"].get("read", 0)
        refused = row["cases"] - read - row["outcomes"].get("fault", 0)
        cells = (row["reader"], row["cases"], read, refused, row["faults"], row["most_seconds"], row["most_mb"])
        head.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(head) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300, help="for each reader")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", help="only these; their names are in the table")
    parser.add_argument("--keep", type=Path, help="a folder for the files that show a fault")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "Duplicate name")  # zipfile's, while a damaged file is made
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, resource.RLIM_INFINITY))
    watch_for_hangs()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, reader in enumerate(readers(Path(scratch))):
            if options.reader and reader.name not in options.reader:
                continue
            folder = Path(scratch) / f"reader-{number}"
            outcomes = []
            for outcome in fuzz(reader, range(options.first, options.first + options.cases), options.seed, folder):
                outcomes.append(outcome)
                if outcome.fault:
                    print(f"{reader.name}, case {outcome.case}: {outcome.fault}", flush=True)
                    if options.keep:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        name = f"{number}-{outcome.case}-{Path(reader.file).name}"
                        with contextlib.suppress(OSError):
                            (options.keep / name).write_bytes((folder / reader.file).read_bytes())
            rows.append(_row(reader, outcomes))
            print(json.dumps(rows[-1]), flush=True)
    if not options.reader:
        command = shlex.join(["python", "benchmarks/sweep/fuzz_readers.py", "--cases", str(options.cases)])
        document = {"command": command, "seed": options.seed, "versions": read_versions(), "readers": rows}
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "readers.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (options.out / "readers.md").write_text(_table(document), encoding="utf-8")
    return int(any(row["faults"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
