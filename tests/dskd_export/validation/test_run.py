"""One flow, whatever the reference: a sound bundle passes, a planted fault ends with exit code 5 and its cause."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gate_support as gate
import numpy as np
import pytest
from PIL import Image
from run_support import QUIET

from dskd_compress import torch_reference
from dskd_compress.cli import main
from dskd_compress.data import iter_images, open_data
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.export import run_export
from dskd_export.bundle import open_bundle
from dskd_export.documents.base import read_document
from dskd_export.documents.validation import ValidationDocument
from dskd_export.errors import ProviderLacksKernel
from dskd_export.runtime import loader
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.spec import ModelSpec
from dskd_export.validation import batches
from dskd_export.validation.checks import IS_REFERENCE, NO_IMAGES
from dskd_export.validation.verdicts import list_causes

pytestmark = pytest.mark.usefixtures("no_document_yet")

TORCH, ONNX, GOLDEN = "torch", "onnx", "golden"
IMAGES = 96


@dataclass
class Subject:
    """A bundle that is validated against one reference.

    Attributes:
        reference: torch in the run, fp32 in ONNX Runtime on labelled images, or the golden logits alone.
        run: a copy of a run, whose bundle it is.
        pictures: some of the run's validation images, its golden ones among them, in folders of classes.
        images: flags that choose as many of the run; empty: all.
    """

    reference: str
    run: RunFolder
    pictures: Path
    images: tuple[str, ...] = ("--images", str(IMAGES))

    @property
    def document(self) -> Path:
        """Where the command writes."""
        return (self.run.path if self.reference == TORCH else self.run.path.parent / "out") / "validation.json"

    def command(self, *flags: str) -> list[str]:
        """The command line."""
        out = ["--out", str(self.document.parent)]
        where = {
            TORCH: [str(self.run.path), *self.images],
            ONNX: [str(self.run.bundle), *out, "--images", str(self.pictures)],
            GOLDEN: [str(self.run.bundle), *out],
        }
        return ["validate", *where[self.reference], *flags]

    def validate(self, *flags: str) -> tuple[int, ValidationDocument]:
        """Exit code and document of the command."""
        code = main(self.command(*flags))
        return code, read_document(self.document, ValidationDocument)


@pytest.fixture(scope="session")
def pictures(photos: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    recipe = photos.read_recipe()
    sets = open_data(recipe.data, recipe.seed)
    for number, (image, label, _) in enumerate(iter_images(sets.val, IMAGES, recipe.seed)):
        (folder / sets.classes[label]).mkdir(exist_ok=True)
        image.save(folder / sets.classes[label] / f"{number:03}.png")
    return folder


@pytest.fixture(params=[TORCH, ONNX, GOLDEN])
def subject(request: pytest.FixtureRequest, photos: RunFolder, pictures: Path, tmp_path: Path) -> Subject:
    return Subject(request.param, gate.copy_run(photos, tmp_path / "run"), pictures)


Plant = Callable[[Subject, pytest.MonkeyPatch], None]


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
    """What is planted, and by what each reference finds it.

    Attributes:
        plant: makes the fault.
        torch: checks that fail against torch.
        says: the cause that is named then.
        onnx: checks that fail against fp32 in ONNX Runtime on labelled images.
        golden: checks that fail against the golden logits; none: without images it cannot show.
        says_without_torch: in a cause or a check; None: `says`.
        precision: of the model that is judged in addition to fp32.
    """

    plant: Plant
    torch: tuple[str, ...]
    says: str
    onnx: tuple[str, ...]
    golden: tuple[str, ...] = ()
    says_without_torch: str | None = None
    precision: str = "fp32"


def graph(precision: str, change: Callable[[Any], None]) -> Plant:
    return lambda subject, _: gate.with_model(subject.run, precision, change)


def spec(**changes: Any) -> Plant:
    return lambda subject, _: gate.with_spec(subject.run, **changes)


def swap_mean_and_std(subject: Subject, _: pytest.MonkeyPatch) -> None:
    was = open_bundle(subject.run.bundle).spec
    gate.with_spec(subject.run, mean=was.std, std=was.mean)


def shift_classes(subject: Subject, _: pytest.MonkeyPatch) -> None:
    classes = open_bundle(subject.run.bundle).spec.classes
    gate.with_spec(subject.run, classes=(*classes[-1:], *classes[:-1]))


def on_device(prepare: Callable[[list[Image.Image], ModelSpec], np.ndarray]) -> Plant:
    """The device's preprocessing is at fault, and the bundle is not."""

    def plant(_: Subject, patch: pytest.MonkeyPatch) -> None:
        for module in (torch_reference, batches):
            patch.setattr(module, "preprocess_batch", prepare)

    return plant


def as_bgr(images: list[Image.Image], spec: ModelSpec) -> np.ndarray:
    return preprocess_batch([gate.swapped(image) for image in images], spec)


def with_swapped_statistics(images: list[Image.Image], spec: ModelSpec) -> np.ndarray:
    return preprocess_batch(images, spec.model_copy(update={"mean": spec.std, "std": spec.mean}))


def golden_of_bgr(subject: Subject, _: pytest.MonkeyPatch) -> None:
    gate.with_golden(subject.run, input=open_bundle(subject.run.bundle).golden().input[:, ::-1].copy())


def shifted_golden(subject: Subject, _: pytest.MonkeyPatch) -> None:
    gate.with_golden(subject.run, logits=np.roll(open_bundle(subject.run.bundle).golden().logits, 1, axis=1))


def shift_labels(subject: Subject, _: pytest.MonkeyPatch) -> None:
    run, shifted = subject.run, subject.run.path / "shifted"
    classes = open_bundle(run.bundle).spec.classes
    for name, next_name in zip(classes, (*classes[1:], classes[0]), strict=True):
        if (subject.pictures / name).is_dir():
            shutil.copytree(subject.pictures / name, shifted / next_name)
    subject.pictures = shifted
    source = Path(run.read_recipe().data.source)
    with np.load(source) as arrays:
        values = dict(arrays)
    for key in ("y", "y_train", "y_val"):
        if key in values:
            values[key] = (values[key] + 1) % len(values["classes"])
    np.savez(run.path / "shifted.npz", **values)
    recipe = run.path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(source), str(run.path / "shifted.npz")))


NUMBERS = ("max abs / scale", "golden logits")
MEANS = ("mean abs / scale", "golden logits")
GOLDEN_IMAGES = ("golden images",)
NOT_TORCHS = "does not give here what torch gave for the golden images"
OTHER_INPUT = "the input of golden image 0 is not what the spec makes of it"
CONVERSION = "so this comes from the conversion"
FAULTS = {
    "scale of a convolution, fp32": Fault(
        graph("fp32", gate.scale_convolution),
        NUMBERS,
        "one of its nodes or weights is another",
        NUMBERS,
        NUMBERS,
        NOT_TORCHS,
    ),
    "scale of a convolution, fp16": Fault(
        graph("fp16", gate.scale_convolution), MEANS, CONVERSION, MEANS, MEANS, precision="fp16"
    ),
    "scale of a DequantizeLinear": Fault(
        graph("int8", gate.scale_convolution),
        ("top-1 agreement",),
        CONVERSION,
        ("top-1 agreement",),
        MEANS,
        precision="int8",
    ),
    "scale of the logits": Fault(
        graph("fp16", gate.scale_classifier),
        MEANS,
        "the logits are 10 times the reference's",
        MEANS,
        MEANS,
        precision="fp16",
    ),
    "mean and std swapped in the spec": Fault(
        swap_mean_and_std,
        ("spec", "pixel difference"),
        "spec.json: mean and std are in each other's place",
        GOLDEN_IMAGES,
        says_without_torch=OTHER_INPUT,
    ),
    "mean and std swapped on the device": Fault(
        on_device(with_swapped_statistics),
        ("pixel difference",),
        "mean and std in each other's place",
        GOLDEN_IMAGES,
        says_without_torch=OTHER_INPUT,
    ),
    "mean of BGR in the spec": Fault(
        spec(mean=gate.MEAN[::-1], std=gate.STD[::-1]),
        ("spec", "pixel difference"),
        "order BGR",
        GOLDEN_IMAGES,
        says_without_torch=OTHER_INPUT,
    ),
    "BGR on the device": Fault(
        on_device(as_bgr),
        ("pixel difference",),
        "come in the order BGR",
        GOLDEN_IMAGES,
        says_without_torch=OTHER_INPUT,
    ),
    "BGR in the model": Fault(
        graph("fp32", gate.take_bgr),
        NUMBERS,
        "takes its channels in the order BGR",
        NUMBERS,
        NUMBERS,
        NOT_TORCHS,
    ),
    "BGR in the golden images": Fault(
        golden_of_bgr,
        ("golden images", "golden logits"),
        "golden.npz does not hold",
        ("golden images", "golden logits"),
        ("golden logits",),
        NOT_TORCHS,
    ),
    "classes shifted in the spec": Fault(
        shift_classes,
        ("spec",),
        r"classes: they are shifted by \+1",
        ("golden images", "labels"),
        says_without_torch="the labels are shifted by one",
    ),
    "classes shifted in the model": Fault(
        graph("fp32", gate.shift_classifier), NUMBERS, "the classes are shifted by one", NUMBERS, NUMBERS
    ),
    "classes shifted in the golden images": Fault(
        shifted_golden, ("golden logits",), "shifted by one", ("golden logits",), ("golden logits",)
    ),
    "labels shifted in the data": Fault(
        shift_labels, ("labels",), "the labels are shifted by one", ("labels", "golden images")
    ),
    "another crop": Fault(
        spec(crop_pct=0.7),
        ("spec", "pixel difference"),
        "crop_pct is 0.7",
        GOLDEN_IMAGES,
        says_without_torch=OTHER_INPUT,
    ),
    "NaN": Fault(graph("fp32", gate.break_with_nan), NUMBERS, "give NaN or Inf", NUMBERS, NUMBERS),
}


def gate_fails(
    subject: Subject, fault: Fault, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plant the fault, validate through the command line, and look at exit code, checks and words."""
    fault.plant(subject, patch)
    precisions = dict.fromkeys(["fp32", fault.precision])
    code, document = subject.validate(*(word for name in precisions for word in ("--precision", name)))
    error = capsys.readouterr().err
    expected = {TORCH: fault.torch, ONNX: fault.onnx, GOLDEN: fault.golden}[subject.reference]
    if not expected:
        assert (code, document.passed) == (0, True), "without images it cannot show"
        return
    assert (code, document.passed) == (5, False)
    # The second, where another model of the bundle ships.
    assert re.search("error: (Not good enough to ship|The exported student does not pass: )", error)
    checks = [*document.checks, *(check for one in document.judgements for check in one.checks)]
    failed = {check.name for check in checks if check.failed}
    assert failed >= set(expected), failed
    if subject.reference == TORCH:
        (hint,) = (line for line in error.splitlines() if line.startswith("hint: Likely cause: "))
        assert re.search(fault.says, hint), error
    else:
        words = [*list_causes(document), *(check.detail for check in checks if check.failed)]
        assert any(re.search(fault.says_without_torch or fault.says, text) for text in words), words


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault(
    name: str, subject: Subject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gate_fails(subject, FAULTS[name], monkeypatch, capsys)


def test_a_sound_bundle_passes(subject: Subject, capsys: pytest.CaptureFixture[str]) -> None:
    few = [f"budget.{one}.{key}" for one in ("fp16", "int8") for key in ("top1_drop=1", "agreement=0")]
    few.append("budget.student_drop=null")
    code, document = subject.validate(*(word for key in few for word in ("--set", key)))
    said = " ".join(capsys.readouterr().out.split())
    assert (code, document.verdict, document.causes) == (0, "PASS", []), document.reason
    fp32, _, int8 = document.judgements
    assert [one.precision for one in document.judgements] == ["fp32", "fp16", "int8"]
    checks = [check for one in document.judgements for check in one.checks]
    missing = {check.detail for check in checks if check.verdict == "NOT JUDGED"}
    names = ["onnxruntime:cpu:fp32", "onnxruntime:cpu:fp16", "onnxruntime:cpu:int8"]
    bundle_checks = {check.name: check for check in document.checks}
    assert {check.verdict for check in document.checks} == {"PASS"}
    assert document.provenance.device.device == "cpu"
    if subject.reference == GOLDEN:
        assert (document.reference, document.accuracy, document.preprocess) == ("golden.npz", {}, None)
        assert list(bundle_checks) == ["golden logits"]
        assert all(one.accuracy is None for one in document.judgements)
        assert missing == {NO_IMAGES}
        assert document.data.val_images == 8
        assert "compared on the bundle's 8 golden images alone" in said
        assert document.mistakes is None
        return
    # No teacher is called here: every mistake counts, and only a run has training images.
    assert document.mistakes is not None
    right = sum(one.student_right for one in document.mistakes.classes)
    assert right / IMAGES == document.accuracy[document.reference].top1.value
    assert len(document.mistakes.examples) == min(12, IMAGES - right)
    assert all(one.jpeg and one.teacher is None for one in document.mistakes.examples)
    assert all(Path(one.name).suffix == ".png" or subject.reference == TORCH for one in document.mistakes.examples)
    assert (document.training_accuracy is not None) == (subject.reference == TORCH)
    assert bundle_checks["golden images"].detail == "8 of 8 were among the images"
    assert int8.accuracy is not None
    assert {accuracy.images for accuracy in document.accuracy.values()} == {int8.accuracy.images} == {IMAGES}
    if subject.reference == TORCH:
        assert (document.reference, list(document.accuracy)) == ("torch:cpu:fp32", ["torch:cpu:fp32", *names])
        assert list(bundle_checks) == ["pixel difference", "spec", "golden images", "labels", "golden logits"]
        assert document.preprocess is not None
        assert fp32.accuracy is not None
        assert missing == set()
    else:
        assert (document.reference, list(document.accuracy)) == (names[0], names)
        assert list(bundle_checks) == ["golden logits", "golden images", "labels"]
        assert document.preprocess is None
        assert fp32.accuracy is None  # it is the reference, and judged by torch's golden logits
        assert {parity.reference for parity in fp32.parity} == {"golden.npz"}
        assert IS_REFERENCE in missing


@pytest.mark.parametrize("subject", [TORCH, ONNX], indirect=True)
def test_images_that_cannot_be_read_are_named(subject: Subject, capsys: pytest.CaptureFixture[str]) -> None:
    folder = subject.run.path / "pictures"
    shutil.copytree(subject.pictures, folder / "val")
    (folder / "val/sky/broken.png").write_bytes(b"no image")
    if subject.reference == TORCH:
        shutil.copytree(subject.pictures, folder / "train")
        recipe = subject.run.path / "recipe.yaml"
        source = subject.run.read_recipe().data.source
        recipe.write_text(recipe.read_text().replace(source, str(folder)))
    subject.pictures = folder / "val"
    flags = ("--precision", "fp32", "--set", "data.max_unreadable=0.1", "--set", "budget.student_drop=null")
    if subject.reference == TORCH:
        flags = (*flags, "--set", "validate.images=null")
    _, document = subject.validate(*flags)
    assert [Path(name).name for name in document.data.skipped] == ["broken.png"]
    assert "left out 1 image that cannot be read: " in capsys.readouterr().err


def test_nothing_that_can_run_is_an_error(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a pass nor a document, whatever the reference."""
    real = loader.OnnxRuntimeRunner

    def open_runner(*rest: Any, provider: str, **more: Any) -> Any:
        if provider == "cuda":
            raise ProviderLacksKernel("no kernel for anything")
        return real(*rest, provider=provider, **more)

    def select_providers(names: tuple[str, ...]) -> list[str]:
        return ["cuda"] if names == ("auto",) else list(names)

    monkeypatch.setattr(loader, "select_providers", select_providers)
    monkeypatch.setattr(loader, "OnnxRuntimeRunner", open_runner)
    assert main(subject.command()) == 4
    assert not subject.document.exists()
    assert "None of the bundle's precisions can be run here: model.fp32.onnx: no kernel" in capsys.readouterr().err


def test_without_a_fault_the_run_passes_on_all_images(
    photos: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    numbers = ("max abs / scale",) if name == "BGR in the model" else fault.torch
    subject = Subject(TORCH, gate.copy_run(bytes_in, tmp_path / "run"), tmp_path, images=())
    gate_fails(subject, replace(fault, torch=numbers), monkeypatch, capsys)


# --- the real model

# Its mean and std are all 0.5: in each other's place they change nothing, so others' are planted as well.
NO_FAULT = {"mean and std swapped in the spec", "mean and std swapped on the device", "mean of BGR in the spec"}
REAL_FAULTS = {name: fault for name, fault in FAULTS.items() if name not in NO_FAULT}
REAL_FAULTS["mean and std of ImageNet in the spec"] = Fault(
    spec(mean=gate.MEAN, std=gate.STD), ("spec", "pixel difference"), r"mean is \(0.485, 0.456, 0.406\)", ()
)
REAL_FAULTS["mean and std of ImageNet, swapped"] = Fault(
    spec(mean=gate.STD, std=gate.MEAN), ("spec", "pixel difference"), r"mean is \(0.229, 0.224, 0.225\)", ()
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
    subject = Subject(TORCH, gate.copy_run(mobilenet, tmp_path / "run"), tmp_path)
    gate_fails(subject, REAL_FAULTS[name], monkeypatch, capsys)


@pytest.mark.slow
def test_the_real_model_passes_in_fp32_and_fp16(mobilenet: RunFolder, tmp_path: Path) -> None:
    run = gate.copy_run(mobilenet, tmp_path / "run")
    code = main(["validate", str(run.path), "--precision", "fp32", "--precision", "fp16"])
    document = json.loads((run / "validation.json").read_text())
    assert code == 0, document
    assert 0.75 < document["accuracy"]["torch:cpu:fp32"]["top1"]["value"] < 0.85


# --- reading ahead


def test_the_next_item_is_under_way_and_no_more_than_that() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number

    seen = []
    for item in batches.prefetch(items()):
        time.sleep(0.02)  # as long as the runners take
        assert len(made) <= item + 2
        seen.append(item)
    assert seen == made == [0, 1, 2, 3, 4]


def test_items_are_made_in_another_thread() -> None:
    here = threading.get_ident()
    assert all(ident != here for ident in batches.prefetch(threading.get_ident() for _ in range(3)))


def test_an_error_of_an_item_arrives() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the second cannot be read")

    found = batches.prefetch(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="cannot be read"):
        next(found)
