"""Plan a deployment: the choices that all targets share, checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dskd_export.bundle import Bundle
from dskd_export.deployment.render import check_model_name, model_name_from
from dskd_export.engine.document import BuildDocument, document_beside
from dskd_export.engine.identity import read_engine
from dskd_export.errors import UsageError
from dskd_export.spec import ModelSpec

DEVICES = ("jetson", "server")

PROVIDERS = ("cuda", "tensorrt", "cpu")
"""ONNX Runtime's execution providers that Triton's backend supports."""

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
        document: what `build` wrote of the engine; None: another tool made it.
    """

    bundle: Bundle
    precision: str
    model_name: str
    max_batch: int
    devices: tuple[str, ...]
    provider: str
    engine: Path | None
    document: BuildDocument | None = None

    @property
    def profiles(self) -> int:
        """Optimization profiles of the engine, as far as they are known."""
        return 0 if self.document is None else len(self.document.profiles)

    @property
    def engine_facts(self) -> str:
        """What the engine needs around it, in words; empty where nothing is known of it."""
        document = self.document
        if document is None:
            return ""
        where = ", ".join(document.targets) if document.gpu is None else document.gpu.name
        return f"The engine was built by {document.backend} {document.version} for {where}, {document.system}."

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
    """Check the choices against the bundle.

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
            no such device or provider, the provider has no mode for the precision, there is no engine there, or
            its build document names another model or does not take the batch.
        DataError: the build document is damaged, or belongs to another engine.
    """
    bundle.model_path(precision)  # raises where there is none, and lists those there are
    if not 1 <= max_batch <= _MAX_BATCH:
        raise UsageError(f"--max-batch must be 1 to {_MAX_BATCH}, not {max_batch}.", "Use: --max-batch 8")
    chosen = (("--provider", provider, PROVIDERS), *(("--device", device, DEVICES) for device in devices))
    for flag, value, choices in chosen:
        if value not in choices:
            raise UsageError(f"{flag}: unknown value '{value}'.", f"Choose one of: {', '.join(choices)}.")
    if provider == "tensorrt" and engine is None and precision not in TENSORRT_PROVIDER_MODES:
        raise UsageError(
            f"Triton's TensorRT provider has no mode for {precision}; "
            f"it has {', '.join(TENSORRT_PROVIDER_MODES)}.",
            "Use --provider cuda, or build an engine and pass it: --engine FILE",
        )
    if engine is not None and not (engine.is_file() and engine.stat().st_size):
        raise UsageError(f"{engine} is missing or empty.", "Build it: dskd-compress build")
    document = None if engine is None else _document_of(engine, bundle, precision, max_batch)
    name = model_name_from(bundle.spec.architecture, precision) if model_name is None else model_name
    return Plan(bundle, precision, check_model_name(name), max_batch, tuple(devices), provider, engine, document)


def _document_of(engine: Path, bundle: Bundle, precision: str, max_batch: int) -> BuildDocument | None:
    """Check the build document of an engine against the deployment; None: another tool made the engine."""
    if document_beside(engine) is None:
        return None
    document, _ = read_engine(engine)
    if document.bundle_sha256 != bundle.sha256:
        raise UsageError(
            f"{engine} was built from another bundle than {bundle.folder}.",
            f"Build one of this: dskd-compress build {bundle.folder} --precision {precision}",
        )
    if document.precision != precision:
        raise UsageError(
            f"{engine} is an engine of {document.precision}, but --precision is {precision}.",
            f"Use: --precision {document.precision}",
        )
    if document.stripped:
        raise UsageError(
            f"{engine} holds no weights.", f"Refit it: dskd-compress build {bundle.folder} --refit-from {engine}"
        )
    for batch in (1, max_batch):
        if document.profiles and not document.takes(batch):
            raise UsageError(
                f"{engine} takes batches of {document.batches}, not 1 to {max_batch}.",
                f"Build it with --batch 1,{max_batch}, or lower --max-batch.",
            )
    return document
