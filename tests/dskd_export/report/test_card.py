"""The model card of a whole run, and of one that lacks most of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dskd_export.errors import DataError
from dskd_export.report.card import model_card
from dskd_export.report.load import load_run


def parts(card: str) -> tuple[dict[str, object], str]:
    _, metadata, text = card.split("---\n", 2)
    return yaml.safe_load(metadata), text


def test_it_says_what_was_measured(full_run: Path) -> None:
    run = load_run(full_run)
    metadata, text = parts(model_card(run, name="me/bolts"))
    assert run.student is not None
    assert run.benchmark is not None
    assert run.validation is not None
    assert metadata["library_name"] == "timm"
    assert run.student.method in metadata["tags"]  # type: ignore[operator]
    assert 'timm.create_model("hf-hub:me/bolts"' in text
    assert text.index("**PASS**: Ship ") < text.index("## Use")
    for judgement in run.validation.judgements:
        assert f"| {judgement.precision}, ONNX Runtime, CPU, 2 threads | **PASS, best** |" in text
    assert run.student.data.sha256 in text
    (index,) = metadata["model-index"]  # type: ignore[attr-defined]
    metric = index["results"][0]["metrics"][0]
    assert metric == {"type": "accuracy", "name": "top-1", "value": 0.9778, "verified": False}
    assert metadata["metrics"] == ["accuracy"]
    assert "datasets" not in metadata
    assert "data:image" not in text
    # Nothing of the machinery: neither names of files, nor keys of the method, nor runners as we write them.
    for internal in ("validation.json", "distill.json", "lsh_weight", "onnxruntime:cpu", "torch:cpu"):
        assert internal not in text.split("## Use")[1].split("## Provenance")[0]
    assert "independently" in text
    timed = [row for row in run.benchmark.rows if row.model == "student" and row.part == "engine" and row.latency]
    assert timed
    assert text.count("steady |") + text.count("UNSTABLE") == len(timed)


def test_photos_that_were_turned_upright_are_named(full_run: Path) -> None:
    """timm's config has no key for it: who loads the model from the Hub has to do it."""
    run = load_run(full_run)
    assert run.spec is not None
    plain = model_card(run, name="bolts")
    assert "EXIF" not in plain
    applied = model_card(replace(run, spec=run.spec.model_copy(update={"exif": "apply"})), name="bolts")
    python = applied.split("```python\n")[1].split("```")[0]
    assert "ImageOps.exif_transpose" in python
    compile(python, "card", "exec")
    assert "turned upright" in applied.split("```")[2]


def test_what_is_missing_is_said(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    for name in ("validation.json", "benchmark.json"):
        (folder / name).unlink(missing_ok=True)
    for path in folder.glob("bundle/*"):
        path.unlink()
    metadata, text = parts(model_card(load_run(folder), name="bolts"))
    assert "license" not in metadata
    assert "Not validated" in text
    assert "NOT CHECKED" in text
    assert "Not measured" in text
    assert "Not recorded: the run holds no bundle." in text
    assert "bundle/" not in text
    assert "local-dir:FOLDER" in text


def test_a_data_set_of_the_hub_is_named(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    document = json.loads((folder / "distill.json").read_text())
    document["data"]["source"] = "hfds/someone/bolts"
    (folder / "distill.json").write_text(json.dumps(document))
    metadata, _ = parts(model_card(load_run(folder), name="me/bolts"))
    assert metadata["datasets"] == ["someone/bolts"]
    document["data"]["source"] = "/home/someone/private/bolts"
    (folder / "distill.json").write_text(json.dumps(document))
    _, text = parts(model_card(load_run(folder), name="me/bolts"))
    assert "/home/someone" not in text


def test_stale_results_are_a_warning(full_run: Path) -> None:
    card = model_card(load_run(full_run), name="bolts", stale=["validate"])
    assert "> **Warning:** the results of validate are stale" in card


def test_without_a_student_there_is_none(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    (folder / "distill.json").unlink()
    with pytest.raises(DataError, match=r"distill\.json"):
        model_card(load_run(folder), name="bolts")


def test_text_from_a_run_cannot_break_out_of_a_table(full_run: Path) -> None:
    _, text = parts(model_card(load_run(full_run), name="me/a|b\n# heading"))
    assert "\n# heading" not in text
