"""What will work on this machine, found out before any work. Imports neither torch nor timm.

One file looks at one thing. What a code means is in `dskd_export.codes`: the number belongs to the check,
the letter is its outcome (I fine, W warning, E error).
"""

from __future__ import annotations

from pathlib import Path

from dskd_export.doctor.finding import Finding, Purpose
from dskd_export.doctor.gpu import look_at_gpu
from dskd_export.doctor.jetson import look_at_jetson
from dskd_export.doctor.machine import look_at_disk, look_at_folder, look_at_memory
from dskd_export.doctor.ort import look_at_onnxruntime, needs_gpu
from dskd_export.doctor.packages import PACKAGES, look_at_packages, look_at_python, look_at_torchvision
from dskd_export.doctor.tensorrt import look_at_tensorrt
from dskd_export.telemetry.cuda import cuda_gpus

__all__ = ["PACKAGES", "Finding", "Purpose", "diagnose"]


def diagnose(
    purpose: Purpose | None = None,
    folder: Path | None = None,
    *,
    provider: str | None = None,
    root: Path = Path("/"),
) -> list[Finding]:
    """Look at this machine.

    Args:
        purpose: what must work here: what it needs and is broken is an error. None: only what every
            command needs is an error, the rest is a warning.
        folder: where results will be written; None is the working directory.
        provider: of ONNX Runtime, that must run here as well: `cpu`, `cuda` or `tensorrt`.
        root: of the file system, for what the system says of itself.
    """
    where = folder if folder is not None else Path.cwd()
    gpus = cuda_gpus()
    return [
        *look_at_python(),
        *look_at_packages(purpose),
        *look_at_torchvision(),
        *look_at_gpu(gpus, required=needs_gpu(provider)),
        *look_at_onnxruntime(purpose, provider, gpus),
        *look_at_tensorrt(purpose == "build", gpus, root),
        *look_at_jetson(root),
        *look_at_disk(where),
        *look_at_memory(purpose),
        *look_at_folder(where),
    ]
