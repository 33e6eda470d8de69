"""Pooling: the image in coarser steps."""

from ..backend import array_module
from ..errors import ShapeError
from .base import Op
from .window import check_window, output_size, window


class Pool2d(Op):
    """What the two poolings share: the padded image, and what one place of all windows sees."""

    name: str

    def __init__(self, kernel, stride=None, padding=0):
        self.kernel, self.stride, self.padding = kernel, kernel if stride is None else stride, padding

    def pad(self, x, value):
        """x inside a border of `value` that reaches to the end of the last window; sets x_shape, out_h, out_w."""
        n, c, h, w = self.x_shape = self.check(x)
        self.out_h, self.out_w = self.windows(h), self.windows(w)
        pad, s, k = self.padding, self.stride, self.kernel
        high, wide = (max(size + 2 * pad, s * (out - 1) + k) for size, out in ((h, self.out_h), (w, self.out_w)))
        padded = array_module(x).full((n, c, high, wide), value, x.dtype)
        padded[:, :, pad : pad + h, pad : pad + w] = x
        self.padded_shape = padded.shape
        return padded

    def check(self, x):
        """The shape of x; raises ShapeError when its images are none or the windows do not fit them."""
        if x.ndim != 4:
            raise ShapeError(f"{self.name}: needs x (N, C, H, W), got {x.shape}")
        check_window(self.name, x.shape, (self.kernel, self.kernel), self.stride, self.padding)
        if 2 * self.padding > self.kernel:
            raise ShapeError(
                f"{self.name}: padding {self.padding} is more than half the kernel {self.kernel}, so a window could see no pixel at all"
            )
        return x.shape

    def windows(self, size):
        """How many windows there are along an axis of this size."""
        return output_size(size, self.kernel, self.stride, self.padding)

    def seen_by(self, p, q, image):
        """The pixels of image at place (p, q) of every window: (N, C, H', W')."""
        return window(image, p, q, self.stride, self.out_h, self.out_w)

    def places(self):
        return [(p, q) for p in range(self.kernel) for q in range(self.kernel)]

    def inside(self, padded):
        """padded without its border."""
        (_, _, h, w), pad = self.x_shape, self.padding
        return padded[:, :, pad : pad + h, pad : pad + w]


class MaxPool2d(Pool2d):
    """y[n, c, i, j] = max_{p,q < K} x[n, c, i·s + p − pad, j·s + q − pad], the border counting as −∞

    Shapes (N, C, H, W) give (N, C, H', W'), H' = ⌊(H + 2·pad − K)/s⌋ + 1 (Dumoulin & Visin 2016, §3; Scherer et al. 2010).
    The gradient goes to the window's maximum, to the first in reading order where several tie.
    """

    name = "max_pool2d"

    def __init__(self, kernel, stride=None, padding=0, ceil_mode=False):
        super().__init__(kernel, stride, padding)
        self.ceil_mode = ceil_mode

    def forward(self, x):
        xp = array_module(x)
        padded = self.pad(x, -xp.inf)
        y = self.seen_by(0, 0, padded).copy()
        self.winner = xp.zeros(y.shape, xp.int32)  # the number of the place that holds the maximum
        for number, (p, q) in enumerate(self.places()):
            seen = self.seen_by(p, q, padded)
            self.winner = xp.where(seen > y, number, self.winner)
            y = xp.maximum(y, seen)
        return y

    def backward(self, dy):
        dpadded = array_module(dy).zeros(self.padded_shape, dy.dtype)
        for number, (p, q) in enumerate(self.places()):
            self.seen_by(p, q, dpadded)[...] += dy * (self.winner == number)
        return (self.inside(dpadded),)

    def windows(self, size):
        """In ceil mode a last window may hang over the edge: ⌈(H + 2·pad − K)/s⌉ + 1, if it starts before the right border."""
        fitting = super().windows(size)
        uncovered = (size + 2 * self.padding - self.kernel) % self.stride > 0
        return fitting + (self.ceil_mode and uncovered and fitting * self.stride < size + self.padding)


class AvgPool2d(Pool2d):
    """y[n, c, i, j] = 1/K² · Σ_{p,q < K} x[n, c, i·s + p − pad, j·s + q − pad], the border counting as zeros

    Shapes (N, C, H, W) give (N, C, H', W'), H' = ⌊(H + 2·pad − K)/s⌋ + 1 (LeCun et al. 1998, §II.B, without its coefficients).
    """

    name = "avg_pool2d"

    def forward(self, x):
        padded = self.pad(x, 0)
        y = self.seen_by(0, 0, padded).copy()
        for p, q in self.places()[1:]:
            y += self.seen_by(p, q, padded)
        return y / self.kernel**2

    def backward(self, dy):
        dpadded = array_module(dy).zeros(self.padded_shape, dy.dtype)
        share = dy / self.kernel**2
        for p, q in self.places():
            self.seen_by(p, q, dpadded)[...] += share
        return (self.inside(dpadded),)


class GlobalAvgPool2d(Op):
    """y[n, c] = 1/(H·W) · Σ_{i,j} x[n, c, i, j]: one number a feature map, (N, C, H, W) to (N, C) (Lin et al. 2014, §3.2)"""

    def forward(self, x):
        if x.ndim != 4:
            raise ShapeError(f"global_avg_pool2d: needs x (N, C, H, W), got {x.shape}")
        self.x_shape = x.shape
        return x.mean((2, 3))

    def backward(self, dy):
        _, _, h, w = self.x_shape
        return (array_module(dy).broadcast_to(dy[:, :, None, None] / (h * w), self.x_shape),)
