"""ReLU on the batch as it lies. The definition is functional.relu."""

import numpy

from ... import functional as F
from ...ops import Op
from ...speed import fast_path
from ...tensor import apply
from ...threads import in_parallel
from .. import examples
from .pieces import on_cpu, runs_of
from .unit import zeros

WORTHWHILE = 1 << 17  # values; below this, handing out the work costs more than it saves
VALUES = 1 << 16  # at a time


class Rectify(Op):
    """What ops.ReLU computes. Kept for backward: y, whose values above 0 are where x was."""

    def forward(self, x):
        x = numpy.ascontiguousarray(x)
        self.y = y = numpy.empty_like(x)
        flat_x, flat_y = x.reshape(-1), y.reshape(-1)

        def work(part):
            numpy.maximum(flat_x[part], zeros((part.stop - part.start,), x.dtype), out=flat_y[part])

        in_parallel(work, runs_of(flat_x.shape, VALUES))
        return y

    def backward(self, dy):
        dy = numpy.ascontiguousarray(dy)
        dx = numpy.empty_like(dy)
        flat_dx, flat_dy, flat_y = dx.reshape(-1), dy.reshape(-1), self.y.reshape(-1)

        def work(part):
            numpy.multiply(flat_dy[part], flat_y[part] > 0, out=flat_dx[part])

        in_parallel(work, runs_of(flat_y.shape, VALUES))
        return (dx,)


def fits(x):
    """On the CPU, in float32 or float64, and large."""
    return on_cpu(x) and x.size >= WORTHWHILE


@fast_path(F.relu, fits=fits, examples=examples.rectified)
def relu_as_it_lies(x):
    """functional.relu in stretches that stay in the cache."""
    return apply(Rectify(), x)
