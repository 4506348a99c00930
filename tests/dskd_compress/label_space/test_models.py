from __future__ import annotations

import pytest
import torch
from support import CLASSES, make_format, make_model
from torch import nn

from dskd_compress.config import DskdMethod
from dskd_compress.label_space import ClassMap, ClassMappedModel, ProbedModel
from dskd_compress.methods import Pair, create_task, find_taps
from dskd_compress.methods.dskd.guidance import TeacherHead
from dskd_compress.taps import probe

GROUPS = [[3, 1], [0], [7, 8, 9, 2]]  # 4, 5 and 6 are dropped


def test_probabilities_of_members_are_added() -> None:
    logits_BJ = 4 * torch.randn(5, CLASSES, dtype=torch.float64)
    mapped = ClassMap(GROUPS).double()(logits_BJ).softmax(dim=1)
    p_BJ = logits_BJ.softmax(dim=1)
    sums_BK = torch.stack([p_BJ[:, group].sum(dim=1) for group in GROUPS], dim=1)
    torch.testing.assert_close(mapped, sums_BK / sums_BK.sum(dim=1, keepdim=True))


def test_the_gradient_of_the_map() -> None:
    logits_BJ = torch.randn(3, CLASSES, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ClassMap(GROUPS).double(), (logits_BJ,))


def test_a_class_without_members_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="member"):
        ClassMap([[0], []])


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "dla46_c"])  # Linear, class token, 1x1 convolution
def test_a_mapped_teacher_guides_through_its_map(name: str) -> None:
    size = 160
    own = make_model(name).eval()
    teacher = ClassMappedModel(own, GROUPS).eval()
    images_BCHW = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(teacher(images_BCHW), ClassMap(GROUPS)(own(images_BCHW)))
    student = make_model("test_efficientnet")
    student.reset_classifier(3)  # type: ignore[operator]
    pair = Pair(student, make_format(size), teacher, make_format(size))
    pair.check_classes()
    taps = find_taps(DskdMethod(tap="vector"), pair)
    assert taps.head is not None
    assert taps.head.linear is None
    channels = taps.teacher.channels
    head = TeacherHead(taps.head, torch.zeros(channels), torch.ones(channels))
    z_BC, q_BK = torch.randn(2, channels, dtype=torch.float32), torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5]])
    found = head.gradient(z_BC, q_BK)
    # d/dz sum q log p' by finite differences along one direction
    direction, step = torch.randn(2, channels), 1e-2
    likelihood = [
        float((q_BK * head.logits(z_BC + sign * step * direction).log_softmax(dim=1)).sum().detach())
        for sign in (1, -1)
    ]
    assert (likelihood[0] - likelihood[1]) / (2 * step) == pytest.approx(
        float((found * direction).sum()), rel=0.02, abs=1e-4
    )


def test_a_probed_teacher_has_a_linear_head_for_any_model() -> None:
    """Also for one with several heads, and for one without any."""
    for name, size in (("deit_tiny_distilled_patch16_224", 224), ("test_resnet", 64)):
        own = make_model(name)
        if name == "test_resnet":
            own.reset_classifier(0)  # type: ignore[operator]
        teacher = ProbedModel(own, nn.Linear(own.head_hidden_size, 3)).eval()  # type: ignore[arg-type]
        student = make_model("test_efficientnet")
        student.reset_classifier(3)  # type: ignore[operator]
        pair = Pair(student, make_format(size), teacher, make_format(size))
        taps = find_taps(DskdMethod(), pair)
        assert taps.head is not None
        assert taps.head.linear is teacher.classifier


def test_a_wrapper_is_in_the_mode_of_its_model() -> None:
    """Or a probe, which puts the mode back, would leave batch norms training."""
    for wrapped in (
        ClassMappedModel(make_model("test_resnet").eval(), GROUPS),
        ProbedModel(make_model("test_resnet").eval(), nn.Linear(96, 3)),
    ):
        probe(wrapped, (3, 64, 64))
        assert not any(module.training for module in wrapped.model.modules())


def test_dskd_trains_under_a_mapped_teacher() -> None:
    student = make_model("test_efficientnet")
    student.reset_classifier(3)  # type: ignore[operator]
    pair = Pair(student, make_format(32), ClassMappedModel(make_model("test_resnet"), GROUPS), make_format(32))
    task = create_task(DskdMethod(), student, pair, label_smoothing=0, seed=0, device=torch.device("cpu"))
    task.train()
    result = task(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0]))
    result["loss"].backward()
    assert result["output"].shape == (4, 3)
    assert all(torch.isfinite(term) for term in result["terms"].values())
