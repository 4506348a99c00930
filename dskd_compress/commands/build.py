"""`dskd-compress build`: TensorRT engines. This version checks what is there and says how to build one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dskd_compress.commands import options


def build(
    source: Annotated[Path, typer.Argument(metavar="BUNDLE_OR_RUN", help="Bundle, or run folder that holds one.")],
    json_output: options.JsonFlag = False,
) -> None:
    """Build TensorRT engines from a bundle, on the machine that they will run on.

    This version does not build engines itself. Where TensorRT is installed, it
    names the trtexec command that does, and ends with exit code 4.

    [bold]Examples[/bold]

      dskd-compress build runs/r18
      dskd-compress build bundle
    """
    from dskd_export.errors import EnvironmentProblem, MissingExtra

    if not _tensorrt_is_installed():
        raise MissingExtra("TensorRT", "tensorrt")
    raise EnvironmentProblem(
        "This version does not build TensorRT engines.", f"Build one with: {trtexec_command(source)}"
    )


def _tensorrt_is_installed() -> bool:
    from importlib.util import find_spec

    return any(find_spec(module) is not None for module in ("tensorrt", "tensorrt_rtx"))


def trtexec_command(source: Path) -> str:
    """The command line that builds an engine from a bundle's ONNX model, for batches of 1 to 8.

    Precision is in the ONNX types, so there is no precision flag.

    Raises:
        BundleError: there is no bundle with a model at `source`.
    """
    import shlex

    from dskd_export.errors import BundleError
    from dskd_export.spec import ModelSpec

    bundle = source / "bundle" if (source / "bundle").is_dir() else source
    model = bundle / "model.fp32.onnx"
    if not model.is_file():
        raise BundleError(
            f"{source} holds no bundle: {model} is missing.", "Make one with: dskd-compress export RUN"
        )
    spec = ModelSpec.read(bundle / "spec.json")
    shapes = {
        flag: f"{spec.input_name}:{'x'.join(map(str, spec.input_shape(batch)))}"
        for flag, batch in (("minShapes", 1), ("optShapes", 1), ("maxShapes", 8))
    }
    return shlex.join(
        [
            "trtexec",
            f"--onnx={model}",
            *(f"--{flag}={shape}" for flag, shape in shapes.items()),
            "--saveEngine=model.fp32.engine",
            "--skipInference",
        ]
    )
