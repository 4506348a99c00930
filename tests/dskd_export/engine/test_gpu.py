"""On a real GPU, with every TensorRT that is installed: pytest -m gpu tests/dskd_export/engine."""

from __future__ import annotations

import pytest
from engine_support import build_arguments, make_bundle, make_classifier

from dskd_export.engine.builder import build_engine
from dskd_export.engine.device import find_gpu
from dskd_export.engine.document import engines_folder
from dskd_export.engine.generations import find_installed, targets_of
from dskd_export.engine.refit import refit_engine
from dskd_export.errors import EnvironmentProblem
from dskd_export.precision.half import half_precision
from dskd_export.runtime.batches import logits_of
from dskd_export.runtime.cuda import import_bindings
from dskd_export.runtime.engine_proof import prove_engine
from dskd_export.runtime.tensorrt import TensorRtRunner
from dskd_export.runtime.tensorrt_profile import profile_engine
from dskd_export.validation.parity import compare_outputs

pytestmark = pytest.mark.gpu


@pytest.fixture(params=[found.name for found in find_installed()] or ["none"])
def backend(request):
    if request.param == "none" or find_gpu() is None:
        pytest.skip("no TensorRT or no GPU")
    return request.param


@pytest.fixture
def half_bundle(tmp_path, calibration):
    model = make_classifier()
    half = half_precision(model.SerializeToString(), "fp16", calibration, producer="onnxruntime").model
    import onnx

    return make_bundle(tmp_path / "bundle", model, fp16=onnx.load_from_string(half))


@pytest.fixture
def calibration():
    from engine_families import calibration as noise

    images = noise(8)
    return type(images)(images.input_N[:, :, :6, :], images.labels_N, images.image_sha256, seed=0)


def build(bundle, precision, backend, **settings):
    arguments = build_arguments(backend=backend, batches=(1, 8), **settings)
    if (ahead := targets_of(backend)) and find_gpu().target not in ahead:
        with pytest.raises(EnvironmentProblem) as caught:
            build_engine(bundle, precision, engines_folder(bundle.folder), *arguments)
        pytest.skip(f"{backend} refuses this GPU, as it should: {caught.value}")
    return build_engine(bundle, precision, engines_folder(bundle.folder), *arguments)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_build_prove_run(half_bundle, backend, precision, cuda_graphs):
    free_bytes = lambda: int(import_bindings().cudaMemGetInfo()[1])  # noqa: E731
    before = free_bytes()
    path, document = build(half_bundle, precision, backend)
    assert document.gpu.name == find_gpu().name
    proven = prove_engine(path)
    print(proven.truth or proven.no_truth)
    golden = half_bundle.golden()
    with TensorRtRunner(path, cuda_graphs=cuda_graphs, streams=2) as runner:
        for batch in (1, 3, 8, 1, 3, 8):
            logits = logits_of(runner, golden.input, batch=batch)
            parity = compare_outputs(
                golden.logits, logits, reference_name="onnxruntime", candidate_name=runner.name, batch=batch
            )
            assert parity.max_abs_relative < (1e-4 if precision == "fp32" else 2e-2)
        answers = runner.infer_many([{"input": golden.input[index : index + 1]} for index in range(8)])
        assert len(answers) == 8
    assert free_bytes() > before - 300_000_000, "what a process keeps of CUDA and TensorRT, and no more"


def test_strip_and_refit(half_bundle, backend, tmp_path):
    stripped, before = build(half_bundle, "fp32", backend, strip="new-weights")
    retrained = make_bundle(tmp_path / "retrained", make_classifier(seed=9))
    path, after = refit_engine(stripped, retrained, "fp32")
    assert after.engine_bytes > before.engine_bytes
    golden = retrained.golden()
    with TensorRtRunner(path) as runner:
        logits = logits_of(runner, golden.input, batch=4)
    parity = compare_outputs(golden.logits, logits, reference_name="a", candidate_name="b", batch=4)
    assert parity.max_abs_relative < 1e-4


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_profile_of_an_engine(half_bundle, backend, precision):
    path, _ = build(half_bundle, precision, backend)
    golden = half_bundle.golden()
    found = profile_engine(path, {"input": golden.input[:1]}, calls=5, warmup_calls=3)
    assert len(found.calls) == 5
    names = [layer.name for layer in found.calls[0]]
    print(*found.calls[0], sep="\n")
    for layers, ms in zip(found.calls, found.call_ms, strict=True):
        assert [layer.name for layer in layers] == names
        assert 0 < sum(layer.microseconds for layer in layers) < 1e3 * ms
