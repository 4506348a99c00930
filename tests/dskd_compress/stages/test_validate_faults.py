"""Every planted fault ends the gate with exit code 5 and a line that points at its cause."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gate_support as gate
import numpy as np
import pytest
from PIL import Image
from run_support import QUIET

from dskd_compress.cli import main
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages import validate_inputs
from dskd_compress.stages.export import run_export
from dskd_export.bundle import open_bundle
from dskd_export.documents.base import read_document
from dskd_export.documents.validation import ValidationDocument
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.spec import ModelSpec

pytestmark = pytest.mark.usefixtures("no_document_yet")

Plant = Callable[[RunFolder, pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    data = gate.shared_data()
    if data is None:
        pytest.skip("the real images and weights are not here: DSKD_TEST_DATA names their folder")
    run = gate.make_mobilenet_run(tmp_path_factory.mktemp("mobilenet"), data, images=400)
    run_export(run.read_recipe(), run, QUIET)
    gate.add_precisions(run)
    return run


@dataclass(frozen=True)
class Fault:
    """What is planted, which checks have to fail for it, and what has to be said."""

    plant: Plant
    fails: tuple[str, ...]
    says: str
    precision: str = "fp32"


def graph(precision: str, change: Callable[[Any], None]) -> Plant:
    return lambda run, _: gate.with_model(run, precision, change)


def spec(**changes: Any) -> Plant:
    return lambda run, _: gate.with_spec(run, **changes)


def swap_mean_and_std(run: RunFolder, _: pytest.MonkeyPatch) -> None:
    was = open_bundle(run.bundle).spec
    gate.with_spec(run, mean=was.std, std=was.mean)


def shift_classes(run: RunFolder, _: pytest.MonkeyPatch) -> None:
    classes = open_bundle(run.bundle).spec.classes
    gate.with_spec(run, classes=(*classes[-1:], *classes[:-1]))


def on_device(prepare: Callable[[list[Image.Image], ModelSpec], np.ndarray]) -> Plant:
    """The device's preprocessing is at fault, and the bundle is not."""
    return lambda _, patch: patch.setattr(validate_inputs, "preprocess_batch", prepare)


def as_bgr(images: list[Image.Image], spec: ModelSpec) -> np.ndarray:
    return preprocess_batch([gate.swapped(image) for image in images], spec)


def with_swapped_statistics(images: list[Image.Image], spec: ModelSpec) -> np.ndarray:
    return preprocess_batch(images, spec.model_copy(update={"mean": spec.std, "std": spec.mean}))


def golden_of_bgr(run: RunFolder, _: pytest.MonkeyPatch) -> None:
    gate.with_golden(run, input=open_bundle(run.bundle).golden().input[:, ::-1].copy())


def shifted_golden(run: RunFolder, _: pytest.MonkeyPatch) -> None:
    gate.with_golden(run, logits=np.roll(open_bundle(run.bundle).golden().logits, 1, axis=1))


def shift_labels(run: RunFolder, _: pytest.MonkeyPatch) -> None:
    source = Path(run.read_recipe().data.source)
    with np.load(source) as arrays:
        values = dict(arrays)
    classes = len(values["classes"])
    for key in ("y", "y_train", "y_val"):
        if key in values:
            values[key] = (values[key] + 1) % classes
    shifted = run.path / "shifted.npz"
    np.savez(shifted, **values)
    recipe = run.path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(source), str(shifted)))


NUMBERS = ("max abs / scale", "golden logits")
MEANS = ("mean abs / scale", "golden logits")
SPEC = ("spec",)
FAULTS = {
    "scale of a convolution, fp32": Fault(
        graph("fp32", gate.scale_convolution), NUMBERS, "one of its nodes or weights is another"
    ),
    "scale of a convolution, fp16": Fault(
        graph("fp16", gate.scale_convolution), MEANS, "so this comes from the conversion", "fp16"
    ),
    "scale of a DequantizeLinear": Fault(
        graph("int8", gate.scale_convolution), ("top-1 agreement",), "so this comes from the conversion", "int8"
    ),
    "scale of the logits": Fault(
        graph("fp16", gate.scale_classifier), MEANS, "the logits are 10 times the reference's", "fp16"
    ),
    "mean and std swapped in the spec": Fault(
        swap_mean_and_std, (*SPEC, "pixel difference"), "spec.json: mean and std are in each other's place"
    ),
    "mean and std swapped on the device": Fault(
        on_device(with_swapped_statistics), ("pixel difference",), "mean and std in each other's place"
    ),
    "mean of BGR in the spec": Fault(
        spec(mean=gate.MEAN[::-1], std=gate.STD[::-1]), (*SPEC, "pixel difference"), "order BGR"
    ),
    "BGR on the device": Fault(on_device(as_bgr), ("pixel difference",), "come in the order BGR"),
    "BGR in the model": Fault(graph("fp32", gate.take_bgr), NUMBERS, "takes its channels in the order BGR"),
    "BGR in the golden images": Fault(
        golden_of_bgr, ("golden images", "golden logits"), "golden.npz does not hold"
    ),
    "classes shifted in the spec": Fault(shift_classes, SPEC, r"classes: they are shifted by \+1"),
    "classes shifted in the model": Fault(
        graph("fp32", gate.shift_classifier), NUMBERS, "the classes are shifted by one"
    ),
    "classes shifted in the golden images": Fault(shifted_golden, ("golden logits",), "shifted by one"),
    "labels shifted in the data": Fault(shift_labels, ("labels",), "the labels are shifted by one"),
    "another crop": Fault(spec(crop_pct=0.7), (*SPEC, "pixel difference"), "crop_pct is 0.7"),
    "NaN": Fault(graph("fp32", gate.break_with_nan), NUMBERS, "give NaN or Inf"),
}


def gate_fails(
    run: RunFolder, fault: Fault, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *more: str
) -> None:
    """Plant the fault, validate through the command line, and look at exit code, checks and words."""
    fault.plant(run, patch)
    precisions = dict.fromkeys(["fp32", fault.precision])
    flags = [word for name in precisions for word in ("--precision", name)]
    assert main(["validate", str(run.path), *flags, *more]) == 5
    printed = capsys.readouterr()
    document = read_document(run / "validation.json", ValidationDocument)
    assert not document.passed
    checks = [*document.checks, *(check for one in document.judgements for check in one.checks)]
    failed = {check.name for check in checks if check.failed}
    assert failed >= set(fault.fails), failed
    assert "error: The exported student does not pass" in printed.err
    (hint,) = (line for line in printed.err.splitlines() if line.startswith("hint: Likely cause: "))
    assert re.search(fault.says, hint), printed.err


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault(
    name: str,
    photos: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gate_fails(gate.copy_run(photos, tmp_path / "run"), FAULTS[name], monkeypatch, capsys)


def test_without_a_fault_it_passes(photos: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = gate.copy_run(photos, tmp_path / "run")
    code = main(["validate", str(run.path), "--json"])
    out, err = capsys.readouterr()
    document = ValidationDocument.model_validate_json(out)
    assert code == 0, err
    assert [one.precision for one in document.judgements] == ["fp32", "fp16", "int8"]
    fp32, fp16, int8 = document.judgements
    assert {one.verdict for one in document.judgements} == {"PASS"}
    assert fp32.native
    assert int8.native
    assert int8.native_reason.endswith("run in int8")
    if not fp16.native:  # on x86
        assert fp16.native_reason.startswith("computed in fp32 on cpu: 0 of ")
        assert (fp16.verdict, fp16.computed_in) == ("PASS", "fp32")
        assert "onnxruntime:cpu:fp16 │ PASS    │ fp32 " in err
    images = len(np.load(run.read_recipe().data.source)["y"]) // 2
    for one in document.judgements:
        assert one.accuracy is not None
        assert abs(one.accuracy.images - images) <= 4
    assert fp32.accuracy is not None
    assert (fp32.accuracy.lost, fp32.accuracy.gained, fp32.accuracy.agreement.value) == (0, 0, 1.0)
    assert document.accuracy["torch:cpu:fp32"].top1.value > 0.9
    assert len(document.causes) == 0


@pytest.fixture(scope="module")
def bytes_in(photos: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same student with normalisation and softmax in its graph, which takes bytes as decoders give them."""
    run = gate.copy_run(photos, tmp_path_factory.mktemp("bytes") / "run")
    options = ("export.input=uint8", "export.layout=NHWC", "export.softmax=true")
    run_export(run.read_recipe(options), run, QUIET)
    return run


def test_a_model_that_takes_bytes_and_gives_probabilities_passes(bytes_in: RunFolder, tmp_path: Path) -> None:
    run = gate.copy_run(bytes_in, tmp_path / "run")
    assert main(["validate", str(run.path)]) == 0
    document = read_document(run / "validation.json", ValidationDocument)
    assert document.preprocess.differing_pixels == 0
    assert document.accuracy["torch:cpu:fp32"].top1.value > 0.9


@pytest.mark.parametrize("name", ["BGR in the model", "BGR on the device", "mean and std swapped in the spec"])
def test_a_planted_fault_where_the_model_takes_bytes(
    name: str,
    bytes_in: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """That the graph normalises rightly does not make a wrong spec right."""
    fault = FAULTS[name]
    numbers = ("max abs / scale",) if name == "BGR in the model" else fault.fails
    run = gate.copy_run(bytes_in, tmp_path / "run")
    gate_fails(run, replace(fault, fails=numbers), monkeypatch, capsys)


# --- the real model

# Its mean and std are all 0.5: in each other's place they change nothing, so others' are planted as well.
NO_FAULT = {"mean and std swapped in the spec", "mean and std swapped on the device", "mean of BGR in the spec"}
REAL_FAULTS = {name: fault for name, fault in FAULTS.items() if name not in NO_FAULT}
REAL_FAULTS["mean and std of ImageNet in the spec"] = Fault(
    spec(mean=gate.MEAN, std=gate.STD), (*SPEC, "pixel difference"), r"mean is \(0.485, 0.456, 0.406\)"
)
REAL_FAULTS["mean and std of ImageNet, swapped"] = Fault(
    spec(mean=gate.STD, std=gate.MEAN), (*SPEC, "pixel difference"), r"mean is \(0.229, 0.224, 0.225\)"
)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL_FAULTS)
def test_a_planted_fault_in_a_real_model(
    name: str,
    mobilenet: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = gate.copy_run(mobilenet, tmp_path / "run")
    gate_fails(run, REAL_FAULTS[name], monkeypatch, capsys, "--images", "96")


@pytest.mark.slow
def test_the_real_model_passes_in_fp32_and_fp16(mobilenet: RunFolder, tmp_path: Path) -> None:
    run = gate.copy_run(mobilenet, tmp_path / "run")
    code = main(["validate", str(run.path), "--precision", "fp32", "--precision", "fp16"])
    document = json.loads((run / "validation.json").read_text())
    assert code == 0, document
    assert 0.75 < document["accuracy"]["torch:cpu:fp32"]["top1"]["value"] < 0.85
