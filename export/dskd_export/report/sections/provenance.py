"""Where every number comes from, what is stale, and the commands that make it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dskd_export.documents.base import DataFacts, DeviceFacts, Provenance
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import (
    Block,
    Cell,
    Commands,
    Heading,
    Note,
    Section,
    Table,
    code,
    missing,
    not_there,
)
from dskd_export.report.load import Run
from dskd_export.report.staleness import FileCheck, FileHashes, StageCheck

_STATE = {
    "same": Cell("unchanged"),
    "changed": Cell("CHANGED", "stale"),
    "gone": Cell("GONE", "stale"),
    "outside": Cell("not in the run folder, not checked"),
}


def provenance(run: Run, stages: Sequence[StageCheck], hashes: FileHashes) -> Section:
    """Seeds, data, devices, versions, and the hash of every file."""
    blocks: list[Block] = [Heading("provenance-runs", "How the numbers were obtained")]
    sources = _sources(run)
    if sources:
        blocks.append(_how(sources))
        blocks.append(_versions(sources))
    blocks += _data(run)
    blocks.append(Heading("provenance-stages", "Stages"))
    if not stages:
        blocks.append(Note("stages/ holds no records, so nothing can be checked for staleness.", "missing"))
    else:
        blocks += [Note(text, "warning") for text in stale_warnings(stages)]
        blocks.append(_stage_table(stages))
        blocks.append(_files_table(stages))
    blocks.append(Heading("provenance-bundle", "Bundle"))
    if run.manifest is None:
        blocks.append(not_there("bundle/manifest.json", "export", "The deliverable"))
    else:
        blocks.append(_bundle_table(run.manifest, hashes))
    return Section("provenance", "Provenance", blocks)


def reproduce(run: Run, stages: Sequence[StageCheck]) -> Section:
    """The commands that were really run, in their order, each once."""
    records = [check.record.provenance for check in stages]
    records += [source for _, source in _sources(run)]
    commands = list(dict.fromkeys(record.command for record in records if record.command))
    if not commands:
        return Section("reproduce", "Reproduce", [Note("No command was recorded in this run folder.", "missing")])
    codes = ", ".join(sorted({record.code for record in records}))
    return Section("reproduce", "Reproduce", [Note(f"Run with {codes}."), Commands(commands)])


def stale_warnings(stages: Sequence[StageCheck]) -> list[str]:
    """One sentence for each stage whose result does not belong to the files that are there."""
    texts = [
        f"STALE: {check.record.stage}: {'; '.join(check.stale_because)}. "
        f"Run again: dskd-compress {check.record.stage}"
        for check in stages
        if check.stale
    ]
    texts += [f"ALTERED: {check.record.stage}: {'; '.join(check.altered)}." for check in stages if check.altered]
    return texts


def _sources(run: Run) -> list[tuple[str, Provenance]]:
    documents = (
        ("teacher", run.teacher),
        ("distill", run.student),
        ("validate", run.validation),
        ("benchmark", run.benchmark),
    )
    return [(name, document.provenance) for name, document in documents if document is not None]


def _how(sources: Sequence[tuple[str, Provenance]]) -> Table:
    def row(label: str, cells: Iterable[Cell]) -> list[Cell]:
        return [Cell(label), *cells]

    runs = [source for _, source in sources]
    devices = [run.device for run in runs]
    rows = [
        row("started (UTC)", (Cell(run.started_at) for run in runs)),
        row("time", (Cell(fmt.duration(run.seconds)) for run in runs)),
        row("seed", (Cell(str(run.seed)) for run in runs)),
        row("code", (Cell(run.code) for run in runs)),
        row("recipe sha256", (code(run.recipe_sha256) for run in runs)),
        row("device", (Cell(device.device) for device in devices)),
        row("CPU", (Cell(f"{device.cpu}, {device.cores} cores usable") for device in devices)),
        row("memory", (Cell(f"{fmt.significant(device.memory_gb)}{fmt.NBSP}GB") for device in devices)),
    ]
    if any(device.gpu for device in devices):
        rows.append(row("GPU", (_gpu(device) for device in devices)))
    rows.append(row("platform", (Cell(device.platform) for device in devices)))
    return Table("how-table", "Runs", ("fact", *(name for name, _ in sources)), rows)


def _gpu(device: DeviceFacts) -> Cell:
    return Cell(f"{device.gpu}, driver {device.driver or 'not told'}") if device.gpu else missing("none")


def _versions(sources: Sequence[tuple[str, Provenance]]) -> Table:
    packages = sorted({name for _, source in sources for name in source.versions})
    rows = [
        [Cell(package), *(Cell(source.versions.get(package, "–")) for _, source in sources)]
        for package in packages
    ]
    return Table("versions-table", "Versions", ("package", *(name for name, _ in sources)), rows, folded=True)


def _data(run: Run) -> list[Block]:
    documents = (("teacher", run.teacher), ("distill", run.student), ("validate", run.validation))
    facts = [(name, document.data) for name, document in documents if document is not None]
    if not facts:
        return []
    users: list[tuple[DataFacts, list[str]]] = []
    for name, data in facts:
        same = next((names for known, names in users if known == data), None)
        if same is None:
            users.append((data, [name]))
        else:
            same.append(name)
    rows = [
        [
            Cell(", ".join(names)),
            Cell(data.source),
            code(data.sha256),
            Cell("every pixel" if data.sha256_of == "content" else "file names and sizes"),
            _images(data.train_images),
            _images(data.val_images),
            Cell(f"{len(data.classes)}: {', '.join(data.classes)}"),
            Cell(_skipped(data)),
            Cell("; ".join(data.left_out) or "none"),
        ]
        for data, names in users
    ]
    columns = (
        "used by",
        "source",
        "sha256",
        "hash of",
        "training",
        "validation",
        "classes",
        "skipped as unreadable",
        "left out",
    )
    blocks: list[Block] = []
    if len({data.sha256 for _, data in facts}) > 1:
        blocks.append(Note("The results do not come from the same data: the data hashes differ.", "warning"))
    blocks.append(Table("data-table", "Images", columns, rows))
    return blocks


def _images(count: int | None) -> Cell:
    return Cell(fmt.count(count), "number") if count is not None else missing("not used")


def _skipped(data: DataFacts) -> str:
    return f"{len(data.skipped)}: {', '.join(data.skipped)}" if data.skipped else "none"


def _stage_table(stages: Sequence[StageCheck]) -> Table:
    rows = []
    for check in stages:
        record = check.record
        state = (
            Cell("STALE", "stale")
            if check.stale
            else Cell("ALTERED", "stale")
            if check.altered
            else Cell("up to date")
        )
        settings = ", ".join(f"{name} {sha[:12]}" for name, sha in record.settings_sha256.items())
        rows.append(
            [
                Cell(record.stage),
                state,
                Cell("; ".join((*check.stale_because, *check.altered)) or "–"),
                Cell(record.provenance.started_at),
                Cell(fmt.duration(record.provenance.seconds), "number"),
                code(settings) if settings else Cell("–"),
            ]
        )
    columns = ("stage", "state", "because", "started (UTC)", "time", "settings (sha256, first 12)")
    return Table("stage-table", "Stages and their state", columns, rows)


def _files_table(stages: Sequence[StageCheck]) -> Table:
    def row(check: StageCheck, way: str, item: FileCheck) -> list[Cell]:
        return [Cell(check.record.stage), Cell(way), code(item.name), code(item.recorded), _STATE[item.state]]

    rows = [
        row(check, way, item)
        for check in stages
        for way, items in (("read", check.inputs), ("wrote", check.outputs))
        for item in items
    ]
    return Table("files-table", "Files of the stages", ("stage", "", "file", "sha256", "now"), rows, folded=True)


def _bundle_table(manifest: Mapping[str, Any], hashes: FileHashes) -> Table:
    """The files that the manifest names, held against what lies in the bundle."""
    files = manifest.get("files")
    entries = files if isinstance(files, Mapping) else {}
    rows = []
    for name, entry in entries.items():
        facts = entry if isinstance(entry, Mapping) else {"sha256": entry}
        recorded, size = str(facts.get("sha256", "")), facts.get("size")
        now = hashes.sha256(f"bundle/{name}")
        state = "gone" if now is None else "same" if now == recorded else "changed"
        rows.append(
            [
                code(str(name)),
                Cell(fmt.file_size(size), "number") if isinstance(size, int) else missing("not recorded"),
                code(recorded) if recorded else missing("not recorded"),
                _STATE[state],
            ]
        )
    return Table("bundle-table", "Files of the bundle", ("file", "size", "sha256", "now"), rows)
