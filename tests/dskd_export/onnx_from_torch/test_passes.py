"""Simplifications in torch: they are made, they change no answer, and one that does is left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from export_support import count_nodes, export, exported_once, make_spec, steps
from support import make_model
from torch import nn

from dskd_compress.models import count_parameters
from dskd_compress.timm_import import import_timm
from dskd_export.onnx_from_torch import passes as surgery
from dskd_export.onnx_from_torch.parity import Probe, make_images, make_probe
from dskd_export.onnx_from_torch.passes import SURGERIES, Surgery, operate


def probe_of(model: nn.Module, size: int) -> Probe:
    return make_probe(model, make_images(make_spec(size), None, size, size))


def lively(name: str, **kwargs: object) -> nn.Module:
    """Batch norm with non-trivial statistics, so that fusing it is more than multiplying by one."""
    model = make_model(name, **kwargs)
    model.train()
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(4, 3, 64, 64))
    return model.eval()


@pytest.mark.parametrize("name", ["repghostnet_050", "test_byobnet", "repvit_m0_9"])
def test_branches_of_the_training_are_fused(name: str) -> None:
    model = lively(name)
    changed, facts = operate(model, probe_of(model, 64))
    fused = next(step for step in facts if step.name == "reparameterise")
    if not any(hasattr(module, word) for module in model.modules() for word in ("fuse", "reparameterize")):
        assert fused.reason == "nothing to do"
        return
    assert fused.applied
    assert fused.max_abs_relative <= 1e-5
    assert count_parameters(changed) < count_parameters(model)


def test_attention_is_taken_apart() -> None:
    model = make_model("test_vit").eval()
    changed, facts = operate(model, probe_of(model, 160))
    assert next(step for step in facts if step.name == "unfused attention").applied
    assert any(getattr(module, "fused_attn", False) for module in model.modules())
    assert not any(getattr(module, "fused_attn", False) for module in changed.modules())


def test_taken_apart_it_has_fewer_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("test_vit").eval()
    apart = exported_once("test_vit", 160)
    monkeypatch.setattr(surgery, "SURGERIES", [s for s in SURGERIES if s.name != "unfused attention"])
    fused = export(model, 160)
    assert "unfused attention" not in steps(fused)
    assert count_nodes(apart.model) < count_nodes(fused.model)


@pytest.mark.parametrize("activation", ["mish", "hard_mish", "hard_swish", "swish", "hard_sigmoid"])
def test_activations_of_the_training_become_plain_ones(activation: str) -> None:
    import_timm()
    from timm.layers import get_act_fn, get_act_layer

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = get_act_layer(activation)()
            self.function = get_act_fn(activation)

        def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
            return self.function(self.layer(images_BCHW)).mean((2, 3))

    model = Net().eval()
    changed, facts = operate(model, probe_of(model, 8))
    step = facts[0]
    of_timm = any("_me" in type(module).__module__ for module in model.modules())
    assert step.applied == of_timm
    assert not any("_me" in type(module).__module__ for module in changed.modules())
    assert "_me" not in changed.function.__module__
    assert export(model, 8).max_abs_relative < 1e-5


def test_a_change_that_changes_the_answers_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def halve(module: nn.Module) -> nn.Module:
        with torch.no_grad():
            next(module.parameters()).mul_(0.5)
        return module

    def fail(module: nn.Module) -> nn.Module:
        raise KeyError("a branch")

    wrong = [Surgery("halve", lambda _: True, halve), Surgery("fail", lambda _: True, fail)]
    monkeypatch.setattr(surgery, "SURGERIES", wrong)
    model = make_model("test_resnet").eval()
    before = [parameter.clone() for parameter in model.parameters()]
    changed, (halved, failed) = operate(model, probe_of(model, 32))
    assert changed is model
    assert all(map(torch.equal, model.parameters(), before))
    assert not halved.applied
    assert halved.max_abs_relative > 1e-3
    assert "the output differs by" in halved.reason
    assert (failed.applied, failed.reason) == (False, "KeyError: 'a branch'")


def test_a_module_that_is_not_of_timm() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    changed, facts = operate(model, probe_of(model, 8))
    assert changed is model
    assert all(step.reason == "nothing to do" for step in facts)
    assert np.isfinite(probe_of(model, 8).expected).all()
