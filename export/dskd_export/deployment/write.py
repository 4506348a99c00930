"""Write the folder of a deployment atomically."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from dskd_export.bundle.strict_json import canonical_json
from dskd_export.deployment.cpp import cpp_files
from dskd_export.deployment.docker import docker_files
from dskd_export.deployment.files import Content, Copied, write_content
from dskd_export.deployment.plan import Plan
from dskd_export.deployment.readme import readme_file
from dskd_export.deployment.triton import triton_files
from dskd_export.documents.base import Document
from dskd_export.errors import UsageError
from dskd_export.files.atomic import atomic_folder, sha256_bytes

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
