"""Is the exported model still the same function? The gate, parity, preprocessing."""

from __future__ import annotations

from dskd_export.documents.base import Interval
from dskd_export.documents.validation import (
    Check,
    Judgement,
    PairedAccuracy,
    Parity,
    StudentJudgement,
    ValidationDocument,
)
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import (
    Block,
    Cell,
    Note,
    Pictures,
    Section,
    Table,
    missing,
    not_there,
    number,
    verdict_cell,
)
from dskd_export.report.load import Run
from dskd_export.report.pictures import golden_of, pictures_of
from dskd_export.spec import ModelSpec
from dskd_export.validation.gate import causes_of, checks_of

_SIGN = {"<=": "≤", ">=": "≥", ">": ">"}


def numerics(run: Run) -> Section:
    """The validation with its limits, and the preprocessing that the device has to repeat."""
    blocks: list[Block] = []
    if run.validation is None:
        blocks.append(not_there("validation.json", "validate", "The checks of the exported model"))
    else:
        blocks += _validation(run.validation)
        blocks += _worst_classes(run)
    if run.spec is None:
        blocks.append(not_there("bundle/spec.json", "export", "What the exported model expects"))
    else:
        blocks.append(_spec(run.spec))
    return Section("numerics", "Numerics", blocks)


def _worst_classes(run: Run) -> list[Block]:
    """What the classes that lose most look like, as far as the bundle's golden images have them."""
    assert run.validation is not None  # the caller looked
    found = [
        (judgement.runner, judgement.accuracy.worst_class)
        for judgement in run.validation.judgements
        if judgement.accuracy is not None and judgement.accuracy.worst_class is not None
    ]
    lost = [(runner, worst) for runner, worst in found if worst.lost]
    if not lost:
        return []
    golden = None if run.spec is None else golden_of(run.folder / "bundle", run.spec)
    blocks: list[Block] = []
    for name in dict.fromkeys(worst.name for _, worst in lost):
        runners = ", ".join(runner for runner, worst in lost if worst.name == name)
        items = [] if golden is None or run.spec is None else pictures_of(golden, run.spec, name)
        title = f"Class {name}, which loses most of all in {runners}"
        if items:
            blocks.append(Pictures(title, items))
        else:
            blocks.append(Note(f"{title}: the bundle's golden images have none of it.", "missing"))
    return blocks


def _validation(document: ValidationDocument) -> list[Block]:
    blocks: list[Block] = []
    for verdict, what in (("FAIL", "Failed"), ("NOT SHOWN", "Not shown")):
        names = [f"{where}: {check.name}" for where, check in checks_of(document) if check.verdict == verdict]
        if names:
            blocks.append(Note(f"{what}: {', '.join(names)}.", "warning"))
    if document.student is not None:
        blocks += _student(document, document.student)
    blocks += [Note(f"Likely cause: {cause}.", "warning") for cause in causes_of(document)]
    blocks.append(
        Table(
            "verdict-table",
            f"Verdict by model, against {document.reference}",
            ("model", "verdict", "top-1", "size", "computed in"),
            [_verdict(document, judgement) for judgement in document.judgements],
        )
    )
    blocks += [
        Note(f"{one.runner}, {one.verdict}: {one.reason}.")
        for one in document.judgements
        if one.reason and one.verdict != "PASS"
    ]
    blocks += [Note(f"{one.runner}: {one.native_reason}.") for one in document.judgements if one.native is False]
    blocks.append(
        Table(
            "loss-table",
            f"What is lost against {document.reference}",
            (
                "model",
                "top-1 lost (points, 95 %)",
                "lost, gained",
                "McNemar p",
                "same top-1",
                "worst class",
                "calibration error",
            ),
            [_loss(one.runner, one.accuracy) for one in document.judgements if one.accuracy is not None],
            note="Lost: right in the reference, wrong in the model; the interval is Tango's for paired shares, "
            "that of the same top-1 Wilson's. The worst class is the one that is shown to have lost most, by the "
            "lower bound. Calibration error: reference, then model; 15 bins.",
        )
    )
    blocks.append(
        Table(
            "checks-table",
            "Checks of the gate",
            ("of", "check", "value", "95 % bound", "limit", "verdict", "detail"),
            [_check(where, check) for where, check in checks_of(document)],
            note="Where there is a bound it decides, and not the value. NOT SHOWN: the value is within the limit, "
            "but the images are too few to show it.",
        )
    )
    blocks.append(
        Table(
            "parity-table",
            "Parity of logits",
            (
                "candidate against reference",
                "batch",
                "images",
                "max abs",
                "max abs / scale",
                "mean abs / scale",
                "lowest cosine",
                "highest KL (nats)",
                "same top-1",
                "same top-5",
                "finite",
            ),
            [_parity(parity) for judgement in document.judgements for parity in judgement.parity],
            note="On the same inputs. Scale is the largest absolute logit of the reference.",
        )
    )
    blocks.append(
        Table(
            "accuracy-table",
            "Accuracy by runner",
            ("runner", "top-1", "top-5", "images"),
            [
                [
                    Cell(runner),
                    number(fmt.percent_interval(value.top1)),
                    number(fmt.percent_interval(value.top5)) if value.top5 else missing("fewer than six classes"),
                    number(fmt.count(value.images)),
                ]
                for runner, value in document.accuracy.items()
            ],
            note="With 95 % Wilson score intervals.",
        )
    )
    pixels = document.preprocess
    if pixels is None:
        return blocks
    blocks.append(
        Table(
            "preprocess-table",
            "Preprocessing without torch against timm's",
            ("what", "value"),
            [
                [Cell("images"), number(fmt.count(pixels.images))],
                [Cell("largest pixel difference (of 255)"), number(fmt.significant(pixels.max_abs_pixel))],
                [
                    Cell("largest difference after normalisation"),
                    number(fmt.significant(pixels.max_abs_normalised)),
                ],
                [Cell("differing pixels"), number(fmt.count(pixels.differing_pixels))],
            ],
        )
    )
    return blocks


def _student(document: ValidationDocument, student: StudentJudgement) -> list[Block]:
    """The student against its teacher and the commonest class."""
    rows = []
    measured = document.accuracy.get(document.reference)
    for who, accuracy in (("student", measured), ("teacher", student.teacher_accuracy)):
        if accuracy is not None:
            rows.append(
                [Cell(who), number(fmt.percent_interval(accuracy.top1)), number(fmt.count(accuracy.images))]
            )
    if student.commonest_class is not None and student.commonest_share is not None:
        images = number(fmt.count(measured.images)) if measured is not None else missing("not counted")
        who = f"always '{student.commonest_class}', the commonest class"
        rows.append([Cell(who), number(fmt.percent(student.commonest_share)), images])
    if not rows:
        return [Note(f"The student is not judged: {student.reason}.", "missing")]
    note = f"{student.verdict}: {student.reason}."
    columns = ("who", "top-1 (95 % interval)", "images")
    return [Table("student-table", "The student against its teacher", columns, rows, note=note)]


def _verdict(document: ValidationDocument, judgement: Judgement) -> list[Cell]:
    size = missing("not a file") if judgement.size_mb is None else number(fmt.megabytes(judgement.size_mb))
    if judgement.verdict == "NOT RUN":
        not_run = missing("not run")
        return [Cell(judgement.runner), missing("NOT RUN"), not_run, size, not_run]
    return [
        Cell(judgement.runner),
        verdict_cell(judgement.verdict),
        (
            number(fmt.percent_interval(document.accuracy[judgement.runner].top1))
            if judgement.runner in document.accuracy
            else missing("no labelled images")
        ),
        size,
        missing("not recorded") if judgement.computed_in is None else Cell(judgement.computed_in),
    ]


def _loss(runner: str, paired: PairedAccuracy) -> list[Cell]:
    errors = (paired.reference_calibration_error, paired.calibration_error)
    return [
        Cell(runner),
        number(_lost(paired.top1_drop)),
        number(f"{fmt.count(paired.lost)}, {fmt.count(paired.gained)} of {fmt.count(paired.images)}"),
        number(fmt.significant(paired.mcnemar_p)),
        number(fmt.percent_interval(paired.agreement)),
        _worst_class(paired),
        number(" → ".join(fmt.significant(error) for error in errors)),
    ]


def _lost(drop: Interval) -> str:
    value, low, high = (f"{100 * share:.2f}".replace("-", "−") for share in (drop.value, drop.low, drop.high))
    return f"{value} ({low} to {high})"


def _worst_class(paired: PairedAccuracy) -> Cell:
    worst = paired.worst_class
    if worst is None:
        return missing(f"no class has enough images; the largest has {paired.largest_class_images}")
    return Cell(f"{worst.name}: {worst.lost} of {worst.images} lost, {worst.gained} gained")


def _check(where: str, check: Check) -> list[Cell]:
    return [
        Cell(where),
        Cell(check.name),
        number(_figure(check.value)) if check.value is not None else missing("not measured"),
        number(_figure(check.bound)) if check.bound is not None else Cell(""),
        number(f"{_SIGN[check.comparison]} {fmt.exact(check.limit)}"),
        verdict_cell(check.verdict),
        Cell(check.detail),
    ]


def _figure(value: float) -> str:
    """Three digits, and as many of a share that is nearly 1 as it takes to tell it from 1."""
    if value == round(value):
        return f"{value:g}"
    return f"{value:.8f}".rstrip("0").rstrip(".") if 0.999 < value < 1 else fmt.significant(value)


def _parity(parity: Parity) -> list[Cell]:
    return [
        Cell(f"{parity.candidate} against {parity.reference}"),
        number(str(parity.batch)),
        number(fmt.count(parity.images)),
        number(fmt.significant(parity.max_abs)),
        number(fmt.significant(parity.max_abs_relative)),
        number(fmt.significant(parity.mean_abs_relative)),
        number(f"{parity.cosine_min:.7f}"),
        number(fmt.significant(parity.kl_max)),
        number(fmt.percent(parity.top1_agreement)),
        missing("fewer than six classes")
        if parity.top5_agreement is None
        else number(fmt.percent(parity.top5_agreement)),
        Cell("yes") if parity.finite else Cell("no: NaN or Inf in the logits", "fail"),
    ]


def _spec(spec: ModelSpec) -> Table:
    rows = [
        (
            "input",
            f"{spec.input_name}: batch × {' × '.join(map(str, spec.input_shape(1)[1:]))}, RGB, {spec.input_dtype}",
        ),
        ("output", f"{spec.output_name}: batch × {len(spec.classes)}"),
        ("mean, std (of pixels in 0–1)", f"{_triple(spec.mean)}; {_triple(spec.std)}"),
        ("resize", f"{spec.interpolation}, crop {spec.crop_mode}, crop share {fmt.exact(spec.crop_pct)}"),
        ("classes", f"{len(spec.classes)}: {', '.join(spec.classes)}"),
        ("ONNX operator set", str(spec.opset)),
    ]
    cells = [[Cell(label), Cell(text)] for label, text in rows]
    return Table("spec-table", "What the exported model expects", ("what", "value"), cells)


def _triple(values: tuple[float, float, float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
