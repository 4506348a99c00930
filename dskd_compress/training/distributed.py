"""Several processes that train one student: their collectives, and the error when one is lost.

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
from dskd_compress.launch import ProcessRank, get_process_rank
from dskd_compress.methods.base import MethodTask
from dskd_compress.methods.collectives import all_reduce_mean
from dskd_compress.timm_import import import_timm
from dskd_compress.training.batch_norm import synchronise_on_cpu
from dskd_compress.training.device import resolve_device
from dskd_export.errors import ProcessLost, RecipeError

import_timm()  # before anything of timm: it may need torchvision to be mended first

from timm.layers import convert_sync_batchnorm  # noqa: E402

T = TypeVar("T")


class Group:
    """The processes of one training. A single process communicates nothing."""

    def __init__(self, process: ProcessRank, device: torch.device) -> None:
        self.process, self.device = process, device

    @property
    def is_single(self) -> bool:
        """Whether there is only one process."""
        return self.process.world_size == 1

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which writes files and prints."""
        return self.process.is_main

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        """Average over all processes."""
        return values if self.is_single else all_reduce_mean(values)

    def run_on_main(self, make: Callable[[], T]) -> T:
        """Run a function in the main process and broadcast its result; the others wait for it."""
        if self.is_single:
            return make()
        holder = [make() if self.is_main else None]
        distributed.broadcast_object_list(holder, device=self.device)
        return holder[0]  # type: ignore[return-value]

    def all_gather_object(self, value: T) -> list[T]:
        """Gather the values of all processes, by rank."""
        if self.is_single:
            return [value]
        values: list[T] = [value] * self.process.world_size
        distributed.all_gather_object(values, value)
        return values

    def all_gather(self, shard: Tensor) -> list[Tensor]:
        """Gather the tensors of all processes, by rank; they have one shape."""
        if self.is_single:
            return [shard]
        shards = [torch.empty_like(shard) for _ in range(self.process.world_size)]
        distributed.all_gather(shards, shard.contiguous())
        return shards

    def barrier(self) -> None:
        """Wait for all processes."""
        if not self.is_single:
            float(self.all_reduce_mean(torch.zeros(1, device=self.device)))

    def synchronise_batch_norm(self, module: nn.Module) -> None:
        """Compute batch norms over the images of all processes; their state stays the same."""
        if self.is_single:
            return
        if self.device.type == "cuda":
            convert_sync_batchnorm(module)
        else:
            synchronise_on_cpu(module)

    @contextlib.contextmanager
    def distribute(self, task: MethodTask) -> Iterator[None]:
        """Average a task's gradients over all processes, from the buffers of the main one."""
        if self.is_single:
            yield
            return
        for buffer in task.module.buffers():
            distributed.broadcast(buffer, 0)
        bare = task.trainable_module
        with warnings.catch_warnings():
            # Newer torch has another name for it. Batch norms are synchronised, other buffers do not change.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            gpu = [self.device.index] if self.device.type == "cuda" else None
            task.prepare_distributed(device_ids=gpu, broadcast_buffers=False)
        try:
            yield
        finally:
            # A wrapper that outlives the process group destroys it while holding Python's lock, and hangs.
            task.trainable_module = bare
            gc.collect()


@contextlib.contextmanager
def join(section: TrainSection) -> Iterator[Group]:
    """Join the processes that torchrun started, for as long as the body runs.

    Raises:
        RecipeError: the batch cannot be divided among the processes, two images to each at least.
        EnvironmentProblem: there is no GPU for this process.
        ProcessLost: the others did not start, died, or do not answer in time.
    """
    process = get_process_rank()
    parts = process.world_size * section.grad_accumulation
    if section.batch_size % parts:
        pieces = f" in {section.grad_accumulation} pieces" if section.grad_accumulation > 1 else ""
        raise RecipeError(
            f"train.batch_size {section.batch_size} cannot be divided among {process.world_size} "
            f"processes{pieces}.",
            f"Use a multiple of {parts}.",
        )
    if section.batch_size == parts:
        raise RecipeError(
            f"train.batch_size {section.batch_size} leaves one image to each of {process.world_size} processes "
            f"and {section.grad_accumulation} pieces.",
            f"Set train.batch_size={2 * parts} or more.",
        )
    device = resolve_device(section.device, process)
    if process.world_size == 1:
        yield Group(process, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with _explain_lost_process(section.distributed_timeout_s):
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            timeout=timedelta(seconds=section.distributed_timeout_s),
        )
        try:
            group = Group(process, device)
            yield group
            group.barrier()
        finally:
            distributed.destroy_process_group()


@contextlib.contextmanager
def _explain_lost_process(timeout_s: float) -> Iterator[None]:
    """Turn the errors of gloo and NCCL into one line, a ProcessLost."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        signs = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL", "c10d")
        if not isinstance(error, distributed.DistError) and not any(sign in text for sign in signs):
            raise
        slow = "imed out" in text or "imeout" in text
        raise ProcessLost(
            f"Another process of this training has not answered for {timeout_s:g} s."
            if slow
            else "Another process of this training ended.",
            "Read its error; then the same command resumes from the last checkpoint."
            + (" Raise train.distributed_timeout_s if it is slow." if slow else ""),
        ) from error
