from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dskd_compress.config import AugmentSection, DataSection
from dskd_compress.data import Normalise, Preprocessing, eval_transform, resolve_preprocessing
from dskd_compress.data.preprocessing import fit_transform, train_transform
from dskd_compress.timm_import import import_timm
from dskd_export.errors import ModelError, RecipeError

timm = import_timm()
from timm.data import create_transform, resolve_model_data_config  # noqa: E402

PRE = Preprocessing((3, 24, 32), (0.5,) * 3, (0.2,) * 3, "bicubic", 0.875, "center")
MODELS = ["resnet18", "vit_tiny_patch16_224", "mobilenetv4_conv_small"]


@pytest.fixture(scope="module")
def models():
    return {name: timm.create_model(name) for name in MODELS}


def test_takes_timms_config(models) -> None:
    for model in models.values():
        config = resolve_model_data_config(model)
        ours = resolve_preprocessing(DataSection(), model)
        assert {key: getattr(ours, key) for key in config} == config


def test_recipe_wins(models) -> None:
    section = DataSection(
        input_size=96,
        interpolation="bilinear",
        mean=(0.1, 0.2, 0.3),
        std=(1, 2, 3),
        crop_pct=1.0,
        crop_mode="squash",
    )
    ours = resolve_preprocessing(section, models["resnet18"])
    assert ours.input_size == (3, 96, 96)
    assert (ours.interpolation, ours.crop_pct, ours.crop_mode) == ("bilinear", 1.0, "squash")
    assert (ours.mean, ours.std) == ((0.1, 0.2, 0.3), (1, 2, 3))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("interpolation", "random", "data.interpolation to nearest, bilinear"),
        ("crop_mode", "middle", "data.crop_mode to center, squash, border"),
        ("crop_pct", -0.5, "data.crop_pct to a number above 0, at most 224"),
        ("crop_pct", 225.0, "data.crop_pct to"),
        ("crop_pct", float("nan"), "data.crop_pct to"),
    ],
)
def test_a_config_that_timm_cannot_evaluate_is_named(key: str, value: object, said: str) -> None:
    model = timm.create_model("resnet18")
    model.pretrained_cfg |= {key: value}
    with pytest.raises(ModelError, match=f"data config has {key} '?{value}") as caught:
        resolve_preprocessing(DataSection(), model)
    assert said in str(caught.value)
    mended = {"interpolation": "box", "crop_mode": "squash", "crop_pct": 1.0}
    assert getattr(resolve_preprocessing(DataSection(**{key: mended[key]}), model), key) == mended[key]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("keys", [{}, {"crop_mode": "border", "crop_pct": 1.0}, {"input_size": 64}])
@pytest.mark.parametrize("size", [(301, 227), (40, 90)])
def test_batches_are_timms_bit_for_bit(models, name: str, keys: dict, size: tuple[int, int]) -> None:
    preprocessing = resolve_preprocessing(DataSection(**keys), models[name])
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))
    theirs = create_transform(**{**resolve_model_data_config(models[name]), **vars(preprocessing)})(image)
    uint8_CHW = eval_transform(preprocessing, normalise=False)(image)
    assert uint8_CHW.dtype == torch.uint8
    ours = Normalise(preprocessing, torch.device("cpu"))(torch.stack([uint8_CHW] * 2))
    assert torch.equal(ours[1], theirs)
    assert torch.equal(eval_transform(preprocessing)(image), theirs)


def test_unknown_augmentation_policy(models) -> None:
    preprocessing = resolve_preprocessing(DataSection(), models["resnet18"])
    with pytest.raises(RecipeError, match=r"data\.augment\.auto_augment.*'rant-m9'"):
        train_transform(preprocessing, AugmentSection(auto_augment="rant-m9"))


@pytest.mark.gpu
def test_normalising_on_the_gpu_is_the_same_bit_for_bit(models) -> None:
    preprocessing = resolve_preprocessing(DataSection(), models["resnet18"])
    images = torch.arange(256, dtype=torch.uint8).repeat(3, 1).reshape(1, 3, 16, 16)
    on_gpu = Normalise(preprocessing, torch.device("cuda"))(images).cpu()
    assert torch.equal(on_gpu, Normalise(preprocessing, torch.device("cpu"))(images))


def test_pad_crop_is_the_cifar_protocol() -> None:
    """Against the transform that the papers write down, drawn from the same generator."""
    from torchvision.transforms import Compose, PILToTensor, RandomCrop, RandomHorizontalFlip

    ours = train_transform(PRE, AugmentSection(crop="pad", pad=3, scale=(0.1, 0.1)))
    theirs = Compose([RandomCrop((24, 32), padding=3), RandomHorizontalFlip(0.5), PILToTensor()])
    image = Image.fromarray(np.random.default_rng(0).integers(1, 256, (24, 32, 3), np.uint8))
    black = set()
    for seed in range(40):
        torch.manual_seed(seed)
        got = ours(image)
        torch.manual_seed(seed)
        assert torch.equal(got, theirs(image))
        black.add(int((got == 0).sum()))
    assert len(black) > 5
    assert train_transform(PRE, AugmentSection(crop="pad"))(image.resize((50, 90))).shape == (3, 24, 32)


def test_fit_keeps_an_image_of_the_input_size() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    fit = fit_transform(PRE)
    assert torch.equal(fit(Image.fromarray(pixels)), torch.from_numpy(pixels).permute(2, 0, 1))
    assert fit(Image.fromarray(pixels).resize((99, 40))).shape == (3, 24, 32)
