"""Validate and time a bundle where it runs: no torch, no recipe, no run folder.

    source -> images -> validate, benchmark -> results

The results are those of a run folder and lie beside the bundle, never in it.
"""
