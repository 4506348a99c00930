"""Is the exported model still the same function? The gate, parity, preprocessing."""

from __future__ import annotations

from dskd_export.documents import Check, Parity, ValidationDocument
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import (
    Block,
    Cell,
    Note,
    Section,
    Table,
    missing,
    not_there,
    number,
    verdict,
)
from dskd_export.report.load import Run
from dskd_export.spec import ModelSpec

_SIGN = {"<=": "≤", ">=": "≥"}


def numerics(run: Run) -> Section:
    """The validation with its limits, and the preprocessing that the device has to repeat."""
    blocks: list[Block] = []
    if run.validation is None:
        blocks.append(not_there("validation.json", "validate", "The checks of the exported model"))
    else:
        blocks += _validation(run.validation)
    if run.spec is None:
        blocks.append(not_there("bundle/spec.json", "export", "What the exported model expects"))
    else:
        blocks.append(_spec(run.spec))
    return Section("numerics", "Numerics", blocks)


def _validation(document: ValidationDocument) -> list[Block]:
    failed = [check.name for check in document.checks if not check.passed]
    blocks: list[Block] = []
    if failed:
        blocks.append(Note(f"The gate failed: {', '.join(failed)}.", "warning"))
    blocks.append(
        Table(
            "checks-table",
            "Checks of the gate",
            ("check", "value", "limit", "verdict", "detail"),
            [_check(check) for check in document.checks],
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
                "finite",
            ),
            [_parity(parity) for parity in document.parity],
            note="Scale is the largest absolute logit of the reference.",
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


def _check(check: Check) -> list[Cell]:
    return [
        Cell(check.name),
        number(fmt.exact(check.value)) if check.value is not None else missing(check.detail or "not measured"),
        number(f"{_SIGN[check.comparison]} {fmt.exact(check.limit)}"),
        verdict(check.passed),
        Cell(check.detail),
    ]


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
