from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dskd_export.documents.mistakes import ClassCounts, ConfusedPair, Mistakes
from dskd_export.documents.validation import ValidationDocument
from dskd_export.report import build_report
from dskd_export.report.blocks import Note, Pictures
from dskd_export.report.load import load_run
from dskd_export.report.sections.mistakes import read_photo, section_from_run
from dskd_export.report.tables import Table


def tables(folder: Path) -> dict[str, Table]:
    return {block.id: block for block in section_from_run(load_run(folder)).blocks if isinstance(block, Table)}


@pytest.fixture
def far(make_run: Callable[..., Path]) -> Path:
    return make_run(
        images=150,
        student_right=94,
        teacher_right=144,
        student_drop=0.02,
        classes=["bolt", "nut", "screw", "washer"],
    )


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / "validation.json"
    document = ValidationDocument.model_validate_json(path.read_text())
    assert document.mistakes is not None
    mistakes = document.mistakes.model_copy(update=changes)
    path.write_text(document.model_copy(update={"mistakes": mistakes}).model_dump_json())


def test_rows_of_the_matrix_are_all_images_of_a_class(far: Path) -> None:
    table = tables(far)["confusion-table"]
    assert table.columns == ("class", "→ bolt", "→ nut", "→ screw", "→ washer", "images")
    total = right = 0
    for index, row in enumerate(table.rows):
        counts = [0 if cell.text == "·" else int(cell.text) for cell in row[1:]]
        assert sum(counts[:-1]) == counts[-1]
        assert row[1 + index].shade == "right"
        total, right = total + counts[-1], right + counts[index]
    assert (total, right) == (150, 94)


def test_the_worst_class_comes_first(far: Path) -> None:
    table = tables(far)["class-table"]
    drops = [float(row[4].text.split(" ")[0].replace("−", "-")) for row in table.rows]
    assert drops == sorted(drops, reverse=True)
    assert drops[0] > 40 > drops[-1]


def test_many_classes_are_pairs_and_no_matrix(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    names = [f"n{index:03}" for index in range(1000)]
    rewrite(
        folder,
        classes=[
            ClassCounts(name=name, images=10, student_right=7, teacher_right=9, lost=3, gained=1) for name in names
        ],
        confused=[ConfusedPair(label=names[i], answer=names[i + 1], images=3) for i in range(400)],
        left_out=599,
    )
    found = tables(folder)
    assert set(found) == {"confused-table", "class-table"}
    assert [cell.text for cell in found["confused-table"].rows[0]] == ["n000", "n001", "3 of 10", "30.0\u00a0%"]
    assert len(found["confused-table"].rows) == len(found["class-table"].rows) == 15
    assert "984 other pairs" in found["confused-table"].note
    assert "985 more classes" in found["class-table"].note


def test_photos_are_shown_and_can_be_left_out(far: Path) -> None:
    (pictures,) = (one for one in section_from_run(load_run(far)).blocks if isinstance(one, Pictures))
    assert pictures.title == "Photos that the student gets wrong and the teacher right"
    assert len(pictures.items) == 12
    first = pictures.items[0]
    assert first.lines[0].startswith("screw → washer\u00a0")
    assert first.words.startswith("val/digit-0143.png, an image of screw; student: washer")
    assert build_report(far).html.count('src="data:image/jpeg;base64,') == 12
    assert build_report(far, photos=False).html.count("data:image/jpeg") == 0


def test_photos_that_were_not_kept_are_explained(make_run: Callable[..., Path]) -> None:
    folder = make_run(photos=False)
    texts = [block.text for block in section_from_run(load_run(folder)).blocks if isinstance(block, Note)]
    assert any("validate.photos is false" in text for text in texts)
    assert "data:image/jpeg" not in build_report(folder).html


def jpeg(size: tuple[int, int], kind: str = "JPEG") -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    "planted",
    [
        "",
        "no base64!",
        base64.b64encode(b"<svg onload=alert(1)>").decode(),
        jpeg((20, 20), "PNG"),
        jpeg((300, 20)),
        jpeg((20, 20))[:200],
        "A" * 100_000,
    ],
    ids=["empty", "text", "svg", "png", "large", "cut", "long"],
)
def test_what_is_no_photo_of_ours_is_not_shown(make_run: Callable[..., Path], planted: str) -> None:
    assert read_photo(jpeg((20, 20))) is not None
    assert read_photo(planted) is None
    folder = make_run()
    document = json.loads((folder / "validation.json").read_text())
    for example in document["mistakes"]["examples"]:
        example["jpeg"] = planted
    (folder / "validation.json").write_text(json.dumps(document))
    html = build_report(folder).html
    assert "data:image/jpeg" not in html
    assert "can be shown" in html


def test_an_older_validation_says_so(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    document = json.loads((folder / "validation.json").read_text())
    for key in ("mistakes", "training_accuracy"):
        del document[key]
    (folder / "validation.json").write_text(json.dumps(document))
    (note,) = section_from_run(load_run(folder)).blocks
    assert isinstance(note, Note)
    assert "older version" in note.text
    assert build_report(folder).html


def test_without_a_teacher_every_mistake_counts(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    document = ValidationDocument.model_validate_json((folder / "validation.json").read_text())
    assert document.mistakes is not None
    found: Mistakes = document.mistakes
    none = {"teacher_right": None, "lost": None, "gained": None}
    rewrite(
        folder,
        classes=[one.model_copy(update=none) for one in found.classes],
        examples=[one.model_copy(update={"teacher": None, "teacher_confidence": None}) for one in found.examples],
    )
    table = tables(folder)["class-table"]
    assert table.columns == ("class", "images", "teacher", "student")
    (pictures,) = (one for one in section_from_run(load_run(folder)).blocks if isinstance(one, Pictures))
    assert pictures.title == "Photos that the student gets wrong"


def test_a_perfect_student_has_no_mistakes(make_run: Callable[..., Path]) -> None:
    folder = make_run(student_right=360, teacher_right=356)
    assert set(tables(folder)) == {"class-table"}
    assert not any(isinstance(block, Pictures) for block in section_from_run(load_run(folder)).blocks)
