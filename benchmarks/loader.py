"""Images a second of the training loaders at 32 pixels, alone and feeding a small student.

    python benchmarks/loader.py --out benchmarks/results/loader.json

The same images as a folder of PNGs and as an .npz file read by worker processes, and resident on the device. A
round takes one whole epoch from every loader, in a random order, so that a slower machine slows all of them; the
first epoch, which starts processes and decodes, is timed separately. The ratio of a round is a loader's images a
second over those of the folder; the figure is the median over rounds with a 95 % interval by bootstrap.
`student` takes a forward and backward pass and an SGD step of a residual network of 8 layers (16, 32 and 64
channels) with each of the first batches of an epoch.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from measurement import format_ratio, make_parser, print_head, print_row, ratio_with_interval, write_result
from PIL import Image
from torch import nn

from dskd_compress.config import AugmentSection, DataSection
from dskd_compress.data import Preprocessing, TrainLoader, open_data
from dskd_export.provenance import Stopwatch

SIZE, CLASSES, BATCH = 32, 100, 128
FORMAT = Preprocessing((3, SIZE, SIZE), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bicubic", 1.0, "center")
Step = Callable[[torch.Tensor, torch.Tensor], None]


class Block(nn.Module):
    """Two convolutions and a shortcut, which is a convolution where the grid halves."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, outputs, H / stride, W / stride]."""
        return torch.relu(self.body(x) + self.shortcut(x))


def write_sources(folder: Path, images: Path | None, count: int) -> dict[str, str]:
    """Write the same images twice; returns data.source by kind."""
    if images is not None:
        with np.load(images) as file:
            x, y = file["x"][:count], file["y"][:count]
    else:
        generator = np.random.default_rng(0)
        small = generator.integers(0, 256, (count, 8, 8, 3), np.uint8)
        x = np.stack([np.asarray(Image.fromarray(image).resize((SIZE, SIZE))) for image in small])
        y = np.arange(count) % CLASSES
    for number, (pixels, label) in enumerate(zip(x, y, strict=True)):
        path = folder / "png" / f"{int(label):03d}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    np.savez(folder / "images.npz", x=x, y=y)
    return {"folder": str(folder / "png"), "npz": str(folder / "images.npz")}


def make_student(device: torch.device) -> Step:
    """Make one training step."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        Block(16, 16, 1),
        Block(16, 32, 2),
        Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, CLASSES),
    ).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(images: torch.Tensor, targets: torch.Tensor) -> None:
        loss = nn.functional.cross_entropy(model(images), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def measure_rate(
    loader: TrainLoader, epoch: int, step: Step | None, device: torch.device, batches: int | None = None
) -> float:
    """Measure the images per second over an epoch or its first batches."""
    began, count = time.perf_counter(), 0
    for images, targets in islice(loader.epoch(epoch), batches):
        count += len(images)
        if step is not None:
            step(images, targets)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - began)


def main() -> None:
    """Measure both crops, print a table, write the JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=Path, help=".npz with x and y of 32 pixels; none: random images")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--student-batches", type=int, default=15)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device, watch, rows = torch.device(args.device), Stopwatch(), []
    print_head(["crop", "with", "folder images/s", "npz / folder", "resident / folder"])
    with tempfile.TemporaryDirectory() as name:
        sources = write_sources(Path(name), args.images, args.count)
        kinds = {"folder": ("folder", "workers"), "npz": ("npz", "workers"), "resident": ("folder", "resident")}
        for crop in ("pad", "resized"):
            loaders = {}
            for kind, (source, loader) in kinds.items():
                section = DataSection(
                    source=sources[source],
                    loader=loader,
                    workers=args.workers,
                    val_fraction=0.02,
                    augment=AugmentSection(crop=crop),
                )
                sets = open_data(section, 0)
                loaders[kind] = TrainLoader(sets, section, FORMAT, batch_size=BATCH, seed=0, device=device)
            first = {kind: measure_rate(loader, 0, None, device) for kind, loader in loaders.items()}
            for what, step in (("nothing", None), ("student", make_student(device))):
                rates: dict[str, list[float]] = {kind: [] for kind in loaders}
                order = random.Random(0)
                for number in range(args.rounds + 1):
                    for kind in order.sample(sorted(loaders), len(loaders)):
                        batches = None if step is None else args.student_batches
                        rate = measure_rate(loaders[kind], number + 1, step, device, batches)
                        if number:
                            rates[kind].append(rate)
                ratios = {kind: ratio_with_interval(rates[kind], rates["folder"]) for kind in ("npz", "resident")}
                shown = [format_ratio(ratio, digits=2) for ratio in ratios.values()]
                print_row([crop, what, f"{np.median(rates['folder']):.0f}", *shown])
                rows.append(
                    {
                        "crop": crop,
                        "feeding": what,
                        "images": args.count,
                        "batch": BATCH,
                        "workers": args.workers,
                        "ratio_to_folder": ratios,
                        "images_per_s": rates,
                        "images_per_s_of_first_epoch": first,
                    }
                )
            for loader in loaders.values():
                loader.close()
    write_result(args.out, watch, {"threads": torch.get_num_threads(), "rows": rows}, args.device)


if __name__ == "__main__":
    main()
