"""The largest value of each window: over its rows first, then over its columns. The definition is functional.max_pool2d."""

import numpy

from ... import functional as F
from ... import ops
from ...ops import Op
from ...speed import fast_path
from ...tensor import apply
from ...threads import in_parallel, scratch
from .. import examples
from .pieces import on_cpu, runs_of
from .ways import reach

WORTHWHILE = 1 << 17  # values; below this, handing out the work costs more than it saves
VALUES = 1 << 17  # of x at a time


class MaxPool(Op):
    """What ops.MaxPool2d computes, with 2·K comparisons a window instead of K². Kept for backward: x.

    max_{p,q} x[i·s + p, j·s + q] = max_q (max_p x[i·s + p, j·s + q]): whole lines are compared before columns are picked.
    """

    def __init__(self, windows):
        self.windows = windows  # arguments of ops.MaxPool2d

    def forward(self, x):
        self.x = x = numpy.ascontiguousarray(x)
        op = ops.MaxPool2d(*self.windows)
        n, c, h, w = op.check(x)
        y = numpy.empty((n, c, op.windows(h), op.windows(w)), x.dtype)
        maps, results = (array.reshape(n * c, *array.shape[2:]) for array in (x, y))

        def work(run):
            lines = scratch("lines", (run.stop - run.start, results.shape[1], w), x.dtype)
            largest(maps[run], lines, op)
            largest(lines.swapaxes(1, 2), results[run].swapaxes(1, 2), op)

        in_parallel(work, runs_of(maps.shape, VALUES))
        return y

    def backward(self, dy):
        """The definition's, a few maps at a time: who won is found out once more."""
        dx = numpy.empty_like(self.x)
        maps, dmaps, dresults = (a.reshape(-1, 1, *a.shape[2:]) for a in (self.x, dx, numpy.ascontiguousarray(dy)))

        def work(run):
            op = ops.MaxPool2d(*self.windows)
            op.forward(maps[run])
            (dmaps[run],) = op.backward(dresults[run])

        in_parallel(work, runs_of(maps.shape, VALUES))
        return (dx,)


def largest(x, y, op):
    """y[:, i] = max_p x[:, i·s + p − pad], places beyond the edge counting as −∞."""
    for p in range(op.kernel):
        results, places = reach(p - op.padding, op.stride, x.shape[1], y.shape[1])
        here = y[:, results]
        if p == 0:
            here[...] = x[:, places]
            y[:, : results.start], y[:, results.stop :] = -numpy.inf, -numpy.inf
        else:
            numpy.maximum(here, x[:, places], out=here)


def fits(x, kernel, *, stride=None, padding=0, ceil_mode=False):
    """On the CPU, in float32 or float64, and large."""
    return on_cpu(x) and x.ndim == 4 and x.size >= WORTHWHILE


@fast_path(F.max_pool2d, fits=fits, examples=examples.max_pools)
def max_pool_rows_first(x, kernel, *, stride=None, padding=0, ceil_mode=False):
    """functional.max_pool2d in runs of feature maps that stay in the cache."""
    return apply(MaxPool((kernel, stride, padding, ceil_mode)), x)
