"""Budgets and baselines, by the end of the interval that speaks against a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from export_document_support import make_provenance

from dskd_export.benchmark.budget import (
    compare_with_baseline,
    judge_rows,
    list_failures,
    verdict_of_budget,
    verdict_of_model,
)
from dskd_export.ci.summary import junit_of_benchmark, markdown_summary
from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow, Latency, MemoryFacts
from dskd_export.errors import UsageError
from dskd_export.settings import SpeedBudget


def around(value: float, spread: float = 0.05) -> Interval:
    return Interval(value=value, low=value * (1 - spread), high=value * (1 + spread))


def latency(p50: float, p99: float, spread: float = 0.05) -> Latency:
    return Latency(
        p50_ms=p50,
        p90_ms=p50,
        p95_ms=p99,
        p99_ms=p99,
        p999_ms=p99,
        mean_ms=p50,
        min_ms=p50,
        max_ms=p99,
        intervals_ms={"p50": around(p50, spread), "p99": around(p99, spread), "mean": around(p50, spread)},
        coefficient_of_variation=0.1,
        iterations=1000,
        warmup_iterations=10,
        stable=True,
    )


def row(precision: str = "int8", p50: float = 2.0, p99: float = 4.0, **changes: Any) -> BenchmarkRow:
    values: dict[str, Any] = {
        "model": "student",
        "runner": "onnxruntime",
        "provider": "cpu",
        "precision": precision,
        "batch": 1,
        "threads": 2,
        "part": "engine",
        "latency": latency(p50, p99),
        "throughput_images_per_s": 1e3 / p50,
        "energy_per_image_mj": around(30.0),
        "memory": MemoryFacts(resident_mb=80.0),
        "size_mb": 5.0,
    }
    return BenchmarkRow(**{**values, **changes})


def document(*rows: BenchmarkRow, cpu: str = "a CPU", **changes: Any) -> BenchmarkDocument:
    provenance = make_provenance("dskd-compress benchmark", cpu)
    return BenchmarkDocument(rows=list(rows), bundle_sha256="0" * 64, provenance=provenance, **changes)


def verdicts(budget: Mapping[str, float], one: BenchmarkRow) -> list[str]:
    (judgement,) = judge_rows(SpeedBudget(**budget), [one], batch=1, part="engine")
    return [check.verdict for check in judgement.checks]


@pytest.mark.parametrize(
    ("key", "passes", "not_shown", "fails"),
    [
        ("latency_p99_ms", 4.3, 4.1, 3.9),
        ("throughput_images_per_s", 470.0, 490.0, 510.0),
        ("energy_per_image_mj", 32.0, 31.0, 29.0),
    ],
)
def test_the_end_of_the_interval_decides(key: str, passes: float, not_shown: float, fails: float) -> None:
    assert verdicts({key: passes}, row()) == ["PASS"]
    assert verdicts({key: not_shown}, row()) == ["NOT SHOWN"]
    assert verdicts({key: fails}, row()) == ["FAIL"]


def test_memory_and_size_have_no_interval() -> None:
    assert verdicts({"memory_mb": 80.0, "size_mb": 5.0}, row()) == ["PASS", "PASS"]
    assert verdicts({"memory_mb": 79.0, "size_mb": 4.9}, row()) == ["FAIL", "FAIL"]
    on_gpu = row(memory=MemoryFacts(resident_mb=900.0, device_mb=60.0))
    assert verdicts({"memory_mb": 80.0}, on_gpu) == ["PASS"]


def test_what_was_not_measured_is_no_pass() -> None:
    lacking = row(energy_per_image_mj=None, energy_reason="this machine has no sensor")
    (judgement,) = judge_rows(SpeedBudget(energy_per_image_mj=50), [lacking], batch=1, part="engine")
    (check,) = judgement.checks
    assert (check.verdict, check.detail) == ("NOT JUDGED", "this machine has no sensor")
    assert verdict_of_model(judgement) == "NOT SHOWN"
    assert "energy (mJ/image) is not judged: this machine has no sensor" in list_failures([judgement])[0]
    unavailable = row(latency=None, throughput_images_per_s=None, unavailable="no kernel for fp8")
    assert verdicts({"latency_p99_ms": 5.0}, unavailable) == ["NOT JUDGED"]


def test_one_model_that_meets_all_of_it_is_enough() -> None:
    budget = SpeedBudget(latency_p99_ms=5.0, size_mb=6.0)
    slow, small = row("fp32", p99=9.0), row("int8")
    judged = judge_rows(budget, [slow, small], batch=1, part="engine")
    assert list_failures(judged) == []
    assert verdict_of_budget(judged) == "PASS"
    assert [one.failed for one in judged] == [True, False]
    half = [row("fp32", p99=9.0), row("int8", size_mb=7.0)]  # each meets another half
    assert verdict_of_budget(judge_rows(budget, half, batch=1, part="engine")) == "FAIL"
    close = [row("fp32", p99=9.0), row("int8", p99=4.9)]  # one misses it, of the other it is not shown
    assert verdict_of_budget(judge_rows(budget, close, batch=1, part="engine")) == "NOT SHOWN"
    assert verdict_of_budget([]) == "NOT JUDGED"
    missed = list_failures(judge_rows(budget, half, batch=1, part="engine"))
    assert len(missed) == 2
    assert missed[0].startswith(
        "onnxruntime:cpu:fp32, batch 1: p99 latency (ms) is 9 (95 % bound 9.45), the limit"
    )


def test_only_the_student_at_that_batch_is_judged() -> None:
    others = [row(model="teacher"), row(batch=8), row(part="with_preprocessing")]
    assert judge_rows(SpeedBudget(size_mb=1.0), others, batch=1, part="engine") == []
    assert judge_rows(SpeedBudget(), [row()], batch=1, part="engine") == []
    assert list_failures([]) == []


# --- a baseline


def test_slower_beyond_noise_fails() -> None:
    old = document(row(p50=2.0, p99=4.0))
    (same,) = compare_with_baseline(document(row(p50=2.05, p99=4.1)), old)
    assert not same.failed
    (slower,) = compare_with_baseline(document(row(p50=2.4, p99=4.1)), old)
    assert [(check.name, check.verdict) for check in slower.checks] == [
        ("p50 against the baseline", "FAIL"),
        ("p99 against the baseline", "PASS"),
    ]
    assert slower.checks[0].value == pytest.approx(1.2)
    assert slower.checks[0].bound == pytest.approx(2.4 * 0.95 / (2.0 * 1.05))
    (faster,) = compare_with_baseline(document(row(p50=1.0, p99=2.0)), old)
    assert not faster.failed


def test_without_intervals_two_percent_are_noise() -> None:
    def exact(p50: float) -> BenchmarkDocument:
        return document(row(latency=latency(p50, 4.0).model_copy(update={"intervals_ms": {}})))

    assert not compare_with_baseline(exact(2.039), exact(2.0))[0].failed
    assert compare_with_baseline(exact(2.041), exact(2.0))[0].failed


def test_other_machines_and_other_rows_are_refused() -> None:
    with pytest.raises(UsageError, match="another machine: cpu another CPU, here a CPU"):
        compare_with_baseline(document(row()), document(row(), cpu="another CPU"))
    with pytest.raises(UsageError, match="no measurement in common"):
        compare_with_baseline(document(row()), document(row(threads=1)))


# --- for those who did not run it


def test_junit_counts_a_missed_limit_where_no_model_meets_it() -> None:
    from xml.etree import ElementTree

    budget = SpeedBudget(latency_p99_ms=5.0)
    rows = [row("fp32", p99=9.0), row("int8")]
    met = document(*rows, judgements=judge_rows(budget, rows, batch=1, part="engine"))
    tree = ElementTree.fromstring(junit_of_benchmark(met))
    assert (tree.get("tests"), tree.get("failures"), tree.get("skipped")) == ("2", "0", "1")
    assert "another model meets the budget" in ElementTree.tostring(tree, encoding="unicode")
    missed = document(rows[0], judgements=judge_rows(budget, rows[:1], batch=1, part="engine"))
    tree = ElementTree.fromstring(junit_of_benchmark(missed))
    assert (tree.get("tests"), tree.get("failures")) == ("1", "1")
    assert tree[0].get("name") == "budget: onnxruntime:cpu:fp32, batch 1"


def test_the_summary_is_a_table_whatever_the_text() -> None:
    unstable = latency(2.0, 4.0).model_copy(update={"stable": False, "reason": "a | b\nc"})
    text = markdown_summary(document(row(latency=unstable), row("fp8", latency=None, unavailable="no kernel")))
    lines = [line for line in text.splitlines() if line.startswith("| student")]
    assert len(lines) == 2
    assert "UNSTABLE: a \\| b c" in lines[0]
    assert "2.000 (1.900 to 2.100)" in lines[0]
    assert "no kernel" in lines[1]
