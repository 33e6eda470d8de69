"""The same numbers in another arrangement. The gradient takes the same way back.

Each op here is linear, y = A·x with a matrix A of zeros and ones, so that dx = Aᵀ·dy (Giles 2008, An Extended Collection of
Matrix Derivative Results, §2): what moved numbers forward moves their gradients back.
"""

from ..backend import array_module
from ..errors import ShapeError
from .base import Op


class Reshape(Op):
    """y = x in another shape of as many values, in the same C order, dx = dy in x's shape; one size may be −1."""

    def __init__(self, shape):
        self.shape = shape

    def forward(self, x):
        self.x_shape = x.shape
        try:
            return x.reshape(self.shape)
        except ValueError:
            raise ShapeError(
                f"reshape: {x.size} values of shape {x.shape} cannot be laid out as {self.shape}"
            ) from None

    def backward(self, dy):
        return (dy.reshape(self.x_shape),)


class Transpose(Op):
    """y[i_{axes[0]}, i_{axes[1]}, …] = x[i₀, i₁, …]: y's axis i is x's axis axes[i]; dy goes through the inverse permutation."""

    def __init__(self, axes=None):
        self.axes = axes

    def forward(self, x):
        axes = tuple(reversed(range(x.ndim))) if self.axes is None else tuple(self.axes)
        if sorted(a % x.ndim if -x.ndim <= a < x.ndim else -1 for a in axes) != list(range(x.ndim)):
            raise ShapeError(f"transpose: axes {axes} are not a permutation of the {x.ndim} axes of shape {x.shape}")
        self.inverse = sorted(range(x.ndim), key=lambda i: axes[i] % x.ndim)
        return x.transpose(axes)

    def backward(self, dy):
        return (dy.transpose(self.inverse),)


class GetItem(Op):
    """y = x[index],  dx[index] += dy: what was not taken has gradient 0, what was taken several times collects the sum

    index holds slices, integers, None, ..., masks or integer arrays; y has the shape that NumPy gives it.
    """

    def __init__(self, index):
        self.index = index

    def forward(self, x):
        self.x_shape = x.shape
        try:
            return x[self.index]
        except IndexError as error:
            raise ShapeError(f"getitem: x of shape {x.shape}: {error}") from None

    def backward(self, dy):
        xp = array_module(dy)
        dx = xp.zeros(self.x_shape, dy.dtype)
        parts = self.index if isinstance(self.index, tuple) else (self.index,)
        if all(part is None or part is Ellipsis or isinstance(part, int | slice) for part in parts):
            dx[self.index] = dy  # a basic index takes nothing twice
        else:
            xp.add.at(dx, self.index, dy)
        return (dx,)


class Pad(Op):
    """y = x inside zeros, dx = dy without that border. `widths`: one (before, after) pair an axis; each axis grows by its sum."""

    def __init__(self, widths):
        self.widths = widths

    def forward(self, x):
        if len(self.widths) != x.ndim or any(len(pair) != 2 or min(pair) < 0 for pair in self.widths):
            raise ShapeError(
                f"pad: shape {x.shape} needs {x.ndim} pairs (before, after), none negative; got {self.widths}"
            )
        y = array_module(x).zeros([n + sum(pair) for n, pair in zip(x.shape, self.widths, strict=True)], x.dtype)
        self.inside = tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, self.widths, strict=True))
        y[self.inside] = x
        return y

    def backward(self, dy):
        return (dy[self.inside],)


class Concat(Op):
    """y = [x₀, x₁, …, x_{l−1}], feature maps side by side (Huang et al. 2017, eq. 2);  dx_i is the part of dy where x_i lies

    Shapes (N, C_i, …) give (N, ΣC_i, …).
    """

    def forward(self, *xs):  # each (N, C_i, ...)
        if not xs:
            raise ShapeError("concat: nothing to lay side by side; give at least one tensor")
        first = xs[0]
        for x in xs:
            if x.ndim < 2 or (x.shape[0], *x.shape[2:]) != (first.shape[0], *first.shape[2:]):
                raise ShapeError(f"concat: shapes {[x.shape for x in xs]} may differ in their channels (axis 1) only")
        self.channels = [x.shape[1] for x in xs]
        return array_module(*xs).concatenate(xs, axis=1)  # (N, ΣC_i, ...)

    def backward(self, dy):
        dxs, start = [], 0
        for c in self.channels:  # the adjoint of "side by side" is "hand back your own slice"
            dxs.append(dy[:, start : start + c])
            start += c
        return tuple(dxs)
