"""The checks alone, on numbers whose answer is known."""

from __future__ import annotations

import math
import shlex

import numpy as np
import pytest
import torch
from scipy import stats
from support import make_model
from torch import nn

from dskd_compress.label_space import ClassNames, class_map_override, resolve_class_map
from dskd_compress.methods import MethodTask
from dskd_compress.methods.none import CrossEntropyModule
from dskd_compress.recipe import recipe_from_mapping
from dskd_compress.training.diagnosis.classes import class_order_symptom, find_permutation
from dskd_compress.training.diagnosis.gradients import TermGradients
from dskd_compress.training.diagnosis.paired import clearly_better
from dskd_compress.training.diagnosis.teacher import checksum, find_difference
from dskd_compress.training.diagnosis.terms import Snapshot, collapsed_symptom, dead_symptoms, exploding_symptoms

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("gained", "lost"), [(40, 5), (25, 2), (30, 29), (18, 0), (60, 20)])
def test_clearly_better_agrees_with_the_exact_test(gained: int, lost: int) -> None:
    before = np.zeros(160, dtype=bool)
    after = np.zeros(160, dtype=bool)
    before[:lost] = True
    after[lost : lost + gained] = True
    exact = stats.binomtest(gained, gained + lost, alternative="greater").pvalue < 1e-4
    assert clearly_better(before, after) == (exact and gained - lost >= 16)
    assert not clearly_better(after, before)


def answers(labels: np.ndarray, classes: int, accuracy: float) -> np.ndarray:
    right = RNG.random(len(labels)) < accuracy
    return np.where(right, labels, RNG.integers(classes, size=len(labels)))


@pytest.mark.parametrize(("classes", "images"), [(2, 400), (10, 192), (100, 2000), (1000, 6400)])
def test_a_permutation_is_found_and_a_healthy_teacher_is_left_alone(classes: int, images: int) -> None:
    labels = RNG.integers(classes, size=images)
    predicted = answers(labels, classes, 0.75)
    names = [f"class {k}" for k in range(classes)]
    assert class_order_symptom(labels, predicted, 0.9, names) is None
    meaning = RNG.permutation(classes) if classes > 2 else np.array([1, 0])
    symptom = class_order_symptom(labels, np.argsort(meaning)[predicted], 0.9, names)
    assert symptom is not None
    if classes <= 100:
        assert (find_permutation(labels, np.argsort(meaning)[predicted], classes) == meaning).all()
        expected = {str(k): names[meaning[k]] for k in range(classes)}
        assert symptom.cure == f"Add to the command: {class_map_override(expected)}"


@pytest.mark.parametrize(
    "names", [("0", "1", "2", "3"), ("1", "2", "3", "10"), ("it's", 'a "b"', "c: {d}, e", "yes")]
)
@pytest.mark.parametrize("outputs", [None, [["3"], ["1"], ["0"], ["2"]], [["a", "b"], ["c"], ["d"], ["e"]]])
def test_the_map_works_when_it_is_pasted(names: tuple[str, ...], outputs: list[list[str]] | None) -> None:
    """Also where classes are called by numbers that are no indices, and for a teacher that is mapped already."""
    meaning = np.array([2, 0, 3, 1])
    labels = RNG.integers(4, size=400)
    symptom = class_order_symptom(labels, np.argsort(meaning)[labels], 0.9, names, outputs)
    assert symptom is not None
    option, setting = shlex.split(symptom.cure.removeprefix("Add to the command: "))
    assert option == "--set"
    base = {"teacher": {"name": "a"}, "student": {"name": "b"}}
    mapping = recipe_from_mapping(base, [setting]).teacher.class_map
    assert isinstance(mapping, dict)
    own = [name for group in outputs or [] for name in group]
    teacher = ClassNames(len(own) or 4, own)
    groups = resolve_class_map(mapping, teacher, names)
    behind = outputs or [["0"], ["1"], ["2"], ["3"]]
    for output, label in enumerate(meaning):
        assert [teacher.show(member) for member in groups[label]] == behind[output]


def test_no_permutation_is_seen_where_there_is_none() -> None:
    names = [str(k) for k in range(10)]
    labels = RNG.integers(10, size=600)
    assert class_order_symptom(labels, RNG.integers(10, size=600), 0.9, names) is None
    assert class_order_symptom(labels, np.full(600, 3), 0.9, names) is None
    # One answer for everything, and nine in ten images of another class.
    labels = np.where(RNG.random(600) < 0.9, 0, 1)
    assert class_order_symptom(labels, np.ones(600, dtype=np.int64), 0.9, ["a", "b"]) is None


def test_a_checksum_sees_any_bit() -> None:
    model = nn.ModuleList([nn.Linear(3, 2), nn.BatchNorm2d(2), nn.Linear(2, 2).bfloat16()])
    model.register_buffer("flag", torch.tensor([True, False]))
    for name, tensor in model.state_dict().items():
        before = checksum(model)
        assert find_difference(model, before, checksum(model)) is None
        flat = tensor.view(-1)
        kept = flat[0].clone()
        if tensor.dtype == torch.bool:
            flat[0] = ~flat[0]
        elif tensor.is_floating_point():
            flat[0] = torch.nextafter(flat[0].float(), torch.tensor(9.0)) if tensor.dtype == torch.float32 else 9.0
        else:
            flat[0] += 1
        assert find_difference(model, before, checksum(model)) == name
        flat[0] = kept


def test_norms_of_terms_are_those_of_their_own_backward_passes() -> None:
    module = CrossEntropyModule(make_model("test_resnet"), 0.0)
    task = MethodTask(module, None, torch.device("cpu"))
    labels = torch.arange(4)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = module.student(images)
    terms = {"ce": module.cross_entropy(logits, labels), "size": 0.1 * logits.square().mean()}
    gradients = TermGradients(task)
    for scale in (1.0, 1024.0):
        found = gradients.measure(terms, scale)
        assert all(parameter.grad is None for parameter in module.parameters())
        for name, term in terms.items():
            module.zero_grad()
            term.backward(retain_graph=True)
            expected = dict(module.named_parameters())[gradients.place[name]].grad
            assert expected is not None
            assert found[name] == pytest.approx(float(expected.norm()), rel=1e-5)
        module.zero_grad()
    assert gradients.reaching == {"ce", "size"}


def look(step: int, **terms: tuple[float, float | None]) -> Snapshot:
    return Snapshot(step, {k: v for k, (v, _) in terms.items()}, {k: n for k, (_, n) in terms.items()})


def test_a_weight_that_rises_from_zero_is_neither_dead_nor_lets_others_explode() -> None:
    looks = [look(step, ce=(2.3, 1.0), kd=(1e-9 * step, 1e-9 * step)) for step in range(4)]
    assert dead_symptoms(looks) == []
    assert exploding_symptoms(looks) == []


def test_a_term_that_is_sometimes_zero_is_alive() -> None:
    looks = [look(1, ce=(2.3, 1.0), lsh=(0.5, 0.1))]
    looks += [look(step, ce=(2.3, 1.0), lsh=(0.0, 0.0)) for step in (2, 3, 4)]
    assert dead_symptoms(looks) == []
    assert [symptom.term for symptom in dead_symptoms(looks[1:])] == ["lsh"]


def test_a_term_that_dies_later_is_found() -> None:
    looks = [look(1, ce=(2.3, 1.0), lsh=(0.5, 0.1))]
    looks += [look(step, ce=(2.3, 1.0), lsh=(0.5, 0.0)) for step in (2, 3, 4)]
    assert [symptom.term for symptom in dead_symptoms(looks)] == ["lsh"]


def test_nearly_solved_labels_do_not_make_the_other_terms_explode() -> None:
    looks = [look(1, ce=(2.3, 1.0), kd=(5.0, 2.0))]
    looks += [look(step, ce=(1e-6, 1e-6), kd=(0.1, 0.1)) for step in (2, 3, 4)]
    assert exploding_symptoms(looks) == []
    assert dead_symptoms(looks) == []


def test_a_gradient_that_explodes_while_the_loss_does_not() -> None:
    looks = [look(step, ce=(2.3, 1.0), kd=(5.0, 2e3)) for step in (1, 2)]
    assert [symptom.term for symptom in exploding_symptoms(looks)] == ["kd"]
    assert exploding_symptoms(looks[:1]) == []


def test_collapse_is_judged_once_the_student_has_settled() -> None:
    flat = {"denoised_spread": 0.01, "hash_bit_entropy_denoised": 0.9}
    alive = {"denoised_spread": 0.5, "hash_bit_entropy_denoised": 0.9}
    assert collapsed_symptom([(1, flat), (2, flat), (3, flat)]) is None
    assert collapsed_symptom([(50, flat), (100, alive)]) is None
    found = collapsed_symptom([(50, flat), (100, flat)])
    assert found is not None
    assert found.term == "denoised_spread"
    same = {"denoised_spread": 0.5, "hash_bit_entropy_denoised": 0.05}
    found = collapsed_symptom([(50, same), (100, same)])
    assert found is not None
    assert found.term == "hash_bit_entropy_denoised"
    assert collapsed_symptom([(50, {}), (100, {"denoised_spread": math.inf})]) is None
