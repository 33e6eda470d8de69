"""The last steps of a network on the GPU: the linear layer and the loss. In float32, whatever the precision (kernels/step.cu).

The definitions are functional.linear and cross_entropy.
"""

from ... import functional as F
from ...backend import array_module
from ...ops import Op
from ...ops.linear import check_shapes
from ...ops.loss import check_labels
from ...speed import fast_path
from ...tensor import apply
from . import examples
from .launch import divided, launch, on_gpu


def product(a, b, *, bias=None, a_across=False, b_across=False):
    """a·b + bias of matrices; `across`: of the transposed one."""
    (rows, depth), (a_down, a_along) = (a.shape[::-1], (1, a.shape[1])) if a_across else (a.shape, (a.shape[1], 1))
    columns, (b_down, b_along) = (b.shape[0], (1, b.shape[1])) if b_across else (b.shape[1], (b.shape[1], 1))
    y = array_module(a, b).empty((rows, columns), "float32")
    args = (a, a_down, a_along, b, b_down, b_along, bias, y, rows, columns, depth)
    launch("step.cu", "matrix_product", (divided(columns, 16), divided(rows, 16)), 256, *args)
    return y


class LinearOnGPU(Op):
    """y = x·weightᵀ + bias: (N, C), (F, C), (F,) give (N, F)."""

    fresh = True

    def forward(self, x, weight, bias=None):
        check_shapes(x, weight, bias)
        contiguous = array_module(x, weight).ascontiguousarray
        self.x, self.weight, self.has_bias = contiguous(x), contiguous(weight), bias is not None
        return product(self.x, self.weight, bias=bias, b_across=True)

    def backward(self, dy):
        dy = array_module(dy).ascontiguousarray(dy)
        dx = product(dy, self.weight) if self.wants(0) else None
        dweight = product(dy, self.x, a_across=True)
        if not self.has_bias:
            return dx, dweight
        dbias = array_module(dy).empty(dy.shape[1], "float32")
        launch("step.cu", "sum_of_rows", (divided(dy.shape[1], 256),), 256, dy, dbias, *dy.shape)
        return dx, dweight, dbias


class CrossEntropyOnGPU(Op):
    """−mean log softmax(logits)[label]: (N, classes) give one number."""

    fresh = True

    def __init__(self, labels):
        self.labels = labels

    def forward(self, logits):
        xp = array_module(logits, self.labels)
        self.log_p, loss = xp.empty(logits.shape, "float32"), xp.empty((1,), "float32")
        args = (xp.ascontiguousarray(logits), self.labels, self.log_p, loss, *logits.shape)
        launch("step.cu", "softmax_cross_entropy", (1,), 256, *args)
        return loss.reshape(())

    def backward(self, dy):
        dlogits = array_module(dy).empty(self.log_p.shape, "float32")
        args = (self.log_p, self.labels, dy.reshape(1), dlogits, *self.log_p.shape)
        launch("step.cu", "softmax_cross_entropy_gradient", (divided(dlogits.size, 256),), 256, *args)
        return (dlogits,)


def fits_linear(x, weight, bias=None):
    return on_gpu(x, weight, bias) and x.size > 0 and weight.size > 0


@fast_path(F.linear, fits=fits_linear, examples=examples.linears)
def linear_on_gpu(x, weight, bias=None):
    """functional.linear."""
    return apply(LinearOnGPU(), *(t for t in (x, weight, bias) if t is not None))


def fits_cross_entropy(logits, labels):
    return on_gpu(logits) and getattr(labels, "dtype", None) == "int64"


@fast_path(F.cross_entropy, fits=fits_cross_entropy, examples=examples.cross_entropies)
def cross_entropy_on_gpu(logits, labels):
    """functional.cross_entropy."""
    check_labels("cross_entropy", logits, labels)
    return apply(CrossEntropyOnGPU(array_module(logits.data, labels).ascontiguousarray(labels)), logits)
