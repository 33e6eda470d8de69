"""Many values to fewer: each op takes `axis` (None, an int or a tuple) and `keepdims`, as in NumPy.

Shapes: y has x's shape without the axes that were reduced, or with ones in their place where keepdims is set. Source of the
derivatives where none is named: the chain rule in reverse, Baydin et al. 2018, §3.2.
"""

import numpy

from ..backend import array_module
from ..errors import ShapeError
from .base import Op


class Reduction(Op):
    """What all reductions share: the axes, and the way a gradient spreads back over them."""

    def __init__(self, axis=None, keepdims=False):
        self.axis, self.keepdims = axis, keepdims

    def look_at(self, x):
        """Settle which axes of x are meant, and how many values meet in each result."""
        axes = (
            range(x.ndim)
            if self.axis is None
            else [self.axis]
            if isinstance(self.axis, int | numpy.integer)
            else self.axis
        )
        if any(not -x.ndim <= a < x.ndim for a in axes) or len({a % x.ndim for a in axes}) != len(axes):
            raise ShapeError(f"{type(self).__name__.lower()}: axis {self.axis} does not fit shape {x.shape}")
        self.axes = tuple(a % x.ndim for a in axes)
        self.x_shape = x.shape
        self.kept_shape = tuple(1 if i in self.axes else n for i, n in enumerate(x.shape))
        self.count = 1
        for a in self.axes:
            self.count *= x.shape[a]
        if self.count == 0 and not isinstance(self, Sum):
            raise ShapeError(f"{type(self).__name__.lower()}: shape {x.shape} has no values along axis {self.axis}")

    def spread(self, dy):
        """dy with its lost axes back as ones, so that it broadcasts against x."""
        return dy.reshape(self.kept_shape)


class Sum(Reduction):
    """y = Σ x,  dx = dy for every term"""

    def forward(self, x):
        self.look_at(x)
        return x.sum(self.axes, keepdims=self.keepdims)

    def backward(self, dy):
        return (array_module(dy).broadcast_to(self.spread(dy), self.x_shape),)


class Mean(Reduction):
    """y = Σ x / m,  dx = dy/m for each of the m terms"""

    def forward(self, x):
        self.look_at(x)
        return x.mean(self.axes, keepdims=self.keepdims)

    def backward(self, dy):
        return (array_module(dy).broadcast_to(self.spread(dy) / self.count, self.x_shape),)


class Max(Reduction):
    """y = max x,  dx = dy where x = y and 0 elsewhere; values that tie share it equally (one choice of subgradient)"""

    def forward(self, x):
        self.look_at(x)
        y = x.max(self.axes, keepdims=True)
        self.largest = x == y
        return y if self.keepdims else y.reshape([n for i, n in enumerate(x.shape) if i not in self.axes])

    def backward(self, dy):
        return (self.largest * (self.spread(dy) / self.largest.sum(self.axes, keepdims=True, dtype=dy.dtype)),)


class LogSumExp(Reduction):
    """y = ln Σ eˣ = c + ln Σ eˣ⁻ᶜ with c = max x, so that nothing overflows;  dx = softmax(x)·dy   (Blanchard et al. 2021)"""

    def forward(self, x):
        self.look_at(x)
        xp = array_module(x)
        largest = x.max(self.axes, keepdims=True)
        powers = xp.exp(x - largest)
        total = powers.sum(self.axes, keepdims=True)
        self.p = powers / total  # the softmax
        y = largest + xp.log(total)
        return y if self.keepdims else y.reshape([n for i, n in enumerate(x.shape) if i not in self.axes])

    def backward(self, dy):
        return (self.p * self.spread(dy),)
