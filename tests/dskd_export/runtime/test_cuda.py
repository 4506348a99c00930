from __future__ import annotations

import importlib.util
import inspect
import re

import numpy as np
import pytest
from fake_cuda import FakeCuda

from dskd_export.engine.device import find_gpu, index_of
from dskd_export.engine.document import GpuFacts
from dskd_export.errors import EnvironmentProblem, MissingExtra, UsageError
from dskd_export.runtime import cuda
from dskd_export.runtime.cuda import Cuda, array_at, import_bindings

installed = importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.bindings") is not None
needs_bindings = pytest.mark.skipif(not installed, reason="cuda-bindings is not installed")


@needs_bindings
def test_every_call_exists_in_the_real_bindings():
    module = import_bindings()
    called = set(re.findall(r'"(cuda[A-Z]\w+)"', inspect.getsource(Cuda)))
    named = set(re.findall(r"self\._cuda\.(\w+)", inspect.getsource(Cuda)))
    assert len(called) > 12
    assert all(hasattr(module, name) for name in called | named)
    assert all(hasattr(FakeCuda, name) for name in called | named), "and the stand-in has no others"
    assert hasattr(module.cudaMemcpyKind, "cudaMemcpyHostToDevice")
    assert hasattr(module.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")


@needs_bindings
@pytest.mark.skipif(find_gpu() is not None, reason="there is a GPU")
def test_without_a_gpu_the_error_has_cudas_name():
    with pytest.raises(EnvironmentProblem, match=r"cudaSetDevice .*cudaError\w+|CUDA cannot be used"):
        Cuda()


def test_without_bindings(monkeypatch):
    monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="cuda-bindings") as caught:
        import_bindings()
    assert "dskd-compress[tensorrt]" in caught.value.hint


def test_a_library_that_the_bindings_do_not_find():
    class Broken:
        def cudaSetDevice(self, device):
            raise RuntimeError("Failed to dlopen libcudart.so.13\nmore")

    with pytest.raises(EnvironmentProblem, match=r"CUDA cannot be used: Failed to dlopen libcudart\.so\.13\."):
        Cuda(module=Broken())


def test_copies_wait_for_the_stream():
    fake = FakeCuda()
    device = Cuda(module=fake)
    stream, memory, host = device.make_stream(), device.allocate(16), device.allocate_pinned(16)
    array_at(host, 16)[:] = range(16)
    device.copy_in(memory, host, 16, stream)
    array_at(host, 16)[:] = 0
    device.copy_out(host, memory, 16, stream)
    assert list(array_at(host, 16)) == [0] * 16
    device.wait(stream)
    assert list(array_at(host, 16)) == [0] * 16, "the copy read what was there when it ran"
    assert fake.cudaMemGetInfo()[1] == fake.memory_bytes - 16
    for release, what in (
        (device.release, memory),
        (device.release_pinned, host),
        (device.destroy_stream, stream),
    ):
        release(what)
    assert fake.is_clean
    with pytest.raises(EnvironmentProblem, match="cudaFree failed with cudaErrorInvalidValue"):
        device.release(memory)


def test_a_recording_that_fails_leaves_the_stream_usable():
    fake = FakeCuda()
    device = Cuda(module=fake)
    stream = device.make_stream()
    device.begin_capture(stream)
    device.abort_capture(stream)
    device.wait(stream)
    assert not fake.recording


def test_pinned_memory_is_seen_in_place():
    values = np.arange(8, dtype=np.uint8)
    seen = array_at(values.ctypes.data, 8)
    seen[0] = 9
    assert values[0] == 9


@pytest.mark.parametrize(("device", "index"), [("auto", 0), ("cuda", 0), ("cuda:3", 3)])
def test_names_of_devices(device, index):
    assert index_of(device) == index


@pytest.mark.parametrize("device", ["cpu", "gpu", "cuda:", "cuda:x", "1", ""])
def test_names_that_are_no_devices(device):
    with pytest.raises(UsageError) as caught:
        index_of(device)
    assert "--device" in caught.value.hint


def test_a_driver_that_is_not_there():
    assert find_gpu(0, "libthere_is_no_such_driver.so") is None


def test_a_target_is_named_by_its_capability():
    assert GpuFacts(name="x", compute_capability="12.0", memory_mb=0, driver=None, cuda="13.0").target == "sm120"
