"""What all sections of a recipe are made of."""

from __future__ import annotations

from dskd_export.settings import Fraction, KeyConflict, NonNegative, Positive, Section

__all__ = ["Fraction", "KeyConflict", "NonNegative", "Positive", "Section"]
