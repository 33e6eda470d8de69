"""What treats every image alone, on the GPU: ReLU, pooling, and the way of a picture into the network (kernels/images.cu).

The definitions are functional.relu, max_pool2d, avg_pool2d and global_avg_pool2d, and data.prepared.
"""

import functools
from typing import Any

import numpy

from ... import functional as F
from ...backend import array_module
from ...data import prepared
from ...ops import AvgPool2d, MaxPool2d, Op
from ...speed import fast_path
from ...tensor import apply
from . import examples
from .launch import divided, images, launch, on_gpu, rows

FILE = "images.cu"


class ReLUOnGPU(Op):
    """max(x, 0) of images, keeping the result."""

    fresh = True

    def forward(self, x):
        here = rows(x)
        self.y = array_module(x).empty(here.shape, "float32")
        launch(FILE, "relu", (divided(x.size, 256),), 256, here, self.y, x.size)
        return images(self.y, x.shape)

    def backward(self, dy):
        dx = array_module(dy).empty(self.y.shape, "float32")
        launch(FILE, "relu_gradient", (divided(dx.size, 256),), 256, rows(dy), self.y, dx, dx.size)
        return (images(dx, dy.shape),)


class PoolOnGPU(Op):
    """What `definition`, an ops.MaxPool2d or AvgPool2d, computes; kept is where the maxima stand."""

    fresh = True

    def __init__(self, definition):
        self.definition, self.takes_maximum = definition, isinstance(definition, MaxPool2d)

    def forward(self, x):
        n, _, h, w = self.shape = self.definition.check(x)
        high, wide = self.definition.windows(h), self.definition.windows(w)
        xp, here = array_module(x), rows(x)
        y = xp.empty((len(here), n * high * wide), "float32")
        self.winner = xp.empty(y.shape, "int32") if self.takes_maximum else None
        self.sizes = h, w, high, wide, self.definition.kernel, self.definition.stride, self.definition.padding
        launch(FILE, "pool", (divided(y.size, 256),), 256, here, y, self.winner, y.size, *self.sizes)
        return images(y, (n, 0, high, wide))

    def backward(self, dy):
        n, c, h, w = self.shape
        dx = array_module(dy).empty((c, n * h * w), "float32")
        launch(FILE, "pool_gradient", (divided(dx.size, 256),), 256, rows(dy), self.winner, dx, dx.size, *self.sizes)
        return (images(dx, self.shape),)


class GlobalAverageOnGPU(Op):
    """Mean of each feature map: (N, C, H, W) gives (N, C)."""

    fresh = True

    def forward(self, x):
        n, c, h, w = self.shape = x.shape
        y = array_module(x).empty((n, c), "float32")
        launch(FILE, "global_average", (divided(n * c, 4),), 128, rows(x), y, n, c, h * w)
        return y

    def backward(self, dy):
        xp, (n, c, h, w) = array_module(dy), self.shape
        dx = xp.empty((c, n * h * w), "float32")
        args = (xp.ascontiguousarray(dy), dx, n, c, h * w)
        launch(FILE, "global_average_gradient", (divided(dx.size, 256),), 256, *args)
        return (images(dx, self.shape),)


def fits(x, *args, **options):
    return on_gpu(x) and x.ndim == 4 and x.size > 0


@fast_path(F.relu, fits=fits, examples=examples.images)
def relu_on_gpu(x):
    """functional.relu of images."""
    return apply(ReLUOnGPU(), x)


@fast_path(F.max_pool2d, fits=fits, examples=examples.max_pools)
def max_pool2d_on_gpu(x, kernel, *, stride=None, padding=0, ceil_mode=False):
    """functional.max_pool2d."""
    return apply(PoolOnGPU(MaxPool2d(kernel, stride, padding, ceil_mode)), x)


@fast_path(F.avg_pool2d, fits=fits, examples=examples.avg_pools)
def avg_pool2d_on_gpu(x, kernel, *, stride=None, padding=0):
    """functional.avg_pool2d."""
    return apply(PoolOnGPU(AvgPool2d(kernel, stride, padding)), x)


@fast_path(F.global_avg_pool2d, fits=fits, examples=examples.images)
def global_avg_pool2d_on_gpu(x):
    """functional.global_avg_pool2d."""
    return apply(GlobalAverageOnGPU(), x)


@functools.cache
def constants(xp: Any, values: tuple[float, ...]) -> Any:
    """A few numbers that stay on the GPU."""
    return xp.asarray(numpy.array(values, numpy.float32))


def fits_prepared(images, chosen, mean, std, *, key=None, padding=0, flip=False, reflect=False):
    if array_module(images, chosen) is numpy or reflect:  # the kernel knows no border but zeros
        return False
    return images.dtype == "uint8" and chosen.dtype == "int64" and images.ndim == 4 and len(chosen) > 0


@fast_path(prepared, fits=fits_prepared, examples=examples.pictures)
def prepared_on_gpu(pictures, chosen, mean, std, *, key=None, padding=0, flip=False, reflect=False):
    """data.prepared with a border of zeros in one launch, with the same choices. The result lies as the first convolution reads it."""
    xp, (_, c, h, w) = array_module(pictures, chosen), pictures.shape
    n = len(chosen)
    y = xp.empty((c, n * h * w), "float32")
    words = [numpy.uint64(word) for word in key or (0, 0)]
    means, stds = constants(xp, tuple(mean)), constants(xp, tuple(std))
    contiguous = map(xp.ascontiguousarray, (pictures, chosen))
    args = (*contiguous, means, stds, y, *words, key is not None, padding, flip, n, c, h, w)
    launch(FILE, "prepare_images", (n,), 256, *args)
    return images(y, (n, c, h, w))
