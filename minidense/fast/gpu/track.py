"""Running statistics of many norms in one launch."""

from collections.abc import Sequence
from typing import Any

from ...nn import BatchNorm2d
from .launch import addresses, launch


def track(norms: Sequence[BatchNorm2d], moments: Sequence[tuple[Any, Any]], pixels: int) -> None:
    """What norm.track(mean, var, pixels) does, for every norm with the (mean, var) of its batch."""
    if not norms:
        return
    table = [
        (
            norm.running_mean.data,
            norm.running_var.data,
            norm.num_batches_tracked.data,
            mean,
            var,
            len(mean),
            float(norm.momentum),
        )
        for norm, (mean, var) in zip(norms, moments, strict=True)
    ]
    launch("norm.cu", "track", (len(norms),), 256, addresses(table), pixels / (pixels - 1))
