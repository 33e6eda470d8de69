"""BN-ReLU-Conv1×1-AvgPool2×2 between two dense blocks as one step, pooling first: a mean and a 1×1 convolution may change places."""

from functools import cache

import numpy

from ...models.densenet import Transition
from ...ops import Op
from ...speed import fast_path
from ...tensor import apply, recording
from ...threads import scratch, single_threaded_blas
from . import moments
from .pieces import Piece, in_pieces, on_cpu, pieces_of, shared_out
from .unit import Unit


class PooledUnit(Unit):
    """BN-ReLU-AvgPool2×2-Conv1×1: a quarter of the products, and the result is the same as with the pooling last."""

    def forward(self, x, piece, out):
        numpy.matmul(self.matrix_s, self.pooled(self.rectified(x), piece.width), out=out)

    def product(self, dy, t, piece):
        return dy @ self.pooled(t, piece.width).T

    def bring_back(self, dy, piece, out):
        c, p = out.shape
        small = scratch("small", (c, p // 4), out.dtype)
        numpy.matmul(self.back_matrix, dy, out=small)
        halves = pooling(piece.width, out.dtype).T
        numpy.matmul(small.reshape(-1, halves.shape[0]), halves, out=out.reshape(-1, halves.shape[1]))

    def pooled(self, t, width):
        """Means over 2×2 pixels: two lines of an image, end to end, times a matrix."""
        means = pooling(width, t.dtype)
        out = scratch("pooled", (len(t), t.shape[1] // 4), t.dtype)
        numpy.matmul(t.reshape(-1, len(means)), means, out=out.reshape(-1, means.shape[1]))
        return out


@cache
def pooling(width, dtype):
    """(2·W, W/2): column j holds ¼ for the four pixels of the j-th square in two lines of an image."""
    line = numpy.repeat(numpy.eye(width // 2, dtype=dtype), 2, axis=0) / 4
    return numpy.concatenate([line, line])


class TransitionStep(Op):
    """x (N, C, H, W), γ, β (C,), weight (F, C, 1, 1) give (N, F, H/2, W/2). Kept for backward: x. ``moments`` as BatchNorm's."""

    def __init__(self, norm, *, keep):
        self.norm, self.keep = norm, keep

    def forward(self, x, gamma, beta, weight):
        n, c, h, w = x.shape
        self.x = x = numpy.ascontiguousarray(x)
        self.m = n * h * w
        self.training = self.norm.training
        self.unit = PooledUnit(gamma, beta, weight)
        self.pieces = pieces_of(x.shape)
        y = numpy.empty((n, len(weight), h // 2, w // 2), x.dtype)
        with single_threaded_blas():
            if self.training:
                parts = in_pieces(lambda i, piece: moments.of_piece(piece.take(x)), self.pieces)
                self.mean, self.var = moments.merge(parts, self.pieces)
            else:
                self.mean, self.var = (
                    b.data.astype(numpy.float64) for b in (self.norm.running_mean, self.norm.running_var)
                )
            self.unit.fold(self.mean, 1 / numpy.sqrt(self.var + self.norm.eps))
            self.unit.prepare_forward(self.pieces[0].pixels, shifted=True)

            offset = self.unit.offset[:, None].astype(x.dtype)

            def work(i, piece):
                out = scratch("out", (len(weight), piece.pixels // 4), x.dtype)
                self.unit.forward(piece.take(x), piece, out)
                out += offset
                halved(piece).put(out, y)

            in_pieces(work, self.pieces)
            self.unit.done()
        return y

    def backward(self, dy):
        unit, x, dy = self.unit, self.x, numpy.ascontiguousarray(dy)
        dx = numpy.empty_like(x)
        with single_threaded_blas():
            unit.prepare_backward(self.pieces[0].pixels)

            def work(i, piece, sums):
                d = scratch("dx", (unit.channels, piece.pixels), x.dtype)
                unit.backward(piece.take(x), halved(piece).take(dy), piece, sums, d)
                piece.put(d, dx)

            gradients = unit.gradients(shared_out(work, self.pieces, unit.new_sums))
            unit.done()
            if self.training:
                in_pieces(unit.centring(x, dx, self.m, self.pieces[0].pixels), self.pieces)
        return dx, *gradients


def halved(piece):
    """The same images at half the size."""
    return Piece(piece.start, piece.stop, piece.height // 2, piece.width // 2)


def fits(module, x):
    return (
        type(module) is Transition
        and on_cpu(x)
        and x.ndim == 4
        and x.shape[1] == len(module.norm.weight)
        and x.shape[2] % 2 == x.shape[3] % 2 == 0
        and not (module.drop.training and module.drop.p)
        and all(child.on_output is None for _, child in module.named_children())
    )


@fast_path(Transition.forward, fits=fits, examples=list)
def transition_pooling_first(module, x):
    """models.densenet.Transition.forward as one step."""
    inputs = (x, module.norm.weight, module.norm.bias, module.conv.weight)
    op = TransitionStep(module.norm, keep=recording(*inputs))
    y = apply(op, *inputs)
    if op.training:
        module.norm.track(op.mean, op.var, op.m)
    return y
