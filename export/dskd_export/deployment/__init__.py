"""Generate what a bundle needs to be served.

    triton/<model>/config.pbtxt, labels.txt, 1/model.onnx   a model repository of Triton Inference Server
    cpp/                                                    a C++ program for TensorRT, with golden data
    docker/                                                 Dockerfiles for a Jetson and a server, with the bundle
    README.md                                               the commands for exactly what was generated
    deployment.json                                         what it was generated from, sha256 of every file

The same bundle and options give the same bytes.
"""

from __future__ import annotations

from dskd_export.deployment.choose import Choice, choose_precision
from dskd_export.deployment.plan import DEVICES, PROVIDERS, Plan, make_plan
from dskd_export.deployment.write import TARGETS, DeploymentDocument, write_deployment

__all__ = [
    "DEVICES",
    "PROVIDERS",
    "TARGETS",
    "Choice",
    "DeploymentDocument",
    "Plan",
    "choose_precision",
    "make_plan",
    "write_deployment",
]
