"""Batch normalisation, with or without a ReLU after it, on the batch as it lies: rows of C·H·W values, an image each.

The definitions are functional.batch_norm and nn.norm_relu.
"""

import numpy

from ... import functional as F
from ...errors import ConfigError
from ...nn import BatchNorm2d, norm_relu
from ...ops import Op
from ...ops.norm import check_shapes, refuse_single_value, track
from ...speed import fast_path
from ...tensor import apply
from ...threads import in_parallel, scratch, single_threaded_blas
from .. import examples
from . import moments
from .pieces import on_cpu, runs_of
from .unit import zeros

LONG = 1 << 11  # values in a feature map, from which on each is a row of its own
SHORT = 1 << 16  # values at a time where the vectors take no room in the cache


class Norm(Op):
    """What ops.BatchNorm computes, max(·, 0) of it where `rectify`. Kept for backward: x, and y where `rectify`.

    given  (mean, var) to normalise by; None for the batch's own, which ``mean`` and ``var`` then hold after forward
    """

    def __init__(self, eps, *, given=None, rectify=False):
        self.eps, self.given, self.rectify = eps, given, rectify

    def forward(self, x, gamma, beta):
        self.x = x = numpy.ascontiguousarray(x)
        self.gamma, self.beta = gamma.astype(numpy.float64), beta.astype(numpy.float64)
        self.runs, self.m = runs_of(x.shape), x.size // x.shape[1]
        with single_threaded_blas():
            if self.given is None:
                refuse_single_value(x)
                parts = in_parallel(lambda run: moments.of_images(x[run]), self.runs)
                self.mean, self.var = moments.merge(parts)
            else:
                self.mean, self.var = (v.astype(numpy.float64) for v in self.given)
            self.inv_std = 1 / numpy.sqrt(self.var + self.eps)
            y = numpy.empty_like(x)
            maps, runs, vectors = self.laid_out(self.mean, self.gamma * self.inv_std, self.beta)
            normalised = y.reshape(maps.shape)

            def work(run):
                out = normalised[run]
                mean, scale, shift = vectors if len(vectors[0]) == 1 else (v[run] for v in vectors)
                numpy.subtract(maps[run], mean, out=out)
                numpy.multiply(out, scale, out=out)
                numpy.add(out, shift, out=out)
                if self.rectify:
                    numpy.maximum(out, zeros(out.shape, x.dtype), out=out)

            in_parallel(work, runs)
        if self.rectify:
            self.y = y
        return y

    def backward(self, dy):
        x, dy = self.x, numpy.ascontiguousarray(dy)
        c = x.shape[1]
        (mean,) = self.by_image(self.mean)
        dx = numpy.empty_like(x)

        def add_up(run):
            """Σ dy and Σ dy·(x − mean) a channel, dy as it is before the ReLU, which goes into dx for now."""
            before = dx[run].reshape(-1, mean.size)
            if self.rectify:
                numpy.multiply(dy[run].reshape(before.shape), self.y[run].reshape(before.shape) > 0, out=before)
            else:
                before = dy[run].reshape(before.shape)
            centred = scratch("centred", before.shape, x.dtype)
            numpy.subtract(x[run].reshape(before.shape), mean, out=centred)
            rows = (len(before), c, -1)
            return (
                (before.reshape(rows) @ moments.filled(1, self.m // len(x), x.dtype)).sum(0, dtype=numpy.float64),
                numpy.vecdot(before.reshape(rows), centred.reshape(rows)).sum(0, dtype=numpy.float64),
            )

        with single_threaded_blas():
            dbeta, dgamma = (sum(parts) for parts in zip(*in_parallel(add_up, self.runs), strict=True))
            dgamma = dgamma * self.inv_std
            s = self.gamma * self.inv_std
            # Normalising took from x its mean and its part along x̂; the gradient loses the same two parts.
            slope = s * dgamma * self.inv_std / self.m if self.given is None else 0 * s
            level = s * dbeta / self.m - slope * self.mean if self.given is None else 0 * s
            s, slope, level = self.by_image(s, slope, level)

            def work(run):
                out = dx[run].reshape(-1, mean.size)
                numpy.multiply(out if self.rectify else dy[run].reshape(out.shape), s, out=out)
                if self.given is None:
                    lost = scratch("lost", out.shape, x.dtype)
                    numpy.multiply(x[run].reshape(out.shape), slope, out=lost)
                    out -= lost
                    out -= level

            in_parallel(work, self.runs)
        return dx, dgamma.astype(x.dtype), dbeta.astype(x.dtype)

    def laid_out(self, *vectors):
        """x as rows, in runs, and each (C,) beside it: an image in a row, or a feature map where it is long enough for a loop."""
        n, c, h, w = self.x.shape
        if h * w < LONG:
            return self.x.reshape(n, -1), self.runs, [v[None] for v in self.by_image(*vectors)]
        maps = self.x.reshape(n * c, h * w)
        return maps, runs_of(maps.shape, SHORT), [numpy.tile(v.astype(self.x.dtype), n)[:, None] for v in vectors]

    def by_image(self, *vectors):
        """Each (C,) as a row of C·H·W values."""
        pixels = self.x.shape[2] * self.x.shape[3]
        return [numpy.repeat(v.astype(self.x.dtype), pixels) for v in vectors]


def fits(x, gamma, beta, running_mean=None, running_var=None, *, training=True, momentum=0.1, eps=1e-5):
    """On the CPU, in float32 or float64."""
    return all(on_cpu(t) and t.dtype == x.dtype for t in (x, gamma, beta)) and x.size > 0


@fast_path(F.batch_norm, fits=fits, examples=examples.batch_norms)
def batch_norm_as_it_lies(
    x, gamma, beta, running_mean=None, running_var=None, *, training=True, momentum=0.1, eps=1e-5, rectify=False
):
    """functional.batch_norm, keeping only x."""
    check_shapes(x, gamma, beta, *(v for v in (running_mean, running_var) if v is not None))
    if training:
        op = Norm(eps, rectify=rectify)
        y = apply(op, x, gamma, beta)
        if running_mean is not None and running_var is not None:
            track(running_mean, running_var, op.mean, op.var, m=op.m, momentum=momentum)
        return y
    if running_mean is None or running_var is None:
        raise ConfigError("batch_norm: evaluation (training=False) needs running_mean and running_var")
    return apply(Norm(eps, given=(running_mean, running_var), rectify=rectify), x, gamma, beta)


def fits_pair(norm, x):
    return type(norm) is BatchNorm2d and norm.on_output is None and fits(x, norm.weight, norm.bias)


@fast_path(norm_relu, fits=fits_pair, examples=examples.norm_relus)
def norm_relu_as_it_lies(norm, x):
    """nn.norm_relu in one step."""
    y = batch_norm_as_it_lies(
        x,
        norm.weight,
        norm.bias,
        norm.running_mean.data,
        norm.running_var.data,
        training=norm.training,
        momentum=norm.momentum,
        eps=norm.eps,
        rectify=True,
    )
    if norm.training:
        norm.num_batches_tracked.data += 1
    return y
