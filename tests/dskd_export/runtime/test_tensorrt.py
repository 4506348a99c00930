"""The runner on a fake CUDA, whose device memory is real memory and whose work is done when somebody waits."""

from __future__ import annotations

import engine_contract
import numpy as np
import pytest
from engine_support import make_bundle, make_classifier
from fake_cuda import FakeCuda
from fake_tensorrt import World, make_tensorrt

from dskd_export import codes
from dskd_export.benchmark.timing import measure_latency
from dskd_export.engine import builder, generations, identity
from dskd_export.engine.builder import build_engine
from dskd_export.engine.document import GpuFacts, engines_folder
from dskd_export.engine.generations import Installed, backend_of
from dskd_export.engine.loaded import LoadedContext, LoadedEngine
from dskd_export.engine.process import run_request
from dskd_export.errors import EnvironmentProblem, ModelError, UsageError
from dskd_export.runtime.cuda import Cuda
from dskd_export.runtime.tensorrt import TensorRtRunner
from dskd_export.runtime.tensorrt_profile import profile_engine
from dskd_export.settings import BuildSettings

GENERATION = "tensorrt_bindings 11.4.0.106"
GPU = GpuFacts(name="NVIDIA L4", compute_capability="8.9", memory_mb=24_000, driver="580.1", cuda="13.0")


class Machine:
    """A GPU, an engine on it for batches 1, 2 to 8 and 9 to 32, and what its model should give."""

    def __init__(self, bundle, cuda: FakeCuda, batches=(1, 8, 32)) -> None:
        self.fake = cuda
        self.world = World(cuda)
        trt = make_tensorrt(engine_contract.load_api()[GENERATION], "tensorrt", "11.4.0.106", self.world)
        self.backend = backend_of(trt)
        self.path, _ = build_engine(
            bundle,
            "fp32",
            engines_folder(bundle.folder),
            BuildSettings(batches=batches),
            run=lambda request: run_request(request, self.backend),
        )
        self.model = bundle.model("fp32")

    def open(self, **options) -> TensorRtRunner:
        return TensorRtRunner(self.path, backend=self.backend, cuda=Cuda(module=self.fake), **options)

    def expected(self, images):
        from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner

        with OnnxRuntimeRunner(self.model, threads=1) as runner:
            return runner.infer({"input": images})["logits"]


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "bundle", make_classifier())


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    for place in (builder, identity):
        monkeypatch.setattr(place, "find_gpu", lambda index=0: GPU)
    found = Installed("tensorrt", "tensorrt", tmp_path, "11.4.0.106", on_path=True)
    for place in (generations, identity):
        monkeypatch.setattr(place, "find_installed", lambda folders=None: (found,))


@pytest.fixture
def machine(bundle):
    return Machine(bundle, FakeCuda())


def images(batch, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, 3, 6, 8)).astype(np.float32)


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_batches_in_any_order(machine, cuda_graphs):
    with machine.open(cuda_graphs=cuda_graphs) as runner:
        for seed, batch in enumerate((1, 8, 3, 1, 32, 9, 8, 3, 1, 32, 1, 1)):
            some = images(batch, seed)
            np.testing.assert_allclose(runner.infer({"input": some})["logits"], machine.expected(some), rtol=1e-5)
    assert machine.fake.is_clean
    assert machine.fake.launched == (0 if not cuda_graphs else 3), (
        "1 and 1 after the last growth, and 32 never again"
    )


def test_a_graph_is_recorded_at_the_second_call_and_launched_from_then_on(machine):
    with machine.open() as runner:
        for call in range(5):
            runner.infer({"input": images(4, call)})
            assert machine.fake.launched == max(0, call)
        assert len(machine.fake.graphs) == 1
        runner.infer({"input": images(2)})
        runner.infer({"input": images(2)})
        assert len(machine.fake.graphs) == 2, "each shape has its own"


def test_a_larger_batch_moves_the_memory_and_drops_the_graphs(machine):
    with machine.open() as runner:
        small = images(2)
        for _ in range(3):
            runner.infer({"input": small})
        before = runner.device_memory_bytes
        runner.infer({"input": images(30)})
        assert runner.device_memory_bytes > before
        grown = runner.device_memory_bytes
        for _ in range(3):
            np.testing.assert_allclose(
                runner.infer({"input": small})["logits"], machine.expected(small), rtol=1e-5
            )
        assert runner.device_memory_bytes == grown, "and it is used again, not given back"


def test_there_are_never_too_many_contexts(machine):
    with machine.open() as runner:
        runner.infer({"input": images(32)})
        for round_ in range(2):
            for batch in range(1, 25):
                some = images(batch, round_)
                logits = [runner.infer({"input": some})["logits"] for _ in range(2)]
                np.testing.assert_allclose(logits[1], machine.expected(some), rtol=1e-5)
                assert len(machine.fake.graphs) <= 16
    assert machine.fake.is_clean


def test_what_comes_out_is_ones_own(machine):
    with machine.open() as runner:
        first = runner.infer({"input": images(2, 1)})["logits"]
        kept = first.copy()
        runner.infer({"input": images(2, 2)})
        np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(first, kept)


def test_several_streams(machine):
    with machine.open(streams=3) as runner:
        assert len(machine.fake.streams) == 3
        feeds = [{"input": images(1 + index % 4, index)} for index in range(10)]
        for feed, answer in zip(feeds, runner.infer_many(feeds), strict=True):
            np.testing.assert_allclose(answer["logits"], machine.expected(feed["input"]), rtol=1e-5)
        assert runner.infer_many([]) == []
    assert machine.fake.is_clean
    with pytest.raises(UsageError) as caught:
        machine.open(streams=0)
    assert "--streams" in caught.value.hint


def test_images_that_are_not_contiguous(machine):
    some = images(4)[::2]
    with machine.open() as runner:
        np.testing.assert_allclose(runner.infer({"input": some})["logits"], machine.expected(some), rtol=1e-5)


def test_where_a_graph_cannot_hold_the_call(tmp_path, bundle, monkeypatch):
    machine = Machine(bundle, FakeCuda())
    monkeypatch.setattr(
        type(machine.backend.open(machine.path.read_bytes()).context()),
        "can_be_captured",
        lambda self, stream: False,
    )
    with machine.open() as runner:
        for _ in range(4):
            runner.infer({"input": images(2)})
    assert machine.fake.launched == 0


def test_the_gpus_memory_is_exhausted(bundle):
    machine = Machine(bundle, FakeCuda(memory_bytes=8192))
    with machine.open() as runner:
        runner.infer({"input": images(1)})
        with pytest.raises(EnvironmentProblem, match=r"cudaMalloc .*cudaErrorMemoryAllocation") as caught:
            runner.infer({"input": images(32)})
        assert caught.value.code is codes.GPU_MEMORY
        assert "--batch" in caught.value.hint
        assert caught.value.exit_code == 4
        some = images(1)
        np.testing.assert_allclose(runner.infer({"input": some})["logits"], machine.expected(some), rtol=1e-5)
    assert machine.fake.is_clean
    starved = FakeCuda(memory_bytes=100)
    machine.fake = machine.world.cuda = starved
    with pytest.raises(EnvironmentProblem, match="cudaErrorMemoryAllocation"):
        machine.open()
    assert starved.is_clean


def test_a_device_that_is_not_there(machine):
    machine.fake.devices = 0
    with pytest.raises(EnvironmentProblem, match=r"cudaSetDevice .*cudaErrorInvalidDevice"):
        machine.open()


def test_closed(machine):
    runner = machine.open()
    with runner:
        runner.infer({"input": images(1)})
    with pytest.raises(RuntimeError, match="tensorrt:cuda:fp32 is closed"):
        runner.infer({"input": images(1)})


def test_it_can_be_timed_like_any_runner(machine):
    with machine.open() as runner:
        feed = {"input": images(1)}
        timing = measure_latency(
            lambda: runner.infer(feed), min_seconds=0.01, min_iterations=10, max_warmup_seconds=0.05
        )
        assert timing.latency.iterations >= 10
        facts = runner.facts
    assert facts.version == "11.4.0.106"
    assert facts.gpu == "NVIDIA L4"
    assert facts.load_ms > 0


def test_names_that_do_not_fit(machine):
    with machine.open() as runner, pytest.raises(ModelError, match=r"input.*pixels"):
        runner.infer({"pixels": images(1)})


def test_each_layer_of_each_call(machine):
    with machine.open() as runner:
        samples = runner.sample_layers({"input": images(2)}, calls=4, warmup_calls=2)
        summed = runner.time_layers({"input": images(2)}, calls=4)
    assert len(samples) == 4
    names = set(samples[0][0])
    assert names
    for times_ms, call_ms in samples:
        assert times_ms == dict.fromkeys(names, 0.5), "of this call alone"
        assert call_ms > 0
    assert summed == dict.fromkeys(names, 2.0)
    assert machine.fake.is_clean


def test_the_profile_of_an_engine(machine):
    found = profile_engine(
        machine.path,
        {"input": images(2)},
        calls=3,
        warmup_calls=1,
        backend=machine.backend,
        cuda=Cuda(module=machine.fake),
    )
    assert (len(found.calls), len(found.call_ms)) == (3, 3)
    import onnx

    nodes = onnx.load_from_string(machine.model).graph.node
    expected = [(node.name, node.op_type, 500.0) for node in nodes]
    for call in found.calls:
        assert [(layer.name, layer.operator, layer.microseconds) for layer in call] == expected
    assert {layer.number_type for layer in found.calls[0]} == {"fp16"}, "the inspector's"
    assert machine.fake.launched == 0
    assert machine.fake.is_clean


def test_layers_that_the_inspector_does_not_name_keep_their_times(machine, monkeypatch):
    monkeypatch.setattr(LoadedEngine, "layers", lambda self, of=None: '{"Layers": ["a name alone"]}')
    found = profile_engine(
        machine.path,
        {"input": images(1)},
        calls=1,
        warmup_calls=0,
        backend=machine.backend,
        cuda=Cuda(module=machine.fake),
    )
    assert {layer.operator for layer in found.calls[0]} == {""}
    assert {layer.microseconds for layer in found.calls[0]} == {500.0}


def test_a_tensorrt_that_reports_no_times(machine, monkeypatch):
    monkeypatch.setattr(LoadedContext, "time_layers", lambda self, times_ms: None)
    with pytest.raises(EnvironmentProblem, match="no times of layers"):
        profile_engine(
            machine.path,
            {"input": images(1)},
            calls=2,
            warmup_calls=0,
            backend=machine.backend,
            cuda=Cuda(module=machine.fake),
        )
    assert machine.fake.is_clean
