from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from pydantic import ValidationError

from dskd_export.doctor import PACKAGES, Finding, diagnose, machine, ort
from dskd_export.doctor.ort import check_onnxruntime
from dskd_export.doctor.packages import check_packages, check_torchvision, read_minimums

REPOSITORY = Path(__file__).resolve().parents[3]


def by_number(findings: Iterable[Finding]) -> dict[int, Finding]:
    return {int(finding.code[-3:]): finding for finding in findings}


@pytest.fixture(scope="module")
def here() -> dict[int, Finding]:
    findings = diagnose()
    assert len(by_number(findings)) == len(findings)
    return by_number(findings)


@pytest.fixture
def versions(monkeypatch):
    """Pretend what is installed: name -> version, None for not at all."""
    real = importlib.metadata.version

    def pretend(**changes: str | None) -> None:
        def version(name: str) -> str:
            key = name.replace("-", "_")
            if key not in changes:
                return real(name)
            found = changes[key]
            if found is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr(importlib.metadata, "version", version)

    return pretend


def test_every_check_reports_once_and_codes_fit_levels(here):
    for finding in here.values():
        assert finding.code[5] == {"ok": "I", "warning": "W", "error": "E"}[finding.level]
        assert (finding.cure is None) == (finding.level == "ok")
    assert {100, 124, 201, 202, 301, 302, 303} | {package.code.number for package in PACKAGES} <= set(here)


def test_this_machine_is_ready_for_its_own_tests(here):
    assert [finding for finding in here.values() if finding.level == "error"] == []
    assert importlib.metadata.version("numpy") in here[101].what
    assert here[124].what.endswith("providers that run: cpu") or "cuda" in here[124].what


def test_package_table_agrees_with_the_distribution():
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    minimums = read_minimums()
    for package in PACKAGES:
        match = re.search(rf'"{re.escape(package.name)}>=([0-9.]+)"', text, flags=re.IGNORECASE)
        assert match is not None, package.name
        assert minimums[package.name] == match.group(1), package.name
    base = re.search(r"^dependencies = \[(.*?)^\]", text, flags=re.MULTILINE | re.DOTALL)
    assert base is not None
    assert len(re.findall(r'">?', base.group(1))) // 2 == sum(None in package.needed_for for package in PACKAGES)


@pytest.mark.parametrize(
    ("purpose", "level"), [(None, "warning"), ("train", "error"), ("export", "error"), ("benchmark", "warning")]
)
def test_torch_is_required_where_it_is_needed(versions, purpose, level):
    versions(torch=None)
    finding = by_number(check_packages(purpose))[111]
    assert (finding.level, finding.what) == (level, "torch is not installed")
    assert "pip install --upgrade 'dskd-compress[train]'" in finding.cure


@pytest.mark.parametrize(("purpose", "level"), [("train", "warning"), ("export", "error"), ("benchmark", "error")])
def test_onnxruntime_is_required_where_it_is_needed(versions, purpose, level):
    versions(onnxruntime=None, onnxruntime_gpu=None)
    assert by_number(check_packages(purpose))[123].level == level
    versions(onnxruntime=None, onnxruntime_gpu="1.31.1")
    assert by_number(check_packages(purpose))[123].level == "ok"


def test_without_metadata_only_a_missing_package_is_a_problem(versions, monkeypatch):
    def requires(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    versions(timm="0.1", onnx=None)
    found = {finding.code[-3:]: finding.level for finding in check_packages("export")}
    assert (found["113"], found["121"]) == ("ok", "error")


@pytest.mark.parametrize("name", ["pydantic", "typer", "rich"])
def test_no_title_says_missing_where_doctor_does_not_start_without_the_package(name):
    script = (
        f"import sys\nsys.modules[{name!r}] = None\nfrom dskd_compress.cli import main\nsys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert done.returncode != 0
    (code,) = [package.code for package in PACKAGES if package.name == name]
    assert "missing" not in code.title


def test_base_packages_are_always_required(versions):
    versions(jinja2=None)
    assert by_number(check_packages(None))[107].code == "DSKD-E107"


@pytest.mark.parametrize(
    ("version", "level"),
    [("1.0.31", "ok"), ("1.0.30", "error"), ("1.1", "ok"), ("1.0.31.dev0", "ok"), ("2", "ok")],
)
def test_old_versions(versions, version, level):
    versions(timm=version)
    finding = by_number(check_packages("train"))[113]
    assert finding.level == level
    assert version in finding.what


@pytest.mark.parametrize(
    ("torch", "pin", "level"),
    [
        ("2.13.0+cpu", "torch==2.13.0", "ok"),
        ("2.13.0", "torch (==2.13.0)", "ok"),
        ("2.12.0", "torch==2.13.0", "warning"),
    ],
)
def test_torch_and_torchvision_belong_together(versions, monkeypatch, torch, pin, level):
    versions(torch=torch, torchvision="0.28.0")
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["numpy", pin])
    finding = by_number(check_torchvision())[116]
    assert finding.level == level
    if level == "warning":
        assert "torch 2.13.0" in finding.what


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("raise ImportError('libonnx.so: no such file')", "libonnx.so: no such file"),
        ("import os; os.abort()", "exit code -6"),
    ],
)
def test_onnxruntime_that_does_not_import(monkeypatch, script, said):
    """Also one that takes its process down does not take the doctor down."""
    monkeypatch.setattr(ort, "IMPORT", script)
    finding = by_number(check_onnxruntime("benchmark", None, ()))[124]
    assert finding.code == "DSKD-E124"
    assert said in finding.what
    assert by_number(check_onnxruntime("train", None, ()))[124].level == "warning"


def test_onnxruntime_that_hangs(monkeypatch):
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("python", 120)

    monkeypatch.setattr(ort.run_script.__globals__["subprocess"], "run", hang)
    assert "120 s" in by_number(check_onnxruntime("benchmark", None, ()))[124].what


def test_folder_that_is_not_there(tmp_path):
    folder = tmp_path / "missing"
    findings = by_number([*machine.check_disk(folder), *machine.check_folder(folder)])
    assert findings[301].level == "error"
    assert findings[303].level == "error"
    assert "--out" in (findings[303].cure or "")


@pytest.mark.parametrize(("free_gib", "level"), [(0.05, "error"), (1.0, "warning"), (3.0, "ok")])
def test_disk(monkeypatch, free_gib, level):
    class Usage:
        free = int(free_gib * 1024**3)

    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: Usage)
    assert by_number(machine.check_disk(Path.cwd()))[301].level == level


@pytest.mark.parametrize(
    ("free", "purpose", "level"),
    [
        (3 * 1024**3, "train", "ok"),
        (1024**3, "train", "warning"),
        (1024**3, "benchmark", "ok"),
        (None, None, "warning"),
    ],
)
def test_memory(monkeypatch, free, purpose, level):
    monkeypatch.setattr(machine, "available_memory", lambda: free)
    assert by_number(machine.check_memory(purpose))[302].level == level


def test_available_memory_is_at_most_what_the_machine_has():
    free = machine.available_memory()
    total = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    assert free is not None
    assert total is not None
    assert 0 < free <= int(total.group(1)) * 1024


def test_finding_refuses_a_code_of_another_form():
    with pytest.raises(ValidationError):
        Finding(code="E1", level="error", what="x")


def test_torch_is_not_imported():
    script = (
        "import sys; from dskd_export.doctor import diagnose; diagnose('train');"
        "print([m for m in "
        "('torch', 'timm', 'onnx', 'onnxruntime', 'sklearn', 'dskd_compress') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
