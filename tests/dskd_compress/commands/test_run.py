from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from run_support import SMALL_STAGES, Finished

from dskd_compress.cli import app, main
from dskd_compress.config import Recipe
from dskd_export.documents.base import read_document
from dskd_export.documents.validation import ValidationDocument

pytestmark = pytest.mark.usefixtures("no_document_yet")


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object], str]:
    code = main(["run", *arguments, "--json"])
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    return code, json.loads(out), err


def test_nothing_left_to_do(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    code, document, err = run(str(finished.folder.path), capsys=capsys)
    assert code == 0
    ship = document.pop("ship")
    assert (ship["name"], ship["verdict"]) == ("onnxruntime:cpu:fp32", "PASS")  # type: ignore[index]
    assert str(document.pop("decision")).startswith("Ship fp32")
    assert all(step["command"].startswith("dskd-compress ") for step in document.pop("next_steps"))  # type: ignore[attr-defined]
    assert document == {
        "run": str(finished.folder.path),
        "stages": [{"stage": stage, "ran": False, "why": "unchanged"} for stage in SMALL_STAGES],
        "verdict": "PASS",
        "passed": True,
        "report": str(finished.folder / "report.html"),
    }
    assert "distill: unchanged, skipped" in err
    assert "PASS" in err


def test_a_gate_that_fails(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.copy(tmp_path / "run")
    old = (folder / "report.html").read_bytes()
    impossible = ["--set", "validate.max_abs_relative=1e-30"]
    code, document, err = run(str(folder.path), *impossible, capsys=capsys)
    assert code == 5
    assert document["passed"] is False
    assert [stage["stage"] for stage in document["stages"] if stage["ran"]] == ["validate", "report"]  # type: ignore[attr-defined]
    assert not read_document(folder / "validation.json", ValidationDocument).passed
    assert (folder / "report.html").read_bytes() != old
    # Last on the screen: the decision, once, then what to try, the report, and an error that does not repeat it.
    lines = err.splitlines()
    (place,) = (number for number, line in enumerate(lines) if line == document["decision"])
    assert place > max(number for number, line in enumerate(lines) if "━" in line)
    assert place < next(number for number, line in enumerate(lines) if line.startswith("Report: "))
    assert "error: Not good enough to ship (exit code 5)." in lines[-2:]
    # It fails as well when nothing has to be run again, and not when nobody asked for it.
    code, document, _ = run(str(folder.path), capsys=capsys)
    assert (code, document["verdict"], document["passed"], document["ship"]) == (5, "FAIL", False, None)
    code, document, _ = run(str(folder.path), "--to", "export", capsys=capsys)
    assert (code, document["passed"]) == (0, None)


def test_as_text(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(finished.folder.path)]) == 0
    out = capsys.readouterr().out
    assert "report: unchanged, skipped" in out
    assert f"Report: {finished.folder / 'report.html'}" in out, "it is up to date"
    assert "Verdicts, against torch:cpu:fp32" in out


def test_the_report_is_named_where_it_was_written(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished.copy(tmp_path / "run")
    assert main(["run", str(folder.path), "--to", "benchmark", "--set", "validate.images=60"]) == 0
    assert "Report:" not in capsys.readouterr().out, "the one that is there is older"
    assert main(["run", str(folder.path)]) == 0
    out = capsys.readouterr().out
    assert f"Report: {folder / 'report.html'}" in out
    assert "report: validation.json changed" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "exprt"], "--from: 'exprt'"),
        (["--from", "report", "--to", "train"], "--from report"),
        (["--set", "train.epochz=1"], "epochz"),
    ],
)
def test_usage(arguments: list[str], message: str, finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    code, document, _ = run(str(finished.folder.path), *arguments, capsys=capsys)
    assert code == 2
    assert message in document["error"]["message"]  # type: ignore[index]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that `run` would run."""
    recipes: list[Recipe] = []
    monkeypatch.setattr(
        "dskd_compress.stages.pipeline.run_pipeline", lambda recipe, *_, **__: recipes.append(recipe) or []
    )
    return recipes


def test_device_and_number_type_are_those_of_both_trainings(finished: Finished, seen: list[Recipe]) -> None:
    folder = str(finished.folder.path)
    main(["run", folder, "--device", "cpu", "--amp", "bf16", "--seed", "8", "--data", "x"])
    main(["run", folder, "--amp", "bf16", "--set", "teacher.train.precision=fp32"])
    main(["run", folder, "--amp", "bf16", "--set", "teacher.train=null"])
    first, second, third = seen
    assert (first.train.device, first.train.precision, first.seed, first.data.source) == ("cpu", "bf16", 8, "x")
    assert first.teacher.train is not None
    assert second.teacher.train is not None
    assert (first.teacher.train.device, first.teacher.train.precision) == ("cpu", "bf16")
    assert (second.train.precision, second.teacher.train.precision) == ("bf16", "fp32")
    assert (third.train.precision, third.teacher.train) == ("bf16", None)


def test_flags_alone_are_a_recipe(tmp_path: Path, seen: list[Recipe]) -> None:
    line = ["run", "--teacher", "test_resnet", "--student", "test_efficientnet", "--data", "photos"]
    more = ["--method", "kd", "--epochs", "3", "--batch-size", "16", "--lr", "0.2", "--input-size", "48"]
    models = ["--precision", "fp16,int8", "--target", "ada", "--teacher-checkpoint", "my.st"]
    assert main([*line, *more, *models, "--student-checkpoint", "s.st", "--out", str(tmp_path / "run")]) == 0
    assert main([*line, "--target", "jetson-orin", "--set", "teacher.train.epochs=7"]) == 0
    assert main([*line, "--teacher-checkpoint", "my.st", "--set", "teacher.train.epochs=7"]) == 0
    one, plain, trained = seen
    assert (one.data.source, one.data.input_size, one.method.name) == ("photos", 48, "kd")
    assert (one.train.epochs, one.train.batch_size, one.train.lr) == (3, 16, 0.2)
    assert (one.export.precisions, one.export.target) == (("fp16", "int8"), "ada")
    assert (one.teacher.checkpoint, one.teacher.train) == (Path("my.st"), None)
    assert one.student.checkpoint == Path("s.st")
    assert one.train.precision == "fp32", "--precision means the models"
    assert (plain.export.precisions, plain.export.target) == ("auto", "jetson-orin")
    assert trained.teacher.train is not None
    assert trained.teacher.train.epochs == 7, "own weights are trained where that is set"
    assert one.data.mean is None, "nothing of the demo's recipe is in it"


def test_flags_of_the_later_stages(finished: Finished, seen: list[Recipe]) -> None:
    folder = str(finished.folder.path)
    flags = ["--runner", "onnxruntime,torch", "--provider", "cpu", "--allow-cpu", "Shape", "--allow-cpu", "Gather"]
    assert main(["run", folder, *flags, "--batch", "1,4", "--max-images", "60", "--exporter", "legacy"]) == 0
    assert main(["run", folder, "--runner", "torch", "--set", "benchmark.batches=[2]", "--batch", "4"]) == 0
    one, torch_only = seen
    assert (one.benchmark.runners, one.validation.runners) == (("onnxruntime", "torch"), ("onnxruntime",))
    assert one.benchmark.providers == one.validation.providers == ("cpu",)
    assert one.benchmark.allow_cpu == one.validation.allow_cpu == ("Shape", "Gather")
    assert (one.benchmark.batches, one.validation.images, one.export.exporter) == ((1, 4), 60, "legacy")
    assert torch_only.benchmark.runners == ("torch",)
    assert torch_only.validation.runners == finished.recipe.validation.runners, "torch is its reference"
    assert torch_only.benchmark.batches == (2,), "--set wins"


def test_run_takes_what_its_stages_take() -> None:
    """The flags that stand for a key of the recipe, and none that is for one call of a stage."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    taken = {option for parameter in commands["run"].params for option in parameter.opts}
    one_call = {"--pair", "--images", "--junit", "--summary", "--baseline", "--report-only", "--fresh"}
    for name in ("distill", "export", "validate", "benchmark"):
        options = {
            parameter.opts[0]
            for parameter in commands[name].params
            if parameter.param_type_name == "option" and not (name == "benchmark" and parameter.hidden)
        }
        assert options - one_call <= taken, name


def test_settings_are_kept_whatever_runs(finished: Finished, tmp_path: Path) -> None:
    """`--batch` is of a stage that is not selected, and nothing else has to run."""
    folder = finished.copy(tmp_path / "run")
    assert main(["run", str(folder.path), "--to", "export", "--batch", "2"]) == 0
    assert folder.read_recipe().benchmark.batches == (2,)
    assert folder.why_rerun("export", folder.read_recipe()) is None
    assert folder.why_rerun("benchmark", folder.read_recipe()) == "benchmark changed in the recipe"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (["--teacher", "test_resnet", "--student", "test_efficientnet"], "--data"),
        (["--teacher-checkpoint", "my.st", "--student", "test_efficientnet", "--data", "photos"], "--teacher"),
        (["--data", "photos"], "--teacher, --student"),
    ],
)
def test_what_the_flags_leave_open_is_asked_for(
    given: list[str], missing: str, capsys: pytest.CaptureFixture[str], seen: list[Recipe]
) -> None:
    assert main(["run", *given]) == 2
    assert missing in capsys.readouterr().err.splitlines()[0]
    assert not seen, "nothing of the demo's recipe is run in its place"


def test_faults_of_the_command_line_are_not_all_that_may_follow(capsys: pytest.CaptureFixture[str]) -> None:
    models = ["--teacher", "mobilnetv2_100", "--student", "test_vit", "--data", "none"]
    code, document, err = run(*models, "--epochs", "0", "--target", "sm87", capsys=capsys)
    assert (code, document["error"]["kind"]) == (2, "RecipeError")  # type: ignore[index]
    assert "more faults may follow" in err.splitlines()[-1]
    code = main(["run", *models])  # now all of them are listed
    err = capsys.readouterr().err
    assert (code, "more faults may follow" in err) == (3, False)
    assert "2 faults" in err
