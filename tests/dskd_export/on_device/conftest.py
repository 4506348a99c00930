"""Machines with a fake TensorRT, for the bundles of a device."""

from engine_machines import classifier, make_machine

__all__ = ["classifier", "make_machine"]
