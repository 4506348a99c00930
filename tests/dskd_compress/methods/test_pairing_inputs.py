"""What the teacher is given of the student's images: any two sizes and normalisations."""

from __future__ import annotations

import pytest
import torch
from support import CLASSES, make_format, make_model
from torch import Tensor

from dskd_compress.config import DskdMethod
from dskd_compress.methods import Pair, create_task
from dskd_compress.models import has_fixed_input

CPU = torch.device("cpu")


def _pair(student: str, size: int, teacher: str, teacher_size: int) -> Pair:
    built = {} if teacher_size == 160 or teacher != "test_vit" else {"img_size": teacher_size}
    return Pair(
        make_model(student, **({"img_size": size} if student == "test_vit" else {})),
        make_format(size, mean=0.45, std=0.22),
        make_model(teacher, seed=1, **built),
        make_format(teacher_size, mean=0.5, std=0.5),
    )


@pytest.mark.parametrize(
    ("student", "size", "teacher", "teacher_size", "seen"),
    [
        ("test_efficientnet", 32, "test_vit", 160, 160),  # enlarged
        ("test_efficientnet", 64, "test_vit", 160, 160),
        ("test_efficientnet", 192, "test_vit", 160, 160),  # made smaller
        ("test_vit", 64, "test_vit", 160, 160),  # two fixed sizes
        ("test_vit", 64, "test_resnet", 160, 64),  # a free teacher takes the student's
        ("test_resnet", 48, "test_convnext", 160, 48),
    ],
)
def test_every_order_of_sizes_and_kinds(
    student: str, size: int, teacher: str, teacher_size: int, seen: int
) -> None:
    pair = _pair(student, size, teacher, teacher_size)
    assert pair.teacher_size == (3, seen, seen)
    shown: list[Tensor] = []
    task = create_task(DskdMethod(), pair.student, pair, label_smoothing=0, seed=0, device=CPU)
    assert task.teacher is not None
    ask = task.teacher.model.forward_features
    task.teacher.model.forward_features = lambda images: (shown.append(images), ask(images))[1]  # type: ignore[assignment, method-assign]
    task.train()
    # A picture of one grey: whatever the resize does, it stays that grey, in the teacher's own normalisation.
    grey = torch.full((2, 3, size, size), (0.3 - 0.45) / 0.22)
    losses = task(grey, torch.tensor([0, CLASSES - 1]))
    assert shown[-1].shape == (2, 3, seen, seen)
    torch.testing.assert_close(shown[-1], torch.full_like(shown[-1], (0.3 - 0.5) / 0.5), atol=1e-5, rtol=0)
    losses["loss"].backward()
    assert all(torch.isfinite(term) for term in losses["terms"].values())


@pytest.mark.parametrize("sizes", [(32, 160), (192, 160)])
def test_the_resize_is_antialiased_bicubic(sizes: tuple[int, int]) -> None:
    """Against Pillow's, on a picture in float pixels."""
    import numpy as np
    from PIL import Image

    own, wanted = sizes
    pair = _pair("test_efficientnet", own, "test_vit", wanted)
    assert has_fixed_input(pair.teacher)
    pixels = torch.rand(own, own, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(pixels.numpy(), mode="F").resize((wanted, wanted), Image.Resampling.BICUBIC)
    found = pair.adapter()(((pixels - 0.45) / 0.22).expand(1, 3, own, own))[0, 1] * 0.5 + 0.5
    np.testing.assert_allclose(found.numpy(), np.asarray(image), atol=2e-3)


def test_grey_channels_are_refused_before_the_training() -> None:
    """Images are RGB throughout; a model of one channel does not fit them."""
    from dskd_export.errors import TapError

    pair = Pair(
        make_model("test_efficientnet"), make_format(64), make_model("test_resnet", in_chans=1), make_format(64)
    )
    with pytest.raises(TapError, match="test_resnet does not run on 64x64 images with 3 channels"):
        create_task(DskdMethod(), pair.student, pair, label_smoothing=0, seed=0, device=CPU)
