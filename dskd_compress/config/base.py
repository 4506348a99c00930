"""What all sections of a recipe are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class KeyConflict(ValueError):
    """Keys of one section that do not go together.

    Attributes:
        ways_out: settings `key=value` of that section, with each of which they do.
    """

    def __init__(self, message: str, *ways_out: str) -> None:
        super().__init__(message)
        self.ways_out = ways_out


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)
