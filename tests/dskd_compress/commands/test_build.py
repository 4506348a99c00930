from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import typer.main
from engine_support import make_bundle, make_classifier

from dskd_compress import console
from dskd_compress.cli import app, main
from dskd_compress.commands.build import BuildCommand
from dskd_compress.run_folder import RunFolder
from dskd_export.engine import document, generations
from dskd_export.engine.device import find_gpu
from dskd_export.engine.document import BuildDocument
from dskd_export.engine.inspect import Layer, summarize_layers
from dskd_export.errors import GateFailed
from dskd_export.runtime import engine_proof

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed"
)
without_gpu = pytest.mark.skipif(find_gpu() is not None, reason="there is a GPU")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(console, "_document_written", False)


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "my bundle", make_classifier()).folder


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@needs_rtx
def test_ahead_of_time(bundle, capsys):
    arguments = ["build", str(bundle), "--compute-capability", "8.6,sm120", "--batch", "1,4"]
    assert main([*arguments, "--builderOptimizationLevel", "2", "--memPoolSize", "workspace:1G", "--json"]) == 0
    (engine,) = last_line(capsys)["engines"]
    path = bundle.parent / "my bundle.engines/sm86-sm120/model.fp32.engine"
    assert Path(engine["path"]) == path
    assert path.stat().st_size == engine["build"]["engine_bytes"]
    assert engine["build"] == json.loads(document.document_path(path).read_bytes())
    assert [profile["largest"] for profile in engine["build"]["profiles"]] == [1, 4]
    assert engine["build"]["optimization_level"] == 2
    assert engine["build"]["workspace_mb"] == pytest.approx(1024**3 / 1e6)
    assert main(["bundle", "verify", str(bundle)]) == 0, "the bundle is as it was"


@needs_rtx
def test_of_a_run_the_recipe_says_how(bundle, tmp_path, capsys):
    from dskd_compress.recipe import dump_recipe, recipe_from_mapping

    run = tmp_path / "run"
    bundle.rename(tmp_path / "moved")
    run.mkdir()
    (tmp_path / "moved").rename(run / "bundle")
    sections = {"teacher": {"name": "a"}, "student": {"name": "b"}, "build": {"batches": [3], "tf32": True}}
    (run / "recipe.yaml").write_text(dump_recipe(recipe_from_mapping(sections, [])), encoding="utf-8")
    assert main(["build", str(run), "--compute-capability", "sm89", "--noTF32"]) == 0
    out = capsys.readouterr().out
    assert "sm89" in out
    assert "fp32 100% of layers" in out
    made = BuildDocument.model_validate_json((run / "engines/sm89/model.fp32.build.json").read_bytes())
    assert made.profiles[0].largest == 3
    assert made.flags == []
    kept = RunFolder(run).read_recipe().build
    assert (kept.batches, kept.tf32) == ((3,), False), "what a flag says is kept"


@needs_rtx
@without_gpu
def test_without_a_gpu_and_without_a_target(bundle, capsys):
    assert main(["build", str(bundle)]) == 4
    assert "--compute-capability sm86 (or sm75, sm80" in capsys.readouterr().err


def test_nothing_is_installed(bundle, capsys, monkeypatch):
    monkeypatch.setattr(generations, "find_installed", lambda folders=None: ())
    assert main(["build", str(bundle)]) == 4
    assert "dskd-compress[tensorrt]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--batch", "0"], "--batch 0: build.batches"),
        (["--batch", "one"], "--batch one: build.batches"),
        (["--builderOptimizationLevel", "6"], "--builderOptimizationLevel 6: build.optimization_level: "),
        (["--memPoolSize", "workspace:0"], "--memPoolSize 0.0: build.workspace_mb: "),
        (["--memPoolSize", "dlaSRAM:1"], "--memPoolSize workspace:"),
        (["--memPoolSize", "1024"], "--memPoolSize workspace:"),
        (["--hardwareCompatibilityLevel", "turing"], "--hardwareCompatibilityLevel turing: build.hardware: "),
        (["--stripWeights", "all"], "--stripWeights all"),
        (["--backend", "trt"], "--backend auto"),
        (["--device", "cpu"], "--device cpu"),
        (["--precision", "int8"], "int8"),
        (["--workspace-mb", "much"], "--memPoolSize workspace:"),
    ],
)
def test_flags_that_are_wrong(bundle, capsys, flags, words):
    assert main(["build", str(bundle), *flags]) == 2
    assert words in capsys.readouterr().err


OLD_AND_NEW = {
    "--target sm86": "--compute-capability sm86",
    "--target=sm86": "--compute-capability=sm86",
    "--batches 1,4": "--batch 1,4",
    "--workspace-mb 256": "--memPoolSize workspace:256000000B",
    "--workspace-mb=0.5": "--memPoolSize=workspace:500000B",
    "--level 2": "--builderOptimizationLevel 2",
    "--no-tf32": "--noTF32",
    "--version-compatible": "--versionCompatible",
    "--this-version": "--noVersionCompatible",
    "--hardware ampere-plus": "--hardwareCompatibilityLevel ampere-plus",
    "--dla 0": "--useDLACore 0",
    "--strip identical": "--stripWeights identical",
}


@pytest.mark.parametrize(("old", "new"), OLD_AND_NEW.items())
def test_an_old_option_is_the_new_one_and_says_so(old, new, capsys):
    command = typer.main.get_command(app).commands["build"]
    values = [command.make_context("build", ["bundle", *text.split()]).params for text in (old, new)]
    assert values[0] == values[1] != command.make_context("build", ["bundle"]).params
    name = new.partition("=")[0].split()[0]
    assert capsys.readouterr().err == f"warning: {old.partition('=')[0].split()[0]} is now called {name}\n"


def test_every_old_option_is_tried():
    assert {text.partition("=")[0].split()[0] for text in OLD_AND_NEW} == set(BuildCommand.renamed)


def test_the_help_lists_at_most_14_options_and_no_old_one():
    command = typer.main.get_command(app).commands["build"]
    shown = [option for option in command.params if option.param_type_name == "option" and not option.hidden]
    assert len(shown) + 1 <= 14, "with --help"
    assert not {name for option in command.params for name in option.opts} & set(BuildCommand.renamed)


@pytest.mark.parametrize(
    ("level", "kept"),
    [("ampere+", "ampere-plus"), ("sameComputeCapability", "same-compute-capability"), ("none", "none")],
)
def test_levels_are_named_as_trtexec_does(bundle, level, kept, monkeypatch):
    from dskd_export.engine import builder

    seen = []

    def build(bundle, precision, engines, settings, target):
        seen.append(settings.hardware)
        raise GateFailed("seen", "x")

    monkeypatch.setattr(builder, "build_engine", build)
    assert main(["build", str(bundle), "--hardwareCompatibilityLevel", level]) == GateFailed.exit_code
    assert seen == [kept]


def test_no_bundle(tmp_path, capsys):
    assert main(["build", str(tmp_path / "nothing")]) == 3
    assert str(tmp_path / "nothing") in capsys.readouterr().err


@needs_rtx
def test_an_engine_of_another_precision_is_exit_code_5(bundle, capsys, monkeypatch):
    from dskd_export.engine import builder

    truth = summarize_layers([Layer("conv", "fp16", False)], source="build log")
    monkeypatch.setattr(builder, "_truth_of_log", lambda done: (truth, ""))
    assert main(["build", str(bundle), "--compute-capability", "sm86", "--json"]) == GateFailed.exit_code
    captured = capsys.readouterr()
    assert "fp16 100% of layers" in captured.err
    assert json.loads(captured.out.splitlines()[-1])["failed"], "the document is there all the same"


def test_on_a_gpu_every_engine_is_proven(bundle, capsys, monkeypatch):
    """What the command does with a GPU, whoever builds and proves."""
    from dskd_export.engine import builder

    proven = []

    def build(bundle, precision, engines, settings, target):
        return engines / "orin/model.fp32.engine", made

    def prove(path, device):
        proven.append((path, device))
        return made

    gpu = document.GpuFacts(name="Orin", compute_capability="8.7", memory_mb=8000, driver=None, cuda="12.6")
    fields = dict.fromkeys(BuildDocument.model_fields)
    shown = {"precision": "fp32", "backend": "tensorrt", "version": "10.3.0", "rest": "fp32", "gpu": gpu}
    truth = summarize_layers([Layer("conv", "fp32", False)], times_ms={"conv": 1.0})
    made = BuildDocument.model_construct(
        **{
            **fields,
            **shown,
            "truth": truth,
            "stripped": False,
            "engine_bytes": 1,
            "build_seconds": 1.0,
            "warnings": [],
        }
    )
    monkeypatch.setattr(builder, "build_engine", build)
    monkeypatch.setattr(engine_proof, "prove_engine", prove)
    assert main(["build", str(bundle), "--device", "cuda:1"]) == 0
    assert proven == [(bundle.parent / "my bundle.engines/orin/model.fp32.engine", 1)]
    assert "fp32 100% of time" in capsys.readouterr().out
