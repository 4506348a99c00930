"""The recipe's section on TensorRT engines."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dskd_compress.config.base import Positive, Section


class BuildSection(Section):
    """TensorRT engines, built on the device that runs them; precision is that of the models in the bundle."""

    batches: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 8), min_length=1, description="one optimization profile reaches from each to the one below"
    )
    workspace_mb: Positive | None = Field(
        None, description="scratch memory of a layer, 1 MB = 10^6 bytes; none: TensorRT's own limit, all there is"
    )
    optimization_level: int = Field(3, ge=0, le=5, description="how long kernels are searched for")
    tf32: bool = Field(False, description="fp32 may round factors to ten bits, as no parity limit for fp32 allows")
    version_compatible: bool = Field(False, description="loads in later TensorRT versions too; may be slower")
    hardware: Literal["none", "ampere-plus", "same-compute-capability"] = Field(
        "none", description="GPUs beside the one it is built on; may be slower; not on Jetson"
    )
