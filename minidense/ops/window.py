"""Sliding windows, which convolution and pooling share: how many fit, and what one place of all of them sees."""

import numpy

from ..errors import ShapeError


def output_size(size, kernel, stride, padding):
    """How many times a kernel fits along one axis: ⌊(size + 2·padding − kernel)/stride⌋ + 1."""
    return (size + 2 * padding - kernel) // stride + 1


def window(image, p, q, stride, out_h, out_w):
    """The pixels of image at place (p, q) of every window, as a view: (N, C, out_h, out_w)."""
    return image[:, :, p : p + stride * (out_h - 1) + 1 : stride, q : q + stride * (out_w - 1) + 1 : stride]


def check_window(name, shape, kernel, stride, padding):
    """A window must fit into the padded image at least once."""
    if not all(isinstance(n, int | numpy.integer) for n in (*kernel, stride, padding)):
        raise ShapeError(
            f"{name}: kernel {kernel}, stride {stride!r} and padding {padding!r} must be whole numbers, the same both ways"
        )
    if stride < 1 or padding < 0 or min(kernel) < 1:
        raise ShapeError(
            f"{name}: kernel {tuple(kernel)} and stride {stride} must be at least 1, padding {padding} at least 0"
        )
    if any(size + 2 * padding < k for size, k in zip(shape[2:], kernel, strict=True)):
        raise ShapeError(
            f"{name}: kernel {tuple(kernel)} is larger than the image of shape {tuple(shape)} with padding {padding}"
        )
