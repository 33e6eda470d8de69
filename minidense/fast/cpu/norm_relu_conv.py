"""BN-ReLU-Conv as one step, keeping its input alone; the transition between dense blocks is one that pools.

The definitions are nn.norm_relu_conv and models.densenet.Transition.forward.
"""

from functools import partial

import numpy

from ...models.densenet import Transition
from ...nn import norm_relu_conv
from ...ops import Op
from ...ops.norm import refuse_single_value
from ...speed import fast_path
from ...tensor import apply
from ...threads import scratch, single_threaded_blas
from .. import examples
from ..known import is_known_pair, is_known_transition
from . import moments
from .pieces import Piece, in_pieces, on_cpu, pieces_of, result_of, shared_out
from .unit import Unit
from .ways import PooledPointwise, runner


class NormReLUConv(Op):
    """conv(relu(BN(x))): x (N, C, H, W), γ, β (C,), weight (F, C, K, K') give (N, F, H', W').

    norm     whose statistics and ε; where it is training, ``mean`` and ``var`` are the batch's own after forward
    way      how to convolve, see ways.py
    results  from a piece to the piece that comes out
    """

    def __init__(self, norm, way, results):
        self.norm, self.way, self.results = norm, way, results
        self.training = norm.training

    def forward(self, x, gamma, beta, weight):
        self.x = x = numpy.ascontiguousarray(x)
        n, _, h, w = x.shape
        self.m = n * h * w
        self.unit = unit = Unit(gamma, beta, weight, way=self.way)
        self.pieces = pieces_of(x.shape, max(weight.shape[:2]))
        last = self.results(self.pieces[-1])
        y = numpy.empty((n, len(weight), last.height, last.width), x.dtype)

        def work(i, piece):
            result = self.results(piece)
            out = result.place(y, "out")
            unit.forward(piece.of(x), piece, result, out)
            if unit.shifted:
                out += offset
            result.put(out, y)

        with single_threaded_blas():
            if self.training:
                parts = in_pieces(lambda i, piece: moments.of_images(x[piece.start : piece.stop]), self.pieces)
                self.mean, self.var = moments.merge(parts)
            else:
                running = self.norm.running_mean, self.norm.running_var
                self.mean, self.var = (buffer.data.astype(numpy.float64) for buffer in running)
            unit.fold(self.mean, 1 / numpy.sqrt(self.var + self.norm.eps))
            unit.prepare_forward(shifted=True)
            offset = unit.offset[:, None].astype(x.dtype)
            in_pieces(work, self.pieces)
            unit.done()
        return y

    def backward(self, dy):
        unit, x, dy = self.unit, self.x, numpy.ascontiguousarray(dy)
        dx = numpy.empty_like(x)

        def work(i, piece, sums):
            result = self.results(piece)
            out = piece.place(dx, "dx")
            unit.backward(piece.of(x), result.of(dy), piece, result, sums, out)
            piece.put(out, dx)

        with single_threaded_blas():
            unit.prepare_backward()
            gradients = unit.gradients(shared_out(work, self.pieces, unit.new_sums))
            unit.done()
            if self.training:
                self.centre(dx)
        return dx, *gradients

    def centre(self, dx):
        """Take from dx what normalising took from x: its mean and its part along x̂ (Ioffe & Szegedy 2015, §3)."""
        unit, x = self.unit, self.x
        slope = unit.s_dgamma * unit.inv_std / self.m
        level = unit.s_dbeta / self.m - slope * unit.mean
        slope, level = (v.astype(x.dtype)[:, None, None] for v in (slope, level))

        def work(i, piece):
            here, dx_here = piece.of(x), piece.of(dx)
            lost = scratch("lost", here.shape, x.dtype)
            numpy.multiply(here, slope, out=lost)
            numpy.add(lost, level, out=lost)
            numpy.subtract(dx_here, lost, out=dx_here)

        in_pieces(work, self.pieces)


def halved(piece):
    """The same images at half the size."""
    return Piece(piece.start, piece.stop, piece.height // 2, piece.width // 2)


def one_step(norm, weight, x, way, results):
    """The step on Tensors, and what training leaves in `norm`."""
    inputs = (x, norm.weight, norm.bias, weight)
    op = NormReLUConv(norm, way, results)
    if norm.training:
        refuse_single_value(x)
    y = apply(op, *inputs)
    if norm.training:
        norm.track(op.mean, op.var, op.m)
    return y


def suits(x, *tensors):
    """All on the CPU and of one type?"""
    return on_cpu(x) and all(on_cpu(t) and t.dtype == x.dtype for t in tensors)


def fits(norm, conv, x):
    return (
        is_known_pair(norm, conv, x.shape)
        and suits(x, norm.weight, norm.bias, conv.weight)
        and whole(conv.stride, 1)
        and whole(conv.padding, 0)
        and all(size + 2 * conv.padding >= k for size, k in zip(x.shape[2:], conv.weight.shape[2:], strict=True))
    )


@fast_path(norm_relu_conv, fits=fits, examples=examples.norm_relu_convs)
def norm_relu_conv_in_pieces(norm, conv, x):
    """nn.norm_relu_conv without writing down what lies between."""
    way = partial(runner, stride=conv.stride, padding=conv.padding)
    shape, stride, padding = conv.weight.shape, conv.stride, conv.padding
    return one_step(norm, conv.weight, x, way, lambda piece: result_of(piece, shape, stride, padding))


def whole(number, least):
    return isinstance(number, int) and number >= least


def fits_transition(transition, x):
    return is_known_transition(transition, x.shape) and suits(x, *transition.parameters())


@fast_path(Transition.forward, fits=fits_transition, examples=examples.transitions)
def transition_pooling_first(transition, x):
    """Transition.forward as one step."""
    return one_step(transition.norm, transition.conv.weight, x, PooledPointwise, halved)
