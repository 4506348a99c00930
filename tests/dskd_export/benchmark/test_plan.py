from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import bundle_support
import pytest

from dskd_export.benchmark.plan import BenchmarkPlan, plan_benchmark
from dskd_export.bundle import Bundle, open_bundle, write_bundle
from dskd_export.documents.runner_name import RunnerName
from dskd_export.errors import EnvironmentProblem, UsageError
from dskd_export.runtime.loader import Loader
from dskd_export.runtime.runner import Runner
from dskd_export.settings import BenchmarkSettings


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """fp32 and int8 in one file each, fp16 with its weights in a second file."""
    write_bundle(tmp_path / "bundle", **bundle_support.bundle_arguments())
    return open_bundle(tmp_path / "bundle")


def plan(bundle: Bundle, **settings: object) -> BenchmarkPlan:
    return plan_benchmark(bundle, BenchmarkSettings(**settings), bundle.folder / "engines")  # type: ignore[arg-type]


def test_the_size_counts_the_weights_file(bundle: Bundle) -> None:
    sizes = {loader.name.precision: loader.size_mb for _, loader in plan(bundle, providers=["cpu"]).models}
    files = [bundle.folder / name for name in ("model.fp16.onnx", "model.fp16.onnx.data")]
    assert list(sizes) == ["fp32", "fp16", "int8"]
    assert sizes["fp16"] == pytest.approx(sum(file.stat().st_size for file in files) / 1e6)
    assert files[1].stat().st_size > 0


def test_cells_in_order_and_all_of_them(bundle: Bundle) -> None:
    made = plan(bundle, providers=["cpu"], batches=[1, 4], threads=[1, 2], precisions=["int8", "fp32"])
    cells = made.cells(made.settings.batches)
    assert [(cell.precision, cell.batch, cell.threads) for cell in cells] == [
        (precision, batch, threads) for precision in ("int8", "fp32") for batch in (1, 4) for threads in (1, 2)
    ]
    assert {(cell.role, cell.runner, cell.provider, cell.required) for cell in cells} == {
        ("student", "onnxruntime", "cpu", True)
    }
    assert len({cell.key for cell in cells}) == len(cells)


def test_scenarios_decide_the_images_and_steps(bundle: Bundle) -> None:
    made = plan(bundle, providers=["cpu"], batches=[1, 4], scenarios=["all"], precisions=["fp32"])
    assert made.max_batch == 8  # of MultiStream
    assert made.steps == 2 * 2 + 4
    assert plan(bundle, providers=["cpu"], batches=[1, 16], precisions=["fp32"]).max_batch == 16


class TorchLoader(Loader):
    def open(self, batches: Sequence[int], *, threads: int | None = None, streams: int = 1) -> Runner:
        raise AssertionError("a plan opens no model")


def test_runners_from_above_come_first(bundle: Bundle) -> None:
    settings = BenchmarkSettings(providers=("cpu",), precisions=("fp32",))
    torch_loader = TorchLoader(name=RunnerName("torch:cpu:fp32"), spec=bundle.spec)
    made = plan_benchmark(bundle, settings, bundle.folder / "engines", {"torch": lambda *_: [torch_loader]})
    cells = made.cells([1])
    assert [(cell.role, cell.runner, cell.size_mb) for cell in cells] == [
        ("student", "torch", None),
        ("student", "onnxruntime", bundle.model_mb("fp32")),
    ]


def test_what_a_bundle_lacks(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="no model of precision bf16"):
        plan(bundle, precisions=["bf16"])
    with pytest.raises(UsageError, match="bf16"):  # also where only engines are timed
        plan(bundle, precisions=["bf16"], runners=["tensorrt"])
    with pytest.raises(UsageError, match=r"benchmark\.runners"):
        plan(bundle, runners=["torch"])
    with pytest.raises(EnvironmentProblem, match="none was built"):
        plan(bundle, runners=["tensorrt"])
