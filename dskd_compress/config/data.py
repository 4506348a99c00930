"""Recipe sections of the images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from dskd_export.settings import Fraction, NonNegative, Positive, Section
from dskd_export.spec import CropMode, ExifMode, Interpolation


class AugmentSection(Section):
    """Training augmentation: timm's transforms, seeded by recipe seed, epoch and image."""

    hflip: Fraction = Field(0.5, description="probability of a horizontal flip; 0 for digits and text")
    vflip: Fraction = Field(0.0, description="probability of a vertical flip")
    crop: Literal["resized", "pad"] = Field(
        "resized",
        description="resized: random resized crop (scale, ratio) | pad: random crop of the image in a black "
        "border (pad), the CIFAR protocol",
    )
    scale: tuple[Positive, Positive] = Field((0.35, 1.0), description="area range of the crop: resized")
    ratio: tuple[Positive, Positive] = Field((0.75, 1.3333), description="aspect ratio range of the crop: resized")
    pad: int = Field(4, ge=0, description="width in pixels of the border of crop: pad")
    color_jitter: NonNegative = Field(0.0, description="strength of brightness, contrast, saturation jitter")
    auto_augment: str | None = Field(None, description="timm policy, for example rand-m9-mstd0.5")
    erase: Fraction = Field(0.0, description="probability of random erasing")
    mixup: NonNegative = Field(0.0, description="mixup alpha, 0 is off")
    cutmix: NonNegative = Field(0.0, description="cutmix alpha, 0 is off")
    views: int | None = Field(
        None,
        ge=1,
        description="augmentations per image: epoch e shows number e mod views; null: a new one every epoch. "
        "Order, mixing, cutmix and erasing still change every epoch",
    )

    @model_validator(mode="after")
    def _check_order(self) -> AugmentSection:
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the first number must not be larger than the second")
        return self


class DataSection(Section):
    """Where the images come from and how they become tensors."""

    source: str = Field(
        "digits",
        description="digits | a folder with train/ and val/ | one folder of classes | .npz | .tar | "
        "hfds/NAME, wds/PATH, tfds/NAME (timm readers)",
    )
    train_split: str = Field("train", description="name of the training split or folder")
    val_split: str | None = Field(
        None,
        description="name of the validation split or folder; null: val, validation or test, whichever is there",
    )
    val_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of each class held out if the source has no validation split"
    )
    split_seed: int = Field(0, description="seed of that split, independent of the training seed")
    train_per_class: int | None = Field(
        None,
        ge=1,
        description="training images per class, drawn by split_seed, for experiments with few labels; null: all",
    )
    exif: ExifMode = Field(
        "ignore",
        description="ignore: pixels as stored | apply: photos turned upright by the orientation in their EXIF, in "
        "training and on the device",
    )
    input_size: int | None = Field(None, ge=8, description="square input in pixels; null: the student's own size")
    interpolation: Interpolation | None = Field(None, description="null: the student's own")
    mean: tuple[float, float, float] | None = Field(
        None, description="RGB mean in [0, 1]; null: the student's own"
    )
    std: tuple[Positive, Positive, Positive] | None = Field(None, description="RGB std; null: the student's own")
    crop_pct: float | None = Field(None, gt=0, le=1, description="centre crop; null: the student's own")
    crop_mode: CropMode | None = Field(None, description="null: the student's own")
    loader: Literal["workers", "resident"] = Field(
        "workers",
        description="workers: processes decode and augment each image | resident: all images are decoded once to "
        "the input size, stored as bytes on the training device and augmented there by the batch",
    )
    workers: int = Field(2, ge=0, description="processes that decode images; 0 decodes in the training process")
    max_unreadable: Fraction = Field(
        0.001, description="share of unreadable images tolerated before the run stops"
    )
    augment: AugmentSection = AugmentSection()

    def find_folder(self) -> Path | None:
        """Find the folder whose files are the images; None: a built-in set, one that is downloaded, or a file."""
        prefix, _, rest = self.source.partition("/")
        if self.source == "digits" or (rest and prefix.lower() in ("hfds", "tfds", "hfids")):
            return None
        folder = Path(rest if rest and prefix.lower() == "wds" else self.source).expanduser()
        try:
            return folder if folder.is_dir() else None
        except OSError:  # reported where it is opened
            return None
