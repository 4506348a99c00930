"""An edge install: the base dependencies and ONNX Runtime, and nothing else that could be imported."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from device_support import make_device_bundle
from packaging.requirements import Requirement
from readme_blocks import ROOT

LARGEST_MB = 40.0
"""Of all base wheels together, 1 MB = 10^6 bytes."""

TRAINING_ONLY = ("torch", "timm", "torchvision", "safetensors", "sklearn", "onnx", "onnxscript", "modelopt")
QUICK = [
    word
    for change in ("min_seconds=0.001", "min_iterations=10", "max_warmup_seconds=0.01")
    for word in ("--set", f"benchmark.{change}")
]


def needed(*names: str) -> dict[str, importlib.metadata.Distribution]:
    """Distributions with all that they need, as they are installed here."""
    found: dict[str, importlib.metadata.Distribution] = {}
    queue = list(names)
    while queue:
        name = queue.pop().lower().replace("_", "-")
        if name in found:
            continue
        found[name] = importlib.metadata.distribution(name)
        for text in found[name].requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                queue.append(requirement.name)
    return found


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment `.venv` of the base install and ONNX Runtime, a bundle and photos.

    The packages are those that are installed here, linked one by one: it needs no network.
    """
    folder = tmp_path_factory.mktemp("device")
    make_device_bundle(folder)
    venv.create(folder / ".venv", with_pip=False, symlinks=True)
    (site,) = (folder / ".venv").glob("lib/python3*/site-packages")
    base = [
        Requirement(text).name
        for text in importlib.metadata.requires("dskd-compress") or []
        if "extra ==" not in text
    ]
    assert len(base) == 7
    for distribution in needed(*base, "onnxruntime").values():
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            place = site / top
            if not place.exists():
                place.symlink_to(Path(str(distribution.locate_file(top))))
    (site / "dskd.pth").write_text(f"{ROOT}\n{ROOT / 'export'}\n", encoding="utf-8")
    return folder


def run(device: Path, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """The environment's own Python, that hears of nothing else."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [str(device / ".venv/bin/python"), *arguments],
        cwd=device,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"},
    )


def command(device: Path, *arguments: str) -> str:
    """A command line that has to succeed; what it says."""
    done = run(device, "-m", "dskd_compress", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_commands(device: Path) -> None:
    """What the edge install has to do, one after the other."""
    finder = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    assert run(device, "-c", finder, *TRAINING_ONLY, "numpy").stdout.strip() == "['numpy']"
    findings = json.loads(command(device, "doctor", "--for", "benchmark", "--json").splitlines()[-1])["findings"]
    assert {one["code"] for one in findings} >= {"DSKD-W111", "DSKD-W113", "DSKD-I123", "DSKD-I124"}
    assert "is valid" in command(device, "bundle", "verify", "bundle")
    command(device, "bundle", "pack", "bundle", "--out", "r18.tar.gz")
    validated = json.loads(
        command(
            *(device, "validate", "r18.tar.gz", "--images", "photos", "--out", "results/here", "--json"),
            *("--set", "budget.int8.top1_drop=0.5", "--set", "budget.int8.agreement=0.5"),
        ).splitlines()[-1]
    )
    assert validated["passed"] is True
    assert {one["verdict"] for one in validated["judgements"]} == {"PASS"}
    assert "torch" not in validated["provenance"]["versions"]
    timed = json.loads(
        command(
            device, "benchmark", "bundle", "--batch", "1", "--out", "results/here", *QUICK, "--json"
        ).splitlines()[-1]
    )
    assert len(timed["rows"]) == 4
    command(device, "report", "results/here")
    assert "onnxruntime:cpu:int8" in (device / "results/here/report.md").read_text(encoding="utf-8")
    # What needs torch says so, and how to get it.
    lost = run(
        device, "-m", "dskd_compress", "train", "digits/resnet18-to-mobilenetv3_small_050", "--out", "runs/x"
    )
    assert lost.returncode == 4
    assert "pip install 'dskd-compress[train]'" in lost.stderr


def test_the_base_install_does_all_that_a_device_needs(device: Path) -> None:
    check_commands(device)


@pytest.mark.slow
def test_a_fresh_environment_from_wheels_and_their_size(tmp_path: Path) -> None:
    """The same with pip, from a wheel of this checkout; needs a package index."""

    def pip(*arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check", "--quiet"],
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    wheels = tmp_path / "wheels"
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(ROOT))
    (own,) = wheels.glob("dskd_compress-*.whl")
    constraints = str(ROOT / "constraints.txt")
    pip("download", "--dest", str(wheels), "--only-binary=:all:", "--constraint", constraints, str(own))
    sizes = {path.name: path.stat().st_size / 1e6 for path in wheels.glob("*.whl")}
    for name, megabytes in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"{megabytes:8.2f} MB  {name}")
    total = sum(sizes.values())
    print(f"{total:8.2f} MB  in all, {LARGEST_MB:g} MB are allowed")
    assert total <= LARGEST_MB
    venv.create(tmp_path / ".venv", with_pip=True)
    install = ("-m", "pip", "install", "--quiet", "--constraint", constraints, str(own), "onnxruntime")
    done = run(tmp_path, *install, timeout_s=900)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "made"
    make_device_bundle(made)
    for name in ("bundle", "photos"):
        shutil.move(made / name, tmp_path / name)
    check_commands(tmp_path)
