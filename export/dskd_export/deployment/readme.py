"""Write the README of a deployment: commands for exactly what was generated."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from dskd_export.bundle.manifest import model_name
from dskd_export.deployment.cpp import tolerance_of
from dskd_export.deployment.docker import BASES, RUN_FLAGS, default_command
from dskd_export.deployment.plan import Plan
from dskd_export.deployment.render import render_template
from dskd_export.deployment.triton import CACHE, preferred_batches

# The monthly images of Triton and of TensorRT with one tag have one TensorRT inside, so one can build engines for
# the other: https://docs.nvidia.com/deeplearning/frameworks/support-matrix
MONTH = "26.05"


def readme_file(plan: Plan, targets: Sequence[str]) -> bytes:
    """Render README.md of a deployment with these targets."""
    by_largest, tolerance = tolerance_of(plan.precision)
    return render_template(
        "README.md.j2",
        plan=plan,
        spec=plan.spec,
        targets=targets,
        model=_place_of_the_model(plan, targets),
        month=MONTH,
        cache=CACHE,
        preferred=preferred_batches(plan.max_batch),
        image=re.sub("[_-]+", "-", plan.model_name.lower()),
        bases=BASES,
        run_flags=RUN_FLAGS,
        command=shlex.join(["dskd-compress", *default_command(plan)]),
        by_largest=by_largest,
        tolerance=f"{tolerance:g}",
        shape=plan.shape,
    )


def _place_of_the_model(plan: Plan, targets: Sequence[str]) -> str:
    """Path of the ONNX model, relative to the deployment's folder."""
    if "triton" in targets and plan.engine is None:
        return f"triton/{plan.model_name}/1/model.onnx"
    name = model_name(plan.precision)
    return f"docker/bundle/{name}" if "docker" in targets else f"BUNDLE/{name}"
