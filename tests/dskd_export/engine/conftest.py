"""Machines with a fake TensorRT."""

from engine_machines import bundle, classifier, make_machine

__all__ = ["bundle", "classifier", "make_machine"]
