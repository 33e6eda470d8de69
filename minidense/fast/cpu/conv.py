"""conv2d in pieces. The definition is functional.conv2d."""

import numpy

from ... import functional as F
from ...ops import Op
from ...ops.conv import check_shapes
from ...ops.window import output_size, window
from ...speed import fast_path
from ...tensor import apply
from ...threads import scratch, single_threaded_blas
from . import taps
from .pieces import Piece, in_pieces, on_cpu, pieces_of, shared_out


class ConvInPieces(Op):
    """What ops.Conv2d computes, for x (N, C, H, W), weight (F, C, K, K'), bias (F,), piece by piece. Kept: x and weight."""

    def __init__(self, stride, padding):
        self.stride, self.padding = stride, padding

    def forward(self, x, weight, bias=None):
        self.x, self.weight, self.has_bias = numpy.ascontiguousarray(x), weight, bias is not None
        x = self.x
        n, _, h, w = x.shape
        f, _, k_h, k_w = weight.shape
        self.out_h, self.out_w = (output_size(size, k, self.stride, self.padding) for size, k in ((h, k_h), (w, k_w)))
        self.pieces = pieces_of(x.shape)
        self.keeps_size = self.stride == 1 and k_h == k_w == 2 * self.padding + 1 and self.padding < min(h, w)
        y = numpy.empty((n, f, self.out_h, self.out_w), x.dtype)
        run = KeepingSize(weight) if self.keeps_size else AnySize(weight, self.stride, self.padding)

        def work(i, piece):
            result = self.output(piece)
            direct = piece.images == 1
            out = result.take(y) if direct else scratch("out", (f, result.pixels), x.dtype)
            run.forward(piece.take(x), piece, result, out)
            if bias is not None:
                out += bias[:, None]
            if not direct:
                result.put(out, y)

        with single_threaded_blas():
            in_pieces(work, self.pieces)
        return y

    def backward(self, dy):
        x, weight, dy = self.x, self.weight, numpy.ascontiguousarray(dy)
        run = KeepingSize(weight) if self.keeps_size else AnySize(weight, self.stride, self.padding)
        dx = numpy.empty_like(x) if self.wants(0) else None

        def work(i, piece, sums):
            dy_piece = self.output(piece).take(dy)
            direct = piece.images == 1
            if dx is None:
                out = None
            else:
                out = piece.take(dx) if direct else scratch("dx", (x.shape[1], piece.pixels), x.dtype)
            run.backward(piece.take(x), dy_piece, piece, self.output(piece), sums[0], out)
            if out is not None and not direct:
                piece.put(out, dx)
            if self.has_bias:
                numpy.add(sums[1], dy_piece.sum(1), out=sums[1])

        with single_threaded_blas():
            sums = shared_out(
                work, self.pieces, lambda: (numpy.zeros(run.sum_shape, x.dtype), numpy.zeros(len(weight), x.dtype))
            )
        dweight = run.dweight(sum(part for part, _ in sums))
        return (dx, dweight, sum(part for _, part in sums)) if self.has_bias else (dx, dweight)

    def output(self, piece):
        return Piece(piece.start, piece.stop, self.out_h, self.out_w)


class KeepingSize:
    """K×K at stride 1 with padding (K − 1)/2. Of x and dy the one with fewer channels is copied K·K times, the other not at all."""

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
            numpy.matmul(self.shares, x, out=out)
        elif 2 * self.f <= self.c:
            taps.multiply(self.shares, x, piece, out)
        else:
            numpy.matmul(self.mirrored.T, taps.spread(x, self.k, piece), out=out)

    def backward(self, x, dy, piece, result, dweight, dx):
        if self.few_filters:
            copied = dy if self.k == 1 else taps.spread(dy, self.k, piece)
            numpy.add(dweight, copied @ x.T, out=dweight)
            if dx is not None:
                numpy.matmul(self.shares.T, copied, out=dx)
            return
        copied = x if self.k == 1 else taps.spread(x, self.k, piece)
        numpy.add(dweight, copied @ dy.T, out=dweight)
        if dx is None:
            return
        if 2 * self.c <= self.f and self.k > 1:
            taps.multiply(self.mirrored, dy, piece, dx)
        else:
            numpy.matmul(self.shares.T, dy if self.k == 1 else taps.spread(dy, self.k, piece), out=dx)

    def dweight(self, total):
        k, f, c = self.k, self.f, self.c
        if self.few_filters:
            return total.reshape(k, k, f, c).transpose(2, 3, 0, 1)
        return total.reshape(k, k, c, f).transpose(3, 2, 0, 1)[:, :, ::-1, ::-1]


class AnySize:
    """Any kernel, stride and padding: the pixels that each output sees are copied side by side, one product does the rest."""

    def __init__(self, weight, stride, padding):
        self.weight, self.stride, self.padding = weight, stride, padding
        self.f, self.c, self.k_h, self.k_w = weight.shape
        self.matrix = weight.transpose(0, 2, 3, 1).reshape(self.f, -1)  # (F, K·K'·C)
        self.sum_shape = self.matrix.shape

    def forward(self, x, piece, result, out):
        numpy.matmul(self.matrix, self.columns(x, piece, result), out=out)

    def backward(self, x, dy, piece, result, dweight, dx):
        numpy.add(dweight, dy @ self.columns(x, piece, result).T, out=dweight)
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


def fits(x, weight, bias=None, *, stride=1, padding=0):
    """On the CPU, in float32 or float64."""
    return all(on_cpu(t) for t in (x, weight, bias) if t is not None)


@fast_path(F.conv2d, fits=fits, examples=list)
def conv2d_in_pieces(x, weight, bias=None, *, stride=1, padding=0):
    """functional.conv2d without a temporary of K·K·F values a pixel of the whole batch."""
    check_shapes(x, weight, bias, stride, padding)
    return apply(ConvInPieces(stride, padding), *(t for t in (x, weight, bias) if t is not None))
