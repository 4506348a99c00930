"""Several processes that train one student: what they tell each other, and what happens if one is lost.

torchrun starts them. timm's `init_distributed_device` takes no timeout, and takes a Slurm batch script for
one of its tasks, so the group is joined here; the rest is timm's.
"""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from dskd_compress.config import TrainSection
from dskd_compress.launch import Place, place_of_this_process
from dskd_compress.methods.base import MethodTask
from dskd_compress.timm_import import import_timm
from dskd_compress.training.batch_norm import synchronise_on_cpu
from dskd_compress.training.device import resolve_device
from dskd_export.errors import ProcessLost, RecipeError

import_timm()  # before anything of timm: it may need torchvision to be mended first

from timm.layers import convert_sync_batchnorm  # noqa: E402
from timm.utils import reduce_tensor  # noqa: E402

T = TypeVar("T")


class Group:
    """The processes of one training; alone, everything is done at once and nothing is sent.

    Args:
        place: of this process.
        device: where tensors that are sent lie.
    """

    def __init__(self, place: Place, device: torch.device) -> None:
        self.place, self.device = place, device

    @property
    def alone(self) -> bool:
        """Whether there is one process only."""
        return self.place.world_size == 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.place.leads

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.alone:
            return values
        mean: Tensor = reduce_tensor(values, self.place.world_size)
        return mean

    def from_leader(self, make: Callable[[], T]) -> T:
        """What the leader makes, in all processes; the others wait for it."""
        if self.alone:
            return make()
        holder = [make() if self.leads else None]
        distributed.broadcast_object_list(holder, device=self.device)
        return holder[0]  # type: ignore[return-value]

    def of_all(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks."""
        if self.alone:
            return [value]
        values: list[T] = [value] * self.place.world_size
        distributed.all_gather_object(values, value)
        return values

    def whole_batch(self, part: Tensor) -> list[Tensor]:
        """The parts of all processes, in the order of their ranks."""
        if self.alone:
            return [part]
        parts = [torch.empty_like(part) for _ in range(self.place.world_size)]
        distributed.all_gather(parts, part.contiguous())
        return parts

    def wait(self) -> None:
        """Until all processes are here."""
        if not self.alone:
            float(self.mean(torch.zeros(1, device=self.device)))

    def synchronise_batch_norm(self, module: nn.Module) -> None:
        """Let the batch norms within a module see the images of all processes; their state stays the same."""
        if self.alone:
            return
        if self.device.type == "cuda":
            convert_sync_batchnorm(module)
        else:
            synchronise_on_cpu(module)

    @contextlib.contextmanager
    def wrapped(self, task: MethodTask) -> Iterator[None]:
        """Let the backward pass of a task average the gradients of all processes, all at the leader's start."""
        if self.alone:
            yield
            return
        for buffer in task.module.buffers():
            distributed.broadcast(buffer, 0)
        bare = task.trainable_module
        with warnings.catch_warnings():
            # Newer torch has another word for it. Batch norms agree by themselves, other buffers do not change.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            gpu = [self.device.index] if self.device.type == "cuda" else None
            task.prepare_distributed(device_ids=gpu, broadcast_buffers=False)
        try:
            yield
        finally:
            # A wrapper that outlives the process group ends it with Python's lock in its hand, and hangs.
            task.trainable_module = bare
            gc.collect()


@contextlib.contextmanager
def join(section: TrainSection) -> Iterator[Group]:
    """Take this process's place among those that torchrun started, for as long as the body runs.

    Raises:
        RecipeError: the batch cannot be divided among the processes, two images to each at least.
        EnvironmentProblem: there is no GPU for this process.
        ProcessLost: the others did not come, died, or do not answer in time.
    """
    place = place_of_this_process()
    parts = place.world_size * section.grad_accumulation
    if section.batch_size % parts:
        pieces = f" in {section.grad_accumulation} pieces" if section.grad_accumulation > 1 else ""
        raise RecipeError(
            f"train.batch_size {section.batch_size} cannot be divided among {place.world_size} processes{pieces}.",
            f"Use a multiple of {parts}.",
        )
    if section.batch_size == parts:
        raise RecipeError(
            f"train.batch_size {section.batch_size} leaves one image to each of {place.world_size} processes and "
            f"{section.grad_accumulation} pieces.",
            f"Set train.batch_size={2 * parts} or more.",
        )
    device = resolve_device(section.device, place)
    if place.world_size == 1:
        yield Group(place, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with _lost_process_explained(section.distributed_timeout_s):
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            timeout=timedelta(seconds=section.distributed_timeout_s),
        )
        try:
            group = Group(place, device)
            yield group
            group.wait()
        finally:
            distributed.destroy_process_group()


@contextlib.contextmanager
def _lost_process_explained(timeout_s: float) -> Iterator[None]:
    """Turn what gloo and NCCL say of a silent process into one line.

    Raises:
        ProcessLost: another process ended, or did not answer in time.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        signs = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL", "c10d")
        if not isinstance(error, distributed.DistError) and not any(sign in text for sign in signs):
            raise
        slow = "imed out" in text or "imeout" in text
        raise ProcessLost(
            f"Another process of this training does not answer since {timeout_s:g} s."
            if slow
            else "Another process of this training ended.",
            "See what it said; then the same command goes on from the last checkpoint."
            + (" A slow one is given more time by train.distributed_timeout_s." if slow else ""),
        ) from error
