from __future__ import annotations

import pytest
from run_support import QUIET

from dskd_compress.catalogue import suggest
from dskd_compress.catalogue.suggest import Budget, Suggestions, load_table, suggest_students
from dskd_compress.models import count_macs
from dskd_compress.timm_import import import_timm
from dskd_export.errors import ModelError


def _ask(teacher: str, budget: Budget, limit: int = 3, measure: bool = False) -> Suggestions:
    return suggest_students(teacher, budget, limit=limit, measure=measure, output=QUIET)


def test_the_budget_holds_and_every_architecture_is_accounted_for() -> None:
    found = _ask("resnet18", Budget(parameters=3_000_000, macs=150_000_000, kind="cnn"), limit=4)
    names = [student.name for student in found.students]
    assert len(names) == 4
    assert set(names) | set(found.left_out) == set(import_timm().list_models())
    assert set(names).isdisjoint(found.left_out)
    assert found.left_out["resnet18"] == "is the teacher"
    assert found.left_out["resnet50"].startswith("25,557,032 parameters, more than 3,000,000")
    assert found.left_out["test_resnet"] == "is made for tests"
    assert len({student.family for student in found.students}) == 4
    used = [student.parameters / 3e6 * student.macs / 150e6 for student in found.students]
    assert used == sorted(used, reverse=True)
    for student in found.students:
        assert student.kind == "cnn"
        model = import_timm().create_model(student.name)
        assert student.macs == count_macs(model, student.input_size) <= 150_000_000
        assert student.parameters == sum(p.numel() for p in model.parameters()) <= 3_000_000
        assert student.macs_share == pytest.approx(student.macs / 1.8145e9, rel=0.01)


def test_the_default_budget_is_a_quarter() -> None:
    found = _ask("resnet18", Budget(), limit=1)
    assert found.max_parameters == found.teacher_parameters // 4 == 11_689_512 // 4
    assert found.max_macs == found.teacher_macs // 4


def test_another_input_size_is_counted_at_that_size() -> None:
    own, small = (_ask("resnet18", Budget(input_size=size), limit=1) for size in (None, 112))
    assert small.teacher_macs == pytest.approx(own.teacher_macs / 4, rel=0.1)
    assert small.students[0].input_size == (3, 112, 112)


def test_weights_that_timm_has() -> None:
    found = _ask("resnet50", Budget(pretrained=True), limit=2)
    assert all(import_timm().is_model_pretrained(student.name) for student in found.students)
    assert "has no pretrained weights" in found.left_out.values()


def test_the_fastest_comes_first_where_measured() -> None:
    found = _ask("resnet18", Budget(parameters=3_000_000, macs=200_000_000), limit=2, measure=True)
    latencies = [student.latency.p50_ms for student in found.students if student.latency is not None]
    assert len(latencies) == 2
    assert 0 < latencies[0] <= latencies[1]


def test_what_is_new_in_timm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    table, versions = load_table()
    known = {name: survey for name, survey in table.items() if name != "mobilenetv3_small_050"}
    monkeypatch.setattr(suggest, "load_table", lambda: (known, versions))
    found = _ask("resnet18", Budget(), limit=1)
    assert found.left_out["mobilenetv3_small_050"] == "not in the table of architectures"


def test_where_nothing_fits_the_nearest_are_listed() -> None:
    found = _ask("resnet18", Budget(parameters=10))
    assert not found.fits
    assert len(found.students) == 3
    excess = [max(one.over_parameters, one.over_macs) for one in found.students]
    assert excess == sorted(excess)
    for one in found.students:
        assert one.over_parameters == pytest.approx(one.parameters / 10 - 1)
        assert one.name not in found.left_out
    assert found.students[0].parameters == min(one.parameters for one in found.students)


def test_teachers_that_cannot_be_sized() -> None:
    with pytest.raises(ModelError, match="resnet19"):
        _ask("resnet19", Budget())
    with pytest.raises(ModelError, match="pooled"):
        _ask("qwen3_vit_88m_enc", Budget())
