"""Distil a timm teacher into a small timm student with DSKD and carry it to the device."""

from dskd_export import __version__

__all__ = ["__version__"]
