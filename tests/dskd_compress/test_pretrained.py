"""timm's pretrained weights from a cache made here; the network is switched off in all tests."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from safetensors.torch import save_file
from support import make_model
from torch import nn

from dskd_compress import pretrained
from dskd_compress.config import ModelSection, TeacherSection
from dskd_compress.models import create_model, state_sha256
from dskd_compress.timm_import import import_timm
from dskd_export.errors import ModelError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The model whose weights and configuration lie in the local cache as those of test_resnet."""
    from huggingface_hub import constants
    from timm.models._hub import save_config_for_hf

    repository = tmp_path / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    model = import_timm().create_model("test_resnet")
    save_file(model.state_dict(), snapshot / "model.safetensors")
    save_config_for_hf(model, snapshot / "config.json")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return model


@pytest.mark.parametrize("name", ["test_resnet", "test_resnet.r160_in1k", "hf-hub:timm/test_resnet.r160_in1k"])
def test_cached_weights_need_no_network(name: str, cached: nn.Module) -> None:
    loaded = create_model(ModelSection(name=name), num_classes=None, input_size=None)
    assert state_sha256(loaded) == state_sha256(cached)
    bare = create_model(ModelSection(name=name, pretrained=False), num_classes=None, input_size=None)
    assert state_sha256(bare) != state_sha256(cached)


def test_without_a_network_the_answer_is_fast_and_names_the_cure() -> None:
    begin = time.monotonic()
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE") as caught:
        create_model(ModelSection(name="resnet18"), num_classes=None, input_size=None)
    assert time.monotonic() - begin < 30, "huggingface_hub alone repeats for longer"
    assert "--student-checkpoint FILE" in str(caught.value.hint)
    ready = TeacherSection.model_validate({"name": "resnet18"})
    with pytest.raises(ModelError) as caught:
        create_model(ready, num_classes=None, input_size=None)
    assert "--teacher-checkpoint FILE" in str(caught.value.hint)
    assert "pretrained=false" not in str(caught.value.hint), "a ready teacher of random weights teaches nothing"


def test_a_host_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reserved address, or a proxy of the machine that refuses: either way one request."""
    asked: list[str] = []

    class Silent:
        def head(self, url: str, timeout: float) -> None:
            asked.append(url)
            raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.get_session", Silent)
    monkeypatch.setattr(pretrained, "is_offline", lambda: False)
    with pytest.raises(ModelError, match=r"cannot be reached .Name or service not known"):
        create_model(ModelSection(name="resnet18"), num_classes=None, input_size=None)
    assert len(asked) == 1


@pytest.mark.parametrize("name", ["cifar_resnet8", "test_efficientnet.nobody"])
def test_weights_that_do_not_exist_ask_nobody(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "_require_network", lambda url: pytest.fail(f"asked {url}"))
    with pytest.raises(ModelError, match=r"no (pretrained )?weights"):
        create_model(ModelSection(name=name), num_classes=None, input_size=None)


def test_own_weights_in_the_arguments_stay(tmp_path: Path) -> None:
    model = make_model("test_resnet", seed=3)
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    overlay = {"file": str(tmp_path / "own.safetensors"), "num_classes": 10}
    section = ModelSection(name="test_resnet", kwargs={"pretrained_cfg_overlay": overlay, "num_classes": 10})
    assert state_sha256(create_model(section, num_classes=None, input_size=None)) == state_sha256(model)
