"""Where every number comes from, what is stale, and the commands that make it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dskd_export.documents.base import DataFacts, Provenance
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Block, Commands, Heading, Note, Section, missing_file
from dskd_export.report.load import Run
from dskd_export.report.staleness import FileHashes, StageCheck
from dskd_export.report.tables import Cell, Table, code, make_table, missing, number

_STATE = {
    "same": Cell("unchanged"),
    "changed": Cell("CHANGED", "stale"),
    "gone": Cell("GONE", "stale"),
    "outside": Cell("not in the run folder, not checked"),
}


def section_from_run(run: Run, stages: Sequence[StageCheck], hashes: FileHashes) -> Section:
    """List seeds, data, devices, versions, and the hash of every file."""
    blocks: list[Block] = [Heading("provenance-runs", "How the numbers were obtained")]
    sources = _sources(run)
    if sources:
        blocks += [_run_table(sources), _version_table(sources)]
    blocks += _data(run)
    blocks.append(Heading("provenance-stages", "Stages"))
    if not stages:
        blocks.append(Note("stages/ holds no records, so nothing can be checked for staleness.", "missing"))
    else:
        for check in stages:
            name = check.record.stage
            if check.stale:
                why = "; ".join(check.stale_because)
                blocks.append(Note(f"STALE: {name}: {why}. Run: dskd-compress {name}", "warning"))
            if check.altered:
                blocks.append(Note(f"ALTERED: {name}: {'; '.join(check.altered)}.", "warning"))
        blocks += [_stage_table(stages), *_file_table(stages)]
    blocks.append(Heading("provenance-bundle", "Bundle"))
    if run.manifest is None:
        blocks.append(missing_file("bundle/manifest.json", "export", "The bundle"))
    else:
        blocks += _bundle_table(run.manifest, hashes)
    return Section("provenance", "Provenance", blocks)


def commands_from_run(run: Run, stages: Sequence[StageCheck]) -> Section:
    """List the commands that were run, in their order, each once."""
    records = [check.record.provenance for check in stages]
    records += [source for _, source in _sources(run)]
    commands = list(dict.fromkeys(record.command for record in records if record.command))
    if not commands:
        return Section("reproduce", "Reproduce", [Note("No command was recorded in this run folder.", "missing")])
    codes = ", ".join(sorted({record.code for record in records}))
    return Section("reproduce", "Reproduce", [Note(f"Run with {codes}."), Commands(commands)])


def _sources(run: Run) -> list[tuple[str, Provenance]]:
    documents = {
        "teacher": run.teacher,
        "distill": run.student,
        "validate": run.validation,
        "benchmark": run.benchmark,
    }
    return [(name, document.provenance) for name, document in documents.items() if document is not None]


def _run_table(sources: Sequence[tuple[str, Provenance]]) -> Table:
    facts: dict[str, Callable[[Provenance], Cell]] = {
        "started (UTC)": lambda run: Cell(run.started_at),
        "time": lambda run: Cell(fmt.duration(run.seconds)),
        "seed": lambda run: Cell(str(run.seed)),
        "code": lambda run: Cell(run.code),
        "recipe sha256": lambda run: code(run.recipe_sha256),
        "device": lambda run: Cell(run.device.device),
        "CPU": lambda run: Cell(f"{run.device.cpu}, {run.device.cores} cores usable"),
        "memory": lambda run: Cell(f"{fmt.significant(run.device.memory_gb)}{fmt.NBSP}GB"),
        "GPU": lambda run: (
            Cell(f"{run.device.gpu}, driver {run.device.driver or 'unknown'}")
            if run.device.gpu
            else missing("none")
        ),
        "platform": lambda run: Cell(run.device.platform),
    }
    if not any(run.device.gpu for _, run in sources):
        del facts["GPU"]
    rows = [{"fact": Cell(fact), **{name: cell(run) for name, run in sources}} for fact, cell in facts.items()]
    return make_table("how-table", "Runs", rows)


def _version_table(sources: Sequence[tuple[str, Provenance]]) -> Table:
    packages = sorted({name for _, source in sources for name in source.versions})
    rows = [
        {"package": Cell(package), **{name: Cell(source.versions.get(package, "–")) for name, source in sources}}
        for package in packages
    ]
    return make_table("versions-table", "Versions", rows, folded=True)


def _data(run: Run) -> list[Block]:
    documents = (("teacher", run.teacher), ("distill", run.student), ("validate", run.validation))
    facts = [(name, document.data) for name, document in documents if document is not None]
    users: list[tuple[DataFacts, list[str]]] = []
    for name, data in facts:
        same = next((names for known, names in users if known == data), None)
        if same is None:
            users.append((data, [name]))
        else:
            same.append(name)
    rows = [
        {
            "used by": Cell(", ".join(names)),
            "source": Cell(data.source),
            "sha256": code(data.sha256),
            "hash of": Cell("every pixel" if data.sha256_of == "content" else "file names and sizes"),
            "training": _images(data.train_images),
            "validation": _images(data.val_images),
            "classes": Cell(f"{len(data.classes)}: {', '.join(data.classes)}"),
            "unreadable": Cell(f"{len(data.skipped)}: {', '.join(data.skipped)}" if data.skipped else "none"),
            "left out": Cell("; ".join(data.left_out) or "none"),
        }
        for data, names in users
    ]
    blocks: list[Block] = []
    if len({data.sha256 for _, data in facts}) > 1:
        blocks.append(Note("The results do not come from the same data: the data hashes differ.", "warning"))
    return [*blocks, make_table("data-table", "Images", rows)] if rows else []


def _images(count: int | None) -> Cell:
    return missing("not used") if count is None else number(fmt.count(count))


def _stage_table(stages: Sequence[StageCheck]) -> Table:
    rows = []
    for check in stages:
        record, reason = check.record, "; ".join((*check.stale_because, *check.altered))
        state = Cell("STALE" if check.stale else "ALTERED", "stale", reason) if reason else Cell("up to date")
        settings = ", ".join(f"{name} {sha[:12]}" for name, sha in record.settings_sha256.items())
        rows.append(
            {
                "stage": Cell(record.stage),
                "state": state,
                "started (UTC)": Cell(record.provenance.started_at),
                "time": number(fmt.duration(record.provenance.seconds)),
                "settings (sha256, first 12)": code(settings) if settings else Cell("–"),
            }
        )
    return make_table("stage-table", "Stages and their state", rows)


def _file_table(stages: Sequence[StageCheck]) -> list[Block]:
    rows = [
        {
            "stage": Cell(check.record.stage),
            "access": Cell(way),
            "file": code(item.name),
            "sha256": code(item.recorded),
            "now": _STATE[item.state],
        }
        for check in stages
        for way, items in (("read", check.inputs), ("wrote", check.outputs))
        for item in items
    ]
    return [make_table("files-table", "Files of the stages", rows, folded=True)] if rows else []


def _bundle_table(manifest: Mapping[str, Any], hashes: FileHashes) -> list[Block]:
    """Compare the files in the bundle with those that the manifest names."""
    files = manifest.get("files")
    rows = []
    for name, entry in (files if isinstance(files, Mapping) else {}).items():
        facts = entry if isinstance(entry, Mapping) else {"sha256": entry}
        recorded, size = str(facts.get("sha256", "")), facts.get("size")
        now = hashes.sha256(f"bundle/{name}")
        state = "gone" if now is None else "same" if now == recorded else "changed"
        rows.append(
            {
                "file": code(str(name)),
                "size": number(fmt.file_size(size)) if isinstance(size, int) else missing("not recorded"),
                "sha256": code(recorded) if recorded else missing("not recorded"),
                "now": _STATE[state],
            }
        )
    return [make_table("bundle-table", "Files of the bundle", rows)] if rows else []
