"""`dskd-compress deploy`: what a bundle needs around it to be served."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, ClassVar, Optional

import typer

from dskd_compress.commands import options
from dskd_compress.commands.renamed_options import RenamedOptions


class DeployCommand(RenamedOptions):
    """`deploy`, with the names that its options had before."""

    renamed: ClassVar = {"--target": "--artifact", "--device": "--platform"}


class Artifact(str, Enum):
    """What is written."""

    triton = "triton"
    cpp = "cpp"
    docker = "docker"
    all = "all"


class Platform(str, Enum):
    """What Dockerfiles are written for."""

    jetson = "jetson"
    server = "server"


class Provider(str, Enum):
    """ONNX Runtime's execution provider in Triton."""

    cuda = "cuda"
    tensorrt = "tensorrt"
    cpu = "cpu"


MaxBatch = Annotated[int, typer.Option("--max-batch", min=1, max=1024, help="Largest batch of a request.")]
ModelName = Annotated[
    Optional[str], typer.Option("--model-name", help="Name in Triton. Default: architecture and precision.")
]
EngineFile = Annotated[
    Optional[Path],
    typer.Option("--engine", metavar="FILE", help="TensorRT engine to serve in place of the ONNX model."),
]


def deploy(
    source: Annotated[Path, typer.Argument(metavar="BUNDLE_OR_RUN", help="Bundle, or run folder that holds one.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write: a new or an empty one.")],
    artifact: Annotated[
        Artifact,
        typer.Option("--artifact", help="Triton model repository, C++ program for TensorRT, Dockerfiles, or all."),
    ] = Artifact.all,
    precision: Annotated[
        Optional[str],
        typer.Option("--precision", help="The bundle's model of this precision. Default: the one to ship."),
    ] = None,
    platform: Annotated[
        Optional[Platform], typer.Option("--platform", help="Dockerfile for this platform alone. Default: both.")
    ] = None,
    provider: Annotated[
        Provider, typer.Option("--provider", help="What ONNX Runtime uses in Triton.")
    ] = Provider.cuda,
    engine: EngineFile = None,
    max_batch: MaxBatch = 8,
    model_name: ModelName = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older deployment in the folder.")] = False,
    json_output: options.JsonFlag = False,
) -> None:
    """Write the files that serve a bundle: Triton model repository, C++ program, Dockerfiles, README.

    The model is the one that validate and benchmark decided to ship; where none passes, name one with --precision.
    All names, shapes, types and limits come from the bundle. Needs neither torch nor onnx.

    [bold]Examples[/bold]

      dskd-compress deploy runs/r18 --out deploy
      dskd-compress deploy bundle --artifact triton --precision fp16 --provider tensorrt --out triton
      dskd-compress deploy bundle --artifact triton --precision int8 --engine model.engine --out triton
      dskd-compress deploy bundle --artifact docker --platform jetson --out jetson
    """
    from dskd_compress.console import Output
    from dskd_export.bundle import open_bundle
    from dskd_export.deployment import DEVICES, TARGETS, choose_precision, make_plan, write_deployment

    output = Output(json_output)
    bundle = open_bundle(_folder_of(source))
    choice = None if precision is not None else choose_precision(source, bundle, engine)
    plan = make_plan(
        bundle,
        precision=choice.precision if choice is not None else str(precision),
        model_name=model_name,
        max_batch=max_batch,
        devices=DEVICES if platform is None else (platform.value,),
        provider=provider.value,
        engine=engine,
    )
    targets = TARGETS if artifact is Artifact.all else (artifact.value,)
    document = write_deployment(out, plan, targets, force=force)
    if choice is not None:
        output.plain(f"Precision: {choice.precision}. {choice.why}")
        if choice.doubt:
            output.warn(choice.doubt)
    output.plain(f"Deployment: {out}, {plan.model_name}, {len(document.files)} files")
    output.plain(f"Next: read {out / 'README.md'}")
    output.result({"path": str(out), **document.model_dump(mode="json")})


def _folder_of(source: Path) -> Path:
    """Find the folder of the bundle; a packed one is refused."""
    import shlex

    from dskd_export.bundle import bundle_of
    from dskd_export.errors import UsageError

    if source.is_file():
        raise UsageError(
            f"{source} is a file, and a bundle is a folder.",
            f"Unpack it first: dskd-compress bundle unpack {shlex.quote(str(source))}",
        )
    return bundle_of(source)
