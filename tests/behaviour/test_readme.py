"""Every command of the README and of the docs runs as it is written, in one folder, in order."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from blocked_imports import block_imports
from PIL import Image
from readme_blocks import (
    CLASSES,
    DOCS,
    EXPORT_README,
    PAGES,
    README,
    ROOT,
    TINY,
    TROUBLESHOOTING,
    Block,
    Command,
    answers,
    blocks,
    commands,
    make_photos,
    with_tiny_models,
)
from safetensors.torch import save_file
from typer.main import get_command

from dskd_compress.cli import app, main
from dskd_compress.timm_import import import_timm

# What is added to a command that makes a recipe, so that it takes a second and no download.
# Later commands read all of it from the run folder.
TEACHER_HERE = "--set teacher.pretrained=false --set teacher.train.epochs=1 --set teacher.train.batch_size=8"
# Of random weights, it may look as if it had its classes in another order.
TEACHER_GIVEN = "--set teacher.pretrained=false --set diagnosis.stop_on=[]"
SMALL = (
    "--set student.pretrained=false --set data.input_size=32 --set data.workers=0 "
    "--set train.epochs=6 --set train.batch_size=8 "
    "--set benchmark.batches=[1] --set benchmark.threads=1 --set benchmark.min_seconds=0.02 "
    "--set benchmark.min_iterations=10 --set benchmark.max_warmup_seconds=0.1 "
    "--set export.quantize.search=false --set export.calibration.images=16"
)
ADDED = {
    # Of the last of two flags the value counts. The short run shows the way, not the numbers that the page prints.
    "run --data ": f"--teacher {TINY['resnet34']} --student {TINY['resnet18']} {TEACHER_HERE} {SMALL} "
    "--target cpu --precision fp32 --accept-unproven",
    "train --teacher ": f"{TEACHER_HERE} {SMALL}",
    "distill --teacher ": f"{TEACHER_GIVEN} {SMALL}",
    "validate bundle --images": "--accept-unproven",  # 24 images show nothing of another precision
    "ab runs/r18 ": "--precision fp32 --set benchmark.min_seconds=0.05",
    "benchmark runs/r18 --set": "--precision fp32 --set benchmark.scenario_seconds=0.02 "
    "--set benchmark.teacher=false",
    # One epoch makes a student that int8 spoils.
    "validate bundle ": "--precision fp32",
    "deploy runs/r18 ": "--precision fp32",  # nor is it good enough to ship
    "benchmark bundle ": "--set benchmark.min_seconds=0.02 --set benchmark.min_iterations=10 "
    "--set benchmark.max_warmup_seconds=0.1",
    "run mine.yaml ": f"--set teacher.name={TINY['resnet34']} --set student.name={TINY['resnet18']} "
    f"{TEACHER_HERE} {SMALL}",
}

# Folders and files that the reader brings along.
BROUGHT = {"photos", "my.safetensors"}
# What the commands of all pages may leave; the names within a run folder are the table of docs/run-folder.md.
LEFT = {
    "runs/b",
    "runs/r18",
    "runs/own",
    "runs/mine",
    "mine.yaml",
    "recipe.schema.json",
    "r18.tar.gz",
    "bundle",
    "bundle.engines",
    "validation.xml",
    "speed.md",
    "compared.html",
    "compared.md",
    "compared.csv",
    "results",
    "deploy",
    "triton",
    "jetson",
}

# Of the run folder's table, what a recipe without these keys and a training without a second one do not leave.
ONLY_WHEN_ASKED = {"earlier/1/", "teacher_cache/", "teacher_probe.safetensors", "trackers/"}

# What looks like a key of the recipe and is a file.
SUFFIXES = {"py", "safetensors", "json", "jsonl", "npz", "html", "md", "csv", "onnx"}

# Blocks that cannot run here: they install, need a GPU or another machine, or take minutes.
NOT_RUN = {
    "make demo",
    "dskd-compress run --out runs/demo",
    "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu",
    "pip install 'dskd-compress[train,onnx,quant]'",
    "dskd-compress run digits/resnet18-to-mobilenetv3_small_050 --out runs/digits",
    # On real photos: tests/behaviour/test_real_photos.py.
    "dskd-compress run --teacher resnet50 --teacher-checkpoint imagenet.safetensors --student resnet18 "
    "--data photos --precision fp16,int8 --out runs/r50",
    "dskd-compress run runs/r18/earlier/1",  # no training was replaced
    "dskd-compress run runs/r18 --device cuda --amp bf16 --set train.channels_last=true",
    "dskd-compress compare mine.yaml --methods none,kd,dist,lshfm,dskd --seeds 0,1,2",
    "dskd-compress compare mine.yaml --variant 'map=dskd tap=map' --variant 'alone=dskd logit_loss=none'",
    "scp r18.tar.gz device:",
    "dskd-compress build runs/r18 --precision fp16,int8 --batch 1,8",
    "dskd-compress build bundle --precision fp16 --useDLACore 0 --batch 1",
    "dskd-compress build bundle --precision fp16 --stripWeights new-weights",
    "dskd-compress build retrained --precision fp16 "
    "--refit-from bundle.engines/nvidia-jetson-agx-orin-developer-kit/model.fp16.stripped.engine",
    "dskd-compress fleet bundle --on ssh://user@orin --on ssh://user@server:2222 --on local",
    "pip install 'dskd-compress[tensorrt]'",
    "pip install 'dskd-compress[tensorrt-rtx]'",
    "pip install dskd-compress onnxruntime",
}


@dataclass
class Executed:
    """All console commands of the pages, one after the other."""

    folder: Path
    codes: list[tuple[Command, int, str]] = field(default_factory=list)


def execute(text: str) -> tuple[int, str]:
    """Run one command line in this process; `> FILE` is taken from the end. Returns exit code and stderr."""
    text, _, target = with_tiny_models(text).partition(" > ")
    for start, flags in ADDED.items():
        if text.startswith(f"dskd-compress {start}"):
            text = f"{text} {flags}"
    program, *arguments = shlex.split(text)
    assert program == "dskd-compress", text
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = main(arguments)
    if target:
        Path(target.strip()).write_text(stdout.getvalue(), encoding="utf-8")
    return code, stderr.getvalue()


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executed]:
    folder = tmp_path_factory.mktemp("readme")
    make_photos(folder / "photos")
    teacher = import_timm().create_model("test_resnet", num_classes=len(CLASSES))
    save_file(teacher.state_dict(), folder / "my.safetensors")
    result = Executed(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in (command for page in PAGES for command in commands(page)):
            result.codes.append((command, *execute(command.text)))
        yield result


def check_exit_codes(executed: Executed) -> None:
    assert len(executed.codes) > 40
    wrong = [(command.text, code, stderr) for command, code, stderr in executed.codes if code != command.exit_code]
    assert wrong == []


def declared_files() -> list[str]:
    """The first column of the table of the run folder."""
    page = (DOCS / "run-folder.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`(.+?)`", cell)]


def check_files_left(executed: Executed) -> None:
    folder = executed.folder
    there = {path.name for path in folder.iterdir()} - {"runs"} | {
        f"runs/{p.name}" for p in (folder / "runs").iterdir()
    }
    assert there == LEFT | BROUGHT
    declared = declared_files()
    assert len(declared) > 12
    left = {path.name + "/" * path.is_dir() for run in (folder / "runs").iterdir() for path in run.iterdir()}
    assert left <= set(declared)
    in_r18 = {path.name + "/" * path.is_dir() for path in (folder / "runs/r18").iterdir()}
    assert in_r18 == set(declared) - ONLY_WHEN_ASKED, "a whole run leaves all the others"
    bundle = EXPORT_README.read_text(encoding="utf-8")
    assert all(f"| `{path.name}` |" in bundle for path in (folder / "runs/r18/bundle").iterdir())


def check_schema_and_recipe(executed: Executed) -> None:
    import json

    schema = json.loads((executed.folder / "recipe.schema.json").read_text(encoding="utf-8"))
    assert {"data", "teacher", "student", "method"} <= schema["properties"].keys()
    assert "teacher:\n" in (executed.folder / "mine.yaml").read_text(encoding="utf-8")


def check_python_without_torch(executed: Executed, tmp_path: Path) -> None:
    (script,) = blocks(EXPORT_README, "python")
    device = tmp_path / "device"
    device.mkdir()
    shutil.copytree(executed.folder / "runs/r18/bundle", device / "bundle")
    Image.open(executed.folder / "photos/val/circle/00.jpg").save(device / "photo.jpg")
    torch = ("torch", "timm", "torchvision", "dskd_compress")
    environment = block_imports(tmp_path / "blocker", *torch, path=[str(ROOT / "export")])
    done = subprocess.run(
        [sys.executable, "-c", script.text],
        cwd=device,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    difference, agreement, photo, latency, energy = done.stdout.splitlines()
    assert float(difference.rpartition(" ")[2]) < 1e-4
    assert agreement == "same first class: 100% of 16 images"
    assert photo.removeprefix("photo.jpg: ") in CLASSES
    assert re.fullmatch(r"p50 [\d.]+ ms, p99 [\d.]+ ms, stable: (True|False)", latency)
    assert re.fullmatch(r"no energy: .+|[\d.e+]+ mJ an image, of .+, by .+", energy)
    assert sorted(path.name for path in device.iterdir()) == ["bundle", "photo.jpg"]


def all_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks(page)]


def test_the_commands_do_what_the_pages_say(executed: Executed, tmp_path: Path) -> None:
    """One test: several processes of a test run would each execute all commands again."""
    check_exit_codes(executed)
    check_files_left(executed)
    check_schema_and_recipe(executed)
    check_python_without_torch(executed, tmp_path)


def test_what_is_not_run_is_listed_and_exists() -> None:
    lines = [
        line.partition("#")[0].strip()
        for block in all_blocks()
        if block.language == "sh"
        for line in block.text.splitlines()
    ]
    assert set(filter(None, lines)) == NOT_RUN
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.findall(r"^([\w-]+) = \[", pyproject.partition("[project.optional-dependencies]")[2], re.MULTILINE)
    for line in NOT_RUN:
        if line.startswith("make "):
            assert line.removeprefix("make ") in targets
        for named in re.findall(r"dskd-compress\[(.+?)\]", line):
            assert set(named.split(",")) <= set(extras)


@pytest.mark.parametrize("line", sorted(line for line in NOT_RUN if line.startswith("dskd-compress ")))
def test_the_command_line_takes_what_is_not_run(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    assert command.make_context(name, arguments).params


def test_every_block_is_of_a_known_kind() -> None:
    assert {block.language for block in all_blocks()} == {"console", "sh", "text", "python", "bash"}
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n```") == 2 * len(blocks(path)), "a fence without a language, or not closed"
        assert path == TROUBLESHOOTING or not blocks(path, "text")
        assert path.name == "distributed.md" or not blocks(path, "bash"), "test_docs.py tests those"
        assert path == EXPORT_README or not blocks(path, "python"), "check_python_without_torch runs that one"
    assert len(blocks(TROUBLESHOOTING, "text")) == len(answers()), "a text block is an answer"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    assert targets
    for target in targets:
        file, _, section = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        if section:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert section in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}, (
                target
            )
    for named in re.findall(r"`((?:dskd_compress|export|recipes|tests|docs|benchmarks)/[\w./]*)`", text):
        assert (ROOT / named).exists() or named == "dskd_compress/recipes", named


def test_the_picture_is_one_screen_of_a_report() -> None:
    path = ROOT / "docs/report.png"
    assert path.stat().st_size < 300_000
    with Image.open(path) as image:
        assert image.width == 1280
        assert 600 < image.height < 1200
    assert f"]({path.relative_to(ROOT)})" in README.read_text(encoding="utf-8")


def test_there_is_one_table_of_exit_codes() -> None:
    from dskd_export import errors

    text = TROUBLESHOOTING.read_text(encoding="utf-8")
    assert sum(page.read_text(encoding="utf-8").count("\n| code | meaning |\n") for page in PAGES) == 1
    table = text.partition("\n## Exit codes\n")[2].partition("\n## ")[0]
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", table, flags=re.MULTILINE)}
    raised = {
        kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")
    }
    assert codes == raised | {0}


def test_the_flags_and_keys_that_are_named_exist() -> None:
    """Every `section.key` in the text is one of the recipe's."""
    from dskd_compress.config import Recipe
    from dskd_compress.recipe.sections import all_sections, keys_of

    known = {
        ".".join(map(str, (*place, key))) for place, section in all_sections(Recipe) for key in keys_of(section)
    }
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    sections = "data|teacher|student|method|train|export|build|validate|budget|benchmark|report"
    named = set(re.findall(rf"`(?:--set )?((?:{sections})(?:\.[a-z_0-9]+)+)", text))
    named -= {name for name in named if name.rpartition(".")[2] in SUFFIXES}
    assert len(named) > 40
    assert named <= known, named - known
