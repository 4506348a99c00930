"""Export, validate, benchmark and report a compressed classifier; runs without torch on the device."""

__version__ = "0.1.0"
