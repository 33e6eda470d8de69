"""Operations that treat every image alone: the definition's own Op, run on some images at a time by several threads."""

import numpy

from ... import functional as F
from ... import ops
from ...ops import Op
from ...speed import fast_path
from ...tensor import apply
from ...threads import in_parallel
from .. import examples
from .pieces import on_cpu, shares_of

WORTHWHILE = 1 << 22  # values; below this, handing out the work costs more than it saves


class PerImage(Op):
    """An Op applied to shares of the batch, side by side. make() gives a fresh one."""

    def __init__(self, make):
        self.make = make

    def forward(self, x):
        self.shares = shares_of(len(x))
        self.ops = [self.make() for _ in self.shares]
        return self.together(lambda op, share: op.forward(x[share.start : share.stop]))

    def backward(self, dy):
        return (self.together(lambda op, share: op.backward(dy[share.start : share.stop])[0]),)

    def together(self, work):
        return numpy.concatenate(in_parallel(lambda job: work(*job), list(zip(self.ops, self.shares, strict=True))))


def per_image(function, make, cases):
    """Register the twin of a function of (x, options) whose definition applies the Op that make(options) makes."""

    def fits(x, *args, **options):
        return on_cpu(x) and x.ndim == 4 and len(x) > 1 and x.size >= WORTHWHILE

    def run(x, *args, **options):
        return apply(PerImage(lambda: make(*args, **options)), x)

    fast_path(function, fits=fits, examples=cases)(run)


def avg_pool(kernel, *, stride=None, padding=0):
    return ops.AvgPool2d(kernel, stride, padding)


per_image(F.avg_pool2d, avg_pool, examples.avg_pools)
per_image(F.global_avg_pool2d, ops.GlobalAvgPool2d, examples.images)
