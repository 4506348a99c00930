"""Choose the model to deploy: the winner of the validation and the benchmark, never one that did not pass."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from dskd_export.benchmark.winner import decide
from dskd_export.bundle import Bundle
from dskd_export.bundle.manifest import MANIFEST
from dskd_export.bundle.results import results_folder
from dskd_export.documents.base import read_document
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.validation import ValidationDocument
from dskd_export.engine.document import document_beside
from dskd_export.engine.identity import read_engine
from dskd_export.errors import UsageError
from dskd_export.telemetry.host import device_name


@dataclass(frozen=True)
class Choice:
    """The precision to deploy.

    Attributes:
        why: a sentence for people.
        doubt: what was not judged of it; empty: nothing.
    """

    precision: str
    why: str
    doubt: str = ""


def choose_precision(source: Path, bundle: Bundle, engine: Path | None = None) -> Choice:
    """Choose the precision to deploy where none is named.

    Args:
        source: run folder, or the bundle, whose results lie in `results/<bundle>/` of the working directory.
        bundle: of `source`.
        engine: to serve; its build document names its precision.

    Raises:
        DataError: a document is damaged.
        UsageError: nothing passes, or nothing is known of several models; the hint names one to take all the same.
    """
    if engine is not None and engine.is_file() and document_beside(engine) is not None:
        precision = read_engine(engine)[0].precision
        return Choice(precision, f"The engine {engine} is of {precision}.")
    validation, benchmark = _find_results(source, bundle)
    if validation is None:
        return _choose_unvalidated(source, bundle)
    decision = decide(validation, benchmark)
    if decision.model is not None and decision.verdict in ("PASS", "NOT JUDGED"):
        precision = decision.model.name.precision
        if decision.verdict == "PASS":
            return Choice(precision, decision.sentence)
        return Choice(precision, f"{decision.model.name} is the best that is known.", decision.sentence)
    name = _first(bundle) if decision.model is None else decision.model.name.precision
    raise UsageError(decision.sentence, f"To deploy one all the same, name it: --precision {name}")


def _first(bundle: Bundle) -> str:
    return "fp32" if "fp32" in bundle.manifest.models else next(iter(bundle.manifest.models))


def _choose_unvalidated(source: Path, bundle: Bundle) -> Choice:
    models = list(bundle.manifest.models)
    if len(models) == 1:
        doubt = f"{source} was not validated: nothing is known to be good enough to ship."
        return Choice(models[0], f"{models[0]} is the only model of the bundle.", doubt)
    command = f"dskd-compress validate {shlex.quote(str(source))}"
    if (source / MANIFEST).is_file():
        command = f"dskd-compress validate {shlex.quote(str(source))} --images FOLDER"
    raise UsageError(
        f"{source} holds {', '.join(models)}, and was not validated: nothing chooses among them.",
        f"Validate it first: {command}. Or name one: --precision {_first(bundle)}",
    )


def _find_results(source: Path, bundle: Bundle) -> tuple[ValidationDocument | None, BenchmarkDocument | None]:
    """Find the results on this bundle: those of the run, else of this device, else of the only other one."""
    own = results_folder(source, device_name())
    folders = [source] if source != bundle.folder else [own, *_others(own)]
    for folder in folders:
        path = folder / "validation.json"
        validation = read_document(path, ValidationDocument) if path.is_file() else None
        if validation is not None and validation.bundle_sha256 == bundle.sha256:
            timed = folder / "benchmark.json"
            return validation, read_document(timed, BenchmarkDocument) if timed.is_file() else None
    return None, None


def _others(own: Path) -> list[Path]:
    found = [path.parent for path in own.parent.glob("*/validation.json")]
    devices = [folder for folder in found if folder != own]
    return devices if len(devices) == 1 else []
