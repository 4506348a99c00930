"""What must hold in a run folder whatever was started in it, ended in it or killed in it."""

from __future__ import annotations

import datetime
import json
import re
import shutil
from pathlib import Path

from run_support import records

from dskd_compress.run_folder import RunFolder
from dskd_export.documents.base import StageRecord, read_document
from dskd_export.documents.training import TrainingDocument
from dskd_export.files.atomic import sha256_file
from dskd_export.files.folder_lock import LOCK

IN_USE = re.compile(r"error: .* is in use: process \d+ \(.+\) has been writing to it since \d{4}-\d\d-\d\dT")


def files_of(folder: RunFolder) -> set[str]:
    """Every file and folder, relative to the run folder."""
    return {path.relative_to(folder.path).as_posix() for path in folder.path.rglob("*")}


def leftovers(folder: RunFolder) -> list[str]:
    """Temporary files, and the lock."""
    return sorted(name for name in files_of(folder) if ".tmp" in name or Path(name).name == LOCK)


def false_statements(folder: RunFolder) -> list[str]:
    """What the records of a run folder say that is not so; empty where all of it is true.

    An input may have another hash than its file has now only where a later stage wrote the file: the record is
    then old, and shows as old.
    """
    found = [
        StageRecord.model_validate_json(path.read_bytes()) for path in sorted((folder / "stages").glob("*.json"))
    ]
    hashes = {name: sha256_file(folder / name) for name in files_of(folder) if (folder / name).is_file()}
    wrong = []
    for record in found:
        for name, sha256 in record.outputs.items():
            if hashes.get(name) != sha256:
                wrong.append(f"{record.stage} did not write this {name}")
        for name, sha256 in record.inputs.items():
            later = [other for other in found if name in other.outputs and _end(other) >= _end(record)]
            if name in hashes and hashes[name] != sha256 and not later:
                wrong.append(f"{record.stage} did not read this {name}")
    for document, role in (("teacher.json", "teacher"), ("distill.json", "student")):
        if (folder / document).is_file():
            wrong += _log_of_another(folder, document, role)
    return wrong


def _end(record: StageRecord) -> float:
    began = datetime.datetime.fromisoformat(record.provenance.started_at)
    return began.timestamp() + record.provenance.seconds


def _log_of_another(folder: RunFolder, document: str, role: str) -> list[str]:
    trained = read_document(folder / document, TrainingDocument)
    lines = records(folder.log(role))
    steps = [line["step"] for line in lines if line["kind"] == "step"]
    last = [line["top1"] for line in lines if line["kind"] == "epoch"][-1:]
    if steps != list(range(1, trained.steps + 1)) or last != [trained.last.top1.value]:
        return [f"{folder.log(role).name} is not of the training of {document}"]
    return []


def output_of(said: Path) -> str:
    """What a command said, for a message."""
    return said.read_text(encoding="utf-8", errors="replace")


def without_stages(folder: RunFolder, stages: tuple[str, ...]) -> None:
    """Remove the records, outputs and checkpoints of stages: as if the run had not come to them."""
    for name in stages:
        path = folder / f"stages/{name}.json"
        for output in json.loads(path.read_bytes())["outputs"]:
            (folder / output).unlink(missing_ok=True)
        path.unlink()
    for stage, role in (("train", "teacher"), ("distill", "student")):
        if stage in stages:
            shutil.rmtree(folder.checkpoints(role), ignore_errors=True)
    if "export" in stages:
        shutil.rmtree(folder.bundle, ignore_errors=True)
