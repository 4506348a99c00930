"""Find which other image sizes a model accepts."""

from __future__ import annotations

from torch import nn

from dskd_export.errors import ModelError
from dskd_export.onnx_from_torch.parity import Probe, make_images, make_probe
from dskd_export.spec import ModelSpec

# Strides of CNNs, then patches of transformers; what remains is a whole multiple of the model's own size.
_STEPS = (32, 16, 14, 12)


def probes_of_other_sizes(module: nn.Module, spec: ModelSpec) -> list[Probe]:
    """Two probes of sizes that are not the model's: one larger and not square, one smaller where it takes that.

    Raises:
        ModelError: it accepts its native size only; the message gives the reason.
    """
    probes, first_error = [], None
    for factor in (1, -1):
        for step in (*_STEPS, spec.height):
            height, width = spec.height + factor * step, spec.width + 2 * factor * step
            if min(height, width) < step:
                continue
            try:
                probes.append(make_probe(module, make_images(spec, None, height, width)))
            except Exception as error:  # the module's own refusal, of any kind
                first_error = first_error or error
                continue
            break
        if not probes:
            lines = str(first_error).strip().splitlines() or [type(first_error).__name__]
            raise ModelError(
                f"export.dynamic_size: {spec.architecture} accepts {spec.height}x{spec.width} only: {lines[0]}",
                "Set export.dynamic_size=false; for some transformers of timm, set "
                "student.kwargs.dynamic_img_size=true instead.",
            ) from first_error
    return probes
