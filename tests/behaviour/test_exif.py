"""`data.exif` from the recipe to the device: one handling of EXIF in training, bundle and validation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundle_support import make_provenance, make_spec
from onnx import TensorProto, helper, numpy_helper
from photo_support import store_turned
from PIL import Image
from readme_blocks import make_photos
from run_support import QUIET, small_recipe

from dskd_compress.cli import main
from dskd_compress.preflight import check_run
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.distill import run_distill
from dskd_compress.stages.export import run_export
from dskd_export.bundle import BundledModel, open_bundle, write_bundle
from dskd_export.bundle.golden import Golden
from dskd_export.documents.base import read_document
from dskd_export.documents.validation import ValidationDocument
from dskd_export.runtime.images import pixel_sha256
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.spec import METADATA_KEY

pytestmark = pytest.mark.usefixtures("no_document_yet")

SIDES = ("bright above", "bright below", "bright left", "bright right")


def make_gradient(side: int, seed: int) -> Image.Image:
    """A noisy picture that is bright towards one of `SIDES`."""
    rows, columns = np.mgrid[0:24, 0:24] / 23
    bright = (1 - rows, rows, 1 - columns, columns)[side]
    noise = np.random.default_rng(seed).normal(0, 0.1, (24, 24, 3))
    return Image.fromarray((255 * (bright[..., None] + noise).clip(0, 1)).astype(np.uint8))


def make_side_bundle(folder: Path, exif: str) -> Path:
    """A bundle that tells the four sides apart: a linear model whose weights are the pictures themselves."""
    size = {"height": 24, "width": 24, "crop_pct": 1.0, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    spec = make_spec(classes=SIDES, exif=exif, **size)
    images = [make_gradient(side, side) for side in range(4)]
    inputs = preprocess_batch(images, spec).astype(np.float32)
    weight = inputs.reshape(4, -1).T.copy() / 100
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["input"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
        ],
        "sides",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 24, 24])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, spec.to_metadata())
    golden = Golden(
        input=inputs,
        logits=inputs.reshape(4, -1) @ weight,
        labels=np.arange(4),
        image_sha256=np.array([pixel_sha256(image) for image in images]),
    )
    models = {"fp32": BundledModel(model.SerializeToString(deterministic=True), "by hand")}
    write_bundle(folder, spec=spec, models=models, golden=golden, provenance=make_provenance(), calibration=None)
    return folder


def write_pictures(folder: Path, orientations: tuple[int, ...]) -> Path:
    for side, name in enumerate(SIDES):
        (folder / name).mkdir(parents=True)
        for number, orientation in enumerate(orientations):
            path = folder / name / f"{number}.png"
            path.write_bytes(store_turned(make_gradient(side, side + 4 * number), orientation))
    return folder


def validate(bundle: Path, images: Path, out: Path) -> ValidationDocument:
    main(["validate", str(bundle), "--images", str(images), "--out", str(out)])
    return read_document(out / "validation.json", ValidationDocument)


@pytest.mark.parametrize(
    ("exif", "accuracy", "golden"), [("apply", 1.0, "4 of 4"), ("ignore", 0.25, "none of them")]
)
def test_a_wrong_key_shows_in_the_accuracy_and_is_named(
    exif: str, accuracy: float, golden: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_side_bundle(tmp_path / "bundle", exif)
    pictures = write_pictures(tmp_path / "pictures", (6, 8, 3, 6, 8, 3, 6, 1))
    document = validate(bundle, pictures, tmp_path / "out")
    (measured,) = document.accuracy.values()
    assert measured.top1.value <= accuracy if exif == "ignore" else measured.top1.value == accuracy
    found = next(check for check in document.checks if check.name == "golden images")
    assert found.detail.startswith(golden), found.detail
    warned = capsys.readouterr().err
    assert ("28 of 32 images (88 %)" in warned) is (exif == "ignore")
    assert ("--set data.exif=apply" in warned) is (exif == "ignore")


def test_few_rotations_are_not_worth_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_side_bundle(tmp_path / "bundle", "ignore")
    validate(bundle, write_pictures(tmp_path / "pictures", (1,) * 10), tmp_path / "out")
    assert "EXIF" not in capsys.readouterr().err


@pytest.fixture(scope="module")
def sideways(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in all eight orientations."""
    folder = make_photos(tmp_path_factory.mktemp("photos") / "photos", pixels=32)
    for number, path in enumerate(sorted(folder.rglob("*.jpg"))):
        with Image.open(path) as image:
            content = store_turned(image.convert("RGB"), number % 8 + 1)
        path.with_suffix(".png").write_bytes(content)
        path.unlink()
    return folder


def test_a_run_carries_it_to_the_device(
    sideways: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ("method.name=none", "teacher.train=null", "train.epochs=1", "export.golden_images=4")
    recipe = small_recipe(f"data.source={sideways}", *keys, "export.teacher=false", "data.exif=apply")
    run = RunFolder(tmp_path / "run")
    run_distill(recipe, run, QUIET)
    run_export(recipe, run, QUIET)
    bundle = open_bundle(run.bundle)
    assert bundle.spec.exif == json.loads((run.bundle / "spec.json").read_bytes())["exif"] == "apply"
    metadata = {entry.key: entry.value for entry in onnx.load(run.bundle / "model.fp32.onnx").metadata_props}
    assert json.loads(metadata[METADATA_KEY])["exif"] == "apply"
    # The device reads the files of the validation set: the golden images are found by their pixels, and equal.
    document = validate(run.bundle, sideways / "val", tmp_path / "out")
    found = {check.name: check for check in document.checks}
    assert found["golden images"].detail == "4 of 4 were among the images"
    assert {check.verdict for check in document.checks} <= {"PASS", "NOT JUDGED"}
    assert main(["bundle", "show", str(run.bundle)]) == 0
    assert "applied: photos are turned upright" in capsys.readouterr().out


def test_the_preflight_warns_where_it_is_ignored(sideways: Path, tmp_path: Path) -> None:
    for exif, count in (("ignore", 1), ("apply", 0)):
        recipe = small_recipe(f"data.source={sideways}", f"data.exif={exif}")
        found = check_run(recipe, RunFolder(tmp_path / "run"), ("train", "distill"), QUIET).preflight
        named = [sentence for sentence in found.warnings if "--set data.exif=apply" in sentence]
        assert len(named) == count
        assert count == 0 or "84 of 96 sampled images" in named[0]
