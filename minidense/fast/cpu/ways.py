"""How a convolution is carried out on a piece of the batch: the ways, chosen by its shape.

All of them have the same methods. ``forward(x, piece, result, out)`` writes (F, P') for x (C, P); ``backward(x, dy, piece, result, total,
dx)`` adds the piece's share of the weight gradient to `total` (zeros of ``sum_shape`` at first) and writes dx (C, P) where it is an array;
``dweight(total)`` is that sum in the shape of the weight. `piece` says how the pixels of x lie, `result` those of the output; x and dy may
also come as (C, n, H·W), views of a batch, which are copied only where there is no other way.
"""

from functools import cache, cached_property

import numpy

from ...ops.window import window
from ...threads import scratch
from . import taps
from .winograd import Winograd, suits

COLUMNS = 1 << 18  # values of the columns of an image that are made at a time


def runner(weight, stride=1, padding=0):
    """The way to convolve with this weight (F, C, K, K') on images of any size."""
    f, c, k_h, k_w = weight.shape
    if stride != 1 or not k_h == k_w == 2 * padding + 1:
        return AnySize(weight, stride, padding)
    if k_h > 1 and f < 2 * c and c < 2 * f:
        return quicker(TapsOnBothSides(weight))
    return keeping_size(weight)


def keeping_size(weight):
    """The same for stride 1, K odd, padding (K − 1)/2, where filters and channels are far from equally many."""
    return quicker(KeepingSize(weight))


def quicker(direct):
    """That way, or one with fewer products."""
    return Winograd(direct) if suits(direct.weight) else direct


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
        self.few_filters = self.f <= self.c
        self.sum_shape = self.k**2 * min(self.f, self.c), max(self.f, self.c)

    @cached_property
    def shares(self):
        return self.weight.transpose(2, 3, 0, 1).reshape(-1, self.c)  # (K·K·F, C)

    @cached_property
    def mirrored(self):
        """Correlating with the mirrored filters is what brings dy back to x."""
        return self.weight[:, :, ::-1, ::-1].transpose(2, 3, 1, 0).reshape(-1, self.f)  # (K·K·C, F)

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
        self.weight = weight
        self.f, self.c, self.k, _ = weight.shape
        self.sum_shape = self.k * self.f, self.k * self.c

    @cached_property
    def matrix(self):
        return self.weight.transpose(2, 0, 3, 1).reshape(self.k * self.f, -1)  # (K·F, K·C)

    @cached_property
    def mirrored(self):
        return self.weight[:, :, ::-1, ::-1].transpose(2, 1, 3, 0).reshape(self.k * self.c, -1)  # (K·C, K·F)

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
    """Any kernel, stride and padding: the pixels that each output sees are copied side by side, one product does the rest.

    They are copied in two steps. First the K' columns that a line of outputs sees, s apart, become K' lines without gaps, sorted by the
    phase of their row (row mod s). What an output line sees through row p of the kernel is then a line of phase p mod s, ⌊p/s⌋ further
    on, and many lines follow one another: the second step, K times as much, copies long rows.
    """

    def __init__(self, weight, stride, padding):
        self.weight, self.stride, self.padding = weight, stride, padding
        self.f, self.c, self.k_h, self.k_w = weight.shape
        self.matrix = weight.transpose(0, 2, 3, 1).reshape(self.f, -1)  # (F, K·K'·C)
        self.sum_shape = self.matrix.shape

    def forward(self, x, piece, result, out):
        lines = self.lines(x, piece, result)
        rows = result.height
        if piece.images == 1:  # some lines at a time, so that their columns stay in the cache
            rows = max(1, COLUMNS // (self.matrix.shape[1] * result.width))
        for start in range(0, result.height, rows):
            stop = min(start + rows, result.height)
            part = out if rows >= result.height else out[:, start * result.width : stop * result.width]
            numpy.matmul(self.matrix, self.columns(lines, start, stop, result), out=part)

    def backward(self, x, dy, piece, result, total, dx):
        dy = flat(dy)
        columns = self.columns(self.lines(x, piece, result), 0, result.height, result)
        numpy.add(total, numpy.matmul(dy, columns.T), out=total)
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

    def lines(self, x, piece, result):
        """(s, K', C, n, lines, W'): for phase φ and column q, line i holds x[i·s + φ, j·s + q] for every j, all inside the border."""
        s, pad, x = self.stride, self.padding, x.reshape(self.c, piece.images, piece.height, piece.width)
        count = result.height + (self.k_h - 1) // s
        sizes = min(s, self.k_h), self.k_w, self.c, piece.images, count, result.width
        lines = scratch("lines", sizes, x.dtype)
        for phase in range(sizes[0]):
            rows, from_rows = reach(phase - pad, s, piece.height, count)
            for q in range(self.k_w):
                places, from_columns = reach(q - pad, s, piece.width, result.width)
                here = lines[phase, q]
                here[:, :, rows, places] = x[:, :, from_rows, from_columns]
                here[:, :, : rows.start], here[:, :, rows.stop :] = 0, 0
                here[..., : places.start], here[..., places.stop :] = 0, 0
        return lines

    def columns(self, lines, start, stop, result):
        """(K·K'·C, P'): what the outputs in lines `start` to `stop` see."""
        rows = self.k_w * self.c, result.images, stop - start, result.width
        columns = scratch("columns", (self.k_h, *rows), lines.dtype)
        for p in range(self.k_h):
            first = start + p // self.stride
            columns[p] = lines[p % self.stride, :, :, :, first : first + stop - start].reshape(rows)
        return columns.reshape(self.matrix.shape[1], -1)

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


def reach(offset, stride, size, count):
    """Those i of 0 … count − 1 for which place i·stride + offset is one of 0 … size − 1, and these places: two slices."""
    first = min(max(0, -(offset // stride)), count)
    last = max(first, min(count, (size - 1 - offset) // stride + 1))
    start = max(0, first * stride + offset)
    return slice(first, last), slice(start, start + (last - first) * stride, stride)


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
