"""Running statistics of many norms in one launch."""

from collections.abc import Sequence
from typing import Any

from ...nn import BatchNorm2d
from .launch import addresses, is_plain, launch


def is_ready(norm: BatchNorm2d) -> bool:
    """Can kernels read and move what it keeps?"""
    return is_plain(norm.weight.data, norm.bias.data, norm.running_mean.data, norm.running_var.data)


def track(norms: Sequence[BatchNorm2d], moments: Sequence[tuple[Any, Any]], pixels: int) -> None:
    """What norm.track(mean, var, pixels) does, for every norm with the (mean, var) of its batch."""
    table = [
        (norm.running_mean.data, norm.running_var.data, norm.num_batches_tracked.data, mean, var, norm.momentum)
        for norm, (mean, var) in zip(norms, moments, strict=True)
    ]
    track_arrays(table, pixels)


def track_arrays(table: Sequence[tuple[Any, ...]], pixels: int) -> None:
    """The same for rows (running mean, running variance, how many batches or None, mean, variance, momentum)."""
    known = addresses([(*arrays, len(arrays[0]), float(momentum)) for *arrays, momentum in table])
    launch("norm.cu", "track", (len(table),), 256, known, pixels / (pixels - 1))
