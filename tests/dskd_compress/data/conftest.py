from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Writer = Callable[..., Path]


@pytest.fixture
def write_folder(tmp_path: Path) -> Writer:
    """Write an image folder: {"train/cat": 3, ...} -> tmp_path/NAME with that many noise images each."""

    def write(layout: dict[str, int], name: str = "images", size: tuple[int, int] = (40, 30)) -> Path:
        root = tmp_path / name
        generator = np.random.default_rng(0)
        for folder, count in layout.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (size[1], size[0], 3), np.uint8)
                Image.fromarray(pixels).save(root / folder / f"{number}.png")
        return root

    return write
