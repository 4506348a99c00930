from __future__ import annotations

from pathlib import Path

import pytest
from run_support import QUIET, SMALL_STAGES, small_recipe

from dskd_compress.config import StudentSection, TeacherSection
from dskd_compress.preflight import check_run
from dskd_compress.preflight.findings import Findings
from dskd_compress.preflight.pretrained import explain_no_network, inspect_pretrained
from dskd_compress.run_folder import RunFolder
from dskd_export.errors import ModelError

HEAD = "Iface\tDestination\tGateway\tFlags\n"
DEFAULT = "eth0\t00000000\t0102000A\t0003\n"
LOOPBACK = "00000000000000000000000000000001 80 0 00 0 256 2 0 80200001       lo\n"


def system(root: Path, routes: str | None, routes6: str = LOOPBACK) -> Path:
    (root / "proc/net").mkdir(parents=True)
    if routes is not None:
        (root / "proc/net/route").write_text(routes)
        (root / "proc/net/ipv6_route").write_text(routes6)
    return root


@pytest.mark.parametrize(
    ("environment", "routes", "works"),
    [
        ({}, HEAD, False),
        ({}, HEAD + DEFAULT, True),
        ({}, None, True),
        ({"HTTPS_PROXY": "http://localhost:3128"}, HEAD, True),
        ({"HF_HUB_OFFLINE": "1"}, HEAD + DEFAULT, False),
        ({"HF_HUB_OFFLINE": "0"}, HEAD + DEFAULT, True),
    ],
)
def test_a_machine_without_a_network(
    environment: dict[str, str], routes: str | None, works: bool, tmp_path: Path
) -> None:
    assert (explain_no_network(environment, system(tmp_path, routes)) is None) == works


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub and of torch."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path


def put(cache: Path, repository: str, file: str) -> None:
    folder = cache / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "snapshots/abc" / file).write_bytes(b"weights")


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_weights_of_the_cache_are_found(file: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    section, found = TeacherSection(name="test_resnet"), Findings()
    inspect_pretrained(section, "teacher", found)
    assert [type(fault) for fault in found.faults] == [ModelError]
    assert "--teacher-checkpoint" in str(found.faults[0].hint)
    put(cache, "timm/test_resnet.r160_in1k", file)
    found = Findings()
    inspect_pretrained(section, "teacher", found)
    assert (found.faults, found.warnings) == ([], [])


@pytest.mark.usefixtures("cache")
def test_weights_that_would_be_downloaded_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dskd_compress.preflight.pretrained.explain_no_network", lambda: None)
    found = Findings()
    inspect_pretrained(StudentSection(name="hf-hub:timm/test_resnet.r160_in1k"), "student", found)
    assert found.faults == []
    (warning,) = found.warnings
    assert "--student-checkpoint" in warning


def test_weights_that_do_not_exist() -> None:
    found = Findings()
    inspect_pretrained(StudentSection(name="resnet18d.none"), "student", found)
    inspect_pretrained(StudentSection(name="cifar_resnet20"), "student", found)
    assert [type(fault) for fault in found.faults] == [ModelError]
    assert "cifar_resnet20" in found.faults[0].message


def test_a_pretrained_student_is_looked_for_before_the_teacher_is_trained(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    recipe = small_recipe("student.pretrained=true")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        check_run(recipe, RunFolder(tmp_path / "run"), SMALL_STAGES, QUIET)
