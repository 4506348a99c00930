"""Distil a timm teacher into a small timm student with DSKD and carry it to the device.

The names in `__all__` are the public interface; `docs/python-api.md` shows them at work. Importing this package
loads no torch: what a function needs is imported when it is called.
"""

from typing import TYPE_CHECKING, Any

from dskd_export import __version__

if TYPE_CHECKING:
    from dskd_compress.api import benchmark, distill, export, load_recipe, report, validate

__all__ = ["__version__", "benchmark", "distill", "export", "load_recipe", "report", "validate"]

if not TYPE_CHECKING:  # a type checker would take any name for one that exists

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from dskd_compress import api

        return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
