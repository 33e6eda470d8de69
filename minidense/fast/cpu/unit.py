"""BN-ReLU-Conv on pieces of a batch: the composite function H of the DenseNet paper (§3) as one threshold and one matrix product.

With s = γ/√(var + ε) and θ = mean − β/s, for each channel,

    relu(BN(x)) = |s|·ρ,   ρ = max(±(x − θ), 0) with the sign of s

so |s| goes into the weights and one threshold is left of the normalisation. ReLU does not mind a positive factor, and from that
(Euler: relu(γ·x̂ + β) is homogeneous in γ and β) dγ follows from the weight gradient without another look at the images:

    γ·dγ + β·dβ = Σ h·dh = Σ_o W[o]·dW[o]            h = relu(BN(x)), o over everything that channel c feeds
"""

import math
from typing import Any, NamedTuple

import numpy

from ...threads import scratch
from .moments import filled

SMALLEST_GAMMA = 1e-20  # stands for γ = 0, which would put the threshold at infinity
SHIFT = 32.0  # a constant so many times the largest γ costs no more than 32 roundings
FAR = 8.0  # where |β| is so many times |γ|, γ·dγ is a small difference of large sums, and dγ is summed up directly


class Sums(NamedTuple):
    """What a share of the pieces adds up in backward. `far` belongs to the channels in Unit.far."""

    weight: numpy.ndarray  # −Σ dy·ρ, as the convolution lays it out
    dx: numpy.ndarray  # Σ dx, (C,)
    far: numpy.ndarray  # Σ dx·(x − mean)


class Unit:
    """One BN-ReLU-Conv. Shapes: x (C, n, H·W) of a piece gives (F, P'); P = n·H·W, and P' of the result.

    ``fold`` once the statistics are known; then ``prepare_forward``, ``forward`` on every piece, ``done``; later
    ``prepare_backward``, ``backward`` on every piece, ``gradients`` of all the sums, ``done``.

    way  how to convolve with a weight (F, C, K, K'), see ways.py
    """

    def __init__(self, gamma, beta, weight, *, way):
        self.gamma, self.beta, self.weight, self.way = gamma, beta, weight, way
        self.thresholds: Any = None
        self.outputs, self.channels = weight.shape[:2]
        self.dtype = weight.dtype

    def fold(self, mean, inv_std):
        """Set thresholds for these statistics (C,)."""
        self.mean, self.inv_std = mean, inv_std
        gamma, beta = self.gamma.astype(numpy.float64), self.beta.astype(numpy.float64)
        self.used_gamma = numpy.where(abs(gamma) < SMALLEST_GAMMA, SMALLEST_GAMMA, gamma)
        self.s = self.used_gamma * inv_std
        self.theta = mean - beta / self.s
        # relu(β) = 0 and no gradient: nothing lies above the threshold.
        self.theta[(gamma == 0) & (beta <= 0)] = numpy.inf
        self.falling = numpy.flatnonzero(self.s < 0)
        self.far = numpy.flatnonzero(abs(beta) > FAR * abs(gamma))

    def prepare_forward(self, *, shifted=False):
        """Make ready what every piece will read.

        shifted  a 1×1 convolution may leave out a constant for each filter, which ``offset`` (F,) then holds: half the passes over
                 x, but only where the constant is no larger than what it is added to
        """
        dead = numpy.isinf(self.theta)
        s, theta = numpy.where(dead, 0, self.s), numpy.where(dead, 0, self.theta).astype(self.dtype)
        pointwise = self.weight.shape[2:] == (1, 1)
        self.shifted = shifted and pointwise and abs(s * theta).max() <= SHIFT * abs(self.used_gamma).max()
        if self.shifted:
            # s·(clipped(x) − θ) = |s|·ρ for either sign of s, and the part with θ is the same for all pixels.
            folded = self.scaled(s)
            self.offset = -(folded[:, :, 0, 0].astype(numpy.float64) @ theta)
            self.thresholds = theta[:, None, None]
        else:
            folded = self.scaled(-abs(self.s))
            self.offset = numpy.zeros(self.outputs)
            self.thresholds = self.theta.astype(self.dtype)[:, None, None]
        self.convolution = self.way(folded)

    def prepare_backward(self):
        """Make ready what backward will read, see prepare_forward."""
        self.thresholds = self.theta.astype(self.dtype)[:, None, None]
        self.convolution = self.way(self.scaled(self.s))

    def scaled(self, s):
        """The weights with a factor for each channel in them."""
        return self.weight * s.astype(self.dtype)[:, None, None]

    def done(self):
        """Free what was made ready."""
        self.thresholds = self.convolution = None

    def below(self, x):
        """−ρ where x (C, n, H·W) is on the active side of its threshold, something not negative elsewhere: (C, P), in working memory."""
        c, n, pixels = x.shape
        t = scratch("threshold", (c, n * pixels), x.dtype)
        t_rows = t.reshape(x.shape)
        numpy.subtract(self.thresholds, x, out=t_rows)
        for row in self.falling:
            numpy.subtract(x[row], self.thresholds[row], out=t_rows[row])
        return t

    def clipped(self, x):
        """x (C, n, H·W) clipped at its threshold: (C, P), in working memory."""
        c, n, pixels = x.shape
        t = scratch("threshold", (c, n * pixels), x.dtype)
        t_rows = t.reshape(x.shape)
        numpy.maximum(x, self.thresholds, out=t_rows)
        for row in self.falling:
            numpy.minimum(x[row], self.thresholds[row], out=t_rows[row])
        return t

    def forward(self, x, piece, result, out):
        """conv(relu(BN(x))), but for ``offset``: x (C, n, H·W) into out (F, P')."""
        if self.shifted:
            t = self.clipped(x)
        else:
            t = self.below(x)
            numpy.minimum(t, zeros(t.shape, t.dtype), out=t)  # −ρ
        self.convolution.forward(t, piece, result, out)

    def new_sums(self):
        """Zeros to begin with."""
        return Sums(
            numpy.zeros(self.convolution.sum_shape, self.dtype),
            numpy.zeros(self.channels),
            numpy.zeros(len(self.far)),
        )

    def backward(self, x, dy, piece, result, sums, dx):
        """dL/dx into dx (C, P), as if mean and variance did not depend on x (C, n, H·W); dy (F, n, H'·W')."""
        t = self.below(x)
        numpy.minimum(t, zeros(t.shape, t.dtype), out=t)  # −ρ
        self.convolution.backward(t, dy, piece, result, sums.weight, dx)
        # The sign of −ρ in all its bits is a mask: ones where x is active, zeros elsewhere.
        mask, bits = t.view(f"i{t.itemsize}"), dx.view(f"i{t.itemsize}")
        numpy.right_shift(mask, 8 * t.itemsize - 1, out=mask)
        numpy.bitwise_and(bits, mask, out=bits)
        numpy.add(sums.dx, numpy.matmul(dx, filled(1, piece.pixels, x.dtype)), out=sums.dx)
        for i, row in enumerate(self.far):
            sums.far[i] += dx[row] @ (x[row].reshape(-1) - x.dtype.type(self.mean[row]))

    def gradients(self, sums):
        """(dγ, dβ, dweight) in the weights' type from the sums of all pieces.

        Also sets s·dγ and s·dβ, for the part that normalising takes from dx.
        """
        total = Sums(*(sum(parts) for parts in zip(*sums, strict=True)))
        dweight = self.convolution.dweight(total.weight) * -abs(self.s).astype(self.dtype)[:, None, None]
        dbeta = total.dx / self.s
        dgamma = ((self.weight * dweight).sum((0, 2, 3), dtype=numpy.float64) - self.beta * dbeta) / self.used_gamma
        dgamma[self.far] = total.far / self.used_gamma[self.far]
        self.s_dbeta, self.s_dgamma = self.s * dbeta, self.s * dgamma
        return dgamma.astype(self.dtype), dbeta.astype(self.dtype), dweight


def zeros(shape, dtype):
    """Zeros to compare with: NumPy takes the smaller of two whole arrays thrice as fast as that of an array and a number."""
    size = math.prod(shape)
    flat = _zeros.get(dtype)
    if flat is None or flat.size < size:
        flat = numpy.zeros(size, dtype)
        flat.flags.writeable = False
        _zeros[dtype] = flat  # where another thread does the same, one of the two is used this once
    return flat[:size].reshape(shape)


_zeros: dict[numpy.dtype, numpy.ndarray] = {}
