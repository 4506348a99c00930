"""The base install on aarch64, as on a Jetson: real wheels and a real Python of that machine, under qemu-user.

Slow, and by hand: it fetches packages. It needs `qemu-aarch64-static` (Debian: qemu-user-static), and the
packages of Debian's arm64 (`dpkg --add-architecture arm64 && apt-get update`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from device_support import make_device_bundle
from readme_blocks import ROOT

pytestmark = pytest.mark.slow

QEMU = shutil.which("qemu-aarch64-static")
ONNXRUNTIME = "onnxruntime==1.24.4"
PYTHON = "3.11"
PACKAGES = tuple(
    f"{name}:arm64"
    for name in (
        *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libssl3", "zlib1g"),
        *("libexpat1", "libffi8", "libbz2-1.0", "liblzma5", "libsqlite3-0", "libuuid1", "libgcc-s1", "libstdc++6"),
        "libcrypt1",
    )
)
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux2014_aarch64", "manylinux_2_17_aarch64")
QUICK = ("--set", "benchmark.min_seconds=0.001", "--set", "benchmark.max_warmup_seconds=0.01", "--batch", "1")


def succeed(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an aarch64 root, the wheels of the base install and of ONNX Runtime unpacked, and a bundle."""
    if QEMU is None:
        pytest.skip("no qemu-aarch64-static: apt-get install qemu-user-static")
    folder = tmp_path_factory.mktemp("aarch64")
    (folder / "debs").mkdir()
    succeed(["apt-get", "download", *PACKAGES], folder / "debs")
    for package in (folder / "debs").glob("*.deb"):
        succeed(["dpkg", "-x", str(package), "root"], folder)
    succeed(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)], folder
    )
    (wheel,) = folder.glob("dskd_compress-*.whl")
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    succeed(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", *platforms),
            *("--python-version", PYTHON, "--implementation", "cp", "--dest", "wheels", str(wheel), ONNXRUNTIME),
        ],
        folder,
    )
    for path in (folder / "wheels").glob("*.whl"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder / "site")
    make_device_bundle(folder)
    return folder


def run(machine: Path, *arguments: str) -> str:
    assert QEMU is not None
    python = machine / f"root/usr/bin/python{PYTHON}"
    emulated = [QEMU, "-L", str(machine / "root"), "-E", f"PYTHONPATH={machine / 'site'}", str(python)]
    return succeed([*emulated, *arguments], machine)


def test_the_wheels_are_small(machine: Path) -> None:
    base = [path for path in (machine / "wheels").glob("*.whl") if not path.name.startswith("onnxruntime")]
    size_mb = sum(path.stat().st_size for path in base) / 1e6
    print(f"base wheels for aarch64: {size_mb:.2f} MB")
    assert size_mb < 40


def test_a_bundle_is_verified_validated_timed_and_reported(machine: Path) -> None:
    assert "is valid" in run(machine, "-m", "dskd_compress", "bundle", "verify", "bundle")
    limits = ("--set", "budget.int8.top1_drop=0.5", "--set", "budget.int8.agreement=0.5")
    out = run(
        *(machine, "-m", "dskd_compress", "validate", "bundle", "--images", "photos", "--out", "out", "--json"),
        *limits,
    )
    document = json.loads(out.splitlines()[-1])
    assert document["passed"] is True
    assert "aarch64" in document["provenance"]["device"]["platform"]
    assert document["provenance"]["versions"]["onnxruntime"] == ONNXRUNTIME.rpartition("=")[2]
    assert {one["verdict"] for one in document["judgements"]} == {"PASS"}
    timed = json.loads(
        run(machine, "-m", "dskd_compress", "benchmark", "bundle", "--out", "out", "--json", *QUICK).splitlines()[
            -1
        ]
    )
    assert len([row for row in timed["rows"] if row["latency"]]) == 4
    run(machine, "-m", "dskd_compress", "report", "out")
    assert "onnxruntime:cpu:int8" in (machine / "out/report.md").read_text(encoding="utf-8")


def test_logits_are_those_of_this_machine(machine: Path) -> None:
    """Other vector units round otherwise; the classes and, closely, the logits are the same."""
    script = (
        "import json, sys; from pathlib import Path\n"
        "from dskd_export.bundle import open_bundle\n"
        "from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner\n"
        "bundle = open_bundle(Path('bundle'))\n"
        "with OnnxRuntimeRunner(bundle.model('fp32'), threads=1) as runner:\n"
        "    logits = runner.infer({bundle.spec.input_name: bundle.golden().input})['logits']\n"
        "print(json.dumps(logits.tolist()))\n"
    )
    import numpy as np

    from dskd_export.bundle import open_bundle

    logits = np.array(json.loads(run(machine, "-c", script).splitlines()[-1]))
    golden = open_bundle(machine / "bundle").golden()
    assert np.abs(logits - golden.logits).max() <= 1e-5 * np.abs(golden.logits).max()
