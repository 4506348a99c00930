"""Keys of the logit term that every feature method can be given beside its own loss."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

LogitLoss = Annotated[
    Literal["none", "kl", "dist", "dkd"],
    Field(description="added logit distillation; dist and dkd with the weights between their parts as published"),
]
LogitWeight = Annotated[float, Field(ge=0, description="weight of the added logit distillation")]
LogitTemperature = Annotated[float, Field(gt=0, description="softens the logits of the added distillation")]
