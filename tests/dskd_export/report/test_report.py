from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dskd_export.report import Report, build_report, names_of
from dskd_export.report.render import cell_markdown, code_markdown, escape_markdown, fence
from dskd_export.report.tables import Cell

EVIL = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "cat | dog",
    "<!--",
    "`tick`",
    "line\nbreak",
    "a&b\u2028c",
]


class Reader(HTMLParser):
    """Collects what the tests ask about a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[int] = []
        self.text: list[str] = []
        self.scripts: list[tuple[str, str]] = []
        self._script: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "script":
            self._script = attributes.get("type") or "text/javascript"

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts.append((self._script, data))
        else:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    @property
    def chart_data(self) -> dict[str, dict[str, object]]:
        return dict(json.loads("".join(data for kind, data in self.scripts if kind == "application/json")))


@pytest.fixture(scope="module")
def report(full_run: Path) -> Report:
    return build_report(full_run)


@pytest.fixture(scope="module")
def page(report: Report) -> Reader:
    return Reader(report.html)


FACTS = (
    "98.9 % (97.2–99.6 %)",  # accuracy of the teacher
    "−1.1 points",
    "11,181,642",
    "575,114",
    "37,220,352",
    "2.38 MB",
    "epoch 29",
    "head agrees on denoised",
    "1,213,184",  # the denoiser that was discarded
    "7.40e-7",
    "0.99999994",
    "≤ 0.0001",
    "onnxruntime:cpu:fp32 against torch:cpu:fp32",
    "bicubic, crop center",
    "p99.9 (ms)",
    "With preprocessing",
    "this ONNX Runtime has no CUDA provider",
    "3f9c2a7d5be1460f8a7c9d20e4b1735f6a8d9c01+dirty",
    "AMD EPYC 7B13",
    "bundle/manifest.json",
    "dskd-compress benchmark runs/digits",
)


@pytest.mark.parametrize("fact", FACTS)
def test_both_forms_hold_the_facts(report: Report, page: Reader, fact: str) -> None:
    assert fact in page.words
    # Markdown escapes some characters; read it as a reader would.
    plain = re.sub(r"\\([\\`*_\[\]|~#])", r"\1", report.markdown.replace("\u00a0", " "))
    assert fact in plain


def test_the_page_is_small_and_the_same_every_time(report: Report, full_run: Path) -> None:
    assert len(report.html.encode()) < 3_000_000
    assert build_report(full_run) == report


def test_the_page_loads_nothing(page: Reader, report: Report) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
        for name in ("srcset", "data", "action", "poster", "background", "xlink:href"):
            assert name not in attributes, (tag, name)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#")
    style = report.html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe-eval" not in policy
    assert "http" not in policy


def test_every_chart_has_its_place_and_its_words(page: Reader) -> None:
    boxes = [a for t, a in page.tags if t == "div" and a.get("class") == "chart"]
    specs = page.chart_data["specs"]
    assert {box["id"] for box in boxes} == set(specs)
    assert len(boxes) == len(specs) == 19
    for box in boxes:
        assert box["role"] == "img"
        assert len(box["aria-label"] or "") > 40
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_engine_and_preprocessing_share_no_chart(page: Reader) -> None:
    names = [name for name in page.chart_data["specs"] if name.startswith("latency-")]
    assert sorted(names) == [
        "latency-engine-batch-1",
        "latency-engine-batch-8",
        "latency-with_preprocessing-batch-1",
        "latency-with_preprocessing-batch-8",
    ]


def test_headings_and_tables_can_be_read_aloud(page: Reader) -> None:
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    for before, after in zip(page.headings, page.headings[1:], strict=False):
        assert after <= before + 1
    tables = sum(tag == "table" for tag, _ in page.tags)
    assert sum(tag == "caption" for tag, _ in page.tags) == tables > 10
    assert all(a.get("scope") in ("col", "row") for tag, a in page.tags if tag == "th")
    regions = [a for tag, a in page.tags if a.get("class") == "scroll"]
    assert len(regions) == tables
    assert all(a.get("tabindex") == "0" and a.get("aria-labelledby") for a in regions)


def test_user_text_stays_text(make_run: Callable[..., Path]) -> None:
    report = build_report(make_run(classes=EVIL, commands={"distill": EVIL[0]}), title=EVIL[0])
    page = Reader(report.html)
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert pictures  # the photos of mistakes, whose words hold the classes
    assert all(set(one) == {"src", "alt"} and (one["src"] or "").startswith("data:image/jpeg") for one in pictures)
    assert sum(kind == "text/javascript" for kind, _ in page.scripts) == 4  # three libraries and our own
    assert not any("alert(1)" in data for kind, data in page.scripts if kind == "text/javascript")
    assert EVIL[0] in page.words
    assert "{{ 7 * 7 }}" in page.words
    assert page.chart_data["specs"]
    cells = [line for line in report.markdown.splitlines() if "cat" in line]
    assert cells
    for line in cells:
        assert "<script" not in line
        assert len(re.findall(r"(?<!\\)\|", line)) in (3, 7, 10, 11)


def test_a_folder_whose_name_is_not_utf8(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    folder = folder.rename(folder.with_name(os.fsdecode(b"caf\xe9")))
    report = build_report(folder)
    for text in (report.html, report.markdown, report.csv):
        text.encode()
    assert names_of([folder]) == [r"caf\xe9"]


def test_chart_data_cannot_end_its_script(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    log = folder / "train.jsonl"
    text = log.read_text().replace('"lsh"', '"</script><b>"').replace('"hash_agreement"', '"<!--<script>"')
    log.write_text(text)
    page = Reader(build_report(folder).html)
    assert not any(tag == "b" for tag, _ in page.tags)
    titles = json.dumps(page.chart_data, ensure_ascii=False)
    assert "</script><b>" in titles
    assert "<!--<script>" in titles


PARTS = {
    "teacher.json": "--set teacher.fit=all",
    "teacher.train.jsonl": "dskd-compress train",
    "distill.json": "dskd-compress distill",
    "train.jsonl": "dskd-compress distill",
    "bundle/spec.json": "dskd-compress export",
    "bundle/manifest.json": "dskd-compress export",
    "validation.json": "dskd-compress validate",
    "benchmark.json": "dskd-compress benchmark",
}


@pytest.mark.parametrize("name", PARTS)
def test_a_missing_file_says_which_command_makes_it(make_run: Callable[..., Path], name: str) -> None:
    folder = make_run()
    (folder / name).unlink()
    report = build_report(folder)
    plain = report.markdown.replace("\\_", "_")
    pattern = re.escape(name) + r" is not in the run folder.*" + re.escape(PARTS[name])
    assert re.search(pattern, plain)
    assert re.search(pattern, Reader(report.html).words)


def test_without_stages_nothing_is_called_fresh(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    for path in (folder / "stages").iterdir():
        path.unlink()
    markdown = build_report(folder).markdown
    assert "nothing can be checked for staleness" in markdown
    assert "up to date" not in markdown


def test_each_document_alone_makes_a_report(make_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_run()
    for name in PARTS:
        alone = tmp_path / name.replace("/", "-")
        target = alone / name
        target.parent.mkdir(parents=True)
        target.write_bytes((folder / name).read_bytes())
        report = build_report(alone)
        assert report.html.endswith("</html>\n")
        assert "NOT CHECKED" in report.markdown or name == "validation.json"


def test_without_raw_samples_the_percentiles_are_drawn(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    (folder / "benchmark.samples.npz").unlink()
    report = build_report(folder)
    assert "latency-engine-batch-1" in Reader(report.html).chart_data["specs"]
    assert "raw samples are missing" in Reader(report.html).words


def test_an_unstable_benchmark_is_marked_with_its_reason(make_run: Callable[..., Path]) -> None:
    report = build_report(make_run(stable=False))
    page = Reader(report.html)
    # One note for all of them, and the reason below each table.
    assert page.words.count("⚠ UNSTABLE: ") == 1
    assert (
        "UNSTABLE: 4 of 16 measurements: the rate drifted by 14 % after the warm-up (4 measurements)."
        in page.words
    )
    assert report.markdown.count("1. the rate drifted by 14 % after the warm-up") == 2


def test_a_failed_gate_is_said_in_words(make_run: Callable[..., Path]) -> None:
    report = build_report(make_run(gate_passes=False))
    assert "**FAIL**: Do not ship: onnxruntime:cpu:fp32 fails: max abs / scale" in report.markdown
    assert "Failed: onnxruntime:cpu:fp32: max abs / scale." in Reader(report.html).words
    words = Reader(report.html).words
    assert "✕ FAIL" in words
    assert "Likely cause: model.fp32.onnx: the channels come in the order BGR." in words


VERDICTS = (
    "computed in fp32 on cpu: 0 of 53 convolutions and matrix products run in fp16",
    "0.83 (−0.23 to 2.41)",
    "4, 1 of 360",
    "7: 2 of 36 lost, 0 gained",
    "0.0121 → 0.0174",
    "ONNX Runtime cannot run model.bf16.onnx on cpu",
    "NOT SHOWN",
    "3 of 360 images lost net; about 620 would show it",
    "NOT JUDGED",
    "no class has 10 images; the largest has 3",
)


@pytest.fixture(scope="module")
def precise(precise_run: Path) -> tuple[str, str]:
    """What a reader of the page, and of the Markdown, reads."""
    report = build_report(precise_run)
    plain = re.sub(r"\\([\\`*_\[\]|~#])", r"\1", report.markdown.replace("\u00a0", " "))
    return Reader(report.html).words, plain


@pytest.mark.parametrize("fact", VERDICTS)
def test_every_precision_has_its_verdict(precise: tuple[str, str], fact: str) -> None:
    assert all(fact in text for text in precise)


def test_titles(full_run: Path) -> None:
    assert build_report(full_run).markdown.startswith("# resnet18 → mobilenetv3\\_small\\_050\n")
    assert build_report(full_run, title="My run").markdown.startswith("# My run\n")


def test_markdown_escapes() -> None:
    assert escape_markdown("a|b <i> *x*\ny") == "a\\|b &lt;i&gt; \\*x\\* y"
    assert code_markdown("0a1b") == "`0a1b`"
    assert code_markdown("a|b") == "a\\|b"
    assert fence(["echo ```"]) == "````"
    assert cell_markdown(Cell("PASS", "pass")) == "**PASS**"


def test_the_report_needs_no_training_stack() -> None:
    script = (
        "import sys, dskd_export.report\n"
        "bad = {'torch', 'timm', 'torchvision', 'onnx', 'onnxruntime', 'dskd_compress'} & set(sys.modules)\n"
        "sys.exit(', '.join(bad) or None)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
