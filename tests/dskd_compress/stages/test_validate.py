from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from run_support import QUIET, Finished, small_recipe

from dskd_compress import data, torch_reference
from dskd_compress.data import ValLoader, eval_transform, iter_images, open_data
from dskd_compress.run_folder import RunFolder
from dskd_compress.run_folder.stages import find_stage
from dskd_compress.show.validation import refuse_failed
from dskd_compress.stages.validate import run_validate
from dskd_compress.weights import load_trained, save_weights
from dskd_export.benchmark.winner import decide
from dskd_export.documents.base import StageRecord, read_document
from dskd_export.documents.validation import Judgement, ValidationDocument
from dskd_export.errors import BundleError, DataError, GateFailed, NotShown
from dskd_export.validation.accuracy import compare_accuracy

LIMITS = {
    "max abs / scale": ("max_abs_relative", "<="),
    "cosine": ("min_cosine", ">="),
    "KL": ("max_kl", "<="),
    "top-1 agreement": ("min_agreement", ">="),
    "top-1 drop": ("max_top1_drop", "<="),
    "golden logits": ("max_abs_relative", "<="),
}
BUNDLE = ["pixel difference", "spec", "golden images", "labels", "golden logits"]


@pytest.fixture(scope="module")
def document(finished: Finished) -> ValidationDocument:
    return read_document(finished.folder / "validation.json", ValidationDocument)


@pytest.fixture(scope="module")
def fp32(document: ValidationDocument) -> Judgement:
    (judgement,) = document.judgements
    return judgement


def test_it_passes_by_the_limits_of_the_recipe(
    document: ValidationDocument, fp32: Judgement, finished: Finished
) -> None:
    assert document.passed
    checks = {check.name: check for check in fp32.checks}
    assert set(checks) == set(LIMITS)
    for name, (field, comparison) in LIMITS.items():
        assert checks[name].limit == getattr(finished.recipe.validation, field)
        assert (checks[name].comparison, checks[name].verdict) == (comparison, "PASS")
    assert [check.name for check in document.checks] == BUNDLE
    assert {check.verdict for check in document.checks} == {"PASS"}
    assert document.checks[0].limit == finished.recipe.validation.max_pixel_error
    assert (document.causes, fp32.causes) == ([], [])
    assert (document.verdict, fp32.reason) == ("PASS", f"{len(LIMITS)} checks passed")
    refuse_failed(document)


def test_who_is_compared(document: ValidationDocument, fp32: Judgement, finished: Finished) -> None:
    assert document.reference == "torch:cpu:fp32"
    assert (fp32.runner, fp32.precision, fp32.provider) == ("onnxruntime:cpu:fp32", "fp32", "cpu")
    assert (fp32.verdict, fp32.native) == ("PASS", True)
    assert fp32.size_mb == (finished.folder / "bundle/model.fp32.onnx").stat().st_size / 1e6


def test_parity_at_every_batch_and_on_the_golden_images(fp32: Judgement) -> None:
    found = [(parity.reference, parity.batch, parity.images) for parity in fp32.parity]
    torch_, golden = "torch:cpu:fp32", "golden.npz"
    assert found == [(torch_, 16, 70), (torch_, 1, 16), (torch_, 3, 16), (golden, 5, 5)]
    for parity in fp32.parity:
        assert parity.candidate == "onnxruntime:cpu:fp32"
        assert parity.finite
        assert 0 <= parity.max_abs_relative < 1e-5
        assert parity.top1_agreement == 1.0
        assert parity.output_scale > 0


def test_the_accuracy_is_that_of_torch_on_the_same_images(
    document: ValidationDocument, finished: Finished
) -> None:
    """By timm's own transform, and the model by hand."""
    model, info = load_trained(finished.folder / "student.safetensors")
    sets = open_data(finished.recipe.data, 0)
    chosen = [(name, label) for _, label, name in iter_images(sets.val, 70, 0)]
    loader = ValLoader(sets, info.preprocessing, batch_size=2000, device="cpu", workers=0)
    images_NCHW, _ = next(iter(loader))
    position = {sets.val.name(index): index for index in range(len(sets.val))}
    with torch.no_grad():
        logits = model(images_NCHW[[position[name] for name, _ in chosen]]).numpy()
    top1 = float((logits.argmax(1) == np.array([label for _, label in chosen])).mean())
    assert list(document.accuracy) == ["torch:cpu:fp32", "onnxruntime:cpu:fp32"]
    paired = compare_accuracy(logits, logits, np.array([label for _, label in chosen]), info.classes)
    found = document.judgements[0].accuracy
    assert found is not None
    assert (found.images, found.lost, found.gained) == (70, 0, 0)
    assert found.top1_drop == paired.top1_drop
    assert found.reference_calibration_error == pytest.approx(paired.reference_calibration_error, abs=1e-5)
    for accuracy in document.accuracy.values():
        assert accuracy.images == 70
        assert accuracy.top1.value == pytest.approx(top1)


def test_the_student_is_judged_by_its_teacher_on_the_same_images(
    document: ValidationDocument, finished: Finished
) -> None:
    """Each by its own preprocessing, as a loop over plain timm models gives it."""
    sets = open_data(finished.recipe.data, 0)
    chosen = list(iter_images(sets.val, 70, 0))
    labels = np.array([label for _, label, _ in chosen])
    logits = {}
    for role in ("teacher", "student"):
        model, info = load_trained(finished.folder / f"{role}.safetensors")
        transform = eval_transform(info.preprocessing)
        with torch.no_grad():
            images_NCHW = torch.stack([torch.as_tensor(transform(image)) for image, _, _ in chosen])
            logits[role] = model(images_NCHW).numpy()
    student = document.student
    assert student is not None
    assert student.teacher is not None
    assert student.teacher_accuracy is not None
    expected = compare_accuracy(logits["teacher"], logits["student"], labels, sets.classes)
    assert (student.teacher.lost, student.teacher.gained) == (expected.lost, expected.gained)
    assert student.teacher.top1_drop == expected.top1_drop
    assert student.teacher_accuracy.top1.value == (logits["teacher"].argmax(1) == labels).mean()
    assert (student.commonest_class, student.commonest_share) == ("0", np.bincount(labels).max() / 70)
    assert [check.name for check in student.checks] == ["drop vs teacher", "vs commonest class"]


@pytest.mark.parametrize(
    ("gone", "overrides", "reason"),
    [
        ("teacher.safetensors", (), "teacher.safetensors is missing"),
        (None, ("teacher.train=null",), "has no weights"),
        (None, ("budget.student_drop=null",), None),
    ],
)
def test_without_a_teacher_the_student_is_not_judged_by_it(
    gone: str | None, overrides: tuple[str, ...], reason: str | None, finished: Finished, tmp_path: Path
) -> None:
    folder = finished.copy(tmp_path / "run")
    if gone is not None:
        (folder / gone).unlink()
    student = run_validate(small_recipe(*overrides), folder, QUIET).student
    assert student is not None
    found = {check.name: (check.verdict, check.detail) for check in student.checks}
    assert found["vs commonest class"][0] == "PASS"
    assert student.verdict == "PASS"
    assert student.teacher is None
    if reason is None:
        assert "drop vs teacher" not in found
    else:
        assert found["drop vs teacher"][0] == "NOT JUDGED"
        assert reason in found["drop vs teacher"][1]
        assert reason in student.reason


def test_the_preprocessing_is_that_of_timm(document: ValidationDocument) -> None:
    assert (document.preprocess.images, document.preprocess.max_abs_pixel) == (70, 0.0)
    assert (document.preprocess.max_abs_normalised, document.preprocess.differing_pixels) == (0.0, 0)


def test_the_record(document: ValidationDocument, finished: Finished) -> None:
    record = read_document(finished.folder / "stages/validate.json", StageRecord)
    assert set(record.inputs) == {"bundle/manifest.json", "student.safetensors", "teacher.safetensors", "data"}
    assert record.inputs["data"] == document.data.sha256
    assert record.inputs["bundle/manifest.json"] == document.bundle_sha256


def test_all_images_by_default(finished: Finished, tmp_path: Path) -> None:
    """They come in lots, the last one partial."""
    folder = finished.copy(tmp_path / "run")
    document = run_validate(small_recipe("validate.images=null", "validate.batches=[100]"), folder, QUIET)
    images = document.data.val_images
    assert images is not None
    assert images % 16 != 0
    assert {accuracy.images for accuracy in document.accuracy.values()} == {images}
    assert document.preprocess.images == images
    found = [(parity.batch, parity.images) for parity in document.judgements[0].parity]
    assert found == [(16, images), (100, 112), (5, 5)]
    assert document.checks[2].detail == "5 of 5 were among the images"


def test_no_more_than_two_lots_of_images_are_held(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished.copy(tmp_path / "run")
    waiting, most = 0, 0
    real_images, real_batch = data.iter_images, torch_reference.preprocess_batch
    real_input = torch_reference._torch_input  # of the training images

    def counted(*args, **kwargs):  # type: ignore[no-untyped-def]
        nonlocal waiting, most
        for item in real_images(*args, **kwargs):
            waiting += 1
            most = max(most, waiting)
            yield item

    def used(images, spec):  # type: ignore[no-untyped-def]
        nonlocal waiting
        waiting -= len(images)
        return real_batch(images, spec)

    def used_in_training(pixels, *args):  # type: ignore[no-untyped-def]
        nonlocal waiting
        waiting -= len(pixels)
        return real_input(pixels, *args)

    monkeypatch.setattr(data, "iter_images", counted)
    monkeypatch.setattr(torch_reference, "preprocess_batch", used)
    monkeypatch.setattr(torch_reference, "_torch_input", used_in_training)
    run_validate(small_recipe("validate.images=300"), folder, QUIET)
    assert (waiting, most) == (0, 16)


def test_mistakes_are_those_of_the_student_where_the_teacher_is_right(
    document: ValidationDocument, finished: Finished
) -> None:
    found, student = document.mistakes, document.student
    assert found is not None
    assert student is not None
    assert student.teacher is not None
    assert student.teacher_accuracy is not None
    images = student.teacher.images
    assert found.runner == document.reference == "torch:cpu:fp32"
    assert sum(one.images for one in found.classes) == images
    assert sum(one.lost or 0 for one in found.classes) == student.teacher.lost
    assert sum(one.gained or 0 for one in found.classes) == student.teacher.gained
    right = sum(one.student_right for one in found.classes)
    assert right / images == document.accuracy[document.reference].top1.value
    assert sum(one.teacher_right or 0 for one in found.classes) / images == student.teacher_accuracy.top1.value
    assert sum(pair.images for pair in found.confused) == images - right
    assert len(found.examples) == min(12, student.teacher.lost)
    assert all(one.teacher == one.label != one.student and one.jpeg for one in found.examples)
    confidences = [one.student_confidence for one in found.examples]
    assert confidences == sorted(confidences, reverse=True)


def test_training_images_are_measured_without_augmentation(
    document: ValidationDocument, finished: Finished
) -> None:
    student, info = load_trained(finished.folder / "student.safetensors")
    sets = open_data(finished.recipe.data, finished.recipe.seed)
    assert document.training_accuracy is not None
    images = document.training_accuracy.images
    assert images == document.accuracy[document.reference].images == 70
    transform = eval_transform(info.preprocessing)
    drawn = list(iter_images(sets.train, images, finished.recipe.seed))
    with torch.no_grad():
        logits = student.eval()(torch.stack([transform(image) for image, _, _ in drawn]))
    right = sum(int(row.argmax()) == label for row, (_, label, _) in zip(logits, drawn, strict=True))
    assert document.training_accuracy.top1.value == right / images


def test_photos_can_be_off_and_change_no_older_digest(finished: Finished, tmp_path: Path) -> None:
    on, off = (
        find_stage("validate").settings(small_recipe(*change)) for change in ((), ["validate.photos=false"])
    )
    assert "photos" not in on["validate"]
    assert off["validate"]["photos"] is False
    folder = finished.copy(tmp_path / "run")
    found = run_validate(small_recipe("validate.photos=false"), folder, QUIET).mistakes
    assert found is not None
    assert found.examples
    assert not found.photos
    assert all(one.jpeg is None for one in found.examples)


def test_few_images_are_warned_of(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.copy(tmp_path / "run")
    run_validate(small_recipe("validate.images=20"), folder, QUIET)
    assert "20 images are few: validate.images should be at least 256, or all." in capsys.readouterr().err


IMPOSSIBLE = ["validate.max_abs_relative=1e-30", "validate.min_cosine=1", "validate.max_kl=0"]


def test_limits_that_are_crossed_are_named(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    document = run_validate(small_recipe(*IMPOSSIBLE), folder, QUIET)
    assert not document.passed
    assert not read_document(folder / "validation.json", ValidationDocument).passed
    decision = decide(document, None)
    assert re.search(
        r"onnxruntime:cpu:fp32 fails: max abs / scale is \S+, the limit is <= 1e-30", decision.sentence
    )
    with pytest.raises(GateFailed) as caught:
        refuse_failed(document)
    passed = [check.name for check in document.judgements[0].checks if not check.failed]
    assert "top-1 agreement" in passed
    assert not any(name in f"{decision.sentence} {caught.value}" for name in passed)


def test_a_bundle_of_another_student(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    model, info = load_trained(folder / "student.safetensors")
    state = model.state_dict()
    state["classifier.bias"] += 1
    save_weights(folder / "student.safetensors", state, info)
    before = (folder / "validation.json").read_bytes()
    with pytest.raises(BundleError, match=rf"exported from another student.*dskd-compress export {folder.path}"):
        run_validate(finished.recipe, folder, QUIET)
    assert (folder / "validation.json").read_bytes() == before


def test_an_altered_bundle(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    with (folder / "bundle/model.fp32.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        run_validate(finished.recipe, folder, QUIET)


@pytest.mark.parametrize(
    ("gone", "stage"), [("student.safetensors", "distill"), ("bundle/manifest.json", "export")]
)
def test_what_is_missing(gone: str, stage: str, finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    (folder / gone).unlink()
    with pytest.raises(DataError, match=rf"is missing.*dskd-compress {stage}"):
        run_validate(finished.recipe, folder, QUIET)


def test_data_of_other_classes(finished: Finished, tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", x=np.zeros((8, 8, 8), dtype=np.uint8), y=np.arange(8) % 2)
    with pytest.raises(DataError, match="trained on other classes"):
        run_validate(small_recipe(f"data.source={tmp_path / 'two.npz'}"), finished.folder, QUIET)


def test_the_document_is_plain_json(finished: Finished) -> None:
    values = json.loads((finished.folder / "validation.json").read_text())
    assert (values["verdict"], values["passed"]) == ("PASS", True)
    assert RunFolder(finished.folder.path).require("validation.json", "validate").exists()


def test_a_teacher_that_was_fed_wrongly_proves_nothing(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the distillation found reaches the verdict; what it found in augmented images does not."""
    folder = finished.copy(tmp_path / "run")
    path = folder / "distill.json"
    document = json.loads(path.read_text())
    finding = {
        "kind": "teacher_input",
        "step": 0,
        "term": "normalisation",
        "severity": "warning",
        "seen": "Of 70 validation images the teacher is right on 20.",
        "means": "It was trained with another normalisation.",
        "cure": "Add to the command: --set 'teacher.mean=[0.5, 0.5, 0.5]'",
    }
    loose = ["budget.student_drop=0.95", "validate.batches=[1]"]
    verdicts = []
    for term in ("accuracy", "normalisation"):
        path.write_text(json.dumps({**document, "findings": [{**finding, "term": term}]}))
        student = run_validate(folder.read_recipe(loose), folder, QUIET).student
        assert student is not None
        verdicts.append(student.verdict)
    assert verdicts == ["PASS", "NOT SHOWN"]
    assert "--set 'teacher.mean=" in student.reason
    with pytest.raises(NotShown) as caught:
        refuse_failed(read_document(folder / "validation.json", ValidationDocument))
    assert "Correct the teacher's input" in str(caught.value.hint)
