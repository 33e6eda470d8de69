"""Convolution: every tap multiplies every pixel, and the output picks what it needs."""

from ..backend import array_module
from ..errors import ShapeError
from .base import Op
from .window import check_window, output_size, window


class Conv2d(Op):
    """y[n, f, i, j] = Σ_{p,q} share[n, p, q, f, i·s + p, j·s + q]  (+ bias[f]),   share[n, p, q, f] = Σ_c weight[f, c, p, q]·x[n, c]

    Shapes (N, C, H, W), (F, C, K, K'), (F,) give (N, F, H', W') with H' = ⌊(H + 2·pad − K)/s⌋ + 1.
    LeCun et al. 1998, Gradient-Based Learning, §II.A, written as a correlation; sizes as in Dumoulin & Visin 2016, §2.4.
    x stands for the image inside its border of zeros. All K·K' taps (p, q) form one matrix product with all pixels;
    what is left of the convolution is to add up, for every output position, the share of each tap at its own pixel.
    No pixel of x is copied for it; the price is a temporary of K·K'·F values a pixel.
    Backward is the same in reverse: dy goes back to each tap's pixel, and the two gradients are the product's.
    """

    def __init__(self, stride=1, padding=0):
        self.stride, self.padding = stride, padding

    def forward(self, x, weight, bias=None):
        check_shapes(x, weight, bias, self.stride, self.padding)
        xp = array_module(x, weight)
        (n, c, h, w), (k_h, k_w), pad = x.shape, weight.shape[2:], self.padding
        self.taps = [(p, q) for p in range(k_h) for q in range(k_w)]
        self.out_h, self.out_w = output_size(h, k_h, self.stride, pad), output_size(w, k_w, self.stride, pad)
        self.weight_shape, self.has_bias = weight.shape, bias is not None
        self.padded_shape = (n, c, h + 2 * pad, w + 2 * pad)
        padded = x
        if pad:
            padded = xp.zeros(self.padded_shape, x.dtype)
            padded[:, :, pad : pad + h, pad : pad + w] = x
        self.pixels = padded.reshape(n, c, -1)  # (N, C, P), P = pixels of the padded image
        self.tap_weights = weight.transpose(2, 3, 0, 1).reshape(-1, c)  # (K·K'·F, C)

        shares = self.tap_weights @ self.pixels  # (N, K·K'·F, P)
        y = 0 if bias is None else bias[:, None, None]
        for share, (p, q) in zip(self.by_tap(shares), self.taps, strict=True):
            y = y + self.seen_by(p, q, share)
        return y

    def backward(self, dy):  # (N, F, H', W')
        xp, pad = array_module(dy), self.padding
        (n, c, h, w), (f, _, k_h, k_w) = self.padded_shape, self.weight_shape
        dshares = xp.zeros((n, len(self.taps) * f, h * w), dy.dtype)
        for dshare, (p, q) in zip(self.by_tap(dshares), self.taps, strict=True):
            self.seen_by(p, q, dshare)[...] = dy
        dtaps = (dshares @ self.pixels.transpose(0, 2, 1)).sum(0)  # (N, K·K'·F, P) @ (N, P, C), summed over images
        dweight = dtaps.reshape(k_h, k_w, f, c).transpose(2, 3, 0, 1)
        dx = None
        if self.wants(0):
            dpadded = (self.tap_weights.T @ dshares).reshape(self.padded_shape)  # (C, K·K'·F) @ (N, K·K'·F, P)
            dx = dpadded[:, :, pad : h - pad, pad : w - pad]
        return (dx, dweight, dy.sum((0, 2, 3))) if self.has_bias else (dx, dweight)

    def by_tap(self, shares):
        """(N, K·K'·F, P) as one view (N, F, H, W) a tap."""
        n, _, h, w = self.padded_shape
        return shares.reshape(n, len(self.taps), -1, h, w).swapaxes(0, 1)

    def seen_by(self, p, q, image):
        """The view of image that tap (p, q) meets, one pixel per output position: (N, F, H', W')."""
        return window(image, p, q, self.stride, self.out_h, self.out_w)


def check_shapes(x, weight, bias, stride, padding):
    if x.ndim != 4 or weight.ndim != 4:
        raise ShapeError(f"conv2d: needs x (N, C, H, W) and weight (F, C, K, K), got {x.shape} and {weight.shape}")
    if x.shape[1] != weight.shape[1]:
        raise ShapeError(
            f"conv2d: x has {x.shape[1]} channels (shape {x.shape}) but weight expects {weight.shape[1]} (shape {weight.shape})"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(
            f"conv2d: bias of shape {bias.shape} does not fit weight of shape {weight.shape}; needs {weight.shape[:1]}"
        )
    check_window("conv2d", x.shape, weight.shape[2:], stride, padding)
