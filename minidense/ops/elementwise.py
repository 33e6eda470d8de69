"""Element by element: y[i] depends on x[i] alone.

Shapes: y is shaped like x. Two operands a and b broadcast as in NumPy, y has their common shape, and da and db are summed back
to the shapes of a and b. Source of the derivatives where none is named: the chain rule in reverse, as in Baydin et al. 2018,
Automatic Differentiation in Machine Learning: a Survey, §3.2.
"""

from ..backend import array_module
from ..errors import ShapeError
from .base import Op


class Add(Op):
    """y = a + b,  da = dy,  db = dy.  Shapes broadcast."""

    def forward(self, a, b):
        self.shapes = broadcast("add", a, b)
        return a + b

    def backward(self, dy):
        return tuple(sum_to(dy, shape) for shape in self.shapes)


class Sub(Op):
    """y = a − b,  da = dy,  db = −dy.  Shapes broadcast."""

    def forward(self, a, b):
        self.shapes = broadcast("sub", a, b)
        return a - b

    def backward(self, dy):
        a_shape, b_shape = self.shapes
        return sum_to(dy, a_shape), sum_to(-dy, b_shape)


class Mul(Op):
    """y = a·b,  da = b·dy,  db = a·dy.  Shapes broadcast."""

    def forward(self, a, b):
        broadcast("mul", a, b)
        self.a, self.b = a, b
        return a * b

    def backward(self, dy):
        return sum_to(dy * self.b, self.a.shape), sum_to(dy * self.a, self.b.shape)


class Div(Op):
    """y = a/b,  da = dy/b,  db = −y·dy/b.  Shapes broadcast."""

    def forward(self, a, b):
        self.a_shape, _ = broadcast("div", a, b)
        self.b = b
        self.y = a / b
        return self.y

    def backward(self, dy):
        da = dy / self.b
        return sum_to(da, self.a_shape), sum_to(-self.y * da, self.b.shape)


class Neg(Op):
    """y = −x,  dx = −dy"""

    def forward(self, x):
        return -x

    def backward(self, dy):
        return (-dy,)


class Power(Op):
    """y = xⁿ for a fixed number n,  dx = n·xⁿ⁻¹·dy"""

    def __init__(self, exponent):
        self.exponent = exponent

    def forward(self, x):
        self.x = x
        return x**self.exponent

    def backward(self, dy):
        if self.exponent == 0:  # 0·x⁻¹ would be 0·∞ at x = 0
            return (dy * 0,)
        return (self.exponent * self.x ** (self.exponent - 1) * dy,)


class Exp(Op):
    """y = eˣ,  dx = y·dy"""

    def forward(self, x):
        self.y = array_module(x).exp(x)
        return self.y

    def backward(self, dy):
        return (self.y * dy,)


class Log(Op):
    """y = ln x,  dx = dy/x"""

    def forward(self, x):
        self.x = x
        return array_module(x).log(x)

    def backward(self, dy):
        return (dy / self.x,)


class ReLU(Op):
    """y = max(x, 0),  dx = dy where x > 0 and 0 elsewhere; at exactly 0 the gradient is taken as 0 (Nair & Hinton 2010)"""

    def forward(self, x):
        self.alive = x > 0
        return array_module(x).maximum(x, 0)

    def backward(self, dy):
        return (dy * self.alive,)


class Sigmoid(Op):
    """y = 1/(1 + e⁻ˣ),  dx = y·(1 − y)·dy   (Rumelhart, Hinton & Williams 1986, eq. 2)

    Written as e^min(x, 0)/(1 + e^−|x|), which neither overflows nor cancels.
    """

    def forward(self, x):
        xp = array_module(x)
        self.y = xp.exp(xp.minimum(x, 0)) / (1 + xp.exp(-abs(x)))
        return self.y

    def backward(self, dy):
        return (self.y * (1 - self.y) * dy,)


class Tanh(Op):
    """y = tanh x,  dx = (1 − y²)·dy   (LeCun et al. 1998, Efficient BackProp, §4.4)"""

    def forward(self, x):
        self.y = array_module(x).tanh(x)
        return self.y

    def backward(self, dy):
        return ((1 - self.y * self.y) * dy,)


class Dropout(Op):
    """y = mask·x,  dx = mask·dy.  mask holds 0 with probability p and 1/(1 − p) otherwise, so that E[y] = x.

    Srivastava et al. 2014; "inverted" scaling, so that evaluation needs none. The mask is drawn by the caller:
    the op itself is not random, and running it again gives the same result.
    """

    def __init__(self, mask):
        self.mask = mask

    def forward(self, x):
        return x * self.mask

    def backward(self, dy):
        return (dy * self.mask,)


class AsType(Op):
    """y = x in another float type; the gradient is brought back to x's own."""

    def __init__(self, dtype):
        self.dtype = dtype

    def forward(self, x):
        self.dtype_of_x = x.dtype
        return x.astype(self.dtype)

    def backward(self, dy):
        return (dy.astype(self.dtype_of_x),)


def sum_to(dy, shape):
    """Undo broadcasting: copying a value to many places makes its gradient the sum over those places."""
    if dy.shape == shape:
        return dy
    added = dy.ndim - len(shape)
    copied = tuple(range(added)) + tuple(added + i for i, n in enumerate(shape) if n == 1)
    return dy.sum(copied, keepdims=True).reshape(shape)


def broadcast(name, a, b):
    """The two shapes, once it is sure that they go together."""
    for m, n in zip(reversed(a.shape), reversed(b.shape), strict=False):
        if m != n and 1 not in (m, n):
            raise ShapeError(
                f"{name}: shapes {a.shape} and {b.shape} do not broadcast: counted from the right, each pair must be equal or hold a 1"
            )
    return a.shape, b.shape
