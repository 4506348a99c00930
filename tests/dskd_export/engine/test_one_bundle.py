"""One bundle through TensorRT: what generations spell differently on all of them, the rest on one."""

from __future__ import annotations

import json

import engine_contract
import numpy as np
import pytest
from engine_support import build_arguments, make_bundle, make_classifier
from fake_tensorrt import read_plan

from dskd_export import codes
from dskd_export.engine.builder import build_engine
from dskd_export.engine.document import BuildDocument, document_path, engines_folder
from dskd_export.engine.inspect import refuse_other_precision
from dskd_export.engine.refit import refit_engine
from dskd_export.errors import DataError, EnvironmentProblem, GateFailed, ModelError, UsageError
from dskd_export.runtime.batches import logits_of
from dskd_export.runtime.engine_proof import prove_engine
from dskd_export.runtime.tensorrt import TensorRtRunner
from dskd_export.validation.parity import compare_outputs

GENERATIONS = engine_contract.SERVES["common.py"]
FULL = [name for name in GENERATIONS if "bindings" in name]
RTX = GENERATIONS[-1]
ONE = FULL[-1]  # where no generation differs


def build(machine, bundle, precision="fp32", **settings):
    engines = engines_folder(bundle.folder)
    return build_engine(bundle, precision, engines, *build_arguments(**settings), run=machine.run)


def golden_parity(machine, bundle, path, batch, **options):
    golden = bundle.golden()
    runner = TensorRtRunner(path, backend=machine.backend, cuda=machine.cuda, **options)
    with runner:
        logits = logits_of(runner, golden.input, batch=batch)
    parity = compare_outputs(
        golden.logits, logits, reference_name="onnxruntime", candidate_name=runner.name, batch=batch
    )
    return runner, parity


@pytest.mark.parametrize(("generation", "cuda_graphs"), [*((name, True) for name in GENERATIONS), (ONE, False)])
def test_build_load_run(generation, cuda_graphs, make_machine, bundle):
    machine = make_machine(generation)
    path, document = build(machine, bundle, batches=(1, 4))
    assert path == bundle.folder.parent / "bundle.engines/orin-nvgpu/model.fp32.engine"
    assert BuildDocument.model_validate_json(document_path(path).read_bytes()) == document
    assert document.engine_bytes == path.stat().st_size
    assert [profile.model_dump() for profile in document.profiles] == [
        {"smallest": 1, "best": 1, "largest": 1},
        {"smallest": 2, "best": 4, "largest": 4},
    ]
    for batch in (1, 3, 4):
        runner, parity = golden_parity(machine, bundle, path, batch, cuda_graphs=cuda_graphs)
        assert parity.max_abs_relative < 1e-6
        assert parity.top1_agreement == 1
        assert machine.world.cuda.is_clean, "everything was given back"
        assert runner.facts.cuda_graphs is cuda_graphs
    assert (machine.world.cuda.launched > 0) is cuda_graphs


@pytest.mark.parametrize("generation", GENERATIONS)
def test_what_was_set(generation, make_machine, bundle):
    machine = make_machine(generation)
    build(machine, bundle, optimization_level=5, workspace_mb=256, tf32=True, version_compatible=True)
    (header,) = machine.world.built
    assert header["flags"] == ["TF32", "VERSION_COMPATIBLE"]
    assert (header["level"], header["workspace"], header["verbosity"]) == (5, 256_000_000, "DETAILED")
    _, document = build(machine, bundle)
    assert document.flags == machine.world.built[1]["flags"] == []
    assert document.gpu_peak_memory_mb == pytest.approx(104.9, abs=0.1)
    assert document.warnings == ["a warning of two lines"]


def test_only_an_engine_for_later_versions_may_run_code_of_its_own(make_machine, bundle):
    machine = make_machine(ONE)
    path, _ = build(machine, bundle, version_compatible=True)
    _, parity = golden_parity(machine, bundle, path, 1)
    assert parity.max_abs_relative < 1e-6
    with pytest.raises(EnvironmentProblem, match="host code"):
        machine.backend.open(path.read_bytes())
    stripped, _ = build(machine, bundle, version_compatible=True, strip="identical")
    whole, _ = refit_engine(stripped, bundle, "fp32", run=machine.run)
    assert golden_parity(machine, bundle, whole, 1)[1].max_abs_relative < 1e-6


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_proof(generation, make_machine, bundle):
    machine = make_machine(generation)
    path, document = build(machine, bundle, "fp16", batches=(4,))
    assert document.truth is None
    assert document.no_truth
    refuse_other_precision(document)  # nothing is known, so nothing is refused
    proven = prove_engine(path, backend=machine.backend, cuda=machine.cuda)
    assert machine.world.cuda.is_clean
    truth = proven.truth
    assert [(share.type, share.layers, share.layer_share, share.time_share) for share in truth.types] == [
        ("fp16", 4, 1.0, 1.0)
    ]
    refuse_other_precision(proven)
    assert BuildDocument.model_validate_json(document_path(path).read_bytes()) == proven

    machine.world.layer_type = "Float"
    with pytest.raises(GateFailed, match=r"fp16.*fp32 100%"):
        refuse_other_precision(prove_engine(path, backend=machine.backend, cuda=machine.cuda))


def test_short_memory_climbs_down(make_machine, bundle):
    machine = make_machine(ONE, free_bytes=300_000_000)
    _, document = build(machine, bundle, workspace_mb=2000)
    assert document.workspace_tried_mb == [2000, 1000, 500]
    assert document.workspace_mb == 250
    machine = make_machine(ONE, free_bytes=1_000)
    path = engines_folder(bundle.folder) / "orin-nvgpu/model.fp16.engine"
    with pytest.raises(EnvironmentProblem) as caught:
        build(machine, bundle, "fp16")
    assert "--batch" in caught.value.hint
    assert not path.exists()


def test_a_workspace_too_small(make_machine, bundle):
    machine = make_machine(ONE, least_workspace=10_000_000)
    with pytest.raises(UsageError, match=r"fp32.* 1 MB") as caught:
        build(machine, bundle, workspace_mb=1)
    assert "--memPoolSize workspace:" in caught.value.hint
    assert not engines_folder(bundle.folder).exists()


@pytest.mark.parametrize("generation", GENERATIONS)
def test_stripped_and_refitted(generation, make_machine, bundle, tmp_path):
    machine = make_machine(generation)
    stripped, before = build(machine, bundle, strip="new-weights")
    assert stripped.name == "model.fp32.stripped.engine"
    assert before.flags == ["REFIT", "STRIP_PLAN"]
    with pytest.raises(EnvironmentProblem, match="weights"):
        TensorRtRunner(stripped, backend=machine.backend, cuda=machine.cuda)
    retrained = make_bundle(tmp_path / "retrained", make_classifier(seed=9))
    path, after = refit_engine(stripped, retrained, "fp32", run=machine.run)
    assert path.name == "model.fp32.engine"
    assert after.refitted_from == before.engine_sha256
    assert after.bundle_sha256 == retrained.sha256
    _, parity = golden_parity(machine, retrained, path, 2)
    assert parity.max_abs_relative < 1e-6
    _, parity = golden_parity(machine, bundle, path, 2)
    assert parity.max_abs_relative > 1e-2, "other weights, other logits"

    identical, document = build(machine, bundle, strip="identical")
    assert document.flags == ["REFIT_IDENTICAL", "STRIP_PLAN"]
    with pytest.raises(UsageError) as caught:
        refit_engine(identical, retrained, "fp32", run=machine.run)
    assert "--stripWeights new-weights" in caught.value.hint
    refit_engine(identical, bundle, "fp32", run=machine.run)


def test_new_weights_are_refused_where_tensorrt_loses_some(make_machine, bundle):
    machine = make_machine("tensorrt_bindings 11.4.0.106", version="11.3.0.99")
    with pytest.raises(EnvironmentProblem, match=r"11\.3\.0") as caught:
        build(machine, bundle, strip="new-weights")
    assert "--stripWeights identical" in caught.value.hint


@pytest.mark.parametrize("generation", FULL)
def test_the_timing_cache(generation, make_machine, bundle):
    machine = make_machine(generation)
    path, first = build(machine, bundle)
    file = path.parent / first.timing_cache.file
    assert file.name == f"timing-tensorrt-{generation.split()[1]}.cache"
    assert first.timing_cache.sha256_before is None
    _, second = build(machine, bundle, timing_cache_sha256=first.timing_cache.sha256_after)
    assert second.timing_cache.sha256_before == second.timing_cache.sha256_after == first.timing_cache.sha256_after
    content = file.read_bytes()
    file.write_bytes(content.replace(b"]]", b', "x"]]'))
    with pytest.raises(DataError) as caught:
        build(machine, bundle, timing_cache_sha256=first.timing_cache.sha256_after)
    assert first.timing_cache.sha256_after in caught.value.message


def test_a_cache_that_another_build_wrote_meanwhile_is_joined(make_machine, tmp_path):
    from dskd_export.engine.adapter import read_cache, write_cache

    machine = make_machine(ONE)
    version = ONE.split()[1]

    def cache(*entries):
        return json.dumps([version, sorted(entries)]).encode()

    read = read_cache(tmp_path, machine.backend)
    read.path.write_bytes(cache("theirs"))
    write_cache(read, cache("ours"), machine.backend)
    assert json.loads(read.path.read_bytes())[1] == ["ours", "theirs"]


def test_rtx_keeps_no_cache(make_machine, bundle):
    machine = make_machine(RTX)
    path, document = build(machine, bundle)
    assert document.timing_cache is None
    assert document.no_timing_cache == "tensorrt-rtx keeps none"
    assert not list(path.parent.glob("timing*"))
    with pytest.raises(UsageError) as caught:
        build(machine, bundle, timing_cache_sha256="0" * 64)
    assert "--timing-cache" in caught.value.hint


@pytest.mark.parametrize("generation", FULL)
def test_dla(generation, make_machine, bundle):
    machine = make_machine(generation, dla_cores=2)
    path, document = build(machine, bundle, batches=(4,), dla_core=1)
    assert document.dla.model_dump() == {"core": 1, "layers_on_dla": 2, "layers_on_gpu": ["pool", "head"]}
    assert document.flags == ["GPU_FALLBACK"]
    assert machine.world.built[0]["device"] == "DLA"
    assert document.profiles[0].smallest == 4
    runner, parity = golden_parity(machine, bundle, path, 4)
    assert runner.facts.cuda_graphs is False, "never with a DLA"
    assert parity.top1_agreement == 1
    with pytest.raises(UsageError) as caught:
        build(machine, bundle, batches=(1, 4), dla_core=1)
    assert "--batch" in caught.value.hint
    with pytest.raises(EnvironmentProblem, match="2") as caught:
        build(machine, bundle, batches=(4,), dla_core=2)
    assert "--useDLACore" in caught.value.hint


def test_rtx_has_no_dla_and_no_hardware_levels(make_machine, bundle):
    machine = make_machine(RTX)
    with pytest.raises(EnvironmentProblem) as caught:
        build(machine, bundle, batches=(1,), dla_core=0)
    assert "--useDLACore" in caught.value.hint
    with pytest.raises(EnvironmentProblem) as caught:
        build(machine, bundle, hardware="ampere-plus")
    assert "--compute-capability sm86 (or sm75, sm80" in caught.value.hint


@pytest.mark.parametrize("generation", FULL)
@pytest.mark.parametrize("level", ["ampere-plus", "same-compute-capability"])
def test_hardware_levels(generation, level, make_machine, bundle):
    machine = make_machine(generation)
    _, document = build(machine, bundle, hardware=level)
    assert machine.world.built[0]["hardware"] == level.upper().replace("-", "_")
    assert document.hardware == level


def test_tensorrt_needs_the_gpu(make_machine, bundle):
    machine = make_machine(ONE, gpu=None)
    with pytest.raises(EnvironmentProblem) as caught:
        build(machine, bundle)
    assert caught.value.code is codes.GPU


def test_rtx_ahead_of_time(make_machine, bundle):
    machine = make_machine(RTX, gpu=None)
    path, document = build(machine, bundle, targets=("sm86", "sm120", "sm86"))
    assert path.parent.name == "sm86-sm120"
    assert document.targets == ["sm86", "sm120"]
    assert document.gpu is None
    assert read_plan(path.read_bytes())[0]["capabilities"] == ["SM86", "SM120"]
    with pytest.raises(EnvironmentProblem) as caught:
        build(machine, bundle)
    assert "--compute-capability sm86 (or sm75, sm80" in caught.value.hint
    with pytest.raises(UsageError, match="sm90"):
        build(machine, bundle, targets=("sm90",))


def test_a_batch_without_a_profile(make_machine, bundle):
    machine = make_machine(ONE)
    path, _ = build(machine, bundle, batches=(2,))
    with TensorRtRunner(path, backend=machine.backend, cuda=machine.cuda) as runner:
        image = bundle.golden().input
        with pytest.raises(ModelError, match=r"\[3, .*\[1, .* to \[2, ") as caught:
            runner.infer({"input": image[:3]})
        assert "--batch" in caught.value.hint
        with pytest.raises(ModelError, match=r"float32.*float64"):
            runner.infer({"input": image[:1].astype(np.float64)})
        with pytest.raises(ModelError) as caught:
            runner.infer({})
        assert "spec.json" in caught.value.hint
        assert runner.infer({"input": image[:2]})["logits"].shape == (2, 7), "it goes on after that"
