"""batch_norm in pieces. The definition is functional.batch_norm."""

import numpy

from ... import functional as F
from ...errors import ConfigError
from ...ops import Op
from ...ops.norm import check_shapes, refuse_single_value, track
from ...speed import fast_path
from ...tensor import apply
from ...threads import scratch
from . import moments
from .pieces import in_pieces, on_cpu, pieces_of, shared_out
from .unit import repeated


class BatchNormInPieces(Op):
    """What ops.BatchNorm computes; given mean and var (C,), by those instead of the batch's own. Kept for backward: x."""

    def __init__(self, eps, moments=None):
        self.eps, self.given = eps, moments

    def forward(self, x, gamma, beta):
        self.x = x = numpy.ascontiguousarray(x)
        self.gamma = gamma
        self.m = x.size // x.shape[1]
        self.pieces = pieces_of(x.shape)
        if self.given is None:
            refuse_single_value(x)
            parts = in_pieces(lambda i, piece: moments.of_piece(piece.take(x)), self.pieces)
            self.mean, self.var = moments.merge(parts, self.pieces)
        else:
            self.mean, self.var = (v.astype(numpy.float64) for v in self.given)
        self.inv_std = 1 / numpy.sqrt(self.var + self.eps)
        y = numpy.empty_like(x)
        scale = repeated(gamma * self.inv_std, self.pieces[0].pixels, x.dtype)
        mean, beta = (repeated(v, self.pieces[0].pixels, x.dtype) for v in (self.mean, beta))

        def work(i, piece):
            p = piece.pixels
            t = scratch("threshold", (x.shape[1], p), x.dtype)
            numpy.subtract(piece.take(x), mean[:, :p], out=t)
            t *= scale[:, :p]
            t += beta[:, :p]
            piece.put(t, y)

        in_pieces(work, self.pieces)
        return y

    def backward(self, dy):
        x, dy = self.x, numpy.ascontiguousarray(dy)
        c, longest = x.shape[1], self.pieces[0].pixels
        mean = repeated(self.mean, longest, x.dtype)

        def add_up(i, piece, sums):
            own, p = piece.take(dy), piece.pixels
            centred = scratch("threshold", (c, p), x.dtype)
            numpy.subtract(piece.take(x), mean[:, :p], out=centred)
            sums[0] += own @ moments.filled(1, p, x.dtype)
            sums[1] += numpy.vecdot(own, centred)

        parts = shared_out(add_up, self.pieces, lambda: numpy.zeros((2, c)))
        dbeta, dgamma = sum(parts)
        dgamma = dgamma * self.inv_std
        s = self.gamma * self.inv_std
        scale = repeated(s, longest, x.dtype)
        if self.given is None:
            # Normalising removed the mean and the part along x̂; the gradient loses the same two parts.
            slope = repeated(-s * dgamma * self.inv_std / self.m, longest, x.dtype)
            level = repeated(-s * dbeta / self.m, longest, x.dtype)
        dx = numpy.empty_like(x)

        def work(i, piece):
            p = piece.pixels
            out = scratch("dx", (c, p), x.dtype)
            numpy.multiply(piece.take(dy), scale[:, :p], out=out)
            if self.given is None:
                centred = scratch("threshold", (c, p), x.dtype)
                numpy.subtract(piece.take(x), mean[:, :p], out=centred)
                centred *= slope[:, :p]
                centred += level[:, :p]
                out += centred
            piece.put(out, dx)

        in_pieces(work, self.pieces)
        return dx, dgamma.astype(x.dtype), dbeta.astype(x.dtype)


def fits(x, gamma, beta, running_mean=None, running_var=None, **options):
    """On the CPU, in float32 or float64."""
    return on_cpu(x) and on_cpu(gamma) and on_cpu(beta)


@fast_path(F.batch_norm, fits=fits, examples=list)
def batch_norm_in_pieces(x, gamma, beta, running_mean=None, running_var=None, *, training=True, momentum=0.1, eps=1e-5):
    """functional.batch_norm, keeping only x."""
    check_shapes(x, gamma, beta, *(v for v in (running_mean, running_var) if v is not None))
    if training:
        op = BatchNormInPieces(eps)
        y = apply(op, x, gamma, beta)
        if running_mean is not None and running_var is not None:
            track(running_mean, running_var, op.mean, op.var, m=op.m, momentum=momentum)
        return y
    if running_mean is None or running_var is None:
        raise ConfigError("batch_norm: evaluation (training=False) needs running_mean and running_var")
    return apply(BatchNormInPieces(eps, (running_mean, running_var)), x, gamma, beta)
