"""What `import dskd_compress` and `import dskd_export` offer, and what they load."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

# A name more or less is a decision, not an accident.
NAMES = {
    "dskd_compress": ["__version__", "benchmark", "distill", "export", "load_recipe", "report", "validate"],
    "dskd_export": [
        "Monitor",
        "OnnxRuntimeRunner",
        "TensorRtRunner",
        "__version__",
        "add_disturbances",
        "compare_outputs",
        "logits_of",
        "measure_latency",
        "open_bundle",
        "open_image",
        "preprocess_batch",
    ],
}
HEAVY = {"torch", "timm", "numpy", "onnxruntime", "PIL", "pydantic", "rich"}


@pytest.mark.parametrize("package", NAMES)
def test_the_public_names_are_these(package: str) -> None:
    face = importlib.import_module(package)
    assert sorted(face.__all__) == NAMES[package]
    assert set(face.__all__) <= set(dir(face))
    assert all(getattr(face, name) is not None for name in face.__all__)


@pytest.mark.parametrize("package", NAMES)
def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = importlib.import_module(package).nothing_of_the_kind


@pytest.mark.parametrize(
    ("program", "loaded"),
    [
        ("import dskd_compress, dskd_export", set()),
        ("from dskd_compress import distill, export, load_recipe, validate, benchmark, report", set()),
        ("import dskd_compress as d; d.load_recipe('digits/resnet18-to-mobilenetv3_small_050')", {"pydantic"}),
        ("from dskd_export import open_bundle, preprocess_batch, Monitor", {"numpy", "PIL", "pydantic"}),
    ],
)
def test_a_name_loads_what_it_needs_and_no_more(program: str, loaded: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = set(done.stdout.split()) & HEAVY
    assert loaded <= found
    assert found.isdisjoint({"torch", "timm", "onnxruntime"})
    assert loaded or not found
