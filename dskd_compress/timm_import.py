"""Import timm, with the CIFAR networks registered."""

from __future__ import annotations

import sys
from types import ModuleType

_torchvision_schemas: object | None = None


def import_timm() -> ModuleType:
    """Import timm, also with torch and torchvision of different builds.

    A torchvision built for CUDA does not find its operators next to a CPU-only torch: its import, and timm's,
    fails with "operator torchvision::nms does not exist". On exactly that error the two operator schemas are
    declared without an implementation, and the import is repeated. Transforms and models work then,
    `torchvision.ops.nms` does not.

    Raises:
        MissingExtra: torch, torchvision or timm is not installed.
    """
    from dskd_export.errors import require

    torch = require("torch", "train")
    try:
        require("torchvision", "train")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        global _torchvision_schemas
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _torchvision_schemas = library  # the declarations live as long as this object
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        require("torchvision", "train")
    timm = require("timm", "train")
    from dskd_compress.cifar_nets import register

    register()
    return timm
