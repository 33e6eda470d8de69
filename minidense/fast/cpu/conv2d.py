"""conv2d in pieces. The definition is functional.conv2d."""

import numpy

from ... import functional as F
from ...ops import Op
from ...ops.conv import check_shapes
from ...speed import fast_path
from ...tensor import apply
from ...threads import single_threaded_blas
from .. import examples
from .pieces import in_pieces, on_cpu, pieces_of, result_of, shared_out
from .ways import runner


class ConvInPieces(Op):
    """What ops.Conv2d computes, for x (N, C, H, W), weight (F, C, K, K'), bias (F,), piece by piece. Kept: x and weight."""

    def __init__(self, stride, padding):
        self.stride, self.padding = stride, padding

    def forward(self, x, weight, bias=None):
        self.x = x = numpy.ascontiguousarray(x)
        self.weight, self.has_bias = weight, bias is not None
        self.pieces = pieces_of(x.shape, max(weight.shape[:2]))
        self.results = [result_of(piece, weight.shape, self.stride, self.padding) for piece in self.pieces]
        convolution = runner(weight, self.stride, self.padding)
        y = numpy.empty((len(x), len(weight), self.results[0].height, self.results[0].width), x.dtype)

        def work(i, piece):
            result = self.results[i]
            out = result.place(y, "out")
            convolution.forward(piece.of(x), piece, result, out)
            if bias is not None:
                out += bias[:, None]
            result.put(out, y)

        with single_threaded_blas():
            in_pieces(work, self.pieces)
        return y

    def backward(self, dy):
        x, weight, dy = self.x, self.weight, numpy.ascontiguousarray(dy)
        convolution = runner(weight, self.stride, self.padding)
        dx = numpy.empty_like(x) if self.wants(0) else None

        def work(i, piece, sums):
            result = self.results[i]
            dy_here = result.of(dy)
            out = None if dx is None else piece.place(dx, "dx")
            convolution.backward(piece.of(x), dy_here, piece, result, sums[0], out)
            if out is not None:
                piece.put(out, dx)
            if self.has_bias:
                numpy.add(sums[1], dy_here.sum((1, 2)), out=sums[1])

        def new_sums():
            return numpy.zeros(convolution.sum_shape, x.dtype), numpy.zeros(len(weight), x.dtype)

        with single_threaded_blas():
            dweight, dbias = (sum(parts) for parts in zip(*shared_out(work, self.pieces, new_sums), strict=True))
        dweight = convolution.dweight(dweight)
        return (dx, dweight, dbias) if self.has_bias else (dx, dweight)


def fits(x, weight, bias=None, *, stride=1, padding=0):
    """On the CPU, in float32 or float64."""
    return all(on_cpu(t) for t in (x, weight, bias) if t is not None) and x.size > 0


@fast_path(F.conv2d, fits=fits, examples=examples.convolutions)
def conv2d_in_pieces(x, weight, bias=None, *, stride=1, padding=0):
    """functional.conv2d without a temporary of K·K·F values a pixel of the whole batch."""
    check_shapes(x, weight, bias, stride, padding)
    return apply(ConvInPieces(stride, padding), *(t for t in (x, weight, bias) if t is not None))
