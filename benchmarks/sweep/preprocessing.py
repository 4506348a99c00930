"""The torch-free preprocessing against timm's, for every data config of timm's weights.

    python benchmarks/sweep/preprocessing.py --photos imagenet_val1300 --photos tiny_imagenet_10

A data config is size, interpolation, crop, mean and std, as `timm.data.resolve_data_config` gives them for an
architecture, the size of training and that of testing. Every distinct one meets a photograph as every kind of
file and in every size of `photo_support`, from the bytes of the file to the normalised array; the photographs
of the folders alternate. An image that the torch-free side refuses must be one that timm refuses as well, or
one whose resized form would exceed Pillow's limit for decompression bombs, for which timm is not run.
Writes results/preprocessing.json and results/preprocessing.md.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import shlex
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "helpers"))

import numpy as np
import PIL
from photo_support import CUT_OFF, FILES, photo_paths, read_photo
from PIL import Image
from sweep import RESULTS, list_architectures, read_versions

from dskd_compress.timm_import import import_timm
from dskd_export.errors import DataError
from dskd_export.runtime.images import open_image
from dskd_export.runtime.preprocess import preprocess
from dskd_export.spec import ModelSpec


@dataclass(frozen=True, order=True)
class DataConfig:
    """Preprocessing of timm for an architecture."""

    interpolation: str
    crop_mode: str
    crop_pct: float
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def spec(self) -> ModelSpec:
        names = {"architecture": "any", "classes": ("a", "b"), "opset": 20, "student_sha256": "0" * 64}
        return ModelSpec.model_validate({**asdict(self), **names})

    def timms_transform(self) -> Any:
        from timm.data import create_transform

        settings = asdict(self)
        size = (3, settings.pop("height"), settings.pop("width"))
        return create_transform(input_size=size, is_training=False, **settings)


@dataclass(frozen=True)
class Outcome:
    """One image under one data config."""

    refused: str = ""
    """Why the torch-free side, and timm unless the image would become too large, gave no array."""
    difference: float = 0.0
    """The largest of the array, in units of 1/255 / std."""


def data_configs() -> list[DataConfig]:
    """List all distinct data configs of timm, in order."""
    timm = import_timm()
    from timm.data import resolve_data_config

    found, known = set(), set(list_architectures())
    for name in known | {name for name in timm.list_pretrained() if name.split(".")[0] in known}:
        config = timm.get_pretrained_cfg(name)
        for use_test_size in (False, True):
            resolved = resolve_data_config(pretrained_cfg=config.to_dict(), use_test_size=use_test_size)
            channels, height, width = resolved.pop("input_size")
            assert channels == 3, name
            resolved |= {key: tuple(resolved[key]) for key in ("mean", "std")}
            found.add(DataConfig(height=height, width=width, **resolved))
    return sorted(found)


def compare(config: DataConfig, transform: Any, content: bytes) -> Outcome:
    """Preprocess the bytes of a file in both ways."""

    def of_timm() -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, that transparency gets lost
            return np.asarray(transform(Image.open(io.BytesIO(content)).convert("RGB")))

    try:
        ours_CHW = preprocess(open_image(content), config.spec())
    except DataError as error:
        if "would be resized" in error.message:
            return Outcome("too large")
        try:
            of_timm()
        except ValueError:
            return Outcome("by both")
        raise
    theirs_CHW = of_timm()
    assert (ours_CHW.shape, ours_CHW.dtype) == (theirs_CHW.shape, theirs_CHW.dtype)
    difference_CHW = np.abs(ours_CHW.astype(np.float64) - theirs_CHW)
    return Outcome(difference=float((difference_CHW * 255 * np.reshape(config.std, (3, 1, 1))).max()))


def sweep(configs: Sequence[DataConfig], photos: Iterable[Path], kinds: Iterable[str]) -> list[dict[str, Any]]:
    """Compare each config; a row names the kinds that are refused or differ."""
    turn = itertools.cycle(photos)
    rows = []
    for number, config in enumerate(configs, 1):
        began = time.perf_counter()
        transform = config.timms_transform()
        outcomes = {kind: compare(config, transform, FILES[kind](read_photo(next(turn)))) for kind in kinds}
        compared = {kind: outcome for kind, outcome in outcomes.items() if not outcome.refused}
        rows.append(
            {
                **asdict(config),
                "compared": len(compared),
                "largest_difference": max(outcome.difference for outcome in compared.values()),
                "differ": [kind for kind, outcome in compared.items() if outcome.difference],
                "refused": {kind: outcome.refused for kind, outcome in outcomes.items() if outcome.refused},
            }
        )
        print(f"{number}/{len(configs)} {config} {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
    return rows


def page(document: dict[str, Any]) -> str:
    """Format the table: one line per interpolation and crop mode."""
    rows = document["configs"]
    compared, configs = sum(row["compared"] for row in rows), len(rows)
    refused = Counter(why for row in rows for why in row["refused"].values())
    lines = [
        "# Torch-free preprocessing against timm's",
        "",
        f"{', '.join(f'{name} {version}' for name, version in document['versions'].items())}. Made by:",
        "",
        "```sh",
        document["command"],
        "```",
        "",
        f"{configs} data configs, {len(document['files'])} kinds of files, {document['photographs']} photographs, "
        f"{compared} arrays compared from the file's bytes to the normalised input.",
        f"Largest difference in units of 1/255 / std: {max(row['largest_difference'] for row in rows):g}. "
        f"Refused by both: {refused['by both']}; not asked of timm, since the image would be resized to more than "
        f"Pillow's limit of a decompression bomb: {refused['too large']}.",
        "",
        "| interpolation | crop_mode | configs | crop_pct | height x width | arrays | difference | refused |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["interpolation"], row["crop_mode"]), []).append(row)
    for (interpolation, crop_mode), members in sorted(groups.items()):
        crops = sorted({row["crop_pct"] for row in members})
        sizes = sorted({(row["height"], row["width"]) for row in members})
        cells = [
            interpolation,
            crop_mode,
            len(members),
            f"{len(crops)}, {crops[0]:g} to {crops[-1]:g}",
            f"{len(sizes)}, {sizes[0][0]}x{sizes[0][1]} to {sizes[-1][0]}x{sizes[-1][1]}",
            sum(row["compared"] for row in members),
            f"{max(row['largest_difference'] for row in members):g}",
            sum(len(row["refused"]) for row in members),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    odd = sorted({f"{row['height']}x{row['width']}" for row in rows if row["height"] != row["width"]})
    lines += [
        "",
        f"Sizes that are not square: {', '.join(odd) or 'none'}.",
        "",
        f"Kinds of files: {'; '.join(document['files'])}.",
        "",
        "Refused on the device and in training, where timm would cut off most values without a word: "
        f"{'; '.join(document['cut_off'])}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, action="append", help="folder of photos; none: scikit-learn's two")
    parser.add_argument("--limit", type=int, help="number of data configs, spread over all; writes nothing")
    args = parser.parse_args()
    photos, configs = photo_paths(args.photos), data_configs()
    if args.limit:
        configs = configs[:: max(1, len(configs) // args.limit)]
    rows = sweep(configs, photos, FILES)
    names = [f"--photos {path.name}" for path in args.photos or ()]
    document = {
        "command": shlex.join(["python", "benchmarks/sweep/preprocessing.py"])
        + "".join(f" {name}" for name in names),
        "versions": {**read_versions(), "Pillow": PIL.__version__, "numpy": np.__version__},
        "photographs": len(photos),
        "files": list(FILES),
        "cut_off": list(CUT_OFF),
        "configs": rows,
    }
    print(page(document))
    if not args.limit:
        text = ",\n".join(json.dumps(row) for row in rows)
        head = json.dumps({key: value for key, value in document.items() if key != "configs"}, indent=1)
        (RESULTS / "preprocessing.json").write_text(
            f'{head[:-2]},\n "configs": [\n{text}\n]}}\n', encoding="utf-8"
        )
        (RESULTS / "preprocessing.md").write_text(page(document), encoding="utf-8")


if __name__ == "__main__":
    main()
