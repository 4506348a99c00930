"""Where features are read, and the way from there to logits through the model's own head.

Two taps, from timm's own interface only (`forward_features`, `forward_head`, `get_classifier`,
`forward_intermediates` for the token grid), so that they hold for any timm classifier:

    vector  forward_head(forward_features(x), pre_logits=True)      BxC
    map     forward_features(x), as NCHW whatever the model's layout BxCxHxW

A teacher whose classifiers read several tokens and not the vector (distilled DeiT) has a third, which
stands in for its vector:

    vector  forward_features(x)[:, :P], one after the other          BxPC

What has which shape is found without values, so also on the meta device; that a head leads to the
model's own logits is proven on real ones.
"""

from __future__ import annotations

from dskd_compress.taps.choice import choose_tap
from dskd_compress.taps.head import TapHead, find_head, find_head_paths, find_teacher_tap
from dskd_compress.taps.probe import Probe, eval_mode, measure_pooled_width, probe
from dskd_compress.taps.tap import Tap, TapKind, find_tap

__all__ = [
    "Probe",
    "Tap",
    "TapHead",
    "TapKind",
    "choose_tap",
    "eval_mode",
    "find_head",
    "find_head_paths",
    "find_tap",
    "find_teacher_tap",
    "measure_pooled_width",
    "probe",
]
