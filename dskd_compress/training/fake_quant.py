"""Fake quantisation: a student that rounds its weights and activations as its 8-bit export will.

By ModelOpt (NVIDIA), whose quantisers are added to the layers: the layers keep their parameters, and
the state dict keeps the plain model's keys, with the quantisers' own between them.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from dskd_export.errors import ModelError, require


def insert_fake_quant(student: nn.Module, precision: Literal["int8", "fp8"], batches: Iterable[Tensor]) -> int:
    """Make every convolution and linear layer of a student round as the export will, in place.

    Weights are rounded by output channel, activations by tensor, both symmetric, gradients pass straight
    through. Batch normalisation stays apart: folding it into a convolution scales whole output channels,
    which leaves rounding by channel as it is.

    Args:
        precision: `int8` or `fp8` (E4M3).
        batches: images [B, C, H, W] that the activations' ranges are measured on.

    Returns:
        How many layers were changed.

    Raises:
        MissingExtra: ModelOpt is not installed.
        ModelError: it found no layer.
    """
    with _quiet():
        quantization = require("modelopt.torch.quantization", "quant")
        config = {"int8": quantization.INT8_DEFAULT_CFG, "fp8": quantization.FP8_DEFAULT_CFG}[precision]
        training = student.training

        def calibrate(model: nn.Module) -> None:
            model.eval()
            with torch.no_grad():
                for images_BCHW in batches:
                    model(images_BCHW)

        try:
            quantization.quantize(student, config, calibrate)
        except RuntimeError as error:
            if "no weight quantizer" not in str(error):
                raise
            raise ModelError(
                f"{type(student).__name__} has no layer that ModelOpt can quantise.",
                "Leave tune out of the recipe.",
            ) from error
        student.train(training)
    return sum(name.endswith("weight_quantizer") and module.is_enabled for name, module in student.named_modules())


def strip_quantisers(state: Mapping[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """Take the plain model's part of a state dict that holds quantisers as well.

    Raises:
        ModelError: a name is missing.
    """
    missing = sorted(set(names) - set(state))
    if missing:
        raise ModelError(f"The tuned student has lost {missing[0]}.", "Leave tune out of the recipe.")
    return {name: state[name] for name in names}


@contextlib.contextmanager
def _quiet():  # type: ignore[no-untyped-def]
    """ModelOpt prints what it inserts, and warns of packages that it would only need for language models."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
