"""Refit a stripped engine with the weights of a bundle, without another search for kernels."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dskd_export.bundle import Bundle
from dskd_export.engine.api import BuildOptions
from dskd_export.engine.builder import Run, write_engine, write_model_file
from dskd_export.engine.document import BuildDocument, engine_path
from dskd_export.engine.identity import read_engine
from dskd_export.engine.process import BuildRequest, run_in_child_process
from dskd_export.errors import UsageError
from dskd_export.files.atomic import sha256_bytes


def refit_engine(
    stripped: Path, bundle: Bundle, precision: str, *, run: Run = run_in_child_process
) -> tuple[Path, BuildDocument]:
    """Put the weights of a bundle into a stripped engine, without another search for kernels.

    Args:
        stripped: `model.<precision>.stripped.engine`.
        bundle: with the same architecture; with the same weights where the engine was built for these.
        precision: of the bundle.
        run: runs the request; by default in a child process.

    Returns:
        The path of the whole engine, next to the stripped one, and its document.

    Raises:
        DataError: the engine or its document is missing or damaged.
        EnvironmentProblem: TensorRT does not load it here.
        ModelError: the weights do not fit it.
        UsageError: the engine does not accept these weights.
    """
    before, _ = read_engine(stripped)
    if before.refit == "none" or before.precision != precision:
        raise UsageError(
            f"{stripped} is an engine of {before.precision} that accepts no {precision} weights.",
            f"Build one: dskd-compress build {bundle.folder} --precision {precision} --stripWeights new-weights",
        )
    model = bundle.model(precision)
    sha256 = bundle.manifest.files[bundle.model_path(precision).name].sha256
    if before.refit == "identical" and sha256 != before.model_sha256:
        raise UsageError(
            f"{stripped} accepts only the weights that it was built with; {bundle.folder} has others.",
            f"Build one: dskd-compress build {bundle.folder} --precision {precision} --stripWeights new-weights",
        )
    path = engine_path(stripped.parent, precision)
    with tempfile.TemporaryDirectory(prefix="dskd-build-") as name:
        request = BuildRequest(
            task="refit",
            backend=before.backend,
            model=write_model_file(model, precision, Path(name)),
            plan=Path(name) / "plan",
            precision=precision,
            options=BuildOptions(version_compatible=before.version_compatible),
            first_rung_bytes=0,
            cache_folder=stripped.parent,
            stripped=stripped,
        )
        done = run(request)
        plan = request.plan.read_bytes()
    document = before.model_copy(
        update={
            "stripped": False,
            "refitted_from": before.engine_sha256,
            "build_seconds": done.seconds,
            "peak_memory_mb": done.peak_memory_mb,
            "engine_bytes": len(plan),
            "engine_sha256": sha256_bytes(plan),
            "bundle_sha256": bundle.sha256,
            "model_sha256": sha256,
            "truth": None,
            "no_truth": "it was refitted and has not been inspected since",
        }
    )
    write_engine(path, plan, document)
    return path, document
