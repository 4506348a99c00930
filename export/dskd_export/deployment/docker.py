"""Write Dockerfiles for a Jetson and a server, with the bundle that goes into the image."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dskd_export import __version__
from dskd_export.bundle.manifest import MANIFEST
from dskd_export.deployment.plan import Plan
from dskd_export.deployment.render import Content, Copied, render_template

PACKAGE = f"dskd-compress=={__version__}"


@dataclass(frozen=True)
class Base:
    """An image of NVIDIA's that brings TensorRT with its Python module, and what fits it.

    Attributes:
        what: the machine that it is for.
        image: with its tag.
        onnxruntime: requirement of ONNX Runtime for the image's Python.
        cuda_bindings: requirement of cuda-bindings for the image's CUDA.
    """

    what: str
    image: str
    onnxruntime: str
    cuda_bindings: str


# The first one of a device is the default of its Dockerfile. JetPack 6 has Python 3.10, for which ONNX Runtime's
# last version is 1.23.2, on the CPU. Since JetPack 7 a Jetson runs the images of servers (SBSA), and there is no
# l4t-jetpack: https://catalog.ngc.nvidia.com/orgs/nvidia/containers/l4t-jetpack and .../tensorrt
_CUDA_12, _CUDA_13 = "cuda-bindings>=12.6,<13", "cuda-bindings>=13,<14"
_ORT, _ORT_GPU = "onnxruntime==1.32.0", "onnxruntime-gpu[cuda,cudnn]==1.31.1"
_JETPACK_6 = "JetPack 6.1 to 6.2 (L4T r36.4 and r36.5)"
BASES = {
    "jetson": (
        Base(_JETPACK_6, "nvcr.io/nvidia/l4t-jetpack:r36.4.0", "onnxruntime==1.23.2", _CUDA_12),
        Base("JetPack 7.0 and 7.1 (L4T r38)", "nvcr.io/nvidia/tensorrt:25.09-py3", _ORT, _CUDA_13),
        Base("JetPack 7.2 (L4T r39)", "nvcr.io/nvidia/tensorrt:26.05-py3", _ORT, _CUDA_13),
    ),
    "server": (
        Base("TensorRT 10.16", "nvcr.io/nvidia/tensorrt:26.05-py3", _ORT_GPU, _CUDA_13),
        Base("TensorRT 11.2", "nvcr.io/nvidia/tensorrt:26.08-py3", _ORT_GPU, _CUDA_13),
    ),
}

RUN_FLAGS = {"jetson": "--runtime nvidia", "server": "--gpus all"}

_WHEELS = """\
Wheels in this folder take precedence over the package index, for example one of dskd-compress itself.
The folder must exist; this file alone is enough.
"""


def docker_files(plan: Plan) -> dict[str, Content]:
    """Collect the files of the image build: path -> content."""
    files: dict[str, Content] = {f"Dockerfile.{device}": dockerfile(plan, device) for device in plan.devices}
    files["wheels/README.txt"] = _WHEELS.encode()
    bundle = plan.bundle
    for name, facts in bundle.manifest.files.items():
        files[f"bundle/{name}"] = Copied(bundle.folder / name, facts.sha256)
    files[f"bundle/{MANIFEST}"] = Copied(bundle.folder / MANIFEST, bundle.sha256)
    return files


def dockerfile(plan: Plan, device: str) -> bytes:
    """Render the Dockerfile of a device."""
    return render_template(
        "docker/Dockerfile.j2",
        plan=plan,
        device=device,
        base=BASES[device][0],
        bases=BASES[device],
        package=PACKAGE,
        command=json.dumps(default_command(plan)),
    )


def default_command(plan: Plan) -> list[str]:
    """Default command of a container: arguments of dskd-compress."""
    return ["validate", "bundle", "--precision", plan.precision]
