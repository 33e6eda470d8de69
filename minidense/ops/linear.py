"""Products of matrices."""

from ..errors import ShapeError
from .base import Op
from .elementwise import sum_to


class MatMul(Op):
    """y = a·b,  da = dy·bᵀ,  db = aᵀ·dy   (Giles 2008, §2)

    Shapes (…, m, k) and (…, k, n) give (…, m, n); the axes before the last two are a batch and broadcast.
    """

    def forward(self, a, b):
        if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
            raise ShapeError(f"matmul: {a.shape} @ {b.shape}: needs two matrices (…, m, k) and (…, k, n)")
        self.a, self.b = a, b
        try:
            return a @ b
        except ValueError:
            raise ShapeError(f"matmul: {a.shape} @ {b.shape}: the axes before the last two do not broadcast") from None

    def backward(self, dy):
        a, b = self.a, self.b
        return sum_to(dy @ b.swapaxes(-1, -2), a.shape), sum_to(a.swapaxes(-1, -2) @ dy, b.shape)


class Linear(Op):
    """y[n, f] = Σ_c x[n, c]·weight[f, c] (+ bias[f]),  dx = dy·weight,  dweight = dyᵀ·x,  dbias = Σ_n dy[n]

    Shapes (N, C), (F, C), (F,) give (N, F). The layer of Rumelhart, Hinton & Williams 1986 (eqs. 1, 6 and 7), for a batch.
    """

    def forward(self, x, weight, bias=None):
        check_shapes(x, weight, bias)
        self.x, self.weight, self.has_bias = x, weight, bias is not None
        y = x @ weight.T
        return y if bias is None else y + bias

    def backward(self, dy):
        dx = dy @ self.weight if self.wants(0) else None
        dweight = dy.T @ self.x  # (F, N) @ (N, C)
        return (dx, dweight, dy.sum(0)) if self.has_bias else (dx, dweight)


def check_shapes(x, weight, bias):
    """x (N, C), weight (F, C), bias (F,) or None."""
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise ShapeError(
            f"linear: x of shape {x.shape} does not fit weight of shape {weight.shape}; needs (N, C) and (F, C)"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(
            f"linear: bias of shape {bias.shape} does not fit weight of shape {weight.shape}; needs {weight.shape[:1]}"
        )
