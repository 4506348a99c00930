"""A torch classifier becomes an ONNX model. The one package here that needs torch.

convert.py       the way through, start to end
deployed.py      normalisation and softmax as a part of the model
surgery.py       simplifications of the module, each proven equal
trace.py         torch's exporters
blame.py         which module failed, and why
graph_passes.py  optimisers of the graph
pack.py          names, metadata, bytes, external weights
parity.py        the images to compare by, and the comparison
sizes.py         free height and width
"""

from __future__ import annotations

from dskd_export.onnx_from_torch.convert import Exported, onnx_from_torch
from dskd_export.onnx_from_torch.deployed import Deployed, deployed
from dskd_export.onnx_from_torch.pack import count_nodes, count_parameters
from dskd_export.onnx_from_torch.passes import PassFacts
from dskd_export.onnx_from_torch.trace import Exporter

__all__ = [
    "Deployed",
    "Exported",
    "Exporter",
    "PassFacts",
    "count_nodes",
    "count_parameters",
    "deployed",
    "onnx_from_torch",
]
