"""SGD in one launch: new parameters in one flat buffer, velocities in another (kernels/step.cu). The definition is optim.moved."""

import math

import numpy

from ...backend import array_module
from ...optim import moved
from ...speed import fast_path
from . import examples
from .launch import addresses, launch

BLOCKS = 32  # of 256 threads for each parameter; they stride where it is larger


def fits(weights, gradients, velocities, **settings):
    """On the GPU, in float32, one after another in memory."""
    arrays = [*weights, *gradients, *(v for v in velocities if v is not None)]
    return array_module(*arrays) is not numpy and all(a.dtype == "float32" and a.flags.c_contiguous for a in arrays)


@fast_path(moved, fits=fits, examples=examples.sgd_steps)
def moved_on_gpu(weights, gradients, velocities, *, lr, momentum, dampening, weight_decay, nesterov, in_place=False):
    """optim.moved."""
    xp = array_module(*weights)
    new_weights = weights if in_place else views(xp, weights)
    room = views(xp, weights) if momentum else [None] * len(weights)
    new_velocities = [old if in_place and old is not None else new for old, new in zip(velocities, room, strict=True)]
    table = [
        (*arrays, arrays[0].size)
        for arrays in zip(weights, gradients, velocities, new_weights, new_velocities, strict=True)
    ]
    rate = lr if getattr(lr, "ndim", 0) else xp.full((1,), float(lr), "float32")
    args = (addresses(table), rate, float(momentum), float(dampening), float(weight_decay), nesterov)
    launch("step.cu", "sgd", (BLOCKS, len(weights)), 256, *args)
    return new_weights, new_velocities


def views(xp, arrays):
    """Room for arrays of the same shapes, in one buffer."""
    buffer = xp.empty(sum(a.size for a in arrays), "float32")
    ends = numpy.cumsum([a.size for a in arrays]).tolist()
    return [buffer[end - math.prod(a.shape) : end].reshape(a.shape) for a, end in zip(arrays, ends, strict=True)]
