"""What to try next: up to three steps, each from a measured fact and with one command. Pure.

A step that nothing was measured for is left out. What stands in the way of the decision comes first: the teacher's
faults, then the training where the student fails, more images where a verdict is not shown, then precisions and
speed.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from dskd_export.documents.benchmark import BenchmarkRow
from dskd_export.files.names import make_printable
from dskd_export.report import formatting as fmt
from dskd_export.report.load import Run
from dskd_export.validation.verdicts import iter_checks, unproven

MOST_STEPS = 3

_RISE = 0.01  # of accuracy, in the last quarter of the epochs
_LEAST_EPOCHS = 4
_OVERFIT = 0.05  # of accuracy, training above validation
_UNDERFIT = 0.05  # of accuracy, on training images below the teacher
_OUTLIER = 0.5  # of the layers' KL divergence together
_LOST = 0.005  # of accuracy, that a precision may lose unremarked
_SLOWER = 1.02  # times, that a smaller precision may take unremarked
_PREPROCESSING = 0.4  # of the latency of a call
_FEED = "Add to the command: "

Kind = Literal["teacher", "training", "images", "precision", "speed"]

# What stands in the way, by the verdict on the student.
_ORDER: dict[str, tuple[Kind, ...]] = {
    "FAIL": ("teacher", "training"),  # no precision and no speed saves a student that fails
    "NOT SHOWN": ("teacher", "images", "training", "precision", "speed"),
    "PASS": ("images", "precision", "speed", "teacher", "training"),
}
_MATCHED: tuple[Kind, ...] = ("images", "precision", "speed")  # a student that keeps up needs no training


@dataclass(frozen=True)
class NextStep:
    """Something to try.

    Attributes:
        kind: what it is about, for the order.
        fact: what was measured, in a sentence.
        advice: what to do, in a sentence.
        command: for a shell, as it stands.
    """

    kind: Kind
    fact: str
    advice: str
    command: str


def list_next_steps(run: Run, most: int = MOST_STEPS) -> list[NextStep]:
    """List what to try next, what matters most first.

    Args:
        run: what is known; its folder is named in the commands as it is there.
        most: steps to list.
    """
    order = _MATCHED if _is_matched(run) else _ORDER.get(_student_verdict(run), _ORDER["PASS"])
    found = [step for rule in _RULES for step in rule(run) if step.kind in order]
    found.sort(key=lambda step: order.index(step.kind))  # of one kind the order of the rules
    return found[:most]


def _find_teacher_fault(run: Run) -> Iterator[NextStep]:
    """A teacher that is fed wrongly, has its classes in another order, or is worth nothing."""
    for finding in (run.student.findings or ()) if run.student is not None else ():
        if finding.kind in ("teacher_input", "class_order") and finding.cure.startswith(_FEED):
            command = _again(run, "teacher", finding.cure.removeprefix(_FEED))
            yield NextStep("teacher", finding.means, "Feed the teacher as it was trained.", command)
            return
    student = None if run.validation is None else run.validation.student
    if student is None or student.teacher_accuracy is None or student.commonest_share is None:
        return
    top1 = student.teacher_accuracy.top1
    if top1.value <= student.commonest_share and run.student is not None:
        yield NextStep(
            "teacher",
            f"The teacher is right on {fmt.percent(top1.value)}; always answering '{student.commonest_class}' "
            f"gives {fmt.percent(student.commonest_share)}.",
            "Fit a classifier on its features.",
            _again(run, "probe", "--set teacher.fit=probe", ready_teacher=False),
        )


def _find_random_start(run: Run) -> Iterator[NextStep]:
    """A student that learned everything from its few images."""
    student = run.student
    if student is None or student.start != "random" or not student.pretrained_exists:
        return
    images = "" if student.data.train_images is None else f" and saw {fmt.count(student.data.train_images)} images"
    yield NextStep(
        "training",
        f"The student started from random weights{images}.",
        f"Start from timm's pretrained weights of {student.model.name}, which are downloaded. From a file: "
        "--student-checkpoint FILE.",
        _again(run, "pretrained", "--set student.pretrained=true"),
    )


def _find_rise(run: Run) -> Iterator[NextStep]:
    """An accuracy that still rose when the training ended."""
    history = run.student_history
    if run.student is None or history is None or len(history.epochs) < _LEAST_EPOCHS:
        return
    top1 = [record.top1 for record in history.epochs]
    late = max(1, len(top1) // 4)
    before, after = max(top1[:-late]), top1[-1]
    if after != max(top1) or after - before < _RISE:
        return
    epochs = history.epochs[-1].epoch + 1
    yield NextStep(
        "training",
        f"The accuracy was still rising: {fmt.percent(before)} to {fmt.percent(after)} in the last "
        f"{late} of {epochs} epochs.",
        "Train twice as long.",
        _again(run, f"{2 * epochs}-epochs", f"--epochs {2 * epochs}"),
    )


def _find_overfit(run: Run) -> Iterator[NextStep]:
    """Training images that the student knows by heart."""
    validation = run.validation
    if run.student is None or validation is None or validation.training_accuracy is None:
        return
    train, measured = validation.training_accuracy.top1, validation.accuracy.get(validation.reference)
    if measured is None:
        return
    if train.value - measured.top1.value >= _OVERFIT and train.low > measured.top1.high:
        yield NextStep(
            "training",
            f"The student overfits: it is right on {fmt.percent(train.value)} of the training images, on "
            f"{fmt.percent(measured.top1.value)} of the validation images.",
            "Add training images, or mix them.",
            _again(run, "mixup", "--set data.augment.mixup=0.2"),
        )
    elif _is_underfit(run, train.high):
        assert run.teacher_model is not None  # its accuracy is known
        allowed = 2 * run.student.model.parameters / 1e6
        yield NextStep(
            "training",
            f"The student is too small: it is right on only {fmt.percent(train.value)} of its training images.",
            "Choose a larger student.",
            f"dskd-compress models suggest --teacher {shlex.quote(run.teacher_model.name)} "
            f"--max-parameters {allowed:.3g}",
        )


def _is_underfit(run: Run, high: float) -> bool:
    """Whether training longer, or from better weights, is not the cure for a student below its teacher."""
    student = None if run.validation is None else run.validation.student
    if (
        student is None
        or student.verdict != "FAIL"
        or student.teacher_accuracy is None
        or run.teacher_model is None
    ):
        return False
    is_below = student.teacher_accuracy.top1.value - high >= _UNDERFIT
    return is_below and not [*_find_random_start(run), *_find_rise(run)]


def _find_few_images(run: Run) -> Iterator[NextStep]:
    """A verdict that more images would show."""
    validation = run.validation
    if validation is None or not validation.accuracy:
        return
    open_ = [(what, check) for what, check in iter_checks(validation) if check.verdict == "NOT SHOWN"]
    if not open_:
        return
    used = next(iter(validation.accuracy.values())).images
    of_student = [check for what, check in open_ if what == "student"]
    decides = unproven(of_student or [check for _, check in open_])  # the student first
    needed = decides.images_needed
    what = next(what for what, check in open_ if check is decides)
    what = f"the {what}" if what in ("student", "bundle") else what.rpartition(":")[2]
    enough = "more would do" if needed is None else f"about {fmt.count(needed)} would do"
    fact = f"{fmt.count(used)} validation images are too few to prove {what}; {enough}."
    there = max(used, validation.data.val_images or used)
    add = "" if needed is None or needed <= there else f" {fmt.count(needed - there)}"
    advice = f"Add{add} labelled images to the validation set."
    if there > used and run.student is not None:
        advice = f"Use all {fmt.count(there)} of them" + (f", and add{add} more." if add else ".")
        yield NextStep("images", fact, advice, f"dskd-compress run {_name(run)} --set validate.images=null")
        return
    yield NextStep("images", fact, advice, _validate_again(run))


def _find_outlier(run: Run) -> Iterator[NextStep]:
    """A layer that costs a precision its accuracy."""
    if run.export is None or run.validation is None:
        return
    lost = {
        one.precision: one.accuracy.top1_drop.value
        for one in run.validation.judgements
        if one.accuracy is not None and (one.verdict != "PASS" or one.accuracy.top1_drop.value >= _LOST)
    }
    for facts in run.export.precisions:
        layers = [] if facts.search is None else facts.search.layers
        if facts.precision not in lost or not layers or layers[0].kept:
            continue
        share = layers[0].kl / sum(layer.kl for layer in layers)
        if share >= _OUTLIER:
            keep = ", ".join([*facts.kept, *layers[0].nodes])
            yield NextStep(
                "precision",
                f"{layers[0].nodes[0]} causes {fmt.percent(share, 0)} of the error of {facts.precision}, which "
                f"loses {fmt.points(lost[facts.precision]).lstrip('+')} points.",
                "Keep it in floating point.",
                f"dskd-compress run {_name(run)} --set {shlex.quote(f'export.quantize.keep=[{keep}]')}",
            )


def _find_slow_precision(run: Run) -> Iterator[NextStep]:
    """A smaller precision that is slower than a larger one on the same runner."""
    timed = _student_rows(run)
    for row in timed:
        if row.precision not in ("int8", "fp8"):
            continue
        larger = [one for one in timed if _same_cell(one, row) and one.precision in ("fp32", "fp16", "bf16")]
        best = min(larger, key=_p50, default=None)
        if best is None or _p50(row) < _SLOWER * _p50(best):
            continue
        yield NextStep(
            "speed",
            f"{row.precision} is {fmt.significant(_p50(row) / _p50(best))}× slower than {best.precision} here "
            f"({fmt.milliseconds(_p50(row))} against {fmt.milliseconds(_p50(best))}).",
            "See where the time goes.",
            f"dskd-compress benchmark {_name(run)} --profile",
        )
        return


def _find_preprocessing(run: Run) -> Iterator[NextStep]:
    """Calls that spend much of their time before the model."""
    timed = [row for row in _student_rows(run) if row.runner != "torch"]
    if run.benchmark is None or not timed or run.student is None:
        return
    if run.spec is not None and run.spec.input_dtype == "uint8":
        return
    fastest = min(timed, key=_p50)
    whole = next(
        (
            row
            for row in run.benchmark.rows
            if row.part == "with_preprocessing"
            and row.latency is not None
            and _same_cell(row, fastest)
            and row.precision == fastest.precision
        ),
        None,
    )
    if whole is None or (share := 1 - _p50(fastest) / _p50(whole)) < _PREPROCESSING:
        return
    yield NextStep(
        "speed",
        f"Preprocessing takes {fmt.percent(share, 0)} of a call ({fmt.milliseconds(_p50(whole) - _p50(fastest))} "
        f"of {fmt.milliseconds(_p50(whole))}).",
        "Normalise in the model.",
        f"dskd-compress run {_name(run)} --set export.input=uint8",
    )


_RULES: Sequence[Callable[[Run], Iterator[NextStep]]] = (
    _find_teacher_fault,
    _find_random_start,
    _find_rise,
    _find_overfit,
    _find_few_images,
    _find_outlier,
    _find_slow_precision,
    _find_preprocessing,
)


def _student_verdict(run: Run) -> str:
    student = None if run.validation is None else run.validation.student
    return "NOT JUDGED" if student is None else student.verdict


def _is_matched(run: Run) -> bool:
    """Whether the student passes and loses nothing against its teacher."""
    student = None if run.validation is None else run.validation.student
    return (
        student is not None
        and student.verdict == "PASS"
        and student.teacher is not None
        and student.teacher.top1_drop.value <= 0
    )


def _student_rows(run: Run) -> list[BenchmarkRow]:
    """The student's timed rows of the model alone at the smallest batch."""
    rows = [] if run.benchmark is None else run.benchmark.rows
    smallest = min((row.batch for row in rows), default=1)
    own = [row for row in rows if row.model == "student" and row.part == "engine" and row.batch == smallest]
    return [row for row in own if row.latency is not None]


def _name(run: Run) -> str:
    return shlex.quote(make_printable(str(run.folder)))


def _again(run: Run, suffix: str, options: str, *, ready_teacher: bool = True) -> str:
    """Write the command that runs another recipe in a separate folder, with the teacher that was trained here."""
    out = shlex.quote(make_printable(f"{run.folder}-{suffix}"))
    taken = ""
    if ready_teacher and run.teacher is not None:
        weights = shlex.quote(make_printable(str(run.folder / "teacher.safetensors")))
        taken = f" --set teacher.fit=none --teacher-checkpoint {weights}"
    return f"dskd-compress run {_name(run)} --out {out}{taken} {options}"


def _validate_again(run: Run) -> str:
    """The validation once more: of the run, or as it was called for a bundle."""
    if run.student is None and run.validation is not None and run.validation.provenance.command:
        return run.validation.provenance.command
    return f"dskd-compress validate {_name(run)}"


def _same_cell(one: BenchmarkRow, other: BenchmarkRow) -> bool:
    keys = ("model", "runner", "provider", "threads", "batch")
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def _p50(row: BenchmarkRow) -> float:
    assert row.latency is not None  # callers select measured rows
    return row.latency.p50_ms
