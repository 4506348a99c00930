"""The names of runners: what computes, where, and in which precision. The one list of their kinds."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from pydantic_core import CoreSchema, core_schema

DeviceRunner = Literal["onnxruntime", "tensorrt"]
"""Kinds of runners on a device; `dskd_export.runtime.loader.FINDERS` opens each."""
AnyRunner = Literal["torch", DeviceRunner]
PROVIDERS: dict[AnyRunner, tuple[str, ...]] = {
    "torch": ("cpu", "cuda"),
    "onnxruntime": ("cpu", "cuda", "tensorrt"),
    "tensorrt": ("cuda",),
}


class RunnerName(str):
    """`onnxruntime:cpu:int8`: kind, provider and precision of a runner, as one text.

    Raises:
        ValueError: the text names no runner.
    """

    pattern: ClassVar[str] = "^[a-z]+:[a-z]+:[a-z0-9]+$"
    __slots__ = ()

    def __new__(cls, text: str) -> RunnerName:  # noqa: D102
        if not re.fullmatch(cls.pattern, text):
            raise ValueError(f"{text!r} is no runner name; for example: onnxruntime:cpu:int8")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, kind: str, provider: str, precision: str) -> RunnerName:
        """Join the parts of a name."""
        return cls(f"{kind}:{provider}:{precision}")

    @property
    def kind(self) -> str:
        """`torch`, `onnxruntime` or `tensorrt`."""
        return self.partition(":")[0]

    @property
    def provider(self) -> str:
        """`cpu`, `cuda` or `tensorrt`."""
        return self.split(":")[1]

    @property
    def precision(self) -> str:
        """For example `int8`."""
        return self.rpartition(":")[2]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        text = core_schema.str_schema(pattern=cls.pattern)
        return core_schema.no_info_after_validator_function(cls, text)


_PATTERN = f"^({'|'.join(f'{kind}:(' + '|'.join(names) + ')' for kind, names in PROVIDERS.items())}):[a-z0-9]+$"


class RunnerChoice(RunnerName):
    """The name of a runner that exists, as a user may choose it."""

    pattern: ClassVar[str] = _PATTERN
    __slots__ = ()
