from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from engine_support import make_bundle, make_classifier

from dskd_compress import console
from dskd_compress.cli import main
from dskd_compress.run_folder import RunFolder
from dskd_export.engine import document, generations
from dskd_export.engine.device import find_gpu
from dskd_export.engine.document import BuildDocument
from dskd_export.engine.inspect import Layer, precision_truth
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
    arguments = ["build", str(bundle), "--target", "sm86,sm120", "--batches", "1,4", "--level", "2", "--json"]
    assert main(arguments) == 0
    (engine,) = last_line(capsys)["engines"]
    path = bundle.parent / "my bundle.engines/sm86-sm120/model.fp32.engine"
    assert Path(engine["path"]) == path
    assert path.stat().st_size == engine["build"]["engine_bytes"]
    assert engine["build"] == json.loads(document.document_path(path).read_bytes())
    assert [profile["largest"] for profile in engine["build"]["profiles"]] == [1, 4]
    assert engine["build"]["optimization_level"] == 2
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
    assert main(["build", str(run), "--target", "sm89", "--no-tf32"]) == 0
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
    error = capsys.readouterr().err
    assert error.startswith("error: There is no NVIDIA GPU here to build for.\nhint: tensorrt-rtx builds ahead")
    assert "--target sm75,sm80,sm86" in error


def test_nothing_is_installed(bundle, capsys, monkeypatch):
    monkeypatch.setattr(generations, "installed", lambda folders=None: ())
    assert main(["build", str(bundle)]) == 4
    assert "dskd-compress[tensorrt]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--batches", "0"], "--batches 0: build.batches"),
        (["--batches", "one"], "--batches one: build.batches"),
        (["--level", "6"], "--level 6: build.optimization_level: "),
        (["--workspace-mb", "0"], "--workspace-mb 0.0: build.workspace_mb: "),
        (["--hardware", "turing"], "--hardware turing: build.hardware: "),
        (["--strip", "all"], "--strip: there is no all"),
        (["--backend", "trt"], "There is no backend trt"),
        (["--device", "cpu"], "There is no device cpu for TensorRT"),
        (["--precision", "int8"], "holds no model of precision int8; it holds fp32"),
    ],
)
def test_flags_that_are_wrong(bundle, capsys, flags, words):
    assert main(["build", str(bundle), *flags]) == 2
    assert words in capsys.readouterr().err


def test_no_bundle(tmp_path, capsys):
    assert main(["build", str(tmp_path / "nothing")]) == 3
    assert "no such bundle" in capsys.readouterr().err


@needs_rtx
def test_an_engine_of_another_precision_is_exit_code_5(bundle, capsys, monkeypatch):
    from dskd_export.engine import builder

    truth = precision_truth([Layer("conv", "fp16", False)], source="build log")
    monkeypatch.setattr(builder, "_truth_of_log", lambda done: (truth, ""))
    assert main(["build", str(bundle), "--target", "sm86", "--json"]) == GateFailed.exit_code
    captured = capsys.readouterr()
    assert "No layer of the fp32 engine runs in fp32: fp16 100% of layers" in captured.err
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
    truth = precision_truth([Layer("conv", "fp32", False)], times_ms={"conv": 1.0})
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
