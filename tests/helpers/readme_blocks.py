"""What README and docs show: fenced blocks, console commands, answers to bad inputs. And photos to run it on."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
EXPORT_README = ROOT / "export" / "README.md"
DOCS = ROOT / "docs"
TROUBLESHOOTING = DOCS / "troubleshooting.md"

PAGES = (
    README,
    DOCS / "training.md",
    DOCS / "run-folder.md",
    DOCS / "data.md",
    ROOT / "recipes" / "README.md",
    DOCS / "precisions.md",
    EXPORT_README,
    DOCS / "preprocessing.md",
    DOCS / "tensorrt.md",
    DOCS / "serving.md",
    DOCS / "validation.md",
    DOCS / "benchmarking.md",
    DOCS / "distributed.md",
    TROUBLESHOOTING,
    DOCS / "codes.md",
)
"""The pages for users. Their commands run in this order in one folder: a page uses what those before it left."""

TINY = {"resnet34": "test_resnet", "resnet18": "test_efficientnet"}
"""The README's models -> timm's test models, which take their place here."""

CLASSES = {"circle": (200, 60, 60), "square": (60, 180, 60), "triangle": (60, 60, 200)}
"""Folder -> colour of the shape."""


@dataclass(frozen=True)
class Block:
    """One fenced block: `language` is the word behind the fence, `line` that of the fence."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A `$` line of a console block; the comment behind it may name another exit code than 0."""

    text: str
    exit_code: int


@dataclass(frozen=True)
class Answer:
    """What the troubleshooting says of one bad input."""

    exit_code: int
    lines: tuple[str, ...]


def blocks(path: Path, language: str = "") -> list[Block]:
    """The fenced blocks of a Markdown file, all or those of one language, in order."""
    text = path.read_text(encoding="utf-8")
    found = [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 1)
        for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    ]
    return [block for block in found if language in ("", block.language)]


def commands(path: Path) -> list[Command]:
    """All console commands of a Markdown file, in order."""
    found = []
    for block in blocks(path, "console"):
        for line in block.text.splitlines():
            if line.startswith("$ "):
                text, _, comment = line[2:].partition(" # ")
                code = re.search(r"exit code (\d+)", comment)
                found.append(Command(text.strip(), int(code[1]) if code else 0))
    return found


def answers(path: Path = TROUBLESHOOTING) -> dict[str, Answer]:
    """Title -> answer, of the entries `**title** (exit code N)` that a text block follows."""
    text = path.read_text(encoding="utf-8")
    entry = r"^\*\*(.+?)\*\* \(exit code (\d+)\)\n\n```text\n(.*?)^```$"
    return {
        match[1]: Answer(int(match[2]), tuple(match[3].splitlines()))
        for match in re.finditer(entry, text, flags=re.MULTILINE | re.DOTALL)
    }


def with_tiny_models(text: str) -> str:
    """A command or a message with timm's test models in place of the README's."""
    for name, tiny in TINY.items():
        text = re.sub(rf"(?<![\w/-]){name}(?![\w-])", tiny, text)
    return text


def make_photos(folder: Path, train: int = 24, val: int = 8, pixels: int = 40) -> Path:
    """An image folder of coloured shapes: `train/CLASS/00.jpg` and `val/CLASS/00.jpg`, so many a class."""
    random_number = random.Random(0)
    for split, count in (("train", train), ("val", val)):
        for name, colour in CLASSES.items():
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                background = tuple(random_number.randrange(200, 256) for _ in range(3))
                image = Image.new("RGB", (pixels, pixels), background)
                left, top = (random_number.randrange(4, pixels // 2 - 6) for _ in range(2))
                right, bottom = left + pixels // 2, top + pixels // 2
                draw = ImageDraw.Draw(image)
                if name == "circle":
                    draw.ellipse((left, top, right, bottom), fill=colour)
                elif name == "square":
                    draw.rectangle((left, top, right, bottom), fill=colour)
                else:
                    draw.polygon([(left, bottom), (right, bottom), ((left + right) // 2, top)], fill=colour)
                image.save(folder / split / name / f"{index:02}.jpg", quality=92)
    return folder
