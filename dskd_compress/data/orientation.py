"""Find out, before a training, whether images lie on their side because their EXIF is ignored."""

from __future__ import annotations

from dskd_compress.data.image_set import StoredSet
from dskd_compress.data.randomness import draw_epoch_order
from dskd_compress.data.sources import DataSets
from dskd_compress.data.streams import StreamSet
from dskd_export.runtime.orientation import UPRIGHT, count_turned, is_notable

SAMPLE = 200
"""Images whose headers are read."""

_CURE = "--set data.exif=apply"


def find_ignored_orientation(sets: DataSets, seed: int = 0) -> str | None:
    """Describe the images whose orientation in EXIF is ignored, if they are more than 1 % of a sample.

    Args:
        seed: draws the sample of at most `SAMPLE` images.

    Returns:
        A sentence with the key to set. None: there are few, EXIF is applied, or the source is a stream that would
        have to be read from the front; arrays have no EXIF and cost nothing.
    """
    if sets.exif == "apply":
        return None
    if sets.source.startswith("hfids/"):
        return (
            f"{sets.source}: this reader turns images upright by their EXIF, and the device will not, since "
            f"data.exif is ignore. Turn them there as well: {_CURE}"
        )
    stored = [images for images in (sets.train, sets.val) if not isinstance(images, StreamSet)]
    places = [(images, index) for images in stored if images.has_metadata() for index in range(len(images))]
    chosen: list[int] = draw_epoch_order(len(places), seed, 0)[:SAMPLE].tolist() if places else []
    turned = sum(_is_turned(*places[position]) for position in chosen)
    if not is_notable(turned, len(chosen)):
        return None
    return (
        f"{sets.source}: {count_turned(turned, len(chosen), 'sampled images')} that is ignored. "
        f"Turn them upright, in training and on the device: {_CURE}"
    )


def _is_turned(images: StoredSet, index: int) -> bool:
    return images.orientation(index) != UPRIGHT
