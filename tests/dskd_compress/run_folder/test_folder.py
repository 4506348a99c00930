from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from export_document_support import make_provenance
from run_support import SMALL, SMALL_STAGES, small_recipe

from dskd_compress.config import Recipe
from dskd_compress.recipe import dump_recipe, recipe_from_mapping
from dskd_compress.run_folder import STAGE_NAMES, STAGES, RunFolder, find_stage, list_stages, recipe_sha256
from dskd_export.documents.base import StageRecord, read_document
from dskd_export.errors import DataError, EnvironmentProblem, RecipeError
from dskd_export.files.atomic import write_atomic
from dskd_export.files.folder_lock import LOCK

DATA = "d" * 64
PROVENANCE = make_provenance("dskd-compress run")


def make_run(path: Path, recipe: Recipe) -> RunFolder:
    """A folder in which every stage has run: file names and records are real, contents are not."""
    folder = RunFolder(path)
    folder.create()
    for stage in list_stages(recipe):
        for name in stage.outputs + stage.optional:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"content of {name}")
        data = DATA if stage.name in ("train", "distill", "export", "validate") else None
        folder.record_stage(stage.name, recipe, PROVENANCE, folder.inputs(stage.name, recipe), data)
    return folder


def reasons(folder: RunFolder, recipe: Recipe, data_sha256: str | None = DATA) -> dict[str, str]:
    """Stage -> why it would run again; nothing of a stage that would not."""
    found = {stage.name: folder.why_rerun(stage.name, recipe, data_sha256) for stage in list_stages(recipe)}
    return {name: why for name, why in found.items() if why is not None}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run", small_recipe())


def test_a_profile_repeats_the_benchmark_and_a_recipe_without_one_keeps_its_digest(run: RunFolder) -> None:
    plain = small_recipe()
    wanted = plain.model_copy(update={"benchmark": plain.benchmark.model_copy(update={"profile": True})})
    assert reasons(run, plain) == {}
    assert list(reasons(run, wanted)) == ["benchmark"]
    assert "profile" not in find_stage("benchmark").settings(plain)["benchmark"], "as before there were profiles"


# --- the order


def test_the_order_of_the_stages() -> None:
    assert STAGE_NAMES == ("train", "distill", "tune", "export", "validate", "benchmark", "report")


def test_a_stage_reads_only_what_an_earlier_one_writes() -> None:
    written: set[str] = set()
    for stage in STAGES:
        assert set(stage.inputs) <= written, stage.name
        mine = set(stage.outputs + stage.optional)
        assert not mine & written, stage.name  # nobody rewrites the files of another
        written |= mine


def test_only_a_recipe_that_trains_its_teacher_or_tunes_has_that_stage() -> None:
    assert [stage.name for stage in list_stages(small_recipe())] == list(SMALL_STAGES)
    assert [stage.name for stage in list_stages(small_recipe("teacher.train=null"))] == list(SMALL_STAGES[1:])
    assert [stage.name for stage in list_stages(small_recipe("tune.epochs=1"))] == list(STAGE_NAMES)
    assert find_stage("export").name == "export"


# --- why a stage runs again


def test_nothing_has_run_yet(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "none")
    assert reasons(folder, small_recipe()) == dict.fromkeys(SMALL_STAGES, "it has not run yet")
    assert not folder.path.exists()


@pytest.mark.parametrize("data_sha256", [DATA, None])
def test_unchanged(run: RunFolder, data_sha256: str | None) -> None:
    assert reasons(run, small_recipe(), data_sha256) == {}
    assert reasons(run, recipe_from_mapping(json.loads(small_recipe().model_dump_json(by_alias=True)))) == {}


TEACHER = dict.fromkeys(("train", "distill", "export", "validate", "benchmark"), "teacher changed in the recipe")
SETTINGS = [
    ("seed=1", {"train": "seed changed in the recipe", "distill": "seed changed in the recipe"}),
    ("data.val_fraction=0.7", {"train": "data changed in the recipe", "distill": "data changed in the recipe"}),
    ("data.augment.hflip=0.5", {"train": "data changed in the recipe", "distill": "data changed in the recipe"}),
    ("teacher.name=test_vit", TEACHER),
    ("teacher.kwargs.drop_rate=0.1", TEACHER),
    ("teacher.train.lr=0.5", {"train": "teacher changed in the recipe"}),
    ("teacher.train.epochs=9", {"train": "teacher changed in the recipe"}),
    (
        "student.name=test_vit",
        {"train": "student changed in the recipe", "distill": "student changed in the recipe"},
    ),
    ("student.kwargs.drop_rate=0.1", {"distill": "student changed in the recipe"}),
    ("method.name=kd", {"distill": "method changed in the recipe"}),
    ("method.lsh_weight=7", {"distill": "method changed in the recipe"}),
    ("method.preset=paper", {"distill": "method changed in the recipe"}),
    ("train.lr=0.5", {"distill": "train changed in the recipe"}),
    ("train.ema_decay=0.99", {"distill": "train changed in the recipe"}),
    ("export.opset=18", {"export": "export changed in the recipe"}),
    ("validate.min_cosine=0.5", {"validate": "validate changed in the recipe"}),
    ("budget.int8.top1_drop=0.03", {"validate": "budget changed in the recipe"}),
    ("budget.student_drop=0.03", {"validate": "budget changed in the recipe"}),
    ("benchmark.batches=[1]", {"benchmark": "benchmark changed in the recipe"}),
    ("report.title=Bolts", {"report": "report changed in the recipe"}),
    # Names, and how often a training is saved, shape no result.
    ("name=other", {}),
    ("description=other", {}),
    ("train.checkpoint_steps=5", {}),
    ("teacher.train.checkpoint_steps=5", {}),
    # Of a teacher cache only the rounding does.
    ("teacher.cache.enabled=true", {"distill": "teacher changed in the recipe"}),
    ("teacher.cache={enabled: true, features: float32, folder: caches, max_gb: 3}", {}),
]


@pytest.mark.parametrize(("override", "expected"), SETTINGS, ids=[override for override, _ in SETTINGS])
def test_a_changed_setting_reaches_exactly_the_stages_that_it_shapes(
    override: str, expected: dict[str, str], run: RunFolder
) -> None:
    assert reasons(run, small_recipe(override)) == expected


def test_every_section_of_a_recipe_reaches_a_stage() -> None:
    """A section that nobody looks at could be changed without any stage running again."""
    recipe = small_recipe()
    seen = {name for stage in STAGES for name in stage.settings(recipe)}
    shape_nothing = {"name", "description", "diagnosis", "tracking"}
    shape_nothing |= {"build"}  # engines bind to a device: each says itself what it was built of and how
    assert seen == set(recipe.model_dump(by_alias=True)) - shape_nothing


@pytest.mark.parametrize(
    ("name", "readers"),
    [
        ("teacher.safetensors", ("distill", "export", "validate", "benchmark")),
        ("student.safetensors", ("export", "validate", "benchmark")),
        ("bundle/manifest.json", ("validate", "benchmark", "report")),
        ("teacher.fp32.onnx", ("benchmark",)),
        ("train.jsonl", ("report",)),
        ("validation.json", ("report",)),
        ("benchmark.json", ("report",)),
    ],
)
@pytest.mark.parametrize("gone", [False, True])
def test_a_changed_file_reaches_its_readers_and_its_writer(
    name: str, readers: tuple[str, ...], gone: bool, run: RunFolder
) -> None:
    if gone:
        (run / name).unlink()
    else:
        (run / name).write_text("something else")
    writer = next(stage.name for stage in STAGES if name in stage.outputs + stage.optional)
    expected = dict.fromkeys(readers, f"{name} changed")
    assert reasons(run, small_recipe()) == {writer: f"{name} {'is missing' if gone else 'was altered'}"} | expected


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        (stage.name, name)
        for stage in STAGES
        for name in stage.outputs + stage.optional
        if stage.name in SMALL_STAGES
    ],
)
def test_every_output_is_watched(stage: str, name: str, run: RunFolder) -> None:
    (run / name).write_text("altered")
    assert run.why_rerun(stage, small_recipe(), DATA) == f"{name} was altered"
    (run / name).unlink()
    assert run.why_rerun(stage, small_recipe(), DATA) == f"{name} is missing"


def test_an_input_that_appears_is_a_change(tmp_path: Path) -> None:
    recipe = small_recipe("teacher.train=null", "teacher.pretrained=true")
    folder = make_run(tmp_path, recipe)
    (folder / "teacher.safetensors").write_text("trained after all")
    assert folder.why_rerun("distill", recipe, DATA) is None  # this recipe does not use it
    assert folder.why_rerun("distill", small_recipe("teacher.pretrained=true"), DATA) == (
        "teacher.safetensors changed"
    )


def test_a_teacher_that_nobody_judges_by_shapes_no_validation(run: RunFolder) -> None:
    changed = reasons(run, small_recipe("budget.student_drop=null", "teacher.name=test_vit"))
    assert changed["validate"] == "budget changed in the recipe"
    recipe = small_recipe("budget.student_drop=null")
    run.record_stage("validate", recipe, PROVENANCE, run.inputs("validate", recipe), DATA)
    assert "validate" not in reasons(run, small_recipe("budget.student_drop=null", "teacher.name=test_vit"))


def test_other_images(run: RunFolder) -> None:
    expected = dict.fromkeys(("train", "distill", "export", "validate"), "the images changed")
    assert reasons(run, small_recipe(), "e" * 64) == expected


@pytest.mark.parametrize("content", [b"", b"{", b'{"stage": "distill"}', b"\xff\xfe", b"[]"])
def test_a_damaged_record(content: bytes, run: RunFolder) -> None:
    (run / "stages/distill.json").write_bytes(content)
    assert reasons(run, small_recipe()) == {"distill": "its record is damaged"}


def test_training_the_teacher_otherwise_matters_only_through_its_weights(run: RunFolder) -> None:
    recipe = small_recipe("teacher.train.lr=0.7")
    assert set(reasons(run, recipe)) == {"train"}
    run.record_stage(
        "train", recipe, PROVENANCE, run.inputs("train", recipe), DATA
    )  # it ran, and gave the same weights
    assert reasons(run, recipe) == {}
    (run / "teacher.safetensors").write_text("other weights")
    run.record_stage("train", recipe, PROVENANCE, run.inputs("train", recipe), DATA)
    changed = "teacher.safetensors changed"
    assert reasons(run, recipe) == dict.fromkeys(("distill", "export", "validate", "benchmark"), changed)


@pytest.mark.parametrize(
    ("role", "readers"),
    [("teacher", ("train", "distill", "export", "validate", "benchmark")), ("student", ("distill",))],
)
def test_weights_from_outside_are_watched_by_content(role: str, readers: tuple[str, ...], tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"one")
    recipe = small_recipe(f"{role}.checkpoint={weights}")
    folder = make_run(tmp_path / "run", recipe)
    before = folder.settings_digest("distill", recipe, {})
    assert reasons(folder, recipe) == {}
    weights.write_bytes(b"two")
    assert reasons(folder, recipe) == dict.fromkeys(readers, f"{role}.checkpoint changed")
    assert folder.settings_digest("distill", recipe, {}) != before  # nor is a training continued with them


def test_the_record_of_a_stage(run: RunFolder) -> None:
    record = read_document(run / "stages/distill.json", StageRecord)
    assert record.stage == "distill"
    assert record.inputs == {
        "teacher.safetensors": hashlib.sha256(b"content of teacher.safetensors").hexdigest(),
        "data": DATA,
    }
    assert record.outputs == {
        name: hashlib.sha256(f"content of {name}".encode()).hexdigest()
        for name in ("student.safetensors", "distill.json", "train.jsonl", "teacher_probe.safetensors")
    }
    assert set(record.settings_sha256) == {"seed", "data", "teacher", "student", "method", "train"}
    assert record.provenance == PROVENANCE


def test_an_optional_output_may_be_missing(tmp_path: Path) -> None:
    recipe = small_recipe("export.teacher=false", "benchmark.teacher=false")
    folder = make_run(tmp_path, recipe)
    (folder / "teacher.fp32.onnx").unlink()
    folder.record_stage("export", recipe, PROVENANCE, folder.inputs("export", recipe), DATA)
    folder.record_stage("benchmark", recipe, PROVENANCE, folder.inputs("benchmark", recipe))
    assert reasons(folder, recipe) == {}


# --- digests


def test_a_digest_is_the_same_in_every_process(tmp_path: Path) -> None:
    overrides = ["student.kwargs={drop_rate: 0.1, act_layer: gelu, b: [1, 2]}", "data.source=β/ü"]
    program = (
        "import sys; from pathlib import Path;"
        "from run_support import small_recipe; from dskd_compress.run_folder import RunFolder, recipe_sha256;"
        "r = small_recipe(*sys.argv[1:]);"
        "print(RunFolder(Path('none')).settings_digest('distill', r, {'b': '1', 'a': '2'}), recipe_sha256(r))"
    )
    root = Path(__file__).resolve().parents[3]
    roots = (root / "tests" / "helpers", root, root / "export")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots)), "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", program, *overrides],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=tmp_path,
    )
    recipe = small_recipe(*overrides)
    mine = RunFolder(tmp_path).settings_digest("distill", recipe, {"a": "2", "b": "1"})
    assert done.stdout.split() == [mine, recipe_sha256(recipe)]


def test_a_settings_digest_sees_settings_and_inputs(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    recipes = [small_recipe(), small_recipe("train.lr=0.5"), small_recipe("seed=2")]
    inputs = [{"data": "1", "teacher": "1"}, {"data": "1", "teacher": "2"}]
    found = {folder.settings_digest("distill", recipe, given_) for recipe in recipes for given_ in inputs}
    assert len(found) == 6
    saving = small_recipe("train.checkpoint_steps=3")
    assert folder.settings_digest("distill", saving, inputs[0]) in found


# --- the recipe


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("method.name=kd", "method.temperature=2.5"),
        ("method.preset=paper", "method.lsh_weight=3"),
        ("teacher.checkpoint=some/where.safetensors", "teacher.train=null"),
        ("student.kwargs={drop_path_rate: 0.1, img_size: [32, 32]}", "description='a: b # c'"),
        ("data.mean=[0.1, 0.2, 0.3]", "report.title='β → ü'", "validate.images=null"),
    ],
)
def test_the_recipe_comes_back_as_it_was(overrides: tuple[str, ...], tmp_path: Path) -> None:
    recipe = small_recipe(*overrides)
    folder = RunFolder(tmp_path / "new" / "run")
    folder.write_recipe(recipe)
    assert folder.read_recipe() == recipe
    assert recipe_sha256(folder.read_recipe()) == recipe_sha256(recipe)
    assert folder.read_recipe(["train.lr=0.25"]).train.lr == 0.25
    assert (folder / "recipe.yaml").read_text(encoding="utf-8") == dump_recipe(recipe)


def test_the_same_recipe_is_not_written_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_recipe(small_recipe())
    before = (folder / "recipe.yaml").stat()
    folder.write_recipe(small_recipe())
    after = (folder / "recipe.yaml").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    folder.write_recipe(small_recipe("seed=4"))
    assert folder.read_recipe().seed == 4


def test_a_folder_without_a_recipe_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"recipe\.yaml.*distill"):
        RunFolder(tmp_path).read_recipe()


def test_faults_of_an_override_are_told(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_recipe(recipe_from_mapping(SMALL))
    with pytest.raises(RecipeError, match="epochz"):
        folder.read_recipe(["train.epochz=3"])


# --- the folder


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "b")
    folder.create()
    folder.create()
    assert list(folder.path.iterdir()) == []


@pytest.mark.parametrize("name", [".writable", "recipe.yaml", "student.safetensors"])
def test_nothing_is_written_through_a_link_of_a_known_name(name: str, tmp_path: Path) -> None:
    (victim := tmp_path / "victim").write_text("mine")
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    (folder / name).symlink_to(victim)
    folder.create()
    with folder.writing(str):
        folder.write_recipe(small_recipe())
        write_atomic(folder / "student.safetensors", b"weights")
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["stages", "checkpoint/student", "trackers/wandb", "teacher_cache", "benchmark.partial"]
)
def test_a_folder_that_is_a_link_stops_whoever_writes(name: str, tmp_path: Path) -> None:
    (victim := tmp_path / "victim").mkdir()
    folder = RunFolder(tmp_path / "run")
    (folder / name).parent.mkdir(parents=True)
    (folder / name).symlink_to(victim)
    with pytest.raises(EnvironmentProblem, match=name.partition("/")[0]), folder.writing(str):
        pass
    assert list(victim.iterdir()) == []


def test_of_several_processes_the_leader_alone_holds_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with RunFolder(tmp_path / "run").writing(str):
        assert not (tmp_path / "run").exists()
    monkeypatch.setenv("RANK", "0")
    with RunFolder(tmp_path / "run").writing(str):
        assert (tmp_path / "run" / LOCK).exists()


def test_the_record_is_of_what_was_read_and_not_of_what_is_there_at_the_end(run: RunFolder) -> None:
    recipe = small_recipe()
    inputs = run.inputs("report", recipe)
    (run / "validation.json").write_text("another command's, meanwhile")
    run.record_stage("report", recipe, PROVENANCE, inputs)
    record = read_document(run / "stages/report.json", StageRecord)
    assert record.inputs["validation.json"] == hashlib.sha256(b"content of validation.json").hexdigest()
    assert run.why_rerun("report", recipe) == "validation.json changed"


@pytest.mark.parametrize("below", ["", "run"])
def test_a_place_that_cannot_be_written_to(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(EnvironmentProblem, match=r"--out"):
        RunFolder(tmp_path / "file" / below).create()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EnvironmentProblem, match=r"--out"):
        RunFolder(tmp_path / "run").create()


def test_what_is_missing_names_the_command_that_makes_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "my run")
    folder.write_recipe(small_recipe())
    for name, stage in (
        ("bundle/manifest.json", "export"),
        ("student.safetensors", "distill"),
        ("teacher.safetensors", "train"),
    ):
        with pytest.raises(DataError, match=name) as caught:
            folder.require(name, stage)
        _, _, line = str(caught.value.hint).partition(": ")
        assert shlex.split(line) == ["dskd-compress", stage, str(folder.path)]
    new = RunFolder(tmp_path / "new")  # no run yet, which the line alone could go on with
    with pytest.raises(DataError, match=rf"dskd-compress train --out {new.path}"):
        new.require("teacher.safetensors", "train")
    (folder / "there").write_text("x")
    assert folder.require("there", "export") == folder / "there"


def test_a_run_without_its_bundle(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "my run")
    folder.write_recipe(small_recipe())
    with pytest.raises(DataError, match=r"run/bundle|bundle:") as caught:
        RunFolder(folder / "bundle").read_recipe()
    _, _, line = str(caught.value.hint).partition(": ")
    assert shlex.split(line) == ["dskd-compress", "export", str(folder.path)]
    with pytest.raises(DataError, match=r"recipe\.yaml"):
        RunFolder(tmp_path / "bundle").read_recipe()


def test_names(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.weights("teacher") == tmp_path / "teacher.safetensors"
    assert (folder.log("student").name, folder.log("teacher").name) == ("train.jsonl", "teacher.train.jsonl")
    assert folder.checkpoints("student") == tmp_path / "checkpoint" / "student"
    assert folder.bundle == tmp_path / "bundle"
