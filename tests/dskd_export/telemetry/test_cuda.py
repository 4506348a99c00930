from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dskd_export.telemetry.cuda import cuda_bus_id, cuda_devices

DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = 7 + index; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    if (device == 8) return 1;
    strncpy(name, "A GPU", length);
    return 0;
}
int cuDeviceGetPCIBusId(char *address, int length, int device) {
    if (device == 8) return 1;
    strncpy(address, "0000:1b:00.0", length);
    return 0;
}
"""


def test_without_a_driver() -> None:
    assert cuda_devices("libcuda_that_is_not_there.so.1") == ()
    assert cuda_bus_id(0, "libcuda_that_is_not_there.so.1") is None


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize(
    ("init", "expected", "address"), [(0, ("A GPU", "CUDA device 1"), "0000:1b:00.0"), (100, (), None)]
)
def test_against_a_driver_of_our_own(
    tmp_path: Path, init: int, expected: tuple[str, ...], address: str | None
) -> None:
    source, library = tmp_path / "driver.c", tmp_path / f"libcuda{init}.so"
    source.write_text(DRIVER)
    subprocess.run(["cc", "-shared", "-fPIC", f"-DINIT={init}", "-o", library, source], check=True)
    assert cuda_devices(str(library)) == expected
    assert [cuda_bus_id(index, str(library)) for index in (0, 1)] == [address, None]


@pytest.mark.gpu
def test_a_real_driver() -> None:
    assert cuda_devices()
