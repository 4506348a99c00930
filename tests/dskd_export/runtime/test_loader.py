"""Loaders open nothing before they are called, and open what they are named after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from engine_machines import bundle, classifier, make_machine  # noqa: F401

from dskd_export.bundle import Bundle
from dskd_export.documents.runner_name import DeviceRunner, RunnerName
from dskd_export.engine.builder import BuildSettings, build_engine
from dskd_export.engine.document import engines_folder
from dskd_export.errors import DataError, EnvironmentProblem
from dskd_export.runtime import loader as module
from dskd_export.runtime.batches import AnyBatch
from dskd_export.runtime.loader import FINDERS, Finder, OnnxLoader, find_loaders, find_tensorrt
from dskd_export.runtime.tensorrt import TensorRtRunner
from dskd_export.settings import BenchmarkSettings, ValidateSettings


def test_a_model_is_read_when_it_is_opened(bundle: Bundle) -> None:  # noqa: F811
    reads = []

    def read() -> Path | bytes:
        reads.append(1)
        return bundle.model("fp32")

    load = OnnxLoader(name=RunnerName("onnxruntime:cpu:fp32"), spec=bundle.spec, read=read)
    assert reads == []
    for count in (1, 2):
        with load.open([1], threads=1) as runner:
            assert runner.name == load.name
            assert runner.facts.threads == 1
            assert runner.infer({"input": bundle.golden().input[:2]})["logits"].shape == (2, 7)
        assert len(reads) == count


def test_an_engine_is_read_when_it_is_opened(
    bundle: Bundle,  # noqa: F811
    make_machine,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = make_machine("tensorrt_bindings 11.4.0.106")
    path, _ = build_engine(bundle, "fp32", engines_folder(bundle.folder), BuildSettings(), run=machine.run)

    def open_here(engine: Path, **options: int) -> TensorRtRunner:
        return TensorRtRunner(engine, backend=machine.backend, cuda=machine.cuda, **options)

    monkeypatch.setattr(module, "TensorRtRunner", open_here)
    (load,) = find_tensorrt(bundle, engines_folder(bundle.folder), ValidateSettings())
    with load.open([1], streams=2) as runner:
        assert runner.name == load.name == "tensorrt:cuda:fp32"
        assert runner.facts.streams == 2
    with load.open_any_batch([1]) as any_batch:
        assert isinstance(any_batch, AnyBatch)
        assert any_batch.ranges == ((1, 1), (2, 8))
        images = np.concatenate([bundle.golden().input] * 2)
        assert any_batch.infer({"input": images[:11]})["logits"].shape == (11, 7)
    path.unlink()
    with pytest.raises(DataError, match=r"model\.fp32"):
        load.open([1])


def test_each_model_of_a_bundle_on_each_runner(bundle: Bundle) -> None:  # noqa: F811
    settings = ValidateSettings(providers=("cpu",))
    found = find_loaders(bundle, bundle.folder / "none", settings)
    assert [one.name for one in found] == ["onnxruntime:cpu:fp32", "onnxruntime:cpu:fp16"]
    assert (found[0].size_mb, found[0].file) == (bundle.model_mb("fp32"), "model.fp32.onnx")
    more: dict[str, Finder] = {"torch": lambda *_: [replace(found[0], name=RunnerName("torch:cpu:fp32"))]}
    both = BenchmarkSettings(providers=("cpu",), precisions=("fp32",))
    assert [one.name.kind for one in find_loaders(bundle, bundle.folder, both, more)] == ["torch", "onnxruntime"]
    with pytest.raises(EnvironmentProblem, match="none was built"):
        find_loaders(bundle, bundle.folder, ValidateSettings(runners=("tensorrt",)))


def test_every_name_of_a_runner_has_a_finder() -> None:
    assert set(FINDERS) == set(get_args(DeviceRunner))
