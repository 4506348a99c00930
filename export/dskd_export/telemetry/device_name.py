"""The one name that a device has in the folders `results/<bundle>/` and `engines/`."""

from __future__ import annotations

import re

from dskd_export.telemetry.cuda import cuda_devices
from dskd_export.telemetry.host import board, host_facts


def device_name(gpu: str | None = None) -> str:
    """Name this device as a folder: its board, else its GPU, else its CPU.

    Args:
        gpu: name of the GPU in use; None: the first one of this machine.
    """
    gpus = (gpu,) if gpu else cuda_devices()
    return folder_name(board() or (gpus[0] if gpus else host_facts().cpu))


def folder_name(text: str) -> str:
    """Turn a name into that of a folder: `Orin (nvgpu)` -> `orin-nvgpu`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "device"
