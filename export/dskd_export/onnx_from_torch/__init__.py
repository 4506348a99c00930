"""Convert a torch classifier to ONNX. The only package of `dskd_export` that needs torch.

convert.py       the way through, start to end
deployed.py      normalisation and softmax as a part of the model
passes.py        simplifications of the module and its graph, each proven equal
trace.py         torch's exporters; which module failed, and why
pack.py          names, metadata, bytes, external weights
parity.py        the images to compare by, the comparison, free height and width
"""

from __future__ import annotations

from dskd_export.onnx_from_torch.convert import Exported, onnx_from_torch
from dskd_export.onnx_from_torch.deployed import Deployed, wrap_for_deployment
from dskd_export.onnx_from_torch.passes import PassFacts
from dskd_export.onnx_from_torch.trace import Exporter

__all__ = [
    "Deployed",
    "Exported",
    "Exporter",
    "PassFacts",
    "onnx_from_torch",
    "wrap_for_deployment",
]
