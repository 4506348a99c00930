"""Write a C++ program for TensorRT 10 and 11: source, CMake, labels, and golden data as raw arrays."""

from __future__ import annotations

import numpy as np

from dskd_export.bundle import needs_calibration
from dskd_export.bundle.manifest import labels_text
from dskd_export.deployment.plan import Plan
from dskd_export.deployment.render import Content, read_static, render_template

SOURCES = (
    "CMakeLists.txt",
    *(
        f"src/{name}"
        for name in (
            *("cuda_memory.h", "engine.cpp", "engine.h", "failure.h", "files.cpp", "files.h", "main.cpp"),
            *("preprocess.cpp", "preprocess.h", "resize.cpp", "resize.h", "results.cpp", "results.h"),
        )
    ),
)

FP32_TOLERANCE = 1e-3
"""Largest difference of logits / largest logit; of an engine that was built without TF32."""

# Mean difference of logits / largest logit: the defaults of a recipe's budget.
_TOLERANCES = {"fp16": 0.01, "bf16": 0.05}
_QUANTIZED_TOLERANCE = 0.15

# The order of Pillow's passes changed with this version. A bundle that names none is taken for a newer one.
_UNKNOWN_PILLOW = 13


def cpp_files(plan: Plan) -> dict[str, Content]:
    """Collect the files of the program: path -> content."""
    golden = plan.bundle.golden()
    by_largest, tolerance = tolerance_of(plan.precision)
    header = render_template(
        "cpp/model_spec.h.j2",
        plan=plan,
        spec=plan.spec,
        golden_images=len(golden.labels),
        by_largest=by_largest,
        tolerance=tolerance,
        pillow_major=pillow_major(plan),
    )
    return {
        **{name: read_static(f"cpp/{name}") for name in SOURCES},
        "model_spec.h": header,
        "labels.txt": labels_text(plan.spec.classes).encode(),
        # Golden arrays are little-endian in every bundle, as Jetson and x86-64 are.
        "golden_input.bin": np.ascontiguousarray(golden.input).tobytes(),
        "golden_logits.bin": golden.logits.astype("<f4").tobytes(),
    }


def tolerance_of(precision: str) -> tuple[bool, float]:
    """Largest allowed difference of an engine's logits from the reference's, relative to the largest.

    Returns:
        Whether the largest difference is judged, and not the mean one; and the limit.
    """
    if precision == "fp32":
        return True, FP32_TOLERANCE
    if needs_calibration(precision):
        return False, _QUANTIZED_TOLERANCE
    return False, _TOLERANCES.get(precision, max(_TOLERANCES.values()))


def pillow_major(plan: Plan) -> int:
    """Major version of the Pillow that the model was exported with."""
    first = plan.bundle.manifest.provenance.versions.get("pillow", "").split(".")[0]
    return int(first) if first.isascii() and first.isdigit() and len(first) < 4 else _UNKNOWN_PILLOW
