"""Loaders open nothing before they are called, and open what they are named after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_machines import bundle, classifier, make_machine  # noqa: F401

from dskd_export.bundle import Bundle
from dskd_export.engine.builder import BuildSettings, build_engine
from dskd_export.engine.document import engines_folder
from dskd_export.errors import DataError
from dskd_export.runtime import loader as module
from dskd_export.runtime.loader import EngineLoader, OnnxLoader
from dskd_export.runtime.tensorrt import TensorRtRunner


def test_a_model_is_read_when_it_is_opened(bundle: Bundle) -> None:  # noqa: F811
    reads = []

    def read() -> Path | bytes:
        reads.append(1)
        return bundle.model("fp32")

    load = OnnxLoader(read, bundle.spec, threads=1)
    assert (load.name, reads) == ("onnxruntime:cpu:fp32", [])
    for count in (1, 2):
        with load() as runner:
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
    load = EngineLoader(path, "fp32", streams=2)
    with load() as runner:
        assert runner.name == load.name == "tensorrt:cuda:fp32"
        assert runner.facts.streams == 2
    with load.open_any_batch() as any_batch:
        assert any_batch.ranges == ((1, 1), (2, 8))
        images = np.concatenate([bundle.golden().input] * 2)
        assert any_batch.infer({"input": images[:11]})["logits"].shape == (11, 7)
    missing = EngineLoader(path.with_name("model.fp16.engine"), "fp16")
    with pytest.raises(DataError, match=r"model\.fp16"):
        missing()
