"""Planted situations and their verdicts: what validate, export, benchmark, run and the report make of each.

The documents come from the real flow on planted answers and times. All commands have to name the same model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from planted_models import ORIN, XEON, Planted

from dskd_compress.show.validation import decision_in, refuse_failed, refuse_run, refuse_undecided
from dskd_export.benchmark.winner import Decision, decide
from dskd_export.documents.base import DeviceFacts, Document
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.validation import ValidationDocument
from dskd_export.errors import DskdError, NotShown
from dskd_export.report import build_report
from dskd_export.report.choices import Source, best_of, choices
from dskd_export.report.decision import decide as decide_report
from dskd_export.report.decision import decide_between
from dskd_export.report.load import Run, load_run

ALL = {"fp32": 0, "fp16": 0, "int8": 0}
SHIP, UNPROVEN, STOP = 0, 6, 5
CURE = "with another normalisation (0.5/0.5) it is right on 1,950. Add to the command: --set teacher.mean=[0.5]"


@dataclass(frozen=True)
class Situation:
    """What is planted, and what has to come of it.

    Attributes:
        planted: answers, target and budget.
        verdict: of the decision.
        winner: precision that is shipped, or the candidate; None: none.
        validated: exit code of `validate`, the worst of the student and all models.
        exported: exit code of `export --precision auto`: whether there is a model to ship.
        sentence: parts of the sentence that decides.
        elsewhere: parts of the validation's reason or the detail of the decision.
        times_ms: of a benchmark; empty: there is none.
        device: of the benchmark.
        runner: of the benchmark.
        unstable: precisions whose times are.
    """

    planted: Planted
    verdict: str
    winner: str | None
    validated: int
    exported: int
    sentence: Sequence[str]
    elsewhere: Sequence[str] = ()
    times_ms: Mapping[str, float] = field(default_factory=dict)
    device: DeviceFacts = ORIN
    runner: str = "tensorrt:cuda"
    unstable: Sequence[str] = ()

    def documents(self) -> tuple[ValidationDocument, BenchmarkDocument | None]:
        """Made by the real code."""
        validation = self.planted.validate()
        if not self.times_ms:
            return validation, None
        return validation, self.planted.benchmark(self.times_ms, self.device, self.runner, self.unstable)


# Five points below on few and on many images; within a limit of six.
BELOW = Planted(images=10_000, student=1000, teacher=500)
LOOSE = {"student_drop": 0.06}
ONE_POINT = Planted(images=10_000, student=500, teacher=500, models={"fp32": 0, "int8": 100})

SITUATIONS = {
    "33 points below the teacher": Situation(
        Planted(images=150, student=57, teacher=7),
        "FAIL",
        None,
        STOP,
        STOP,
        ("Do not ship: the student is 33.3 points below its teacher.",),
        ("62.0 % against 95.3 %",),
    ),
    "at the commonest class": Situation(
        Planted(images=150, teacher=83, commonest=65, guesses=True),
        "FAIL",
        None,
        STOP,
        STOP,
        ("Do not ship: the student is right on 43.3 % of 150 images; always answering 'ant' gives 43.3 %.",),
    ),
    "5 points below on 150 images": Situation(
        Planted(images=150, student=15, teacher=7),
        "FAIL",
        None,
        STOP,
        STOP,
        ("Do not ship: the student is 5.3 points below its teacher.",),
    ),
    "5 points below on 10,000 images": Situation(
        BELOW, "FAIL", None, STOP, STOP, ("Do not ship: the student is 5 points below its teacher.",)
    ),
    "5 points below on 150 images, 6 allowed": Situation(
        Planted(images=150, student=15, teacher=7, budget=LOOSE),
        "NOT SHOWN",
        "fp32",
        UNPROVEN,
        UNPROVEN,
        (
            "Not shown to be good enough: 5.3 points below the teacher",
            "images would show it",
            "fp32 on jetson-orin",
        ),
    ),
    "5 points below on 10,000 images, 6 allowed": Situation(
        replace(BELOW, budget=LOOSE),
        "PASS",
        "fp32",
        SHIP,
        SHIP,
        ("Ship fp32 on jetson-orin: 5 points below the teacher (95 %: 4.6 to 5.4)",),
    ),
    "perfect fp16 on 150 images": Situation(
        Planted(images=150, student=7, teacher=7, models={"fp32": 0, "fp16": 0}, budget=LOOSE),
        "PASS",
        "fp32",
        UNPROVEN,
        SHIP,
        ("Ship fp32 on jetson-orin: 0 points below the teacher",),
        ("onnxruntime:cpu:fp16: 0 of 150 images lost; 390 images would show it",),
    ),
    "int8 one point worse": Situation(
        ONE_POINT,
        "PASS",
        "int8",
        SHIP,
        SHIP,
        ("Ship int8 on jetson-orin: 1 point below the teacher (95 %: 0.8 to 1.2)", "not measured on jetson-orin."),
    ),
    "int8 one point worse, half a point allowed": Situation(
        replace(ONE_POINT, budget={"int8": {"top1_drop": 0.005}}),
        "PASS",
        "fp32",
        STOP,
        SHIP,
        ("Ship fp32 on jetson-orin: 0 points below the teacher",),
        ("onnxruntime:cpu:int8: top-1 drop is 0.01",),
    ),
    "int8 faster than fp16": Situation(
        Planted(models=ALL),
        "PASS",
        "int8",
        SHIP,
        SHIP,
        ("Ship int8 on jetson-orin: 0 points below the teacher", "1.5 ms p99 in TensorRT."),
        times_ms={"fp32": 5.0, "fp16": 2.0, "int8": 1.5},
    ),
    "int8 slower than fp16": Situation(
        Planted(models=ALL),
        "PASS",
        "fp16",
        SHIP,
        SHIP,
        ("Ship fp16 on jetson-orin: ", "2 ms p99 in TensorRT."),
        ("tensorrt:cuda:int8 is slower than fp16: 3 against 2 ms",),
        times_ms={"fp32": 5.0, "fp16": 2.0, "int8": 3.0},
    ),
    "an int8 that is slower never wins": Situation(
        Planted(models={"fp32": 0, "int8": 0, "fp16": 100}),  # fp16 loses five points
        "PASS",
        "fp32",
        STOP,
        SHIP,
        ("Ship fp32 on jetson-orin: ", "5 ms p99 in TensorRT."),
        ("tensorrt:cuda:int8 is slower than fp16: 3 against 2 ms",),
        times_ms={"fp32": 5.0, "fp16": 2.0, "int8": 3.0},
    ),
    "an UNSTABLE time decides nothing against int8": Situation(
        Planted(models={"fp32": 0, "int8": 0, "fp16": 100}),
        "PASS",
        "int8",
        STOP,
        SHIP,
        ("Ship int8 on jetson-orin: ", "3 ms p99 in TensorRT."),
        times_ms={"fp32": 5.0, "fp16": 2.0, "int8": 3.0},
        unstable=("fp16",),
    ),
    "the time of the winner is unstable": Situation(
        Planted(models={"fp32": 0, "int8": 0}),
        "PASS",
        "int8",
        SHIP,
        SHIP,
        ("Ship int8 on jetson-orin: ", "3 ms p99 in TensorRT, timing unstable."),
        times_ms={"fp32": 5.0, "int8": 3.0},
        unstable=("int8",),
    ),
    "measured on the target": Situation(
        Planted(models=ALL, budget={"latency_p99_ms": 8}),
        "PASS",
        "fp16",
        SHIP,
        SHIP,
        ("Ship fp16 on jetson-orin: ", "3.1 ms p99 in TensorRT."),
        times_ms={"fp32": 9.0, "fp16": 3.1, "int8": 9.5},
    ),
    "measured on another device": Situation(
        Planted(models=ALL),
        "PASS",
        "int8",
        SHIP,
        SHIP,
        ("Ship int8 on jetson-orin: ", "the smallest of 3 that pass (2 MB); not measured on jetson-orin."),
        (
            "The times of Intel Xeon do not count for jetson-orin.",
            "There onnxruntime:cpu:int8 is slower than fp32: 0.41 against 0.28 ms",
        ),
        times_ms={"fp32": 0.28, "fp16": 0.3, "int8": 0.41},
        device=XEON,
        runner="onnxruntime:cpu",
    ),
    "a latency limit, measured on another device": Situation(
        Planted(models=ALL, budget={"latency_p99_ms": 8}),
        "NOT SHOWN",
        "int8",
        SHIP,
        UNPROVEN,
        (
            "Not shown to be good enough: budget.latency_p99_ms: not measured on jetson-orin.",
            "int8 on jetson-orin",
        ),
        times_ms={"fp32": 0.28, "fp16": 0.3, "int8": 0.41},
        device=XEON,
        runner="onnxruntime:cpu",
    ),
    "for a CPU, timed on one": Situation(
        Planted(models=ALL, target="cpu"),
        "PASS",
        "fp32",
        SHIP,
        SHIP,
        ("Ship fp32 on Intel Xeon: ", "0.28 ms p99 in ONNX Runtime."),
        times_ms={"fp32": 0.28, "fp16": 0.3, "int8": 0.41},
        device=XEON,
        runner="onnxruntime:cpu",
    ),
    "for a CPU, not timed": Situation(
        Planted(models=ALL, target="cpu"),
        "PASS",
        "int8",
        SHIP,
        SHIP,
        ("Ship int8 on cpu: ", "not timed on cpu."),
    ),
    "a bundle from before targets": Situation(
        Planted(models=ALL, target=None),
        "PASS",
        "fp32",
        SHIP,
        SHIP,
        ("Ship fp32 on Intel Xeon: ",),
        times_ms={"fp32": 0.28, "fp16": 0.3, "int8": 0.41},
        device=XEON,
        runner="onnxruntime:cpu",
    ),
    "teacher fed wrongly": Situation(
        Planted(student=100, teacher=600, doubt=CURE),
        "NOT SHOWN",
        "fp32",
        UNPROVEN,
        UNPROVEN,
        ("Not shown to be good enough: 25.0 points above the teacher", "--set teacher.mean"),
    ),
    "teacher that only guesses": Situation(
        Planted(student=100, teacher=1600),
        "NOT SHOWN",
        "fp32",
        UNPROVEN,
        UNPROVEN,
        ("the teacher itself is no better than always answering 'ant'",),
    ),
}


def code_of(refuse: Callable[[], None]) -> int:
    try:
        refuse()
    except DskdError as error:
        return error.exit_code
    return SHIP


def message_of(refuse: Callable[[], None]) -> str:
    try:
        refuse()
    except DskdError as error:
        return error.message
    return ""


def write(folder: Path, *documents: Document | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for document in documents:
        name = "benchmark.json" if isinstance(document, BenchmarkDocument) else "validation.json"
        if document is not None:
            (folder / name).write_text(document.model_dump_json(), encoding="utf-8")
    return folder


def named(decision: Decision) -> str | None:
    return None if decision.model is None else decision.model.name.precision


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_planted_situation(name: str, tmp_path: Path) -> None:
    situation = SITUATIONS[name]
    validation, benchmark = situation.documents()
    decision = decide(validation, benchmark)
    assert (decision.verdict, named(decision)) == (situation.verdict, situation.winner), decision
    assert all(part in decision.sentence for part in situation.sentence), decision.sentence
    words = f"{validation.reason} {decision.detail}"
    assert all(part in words for part in situation.elsewhere), words

    # The exit codes of validate, export and run.
    assert (
        code_of(lambda: refuse_failed(validation, False, "dskd-compress validate runs/b")) == situation.validated
    )
    assert code_of(lambda: refuse_undecided(decision, False, validation, "dskd-compress validate runs/b")) == (
        situation.exported
    )
    error = message_of(lambda: refuse_run(validation, benchmark, False))
    assert decision.sentence not in error
    assert decision.verdict == "PASS" or "(exit code " in error
    if UNPROVEN in (situation.validated, situation.exported):
        assert code_of(lambda: refuse_failed(validation, True)) == SHIP
        assert code_of(lambda: refuse_undecided(decision, True, validation)) == SHIP
    unproven = UNPROVEN if decision.verdict == "NOT SHOWN" else SHIP
    expected = max(situation.validated, unproven) if situation.validated != STOP else STOP
    assert code_of(lambda: refuse_run(validation, benchmark, False)) == expected

    # validate, benchmark and deploy read the folder; so does the report.
    folder = write(tmp_path / "run", validation, benchmark)
    assert decision_in(folder) == decision
    run = load_run(folder)
    found = choices([Source("run", run)])
    reported = decide_report(run, [], found)
    assert (reported.verdict, _plain(reported.sentence)) == (decision.verdict, decision.sentence)
    (best,) = best_of(found).values()
    assert (None if best is None else best.row.precision) == (
        named(decision) if decision.verdict == "PASS" else None
    )
    assert decision.sentence.split(":")[0] in _plain(build_report(folder).markdown)
    assert decide_between([Source("run", run)], found, []).verdict == decision.verdict


HINTED = [name for name, one in SITUATIONS.items() if one.validated == UNPROVEN and not one.planted.doubt]


@pytest.mark.parametrize("name", HINTED[:2])
def test_what_the_hint_sets_makes_it_pass(name: str) -> None:
    planted = SITUATIONS[name].planted
    with pytest.raises(NotShown) as caught:
        refuse_failed(planted.validate(), False, "dskd-compress validate runs/b")
    hint = caught.value.hint or ""
    assert "labelled images" in hint
    assert "dskd-compress validate runs/b --accept-unproven" in hint
    settings = re.findall(r"--set budget\.(\S+)=([\d.]+)", hint)
    assert settings
    budget = dict(planted.budget)
    for key, value in settings:
        section, _, leaf = key.rpartition(".")
        budget[section or leaf] = {leaf: float(value)} if section else float(value)
    assert replace(planted, budget=budget).validate().verdict == "PASS"


def _plain(text: str) -> str:
    return text.replace("\u00a0", " ").replace("\\", "")


def sources_of(tmp_path: Path, runs: Mapping[str, Situation]) -> list[Source]:
    return [Source(name, load_run(write(tmp_path / name, *one.documents()))) for name, one in runs.items()]


def shipped(sources: Sequence[Source]) -> dict[str, tuple[str, str]]:
    """Device -> source and precision."""
    best = best_of(choices(sources))
    return {device: (one.source, one.row.precision) for device, one in best.items() if one is not None}


def test_two_runs_on_one_device(tmp_path: Path) -> None:
    """The faster that passes; a faster one that fails is not taken."""
    slow, fast = SITUATIONS["int8 faster than fp16"], SITUATIONS["measured on the target"]
    slow = replace(slow, times_ms={"fp32": 9.0, "fp16": 5.0, "int8": 4.0})
    sources = sources_of(tmp_path, {"small": slow, "large": fast})
    assert shipped(sources) == {"Orin": ("large", "fp16")}
    decision = decide_between(sources, choices(sources), [])
    assert decision.verdict == "PASS"
    assert all(word in decision.sentence for word in ("large", "fp16"))

    failing = replace(fast, planted=replace(fast.planted, student=500))
    sources = sources_of(tmp_path, {"small": slow, "large": failing})
    assert shipped(sources) == {"Orin": ("small", "int8")}


def test_two_devices_of_one_bundle(tmp_path: Path) -> None:
    """The run was timed where it was trained; only the results of the target count."""
    elsewhere, there = SITUATIONS["measured on another device"], SITUATIONS["int8 slower than fp16"]
    alone = sources_of(tmp_path, {"run": elsewhere})
    assert shipped(alone) == {"jetson-orin": ("run", "int8")}
    sources = sources_of(tmp_path, {"run": elsewhere, "orin": there})
    assert shipped(sources) == {"Orin": ("orin", "fp16")}
    decision = decide_between(sources, choices(sources), [])
    assert (decision.verdict, "Xeon" in decision.sentence) == ("PASS", False)

    # Of an older bundle every device is asked about.
    old = [replace(one, planted=replace(one.planted, target=None)) for one in (elsewhere, there)]
    sources = sources_of(tmp_path, {"run": old[0], "orin": old[1]})
    assert shipped(sources) == {"Intel Xeon": ("run", "fp32"), "Orin": ("orin", "fp16")}


def test_results_on_a_device_know_no_teacher(tmp_path: Path) -> None:
    """The student is judged in its run. Alone, results on a device decide nothing; with the run they do."""
    there = SITUATIONS["int8 slower than fp16"]
    bad = replace(there, planted=replace(there.planted, student=500, knows_teacher=True), times_ms={})
    on_device = replace(there, planted=replace(bad.planted, knows_teacher=False))
    alone = sources_of(tmp_path / "alone", {"orin": on_device})
    decision = decide_between(alone, choices(alone), [])
    assert (decision.verdict, shipped(alone)) == ("NOT CHECKED", {})
    assert "a bundle holds no teacher" in decision.sentence

    failing = sources_of(tmp_path / "failing", {"run": bad, "orin": on_device})
    assert (decide_between(failing, choices(failing), []).verdict, shipped(failing)) == ("FAIL", {})

    good = replace(there, times_ms={})
    on_device = replace(there, planted=replace(there.planted, knows_teacher=False))
    passing = sources_of(tmp_path / "passing", {"run": good, "orin": on_device})
    assert shipped(passing) == {"Orin": ("orin", "fp16")}


def test_a_stale_benchmark_counts_for_nothing(tmp_path: Path) -> None:
    situation = SITUATIONS["int8 slower than fp16"]
    validation, benchmark = situation.documents()
    assert benchmark is not None
    other = benchmark.model_copy(update={"bundle_sha256": "c" * 64})
    assert named(decide(validation, other)) == "int8"
    run = Run(folder=tmp_path, validation=validation, benchmark=other)
    assert shipped([Source("run", run)]) == {"jetson-orin": ("run", "int8")}
