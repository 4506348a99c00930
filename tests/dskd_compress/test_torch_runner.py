from __future__ import annotations

import inspect
import warnings
from typing import get_type_hints

import numpy as np
import pytest
import torch
from bundle_support import make_spec
from support import CLASSES, compare_runners, make_model
from torch import nn

from dskd_compress.torch_runner import TorchRunner, find_torch
from dskd_export.errors import EnvironmentProblem
from dskd_export.runtime.batches import logits_of
from dskd_export.runtime.runner import Runner, RunnerFacts


def flags() -> tuple[int, bool, bool]:
    backends = torch.backends
    return torch.get_num_threads(), backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32


@pytest.fixture
def images_NCHW() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 3, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_equals_the_module(name: str, batch: int, images_NCHW: np.ndarray) -> None:
    model = make_model(name)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(images_NCHW[:batch])).numpy()
    with TorchRunner(model) as runner:
        outputs = runner.infer({"input": images_NCHW[:batch]})
    assert list(outputs) == ["logits"]
    assert outputs["logits"].dtype == np.float32
    assert outputs["logits"].shape == (batch, CLASSES)
    np.testing.assert_array_equal(outputs["logits"], expected)


def test_puts_the_model_in_eval_mode(images_NCHW: np.ndarray) -> None:
    model = make_model("test_resnet").train()
    before = model.bn1.running_mean.clone()
    with TorchRunner(model) as runner:
        runner.infer({"input": images_NCHW})
    assert not model.training
    assert torch.equal(model.bn1.running_mean, before)


def test_runs_in_fp32_whatever_the_model_is_stored_in(images_NCHW: np.ndarray) -> None:
    model = make_model("test_resnet").half()
    with TorchRunner(model) as runner:
        assert runner.infer({"input": images_NCHW})["logits"].dtype == np.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_names_of_input_and_output(images_NCHW: np.ndarray) -> None:
    with TorchRunner(make_model("test_resnet"), input_name="image", output_name="scores") as runner:
        assert list(runner.infer({"image": images_NCHW})) == ["scores"]
        with pytest.raises(KeyError):
            runner.infer({"input": images_NCHW})


def test_records_no_graph(images_NCHW: np.ndarray) -> None:
    """Outputs are plain arrays: a gradient of them would be an error of `.numpy()`."""
    model = make_model("test_resnet").requires_grad_(True)
    with TorchRunner(model) as runner:
        runner.infer({"input": images_NCHW})
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    "make",
    [
        lambda a: a[::-1],
        lambda a: np.asfortranarray(a),
        lambda a: np.frombuffer(a.tobytes(), dtype=np.float32).reshape(a.shape),
    ],
    ids=["reversed", "fortran", "read-only"],
)
def test_any_array_is_taken_as_it_is(make, images_NCHW: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    given = make(images_NCHW)
    copy = given.copy()
    with warnings.catch_warnings(), TorchRunner(make_model("test_resnet")) as runner:
        warnings.simplefilter("error")
        found = runner.infer({"input": given})["logits"]
        expected = runner.infer({"input": np.ascontiguousarray(copy)})["logits"]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(given, copy)


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_threads_and_tf32_hold_while_it_is_open_and_are_given_back(threads: int | None) -> None:
    outside = flags()
    try:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        before = flags()
        with TorchRunner(make_model("test_resnet"), threads=threads) as runner:
            assert flags() == (threads or before[0], False, False)
            assert runner.facts.threads == (threads or before[0])
        assert flags() == before
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = outside[1:]


def test_an_error_inside_gives_them_back_too() -> None:
    before = flags()
    with pytest.raises(ValueError, match="mine"), TorchRunner(make_model("test_resnet"), threads=2):
        raise ValueError("mine")
    assert flags() == before


def test_it_can_be_opened_again(images_NCHW: np.ndarray) -> None:
    runner = TorchRunner(make_model("test_resnet"), threads=2)
    before = flags()
    results = []
    for _ in range(2):
        with runner:
            results.append(runner.infer({"input": images_NCHW})["logits"])
        assert flags() == before
    np.testing.assert_array_equal(*results)


def test_name_and_facts() -> None:
    runner = TorchRunner(make_model("test_resnet"), threads=3)
    assert runner.name == "torch:cpu:fp32"
    assert runner.facts == RunnerFacts("torch", torch.__version__, "cpu", "fp32", threads=3, tf32=False)


def test_it_is_a_runner(images_NCHW: np.ndarray) -> None:
    """Every member of the protocol, with its parameters and types; and what is written for it takes it."""
    for name, wanted in vars(Runner).items():
        if name.startswith("_") and name not in ("__enter__", "__exit__"):
            continue
        found = inspect.getattr_static(TorchRunner, name)
        assert isinstance(found, property) == isinstance(wanted, property), name
        if not isinstance(wanted, property):
            assert list(inspect.signature(found).parameters) == list(inspect.signature(wanted).parameters), name
            if name == "infer":
                assert get_type_hints(found) == get_type_hints(wanted)
    opened: Runner
    with TorchRunner(make_model("test_resnet")) as opened:
        assert logits_of(opened, images_NCHW, batch=2).shape == (5, CLASSES)
        parity = compare_runners(opened, opened, images_NCHW, batch=3)
    assert (parity.max_abs, parity.top1_agreement, parity.images) == (0.0, 1.0, 5)


class ChannelMeans(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)).double()


def test_other_float_types_come_out_as_fp32(images_NCHW: np.ndarray) -> None:
    with TorchRunner(ChannelMeans()) as runner:
        found = runner.infer({"input": images_NCHW})["logits"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, images_NCHW.mean(axis=(2, 3)), rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
def test_equals_the_cpu_on_the_gpu(images_NCHW: np.ndarray) -> None:
    with TorchRunner(make_model("test_resnet")) as runner:
        expected = runner.infer({"input": images_NCHW})["logits"]
    with TorchRunner(make_model("test_resnet"), device="cuda") as runner:
        found = runner.infer({"input": images_NCHW})["logits"]
        assert runner.name == "torch:cuda:fp32"
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_where_a_module_can_run() -> None:
    def providers(*names: str) -> list[str]:
        return [one.name.provider for one in find_torch(nn.Identity(), make_spec(), names)]

    assert providers("auto", "cpu", "auto") == ["cpu"]
    assert providers("tensorrt", "cpu") == ["cpu"]
    assert providers("tensorrt") == []
    with pytest.raises(EnvironmentProblem, match=r"benchmark\.providers"):
        providers("cpu", "cuda")


def test_a_module_is_in_fp32_without_a_file() -> None:
    (loader,) = find_torch(nn.Identity(), make_spec(), ["cpu"])
    assert (loader.name, loader.size_mb) == ("torch:cpu:fp32", None)
    with loader.open([4], threads=2) as runner:
        assert runner.name == loader.name
        assert runner.facts.threads == 2
