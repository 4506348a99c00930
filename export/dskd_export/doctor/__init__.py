"""Check what will work on this machine, before any work and without torch or timm.

Each file has the checks of one thing. Codes are in `dskd_export.codes`: the number names the check, the letter its
outcome (I fine, W warning, E error).
"""

from __future__ import annotations

from pathlib import Path

from dskd_export.doctor.finding import Finding, Purpose
from dskd_export.doctor.machine import check_disk, check_folder, check_gpu, check_jetson, check_memory
from dskd_export.doctor.ort import check_onnxruntime, needs_gpu
from dskd_export.doctor.packages import PACKAGES, check_packages, check_python, check_torchvision
from dskd_export.doctor.summary import Summary, summarise
from dskd_export.doctor.tensorrt import check_tensorrt
from dskd_export.telemetry.cuda import cuda_gpus

__all__ = ["PACKAGES", "Finding", "Purpose", "Summary", "diagnose", "summarise"]


def diagnose(
    purpose: Purpose | None = None,
    folder: Path | None = None,
    *,
    provider: str | None = None,
    root: Path = Path("/"),
) -> list[Finding]:
    """Check this machine.

    Args:
        purpose: what must work: a broken requirement of it is an error. None: only requirements of every
            command are errors, the rest are warnings.
        folder: of the results; None: the working directory.
        provider: of ONNX Runtime, that must also run here: `cpu`, `cuda` or `tensorrt`.
        root: of the file system, for the system's own files.
    """
    where = folder if folder is not None else Path.cwd()
    gpus = cuda_gpus()
    return [
        *check_python(),
        *check_packages(purpose),
        *check_torchvision(),
        *check_gpu(gpus, required=needs_gpu(provider)),
        *check_onnxruntime(purpose, provider, gpus),
        *check_tensorrt(purpose == "build", gpus, root),
        *check_jetson(root),
        *check_disk(where),
        *check_memory(purpose),
        *check_folder(where),
    ]
