"""Run NVIDIA's ModelOpt in a separate process.

It changes ONNX Runtime's quantisation tools when it is imported and loads native libraries that have
crashed next to others; neither may touch the process that exports. The request is a JSON file with a model,
the result an ONNX file.

Run as a module it is that process: `python -m dskd_export.precision.modelopt REQUEST.json`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dskd_export.child_process import make_module_command
from dskd_export.errors import MissingExtra, ModelError

Task = Literal["autocast", "quantize", "half_rest"]

# Without one of these modelopt.onnx does not import.
NEEDED = ("modelopt", "onnx_graphsurgeon", "lief", "onnxslim", "onnxscript")


def is_installed() -> bool:
    """Whether ModelOpt and what its ONNX part needs are there; imports none of it."""
    return not list_missing()


def list_missing() -> list[str]:
    """List the modules of ModelOpt and of its ONNX part that are missing."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def version() -> str:
    """For a manifest."""
    return f"modelopt {importlib.metadata.version('nvidia-modelopt')}"


def run(task: Task, model: Any, *, inputs: dict[str, NDArray[Any]] | None = None, **options: Any) -> Any:
    """Run one ModelOpt task on a model.

    Args:
        task: `autocast` to half precision, `quantize`, or `half_rest`: what a quantised model holds in
            fp32 to fp16.
        model: an onnx.ModelProto.
        inputs: calibration arrays, input name -> [N, ...].
        options: plain JSON values, as `_serve` reads them.

    Raises:
        MissingExtra: it is not installed.
        ModelError: it failed, or its process died; says with which words.
    """
    if not is_installed():
        raise MissingExtra("nvidia-modelopt", "quant")
    import onnx

    with tempfile.TemporaryDirectory(prefix="dskd-modelopt-") as name:
        folder = Path(name)
        onnx.save(model, folder / "model.onnx")
        if inputs is not None:
            np.savez(folder / "inputs.npz", **inputs)  # type: ignore[arg-type]
        (folder / "request.json").write_text(json.dumps({"task": task, **options}), encoding="utf-8")
        command = make_module_command(__spec__.name, str(folder))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        made = folder / "made.onnx"
        if done.returncode or not made.is_file():
            raise ModelError(
                f"ModelOpt could not {task} the model: {_last_words(done.stderr, done.returncode)}",
                "Set export.quantize.producer=onnxruntime, or leave this precision out.",
            )
        return onnx.load(made)


def _last_words(stderr: str, code: int) -> str:
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    reason = lines[-1].strip() if lines else "no output"
    return f"its process was killed by signal {-code}." if code < 0 else reason[:300]


def _serve(folder: Path) -> None:
    request: dict[str, Any] = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    path, made = str(folder / "model.onnx"), str(folder / "made.onnx")
    inputs = folder / "inputs.npz"
    import onnx

    if request["task"] == "autocast":
        from modelopt.onnx.autocast import convert_to_mixed_precision

        model = convert_to_mixed_precision(
            path,
            low_precision_type=request["precision"],
            nodes_to_exclude=request["keep"],
            keep_io_types=True,
            calibration_data=str(inputs),
            data_max=request["data_max"],
            init_max=request["init_max"],
            opset=request["opset"],
        )
        onnx.save(model, made)
    elif request["task"] == "quantize":
        from modelopt.onnx.quantization import quantize

        with np.load(inputs, allow_pickle=False) as arrays:
            data = {key: arrays[key] for key in arrays.files}
        quantize(
            path,
            quantize_mode=request["precision"],
            calibration_data=data,
            calibration_method=request["method"],
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            output_path=made,
            log_level="ERROR",
        )
    else:
        from modelopt.onnx.autocast.convert import convert_to_f16

        onnx.save(convert_to_f16(onnx.load(path), keep_io_types=True), made)


def main(arguments: Sequence[str]) -> None:
    """Entry point of the process: one folder, with `request.json` and `model.onnx` in it."""
    _serve(Path(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
