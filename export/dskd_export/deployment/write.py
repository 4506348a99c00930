"""Write the folder of a deployment atomically, with a README of commands for exactly what was generated."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from dskd_export.bundle.manifest import model_name
from dskd_export.bundle.strict_json import canonical_json
from dskd_export.deployment.cpp import cpp_files, tolerance_of
from dskd_export.deployment.docker import BASES, RUN_FLAGS, default_command, docker_files
from dskd_export.deployment.plan import Plan
from dskd_export.deployment.render import Content, Copied, render_template, write_content
from dskd_export.deployment.triton import CACHE, preferred_batches, triton_files
from dskd_export.documents.base import Document
from dskd_export.errors import UsageError
from dskd_export.files.atomic import atomic_folder, sha256_bytes

# The monthly images of Triton and of TensorRT with one tag have one TensorRT inside, so one can build engines for
# the other: https://docs.nvidia.com/deeplearning/frameworks/support-matrix
MONTH = "26.05"


def readme_file(plan: Plan, targets: Sequence[str]) -> bytes:
    """Render README.md of a deployment with these targets."""
    by_largest, tolerance = tolerance_of(plan.precision)
    return render_template(
        "README.md.j2",
        plan=plan,
        spec=plan.spec,
        targets=targets,
        model=_place_of_the_model(plan, targets),
        month=MONTH,
        cache=CACHE,
        preferred=preferred_batches(plan.max_batch),
        image=re.sub("[_-]+", "-", plan.model_name.lower()),
        bases=BASES,
        run_flags=RUN_FLAGS,
        command=shlex.join(["dskd-compress", *default_command(plan)]),
        by_largest=by_largest,
        tolerance=f"{tolerance:g}",
        shape=plan.shape,
    )


def _place_of_the_model(plan: Plan, targets: Sequence[str]) -> str:
    """Path of the ONNX model, relative to the deployment's folder."""
    if "triton" in targets and plan.engine is None:
        return f"triton/{plan.model_name}/1/model.onnx"
    name = model_name(plan.precision)
    return f"docker/bundle/{name}" if "docker" in targets else f"BUNDLE/{name}"


DOCUMENT = "deployment.json"

_FILES_OF = {"triton": triton_files, "cpp": cpp_files, "docker": docker_files}

TARGETS = tuple(_FILES_OF)
"""Each has a folder of its name."""


class DeploymentDocument(Document):
    """`deployment.json`: what a deployment was generated from, and what is in it."""

    schema_version: Literal[1] = 1
    bundle_sha256: str = Field(description="of the bundle's manifest.json")
    precision: str
    name: str = Field(description="of the model")
    targets: tuple[str, ...]
    files: dict[str, str] = Field(description="path -> sha256, of every file but this one")


def write_deployment(
    folder: Path, plan: Plan, targets: Sequence[str] = TARGETS, *, force: bool = False
) -> DeploymentDocument:
    """Write what the targets need into a folder, with a README.

    The same plan and targets give the same bytes; nothing reveals where they were made.

    Args:
        folder: a new or an empty one; with `force` also an older deployment, which is replaced as a whole.
        plan: what is deployed.
        targets: of `TARGETS`.
        force: whether an older deployment may be replaced. Anything else in the folder is never touched.

    Raises:
        UsageError: a target is unknown; the folder is not empty, or inside the bundle.
        BundleError: the bundle was altered since it was opened.
        EnvironmentProblem: the disk is full, or the place cannot be written to.
    """
    targets = [target for target in TARGETS if target in _check_targets(targets)]
    folder = folder.resolve()
    _check_place(folder, plan, force)
    files: dict[str, Content] = {
        f"{target}/{name}": content for target in targets for name, content in _FILES_OF[target](plan).items()
    }
    files["README.md"] = readme_file(plan, targets)
    document = DeploymentDocument(
        bundle_sha256=plan.bundle.sha256,
        precision=plan.precision,
        name=plan.model_name,
        targets=tuple(targets),
        files={
            name: content.sha256 if isinstance(content, Copied) else sha256_bytes(content)
            for name, content in sorted(files.items())
        },
    )
    with atomic_folder(folder) as temporary:
        for name, content in files.items():
            write_content(temporary / name, content)
        (temporary / DOCUMENT).write_text(canonical_json(document.model_dump(mode="json")), encoding="utf-8")
    return document


def _check_targets(targets: Sequence[str]) -> set[str]:
    for target in targets:
        if target not in TARGETS:
            raise UsageError(f"Unknown target '{target}'.", f"Choose from: {', '.join(TARGETS)}.")
    if not targets:
        raise UsageError("No target is given.", f"Choose from: {', '.join(TARGETS)}.")
    return set(targets)


def _check_place(folder: Path, plan: Plan, force: bool) -> None:
    bundle = plan.bundle.folder.resolve()
    if bundle in (folder, *folder.parents):
        raise UsageError(f"{folder} is inside the bundle.", "Choose a folder outside the bundle: --out FOLDER")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / DOCUMENT).is_file():
        raise UsageError(
            f"{folder} holds files that belong to no deployment.",
            "Choose an empty or a new folder with --out.",
        )
    if not force:
        raise UsageError(f"{folder} already holds a deployment.", "Replace it: --force")
