"""Images: where they come from, how they are split, checked, prepared and batched."""

from __future__ import annotations

from dskd_compress.data.checks import check_data, find_data_faults
from dskd_compress.data.image_set import ArraySet, ImageSet
from dskd_compress.data.orientation import find_ignored_orientation
from dskd_compress.data.preprocessing import Normalise, Preprocessing, eval_transform, resolve_preprocessing
from dskd_compress.data.shard import BatchShard
from dskd_compress.data.sources import DataSets, open_data
from dskd_compress.data.streams import StreamSet
from dskd_compress.data.train_loader import TrainLoader, check_batch_size
from dskd_compress.data.val_loader import ValLoader, iter_images
from dskd_compress.data.workers import explain_worker_death
from dskd_export.runtime.images import UnreadableImage

__all__ = [
    "ArraySet",
    "BatchShard",
    "DataSets",
    "ImageSet",
    "Normalise",
    "Preprocessing",
    "StreamSet",
    "TrainLoader",
    "UnreadableImage",
    "ValLoader",
    "check_batch_size",
    "check_data",
    "eval_transform",
    "explain_worker_death",
    "find_data_faults",
    "find_ignored_orientation",
    "iter_images",
    "open_data",
    "resolve_preprocessing",
]
