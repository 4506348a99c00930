from __future__ import annotations

from pathlib import Path

import pytest
from library_support import fat_binary, write_library
from ort_support import CPU, CUDA, TRT

from dskd_export import codes
from dskd_export.runtime.elf import Kernels
from dskd_export.runtime.provider_problems import Build, covers, find_problems
from dskd_export.runtime.providers import PROVIDERS
from dskd_export.runtime.shared_libraries import find_load_errors, find_missing_libraries, find_other_majors
from dskd_export.telemetry.cuda import Gpu

GPU = (Gpu("A GPU", (8, 6)),)


def build(folder: Path, *needed: str, content: bytes = b"") -> Build:
    for name in ("cuda", "tensorrt"):
        write_library(folder / f"libonnxruntime_providers_{name}.so", needed, content=content)
    return Build("1.31.1", (TRT, CUDA, CPU), folder)


def codes_of(provider: str, build: Build, gpus: tuple[Gpu, ...] = GPU, *folders: Path) -> list[codes.Code]:
    return [problem.code for problem in find_problems(PROVIDERS[provider], build, gpus, folders)]


def test_a_sound_build(tmp_path: Path) -> None:
    sound = build(tmp_path, "libc.so.6", content=fat_binary([80, 86]))
    assert [codes_of(name, sound) for name in PROVIDERS] == [[], [], []]
    assert codes_of("cpu", Build("1", (CPU,), tmp_path / "none"), ()) == []


def test_no_device(tmp_path: Path) -> None:
    assert codes_of("cuda", build(tmp_path, "libc.so.6"), ()) == [codes.GPU]


@pytest.mark.parametrize(
    ("needed", "code"),
    [
        ("libcublasLt.so.98", codes.CUDA_LIBRARY),
        ("libcudnn.so.98", codes.CUDA_LIBRARY),
        ("libnvinfer.so.98", codes.LIBNVINFER),
        ("libnvonnxparser.so.98", codes.PARSER),
    ],
)
def test_a_library_that_is_missing_is_named(tmp_path: Path, needed: str, code: codes.Code) -> None:
    (problem,) = find_problems(PROVIDERS["tensorrt"], build(tmp_path, needed, "libc.so.6"), GPU, [])
    assert (problem.code, needed in problem.what) == (code, True)


def test_another_major_of_tensorrt_is_told(tmp_path: Path) -> None:
    there = tmp_path / "tensorrt_libs"
    write_library(there / "libnvinfer.so.11", ["libc.so.6"])
    (problem,) = find_problems(PROVIDERS["tensorrt"], build(tmp_path, "libnvinfer.so.98"), GPU, [there])
    assert problem.code is codes.TENSORRT_MAJOR
    assert "libnvinfer.so.11" in problem.what


def test_what_is_needed_through_another_library(tmp_path: Path) -> None:
    there = tmp_path / "nvidia/lib"
    write_library(there / "libcudnn.so.98", ["libcudnn_graph.so.98", "libc.so.6"])
    library = write_library(tmp_path / "libprovider.so", ["libcudnn.so.98"])
    assert set(find_missing_libraries(library, [there])) == {"libcudnn_graph.so.98"}
    write_library(there / "libcudnn_graph.so.98", ["libc.so.6"])
    assert find_missing_libraries(library, [there]) == {}


def test_a_library_that_takes_its_process_down_is_named(tmp_path: Path) -> None:
    """One whose initialiser lies outside of it."""
    said = find_load_errors(("libnowhere.so.98", "libc.so.6"))
    assert list(said) == ["libnowhere.so.98"]
    assert "cannot open shared object file" in said["libnowhere.so.98"]


def test_a_damaged_provider(tmp_path: Path) -> None:
    damaged = build(tmp_path, "libc.so.6")
    (tmp_path / "libonnxruntime_providers_cuda.so").write_bytes(b"cut off")
    assert codes_of("cuda", damaged) == [codes.ORT_IMPORT]


def test_a_wheel_without_the_library(tmp_path: Path) -> None:
    """As the one for aarch64, which has no TensorRT."""
    without = build(tmp_path, "libc.so.6")
    (tmp_path / "libonnxruntime_providers_tensorrt.so").unlink()
    assert codes_of("tensorrt", without) == [codes.ORT_WITHOUT_PROVIDER]


def test_other_majors_of_what_has_none() -> None:
    assert find_other_majors("libnothing.so", []) == []
    assert find_other_majors("libnothing.so.12", []) == []


@pytest.mark.parametrize(
    ("cubin", "ptx", "capability", "runs"),
    [
        ({(8, 0)}, set(), (8, 6), True),
        ({(8, 6)}, set(), (8, 0), False),
        ({(8, 0)}, set(), (9, 0), False),
        ({(8, 0)}, {(8, 0)}, (12, 0), True),
        (set(), {(9, 0)}, (8, 9), False),
        # Orin: neither what is compiled for servers, nor the other way round
        ({(8, 0), (8, 6)}, set(), (8, 7), False),
        ({(8, 7)}, set(), (8, 7), True),
        ({(8, 7)}, set(), (8, 9), False),
    ],
)
def test_which_gpus_kernels_run_on(cubin: set, ptx: set, capability: tuple[int, int], runs: bool) -> None:
    assert covers(Kernels(frozenset(cubin), frozenset(ptx)), capability) is runs
