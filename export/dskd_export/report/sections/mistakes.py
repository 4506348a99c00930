"""Where the student is wrong: confusion matrix, photos that the teacher gets right, accuracy of each class."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

from dskd_export.documents.mistakes import ClassCounts, Mistake, Mistakes
from dskd_export.documents.validation import ValidationDocument
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Block, Note, Picture, Pictures, Section, missing_file
from dskd_export.report.load import Run
from dskd_export.report.tables import Cell, make_table, missing, number
from dskd_export.validation.intervals import paired_bounds, wilson_interval

TITLE = "Where the student is wrong"

_MATRIX = 15  # classes whose matrix can still be read
_SHOWN = 15  # pairs, and classes, of a table
_MAX_PHOTO = 16 << 10  # bytes
_MAX_SIDE = 256  # pixels


def section_from_run(run: Run, *, photos: bool = True) -> Section:
    """Show what the student gets wrong on the validation images.

    Args:
        run: with its validation.
        photos: show those that the validation kept.
    """
    return Section("mistakes", TITLE, list(_blocks(run.validation, photos)))


def _blocks(validation: ValidationDocument | None, photos: bool) -> Sequence[Block]:
    if validation is None:
        return [missing_file("validation.json", "validate", "The student's mistakes")]
    found = validation.mistakes
    if found is None:
        why = (
            "an older version wrote validation.json"
            if validation.accuracy
            else "no labelled images were validated"
        )
        return [Note(f"The student's mistakes were not recorded: {why}.", "missing")]
    return [*_confusion(found), *(_photos(found) if photos else ()), *tabulate_classes(found)]


def _confusion(found: Mistakes) -> list[Block]:
    if not found.confused:
        return [Note("The student is right on every validation image.")]
    names = [one.name for one in found.classes]
    answers = {pair.answer for pair in found.confused}
    columns = list(dict.fromkeys([*names, *sorted(filter(None, answers))]))
    if len(columns) > _MATRIX or found.left_out:
        return [_pairs(found)]
    images = {(pair.label, pair.answer): pair.images for pair in found.confused}
    rows = []
    for one in found.classes:
        row = {"class": Cell(one.name)}
        for name in columns:
            wrong = images.get((one.name, name), 0)
            if name == one.name:
                row[f"→ {name}"] = Cell(fmt.count(one.student_right), "number", shade="right")
            else:
                row[f"→ {name}"] = Cell(
                    fmt.count(wrong) if wrong else "·", "number", shade=_shade(wrong / one.images)
                )
        if None in answers:
            row["no answer"] = number(fmt.count(images.get((one.name, None), 0)))
        row["images"] = number(fmt.count(one.images))
        rows.append(row)
    note = "Rows: the class of the image. Columns: the student's answer."
    return [make_table("confusion-table", "Confusion matrix of the student", rows, note)]


def _shade(share: float) -> str:
    """How dark a cell is: a step for each tenth of the images of a class, at most four."""
    return "" if share == 0 else f"wrong{min(4, 1 + int(10 * share))}"


def _pairs(found: Mistakes) -> Block:
    images = {one.name: one.images for one in found.classes}
    rows = [
        {
            "class of the image": Cell(pair.label),
            "the student's answer": Cell("no answer" if pair.answer is None else pair.answer),
            "images": number(f"{fmt.count(pair.images)} of {fmt.count(images.get(pair.label, pair.images))}"),
            "share of the class": number(fmt.percent(pair.images / images.get(pair.label, pair.images))),
        }
        for pair in found.confused[:_SHOWN]
    ]
    more = len(found.confused) + found.left_out - len(rows)
    note = f"{fmt.count(more)} other pairs are less frequent." if more else ""
    return make_table("confused-table", "Classes that the student confuses most", rows, note)


def _photos(found: Mistakes) -> list[Block]:
    if not found.examples:
        return []
    has_teacher = found.examples[0].teacher is not None
    title = "Photos that the student gets wrong" + (" and the teacher right" if has_teacher else "")
    if not found.photos:
        return [Note(f"{title}: not kept, because validate.photos is false.")]
    pictures = [picture for one in found.examples if (picture := _picture(one)) is not None]
    if not pictures:
        return [Note(f"{title}: none of validation.json can be shown.", "missing")]
    note = "The most confident mistakes first, as the student gets them: resized and cropped."
    return [Pictures(title, pictures, note)]


def _picture(one: Mistake) -> Picture | None:
    """The photo of a mistake, if what the document holds is one."""
    data = None if one.jpeg is None else read_photo(one.jpeg)
    if data is None:
        return None
    student = f"{one.student}{fmt.NBSP}{fmt.percent(one.student_confidence, 0)}"
    words, lines = f"{one.name}, an image of {one.label}; student: {student}", [f"{one.label} → {student}"]
    if one.teacher is not None and one.teacher_confidence is not None:
        words += f"; teacher: {one.teacher}{fmt.NBSP}{fmt.percent(one.teacher_confidence, 0)}"
        lines.append(f"teacher sure by {fmt.percent(one.teacher_confidence, 0)}")
    return Picture(data, words, "image/jpeg", [*lines, one.name])


def read_photo(text: str) -> bytes | None:
    """Decode the JPEG of a document; None where it is none, or too large to be one of ours."""
    if len(text) > 2 * _MAX_PHOTO:
        return None
    try:
        data = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if max(image.size) > _MAX_SIDE:
                return None
            image.load()
    except (binascii.Error, ValueError, OSError, UnidentifiedImageError):
        return None
    return data


def tabulate_classes(found: Mistakes) -> list[Block]:
    """Make the table of the classes, the worst first; no block where no class has images."""
    counted = found.classes
    if not counted:
        return []
    of_teacher = [one for one in counted if one.lost is not None and one.gained is not None]
    if len(of_teacher) < len(counted):
        ordered = sorted(counted, key=lambda one: one.student_right / one.images)
        rows = [_class_row(one) for one in ordered[:_SHOWN]]
    else:
        lost_M, gained_M, n_M = (
            np.array([getattr(one, name) for one in counted], np.float64) for name in ("lost", "gained", "images")
        )
        low_M, high_M = paired_bounds(lost_M, gained_M, n_M)
        drop_M = (lost_M - gained_M) / n_M
        order = np.lexsort((-drop_M, -np.maximum(low_M, 0)))[:_SHOWN]
        rows = [
            {
                **_class_row(counted[index]),
                "drop (points, 95 %)": number(
                    f"{_points(drop_M[index])} ({_points(low_M[index])} to {_points(high_M[index])})"
                ),
                "lost, gained": number(f"{counted[index].lost}, {counted[index].gained}"),
            }
            for index in order
        ]
    more = len(counted) - len(rows)
    note = (
        "The worst first. Drop: of the student below the teacher on the same images, Tango's interval. Lost: the "
        "teacher is right and the student wrong; gained: the other way round."
    )
    if len(of_teacher) < len(counted):
        note = "The worst first. In brackets 95 % intervals."
    note += f" {fmt.count(more)} more classes are not shown." if more else ""
    return [make_table("class-table", "Accuracy by class", rows, note)]


def _points(share: float) -> str:
    """Percentage points without a plus sign."""
    return fmt.points(share).lstrip("+")


def _class_row(one: ClassCounts) -> dict[str, Cell]:
    student = wilson_interval(one.student_right, one.images)
    teacher = (
        missing("not called") if one.teacher_right is None else number(fmt.percent(one.teacher_right / one.images))
    )
    return {
        "class": Cell(one.name),
        "images": number(fmt.count(one.images)),
        "teacher": teacher,
        "student": number(fmt.percent_interval(student)),
    }
