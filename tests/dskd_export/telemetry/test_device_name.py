from __future__ import annotations

import re

import pytest

from dskd_export.telemetry import host as naming
from dskd_export.telemetry.host import device_name, folder_name


@pytest.mark.parametrize("name", ["Orin (nvgpu)", "NVIDIA RTX 4000 Ada", "..", "a/b", ""])
def test_a_device_is_a_harmless_folder(name):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", folder_name(name))


@pytest.mark.parametrize(
    ("board", "gpus", "expected"),
    [
        ("NVIDIA Jetson Orin Nano", ("Orin (nvgpu)",), "nvidia-jetson-orin-nano"),
        (None, ("NVIDIA RTX 4000 Ada",), "nvidia-rtx-4000-ada"),
        (None, (), folder_name(naming.host_facts().cpu)),
    ],
)
def test_results_and_engines_lie_in_folders_of_one_name(
    board: str | None, gpus: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "board", lambda: board)
    monkeypatch.setattr(naming, "cuda_devices", lambda: gpus)
    assert device_name() == expected
    assert device_name(gpus[0] if gpus else None) == expected, "as the engines of this GPU"


def test_the_second_gpu_has_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "board", lambda: None)
    monkeypatch.setattr(naming, "cuda_devices", lambda: ("First", "Second"))
    assert (device_name(), device_name("Second")) == ("first", "second")
