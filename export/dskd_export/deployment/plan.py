"""What is deployed, and how: the choices that the targets share, checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dskd_export.bundle import Bundle
from dskd_export.deployment.names import check_model_name, model_name_from
from dskd_export.errors import UsageError
from dskd_export.spec import ModelSpec

DEVICES = ("jetson", "server")

PROVIDERS = ("cuda", "tensorrt", "cpu")
"""ONNX Runtime's execution providers that Triton's backend can be told to use."""

# Modes of ONNX Runtime's TensorRT provider, as Triton passes them on:
# https://github.com/triton-inference-server/onnxruntime_backend#onnx-runtime-with-tensorrt-optimization
TENSORRT_PROVIDER_MODES = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8"}

_MAX_BATCH = 1024


@dataclass(frozen=True)
class Plan:
    """A deployment before it is written; make one with `make_plan`.

    Attributes:
        bundle: verified.
        precision: of the model that is deployed.
        model_name: in Triton, and in tags of images.
        max_batch: images in one call at most.
        devices: what Dockerfiles are written for.
        provider: ONNX Runtime's, in Triton.
        engine: a TensorRT engine that Triton serves in place of the ONNX model; None: the ONNX model.
    """

    bundle: Bundle
    precision: str
    model_name: str
    max_batch: int
    devices: tuple[str, ...]
    provider: str
    engine: Path | None

    @property
    def spec(self) -> ModelSpec:
        """Input, preprocessing and classes."""
        return self.bundle.spec

    def shape(self, batch: int) -> str:
        """Name and shape of a batch as trtexec and ONNX Runtime write it: `input:8x3x224x224`."""
        return f"{self.spec.input_name}:{'x'.join(map(str, self.spec.input_shape(batch)))}"


def make_plan(
    bundle: Bundle,
    *,
    precision: str = "fp32",
    model_name: str | None = None,
    max_batch: int = 8,
    devices: tuple[str, ...] = DEVICES,
    provider: str = "cuda",
    engine: Path | None = None,
) -> Plan:
    """Check what was chosen against the bundle.

    Args:
        bundle: what is deployed.
        precision: one of the bundle's.
        model_name: None makes one of the architecture and the precision.
        max_batch: images in one call at most, 1 to 1024.
        devices: of `DEVICES`.
        provider: of `PROVIDERS`.
        engine: a serialised TensorRT engine of this model.

    Raises:
        UsageError: the bundle has no such precision, the name cannot be one, the batch is out of range, there is
            no such device or provider, the provider has no mode for the precision, or there is no engine there.
    """
    bundle.model_path(precision)  # raises where there is none, and lists those there are
    if not 1 <= max_batch <= _MAX_BATCH:
        raise UsageError(f"{max_batch} images cannot be a batch.", f"Choose from 1 to {_MAX_BATCH}.")
    for chosen, choices in ((provider, PROVIDERS), *((device, DEVICES) for device in devices)):
        if chosen not in choices:
            raise UsageError(f"There is no '{chosen}' here.", f"Choose one of: {', '.join(choices)}.")
    if provider == "tensorrt" and engine is None and precision not in TENSORRT_PROVIDER_MODES:
        raise UsageError(
            f"Triton cannot tell ONNX Runtime's TensorRT provider to compute in {precision}: it has modes for "
            f"{', '.join(TENSORRT_PROVIDER_MODES)}.",
            "Build an engine and give it with --engine, or use --provider cuda.",
        )
    if engine is not None and not (engine.is_file() and engine.stat().st_size):
        raise UsageError(f"{engine} is no engine: there is no such file, or it is empty.", "Build one first.")
    name = model_name_from(bundle.spec.architecture, precision) if model_name is None else model_name
    return Plan(bundle, precision, check_model_name(name), max_batch, tuple(devices), provider, engine)
