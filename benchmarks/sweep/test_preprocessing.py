"""Every data config of timm in the committed table, and a sample of them compared again: another one every day."""

from __future__ import annotations

import datetime
import json
import random
from typing import Any

import pytest
from photo_support import CUT_OFF, FILES, photo_paths, read_photo
from preprocessing import DataConfig, compare, data_configs, page, sweep
from sweep import RESULTS

from dskd_compress.timm_import import import_timm
from dskd_export.spec import ModelSpec

TODAY = datetime.date.today().toordinal()
DOCUMENT: dict[str, Any] = json.loads((RESULTS / "preprocessing.json").read_text(encoding="utf-8"))
FIELDS = [*DataConfig.__dataclass_fields__]


@pytest.fixture(scope="module")
def configs() -> list[DataConfig]:
    return data_configs()


def test_the_table_is_of_this_timm_and_whole(configs: list[DataConfig]) -> None:
    """A newer timm needs a new table: run the command in results/preprocessing.md."""
    assert DOCUMENT["versions"]["timm"] == import_timm().__version__
    committed = [{key: row[key] for key in FIELDS} for row in DOCUMENT["configs"]]
    assert committed == [json.loads(json.dumps(vars(config))) for config in configs]
    assert set(DOCUMENT["files"]) >= set(FILES)  # a build of Pillow may lack a format
    assert DOCUMENT["cut_off"] == list(CUT_OFF)
    assert page(DOCUMENT) == (RESULTS / "preprocessing.md").read_text(encoding="utf-8")


def test_nothing_differs_and_nothing_is_refused() -> None:
    for row in DOCUMENT["configs"]:
        assert row["largest_difference"] == 0
        assert row["differ"] == []
        assert (row["compared"], row["refused"]) == (len(DOCUMENT["files"]), {})


def test_every_data_config_makes_a_spec(configs: list[DataConfig]) -> None:
    for config in configs:
        assert isinstance(config.spec(), ModelSpec)
    assert {config.crop_mode for config in configs} == {"center", "squash", "border"}
    assert any(config.height != config.width for config in configs)


@pytest.mark.parametrize("kind", FILES)
def test_a_sample_is_equal_again(configs: list[DataConfig], kind: str) -> None:
    """This kind of file with each interpolation and crop mode, at a size and crop of the day's choice."""
    draw = random.Random(f"{TODAY} {kind}")
    groups: dict[tuple[str, str], list[DataConfig]] = {}
    for config in configs:
        if config.height * config.width <= 400**2:  # larger ones take their time, and the slow test has them
            groups.setdefault((config.interpolation, config.crop_mode), []).append(config)
    content = FILES[kind](read_photo(draw.choice(photo_paths()), pixels=300))
    for members in groups.values():
        config = draw.choice(members)
        outcome = compare(config, config.timms_transform(), content)
        assert outcome.difference == 0, config
        assert outcome.refused in ("", "by both"), config


@pytest.mark.slow
def test_every_data_config_is_equal_again(configs: list[DataConfig]) -> None:
    for row in sweep(configs, photo_paths(), FILES):
        assert (row["largest_difference"], row["differ"]) == (0, []), row
