"""Real engines of student families by TensorRT-RTX, built where there is no GPU."""

from __future__ import annotations

import importlib.util
import json

import pytest
from engine_contract import ROOT

RESULTS = ROOT / "benchmarks/sweep/results/engines.json"
FAMILIES = 8
# A plain CNN, a mobile one with depthwise convolutions, and a transformer; `slow` builds every family.
FEW = ("resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224")
PRECISIONS = {"fp32", "fp16", "bf16", "int8"}

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed"
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    from engine_families import build_in_another_process

    return build_in_another_process(tmp_path_factory.mktemp("engines"), "--families", ",".join(FEW))


def check(rows, least=FAMILIES):
    families = {row["family"] for row in rows}
    assert len(families) >= least
    assert {(row["family"], row["precision"]) for row in rows} == {
        (family, precision) for family in families for precision in PRECISIONS
    }
    by_name = {(row["family"], row["precision"]): row for row in rows}
    for family in families:
        fp32, fp16, bf16, int8 = (by_name[family, name] for name in ("fp32", "fp16", "bf16", "int8"))
        assert set(fp32["layers"]) == {"fp32"}, "what is fp32 in the file is fp32 in the engine"
        assert fp16["layers"]["fp16"] > fp16["layers"].get("fp32", 0)
        assert bf16["layers"]["bf16"] > bf16["layers"].get("fp32", 0)
        assert int8["layers"]["int8"] > 5
        assert all(row["seconds"] > 0 for row in (fp32, fp16, bf16, int8))
    # Where the weights are most of the file, they show; small engines are mostly code, for each capability.
    sizes = [by_name["resnet18", name]["engine_mb"] for name in ("fp32", "bf16", "fp16", "int8")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < 0.55 * sizes[0]


def test_a_few_families_in_every_precision(table):
    for row in table["rows"]:
        print(f"{row['family']:24} {row['precision']:5} {row['seconds']:6.2f} s {row['engine_mb']:8.3f} MB")
    print(f"all of it: {table['seconds']} s")
    check(table["rows"], least=len(FEW))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(), ("--full",)], ids=["small", "full"])
def test_every_family(tmp_path, size):
    from engine_families import build_in_another_process

    check(build_in_another_process(tmp_path, *size)["rows"])


def test_the_committed_table_is_of_the_models_own_sizes():
    committed = json.loads(RESULTS.read_text(encoding="utf-8"))
    check(committed["rows"])
    assert committed["command"].endswith("--full")
    assert {row["input"] for row in committed["rows"]} == {32, 224}
    markdown = RESULTS.with_suffix(".md").read_text(encoding="utf-8")
    assert markdown.count("\n| ") == len(committed["rows"]) + 1
