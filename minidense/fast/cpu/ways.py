"""How a convolution is carried out on a piece of the batch: the ways, chosen by its shape.

All of them have the same methods. ``forward(x, piece, result, out)`` writes (F, P') for x (C, P); ``backward(x, dy, piece, result, total,
dx)`` adds the piece's share of the weight gradient to `total` (zeros of ``sum_shape`` at first) and writes dx (C, P) where it is an array;
``dweight(total)`` is that sum in the shape of the weight. `piece` says how the pixels of x lie, `result` those of the output; x and dy may
also come as (C, n, H·W), views of a batch, which are copied only where there is no other way.
"""

from functools import cache

import numpy

from ...ops.window import window
from ...threads import scratch
from . import taps


def runner(weight, stride=1, padding=0):
    """The way to convolve with this weight (F, C, K, K') on images of any size."""
    f, c, k_h, k_w = weight.shape
    if stride != 1 or not k_h == k_w == 2 * padding + 1:
        return AnySize(weight, stride, padding)
    if k_h > 1 and f < 2 * c and c < 2 * f:
        return TapsOnBothSides(weight)
    return KeepingSize(weight)


def flat(x):
    """(C, n, H·W) as one matrix (C, P)."""
    return x.reshape(len(x), -1)


class KeepingSize:
    """K×K at stride 1 with padding (K − 1)/2, all taps on the side with fewer channels, see taps.py.

    For 1×1, and where one of x and dy has far fewer channels than the other.
    """

    def __init__(self, weight):
        self.weight = weight
        self.f, self.c, self.k, _ = weight.shape
        self.shares = weight.transpose(2, 3, 0, 1).reshape(-1, self.c)  # (K·K·F, C)
        # Correlating with the mirrored filters is what brings dy back to x.
        self.mirrored = weight[:, :, ::-1, ::-1].transpose(2, 3, 1, 0).reshape(-1, self.f)  # (K·K·C, F)
        self.few_filters = self.f <= self.c
        self.sum_shape = self.shares.shape if self.few_filters else self.mirrored.shape

    def forward(self, x, piece, result, out):
        if self.k == 1:
            numpy.matmul(self.shares, flat(x), out=out)
        elif self.few_filters:
            taps.multiply(self.shares, flat(x), piece, out)
        else:
            numpy.matmul(self.mirrored.T, taps.spread(x, self.k, piece), out=out)

    def backward(self, x, dy, piece, result, total, dx):
        if self.few_filters:
            copied = flat(dy) if self.k == 1 else taps.spread(dy, self.k, piece)
            numpy.add(total, numpy.matmul(copied, flat(x).T), out=total)
            if dx is not None:
                numpy.matmul(self.shares.T, copied, out=dx)
            return
        dy = flat(dy)
        copied = flat(x) if self.k == 1 else taps.spread(x, self.k, piece)
        numpy.add(total, numpy.matmul(copied, dy.T), out=total)
        if dx is None:
            return
        if self.k == 1:
            numpy.matmul(self.shares.T, dy, out=dx)
        else:
            taps.multiply(self.mirrored, dy, piece, dx)

    def dweight(self, total):
        k, f, c = self.k, self.f, self.c
        if self.few_filters:
            return total.reshape(k, k, f, c).transpose(2, 3, 0, 1)
        return total.reshape(k, k, c, f).transpose(3, 2, 0, 1)[:, :, ::-1, ::-1]


class TapsOnBothSides:
    """K×K at stride 1 with padding (K − 1)/2, where x and dy have about as many channels.

    y[h, w] = Σ_p o_p[h + p − r, w] and o_p[h, w] = Σ_q W[p, q]·x[h, w + q − r], r = (K − 1)/2: the columns of the taps are copies of
    what comes in, the rows are shifts of what comes out, K of each instead of K·K of one. Likewise
    dW[p, q] = Σ dy[h, w − (q − r)]·x[h + p − r, w], columns on one side and rows on the other.
    """

    def __init__(self, weight):
        self.f, self.c, self.k, _ = weight.shape
        self.matrix = weight.transpose(2, 0, 3, 1).reshape(self.k * self.f, -1)  # (K·F, K·C)
        self.mirrored = weight[:, :, ::-1, ::-1].transpose(2, 1, 3, 0).reshape(self.k * self.c, -1)  # (K·C, K·F)
        self.sum_shape = self.k * self.f, self.k * self.c

    def forward(self, x, piece, result, out):
        taps.sum_of_rows(self.matrix, taps.columns(x, self.k, piece, "columns"), piece, out)

    def backward(self, x, dy, piece, result, total, dx):
        columns = taps.columns(dy, self.k, piece, "columns")
        numpy.add(total, numpy.matmul(columns, taps.rows(x, self.k, piece, "rows").T), out=total)
        if dx is not None:
            taps.sum_of_rows(self.mirrored, columns, piece, dx)

    def dweight(self, total):
        # The columns of dy run the other way round.
        return total.reshape(self.k, self.f, self.k, self.c)[::-1].transpose(1, 3, 2, 0)


class AnySize:
    """Any kernel, stride and padding: the pixels that each output sees are copied side by side, one product does the rest."""

    def __init__(self, weight, stride, padding):
        self.weight, self.stride, self.padding = weight, stride, padding
        self.f, self.c, self.k_h, self.k_w = weight.shape
        self.matrix = weight.transpose(0, 2, 3, 1).reshape(self.f, -1)  # (F, K·K'·C)
        self.sum_shape = self.matrix.shape

    def forward(self, x, piece, result, out):
        numpy.matmul(self.matrix, self.columns(x, piece, result), out=out)

    def backward(self, x, dy, piece, result, total, dx):
        dy = flat(dy)
        numpy.add(total, numpy.matmul(dy, self.columns(x, piece, result).T), out=total)
        if dx is None:
            return
        dcolumns = scratch("columns", (self.matrix.shape[1], result.pixels), dy.dtype)
        numpy.matmul(self.matrix.T, dy, out=dcolumns)
        padded = self.space(piece, dy.dtype)
        padded[...] = 0
        shares = dcolumns.reshape(self.k_h, self.k_w, self.c, result.images, result.height, result.width)
        for p in range(self.k_h):
            for q in range(self.k_w):
                self.seen_by(p, q, padded, result)[...] += shares[p, q]
        piece_of_dx = dx.reshape(self.c, piece.images, piece.height, piece.width)
        piece_of_dx[...] = self.inside(padded, piece)

    def columns(self, x, piece, result):
        """(K·K'·C, P'): what each of the P' outputs sees."""
        padded = self.space(piece, x.dtype)
        if self.padding:
            padded[...] = 0
        self.inside(padded, piece)[...] = x.reshape(self.c, piece.images, piece.height, piece.width)
        columns = scratch("columns", (self.matrix.shape[1], result.pixels), x.dtype)
        places = columns.reshape(self.k_h, self.k_w, self.c, result.images, result.height, result.width)
        for p in range(self.k_h):
            for q in range(self.k_w):
                places[p, q] = self.seen_by(p, q, padded, result)
        return columns

    def space(self, piece, dtype):
        pad = 2 * self.padding
        return scratch("padded", (self.c, piece.images, piece.height + pad, piece.width + pad), dtype)

    def inside(self, padded, piece):
        pad = self.padding
        return padded[:, :, pad : pad + piece.height, pad : pad + piece.width]

    def seen_by(self, p, q, padded, result):
        return window(padded, p, q, self.stride, result.height, result.width)

    def dweight(self, total):
        return total.reshape(self.f, self.k_h, self.k_w, self.c).transpose(0, 3, 1, 2)


class PooledPointwise:
    """1×1 and then the mean over 2×2 pixels, in the other order, which comes to the same with a quarter of the products."""

    def __init__(self, weight):
        self.matrix = weight[:, :, 0, 0]  # (F, C)
        self.sum_shape = self.matrix.shape

    def forward(self, x, piece, result, out):
        numpy.matmul(self.matrix, self.pooled(x, piece.width), out=out)

    def backward(self, x, dy, piece, result, total, dx):
        dy = flat(dy)
        numpy.add(total, numpy.matmul(dy, self.pooled(x, piece.width).T), out=total)
        if dx is None:
            return
        small = scratch("small", (len(dx), result.pixels), dx.dtype)
        numpy.matmul(self.matrix.T, dy, out=small)
        back = pooling(piece.width, dx.dtype).T
        numpy.matmul(small.reshape(-1, len(back)), back, out=dx.reshape(-1, back.shape[1]))

    def dweight(self, total):
        return total[:, :, None, None]

    def pooled(self, x, width):
        """Two lines of an image, end to end, times a matrix."""
        means = pooling(width, x.dtype)
        out = scratch("pooled", (len(x), x.shape[1] // 4), x.dtype)
        numpy.matmul(x.reshape(-1, len(means)), means, out=out.reshape(-1, means.shape[1]))
        return out


@cache
def pooling(width, dtype):
    """(2·W, W/2): column j holds ¼ for the four pixels of the j-th square in two lines of an image."""
    line = numpy.repeat(numpy.eye(width // 2, dtype=dtype), 2, axis=0) / 4
    return numpy.concatenate([line, line])
