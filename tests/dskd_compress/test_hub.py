"""What lies on the Hub is what timm loads; who asks without a right, or without a network, is told."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hub_support import Hub, hub_on_loopback
from huggingface_hub import ModelCard
from run_support import Finished

from dskd_compress.cli import main
from dskd_compress.hub import check_repository, hub_folder, list_files
from dskd_compress.timm_import import import_timm
from dskd_compress.weights import load_trained
from dskd_export.errors import UsageError

NAME = "me/bolts"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_on_loopback() as running:
        yield running


class Push:
    """Runs push-to-hub in this process, where the client has read the address of the real Hub already."""

    def __init__(self, finished: Finished, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.finished, self.capsys, self.patch = finished, capsys, patch

    def __call__(self, hub: Hub, token: str, *flags: str) -> tuple[int, str, str]:
        self.patch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        self.patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        self.patch.setenv("HF_TOKEN", token)
        code = main(["push-to-hub", str(self.finished.folder.path), "--repo", NAME, *flags])
        return code, *self.capsys.readouterr()


@pytest.fixture
def push(finished: Finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Push:
    return Push(finished, capsys, monkeypatch)


def push_as_program(finished: Finished, hub: Hub, token: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """In a separate process: the client reads the address of the Hub when it is imported."""
    return subprocess.run(
        [sys.executable, "-m", "dskd_compress", "push-to-hub", str(finished.folder.path), "--repo", NAME, *flags],
        env={
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",  # the hub is of this process
        },
        capture_output=True,
        text=True,
    )


def test_timm_loads_the_folder_and_gives_the_same_logits(finished: Finished) -> None:
    student, info = load_trained(finished.folder / "student.safetensors")
    images = torch.randn(3, *info.input_size, generator=torch.Generator().manual_seed(0))
    timm = import_timm()
    with hub_folder(finished.folder, NAME) as made:
        loaded = timm.create_model(f"local-dir:{made}", pretrained=True).eval()
        config = timm.data.resolve_model_data_config(loaded)
    with torch.inference_mode():
        np.testing.assert_array_equal(loaded(images).numpy(), student(images).numpy())
    assert config["input_size"] == info.input_size
    assert tuple(config["mean"]) == info.mean
    assert tuple(config["std"]) == info.std
    assert (config["interpolation"], config["crop_pct"], config["crop_mode"]) == (
        info.interpolation,
        info.crop_pct,
        info.crop_mode,
    )
    assert loaded.pretrained_cfg["label_names"] == list(info.classes)


def test_the_bundle_and_the_report_come_along_and_no_pickle(finished: Finished) -> None:
    with hub_folder(finished.folder, NAME) as made:
        names = {file.name for file in list_files(made)}
        assert (made / "bundle" / "manifest.json").read_bytes() == (
            finished.folder.bundle / "manifest.json"
        ).read_bytes()
    assert {"README.md", "config.json", "model.safetensors", "report.html", "bundle/model.fp32.onnx"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert not made.exists()


def test_the_hub_reads_the_card(finished: Finished) -> None:
    with hub_folder(finished.folder, NAME) as made:
        card = ModelCard((made / "README.md").read_text(encoding="utf-8"))
    assert card.data.library_name == "timm"
    assert card.data.pipeline_tag == "image-classification"
    distilled = json.loads((finished.folder / "distill.json").read_text())["best"]["top1"]["value"]
    assert card.data.eval_results is not None
    assert card.data.eval_results[0].metric_value == pytest.approx(distilled, abs=1e-4)


def test_a_commit_with_all_of_it(finished: Finished, hub: Hub) -> None:
    done = push_as_program(finished, hub, hub.token, "--private", "--message", "First", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["url"].endswith("/me/bolts/commit/0123")
    assert hub.created[0]["visibility"] == "private"
    assert hub.messages == ["First"]
    assert {file["name"]: file["sha256"] for file in document["files"]} == {
        name: hashlib.sha256(content).hexdigest() for name, content in hub.files.items()
    }


def test_a_dry_run_asks_nothing_of_the_hub(push: Push, hub: Hub) -> None:
    code, stdout, stderr = push(hub, hub.token, "--dry-run")
    assert code == 0, stderr
    assert "Nothing was uploaded." in stdout
    assert "model.safetensors" in stdout
    assert "# me/bolts" in stdout
    assert (hub.created, hub.files) == ([], {})


def test_a_wrong_token_is_one_line(push: Push, hub: Hub) -> None:
    code, _, stderr = push(hub, "wrong")
    assert code == 4
    assert "error: The Hub refuses me/bolts: " in stderr
    assert "hf auth login" in stderr
    assert "Traceback" not in stderr


def test_no_hub_is_one_line(push: Push) -> None:
    with hub_on_loopback() as gone:
        pass
    code, _, stderr = push(gone, "right")
    assert code == 4
    assert "error: The Hub cannot be reached: " in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("name", ["bolts", "a/b/c", "me/bo lts", "me/-bolts", "../../etc"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(UsageError, match="OWNER/NAME"):
        check_repository(name)


def test_a_run_without_a_student(tmp_path: Path, capsys: pytest.CaptureFixture[str], finished: Finished) -> None:
    recipe = yaml.safe_load((finished.folder / "recipe.yaml").read_text())
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["push-to-hub", str(tmp_path), "--repo", NAME, "--dry-run"]) == 3
    assert "dskd-compress distill" in capsys.readouterr().err
