"""Write a model repository of Triton Inference Server.

Layout and configuration: docs/user_guide/model_repository.md and model_configuration.md of
https://github.com/triton-inference-server/server
"""

from __future__ import annotations

from pathlib import Path

from dskd_export.bundle.manifest import labels_text, model_name, weights_name
from dskd_export.deployment.plan import TENSORRT_PROVIDER_MODES, Plan
from dskd_export.deployment.render import Content, Copied, render_template
from dskd_export.files.atomic import sha256_file

TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}

CACHE = "/cache"
"""Where ONNX Runtime's TensorRT provider keeps its engines within the container."""

# A request waits this long to be batched with others: short compared with a call of any model, long compared with
# arrivals under load.
_QUEUE_DELAY_US = 100
_WORKSPACE_BYTES = 1 << 30


def triton_files(plan: Plan) -> dict[str, Content]:
    """Collect the files of the repository: path -> content."""
    folder = plan.model_name
    files: dict[str, Content] = {
        f"{folder}/config.pbtxt": config_pbtxt(plan),
        f"{folder}/labels.txt": labels_text(plan.spec.classes).encode(),
    }
    if plan.engine is not None:
        return {**files, f"{folder}/1/model.plan": Copied(plan.engine, sha256_file(plan.engine))}
    listed = plan.bundle.manifest.files
    model = model_name(plan.precision)
    files[f"{folder}/1/model.onnx"] = _of_the_bundle(plan, model)
    if (weights := weights_name(model)) in listed:
        # Under its own name: the model names it.
        files[f"{folder}/1/{weights}"] = _of_the_bundle(plan, weights)
    return files


def config_pbtxt(plan: Plan) -> bytes:
    """Render the model's configuration, a `ModelConfig` in protobuf's text format."""
    spec = plan.spec
    sides = list(spec.input_shape(1)[1:])
    channel = 2 if spec.input_layout == "NHWC" else 0
    dims = [-1 if spec.dynamic_size and place != channel else side for place, side in enumerate(sides)]
    return render_template(
        "triton/config.pbtxt.j2",
        plan=plan,
        spec=spec,
        input_type=TYPES[spec.input_dtype],
        dims=dims,
        warm_dims=sides,
        preferred=preferred_batches(plan.max_batch),
        queue_delay_us=_QUEUE_DELAY_US,
        accelerator=None if plan.engine else _accelerator(plan),
        warm_batches=sorted({1, plan.max_batch}),
    )


def preferred_batches(max_batch: int) -> list[int]:
    """Powers of two from 2 on, and the largest batch: the sizes that a backend is worth waiting for."""
    powers = [1 << power for power in range(1, max_batch.bit_length()) if 1 << power <= max_batch]
    return sorted({*powers, max_batch}) if max_batch > 1 else []


def _accelerator(plan: Plan) -> tuple[str, dict[str, str]] | None:
    """Name and settings of ONNX Runtime's provider on the GPU; None where there is no GPU."""
    if plan.provider == "cuda":
        # TF32 would round what was validated as fp32 to ten bits of mantissa.
        return "cuda", {"use_tf32": "0"}
    if plan.provider == "tensorrt":
        settings = {
            "precision_mode": TENSORRT_PROVIDER_MODES[plan.precision],
            "max_workspace_size_bytes": str(_WORKSPACE_BYTES),
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": f"{CACHE}/{plan.model_name}",
        }
        if not plan.spec.dynamic_size:
            # Without a profile the provider builds another engine for every batch larger than those before.
            batches = {"min": 1, "opt": plan.max_batch, "max": plan.max_batch}
            settings |= {f"trt_profile_{name}_shapes": plan.shape(batch) for name, batch in batches.items()}
        return "tensorrt", settings
    return None


def _of_the_bundle(plan: Plan, name: str) -> Copied:
    return Copied(Path(plan.bundle.folder / name), plan.bundle.manifest.files[name].sha256)
