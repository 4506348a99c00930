"""From an RGB image to the student's input, with timm's own transforms.

Shape suffixes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import torch
from PIL import Image

from dskd_compress.config import AugmentSection, DataSection
from dskd_compress.timm_import import import_timm
from dskd_export.errors import ModelError, RecipeError
from dskd_export.spec import CropMode, Interpolation

Transform = Callable[[Image.Image], torch.Tensor]


@dataclass(frozen=True)
class Preprocessing:
    """What timm calls the data config of a model."""

    input_size: tuple[int, int, int]  # channels, height, width in pixels
    mean: tuple[float, ...]  # of pixels in [0, 1], RGB
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float  # crop size / resized size
    crop_mode: str  # center, squash or border


def resolve_preprocessing(section: DataSection, model: Any) -> Preprocessing:
    """Take a timm model's own data config; what the recipe sets wins.

    Raises:
        ModelError: the model's own config asks for what timm's evaluation transform does not know.
    """
    import_timm()
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(model)
    channels, height, width = config["input_size"]
    if section.input_size is not None:
        height = width = section.input_size
    found = Preprocessing(
        input_size=(channels, height, width),
        mean=tuple(section.mean or config["mean"]),
        std=tuple(section.std or config["std"]),
        interpolation=section.interpolation or config["interpolation"],
        crop_pct=section.crop_pct or config["crop_pct"],
        crop_mode=section.crop_mode or config["crop_mode"],
    )
    _check(found)
    return found


def _check(preprocessing: Preprocessing) -> None:
    """Refuse what timm would die of at the first image, or, as with the crop mode, silently take for another."""
    size = min(preprocessing.input_size[1:])
    filters, modes = get_args(Interpolation), get_args(CropMode)
    for key, sound, valid in (
        ("interpolation", preprocessing.interpolation in filters, ", ".join(filters)),
        ("crop_mode", preprocessing.crop_mode in modes, ", ".join(modes)),
        ("crop_pct", 0 < preprocessing.crop_pct <= size, f"a number above 0, at most {size}"),
    ):
        if not sound:
            raise ModelError(
                f"The model's data config has {key} {getattr(preprocessing, key)!r}, with which no image can be "
                "evaluated.",
                f"Set data.{key} to {valid}.",
            )


def eval_transform(preprocessing: Preprocessing, *, normalise: bool = True) -> Transform:
    """Return timm's evaluation transform: RGB image -> float32 [C, H, W], normalised.

    Args:
        normalise: False gives uint8 [C, H, W] before normalisation.
    """
    import_timm()
    from timm.data import create_transform

    return create_transform(**asdict(preprocessing), use_prefetcher=not normalise)  # type: ignore[no-any-return]


def fit_transform(preprocessing: Preprocessing) -> Transform:
    """Return what brings an RGB image to the input size: uint8 [C, H, W], the whole image as far as it fits.

    It is the evaluation's resize without its `crop_pct`; an image of the input size stays as it is.
    """
    return eval_transform(replace(preprocessing, crop_pct=1.0), normalise=False)


def train_transform(preprocessing: Preprocessing, augment: AugmentSection) -> Transform:
    """Return timm's training transform: RGB image -> uint8 [C, H, W], augmented.

    With `crop: pad` the random resized crop is replaced by the crop of the CIFAR protocol (He et al.,
    "Deep Residual Learning", section 4.2): the image, fitted to the input size, in a black border.
    timm's own crops with padding reflect the image instead.

    Random erasing and mixing are not part of it: they act on normalised batches.

    Raises:
        RecipeError: timm does not know the `auto_augment` policy.
    """
    import_timm()
    from timm.data import create_transform
    from torchvision.transforms import Compose, RandomCrop

    try:
        spatial, colour, final = create_transform(
            input_size=preprocessing.input_size,
            is_training=True,
            scale=augment.scale,
            ratio=augment.ratio,
            hflip=augment.hflip,
            vflip=augment.vflip,
            color_jitter=augment.color_jitter or None,
            auto_augment=augment.auto_augment,
            interpolation=preprocessing.interpolation,
            mean=preprocessing.mean,
            std=preprocessing.std,
            use_prefetcher=True,
            separate=True,
        )
    except (AssertionError, KeyError, ValueError, IndexError) as error:
        raise RecipeError(
            f"data.augment.auto_augment: timm cannot read '{augment.auto_augment}' ({error}).",
            "Write for example rand-m9-mstd0.5, original, 3a or augmix-m5-w3.",
        ) from error
    crop, *flips = spatial.transforms
    if augment.crop == "pad":
        *fit, _to_tensor = fit_transform(preprocessing).transforms  # type: ignore[attr-defined]
        crop = Compose([*fit, RandomCrop(preprocessing.input_size[1:], padding=augment.pad)])
    return Compose([crop, *flips, *colour.transforms, *final.transforms])  # type: ignore[no-any-return]


class Normalise:
    """uint8 batches -> float batches on the device, with the very operations of timm's transform.

    Divisors are tensors on the device: CUDA turns a division by a Python number into a
    multiplication by its reciprocal, which is not the same float.
    """

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self.device = device
        self.range = torch.tensor(255.0, device=device)
        self.mean_C11 = torch.tensor(preprocessing.mean, device=device).view(-1, 1, 1)
        self.std_C11 = torch.tensor(preprocessing.std, device=device).view(-1, 1, 1)

    def __call__(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Move, scale to [0, 1], subtract the mean, divide by the std."""
        images_BCHW = images_BCHW.to(self.device, non_blocking=True).to(torch.float32)
        return images_BCHW.div_(self.range).sub_(self.mean_C11).div_(self.std_C11)
