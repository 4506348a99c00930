from __future__ import annotations

import re
import runpy

from readme_blocks import DOCS, ROOT

from dskd_export import codes
from dskd_export.codes import CODES, code_of, plain
from dskd_export.errors import EnvironmentProblem


def test_numbers_are_unique_and_in_order() -> None:
    numbers = [code.number for code in CODES]
    assert numbers == sorted(set(numbers))
    assert all(100 <= number < 400 for number in numbers)
    assert all(code_of(code.number) is code for code in CODES)


def test_the_page_lists_every_code_and_no_other() -> None:
    text = (DOCS / "codes.md").read_text(encoding="utf-8")
    assert text == runpy.run_path(str(DOCS / "codes.py"))["codes_page"](), "run: python docs/codes.py"
    rows = re.findall(r"^\| `(DSKD-E\d+)` \| (.*?) \| (.*) \|$", text, re.MULTILINE)
    assert rows == [(str(code), code.title, code.cure) for code in CODES]


def test_every_code_is_given_by_some_source() -> None:
    sources = [
        path.read_text(encoding="utf-8")
        for folder in ("dskd_compress", "export/dskd_export")
        for path in (ROOT / folder).rglob("*.py")
    ]
    names = [name for name, value in vars(codes).items() if isinstance(value, codes.Code)]
    assert len(names) == len(CODES)
    assert [
        name for name in names if not any(re.search(rf"\b(codes\.|return ){name}\b", text) for text in sources)
    ] == []


def test_an_error_of_a_code_has_its_cure() -> None:
    error = EnvironmentProblem("x", code=codes.LIBNVINFER)
    assert (str(error.code), error.exit_code) == ("DSKD-E204", 4)
    assert error.hint == "Install TensorRT, or add its folder to LD_LIBRARY_PATH."
    assert EnvironmentProblem("x", "y", code=codes.LIBNVINFER).hint == "y"
    assert EnvironmentProblem("x").code is None
    assert plain("`pip install x`") == "pip install x"
