"""A bundle with a file of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundle_support import bundle_arguments

from dskd_export.bundle import write_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "bundle"
    write_bundle(path, **bundle_arguments())
    return path
