"""3×3 convolution with padding 1 on pieces, without a ninefold copy of its input: every tap multiplies every pixel.

``shares`` (9·F, P) holds, for tap (p, q), filter f and pixel x of the input, what x gives to the output pixel that lies
(p − 1) rows up and (q − 1) columns left of it. An output is the sum of nine shares, each from its own pixel.
"""

import numpy

from ...threads import scratch


def multiply(matrix, x, piece, out):
    """Σ over taps of matrix (9·F, C) @ x (C, P), each tap from its own pixels, into out (F, P)."""
    f, margin = len(matrix) // 9, piece.width + 1
    row = piece.pixels + 2 * margin
    shares = scratch("shares", (9 * f, row), x.dtype)
    shares[:, :margin] = 0
    shares[:, -margin:] = 0
    numpy.matmul(matrix, x, out=shares[:, margin:-margin])
    clear_border(shares, piece, margin)
    # (3, 3, F, P): for every output pixel its nine shares
    seen = view(shares, 0, (3, 3, f, piece.pixels), (3 * f * row + piece.width, f * row + 1, row, 1))
    numpy.add.reduce(seen, axis=(0, 1), out=out)


def spread(dy, piece):
    """The adjoint: dy (F, P) back to the shares (9·F, P)."""
    f, margin = len(dy), piece.width + 1
    row = piece.pixels + 2 * margin
    padded = scratch("padded", (f, row), dy.dtype)
    padded[:, :margin] = 0
    padded[:, -margin:] = 0
    padded[:, margin:-margin] = dy
    shares = scratch("shares", (9 * f, piece.pixels), dy.dtype)
    shares.reshape(3, 3, f, -1)[...] = view(padded, 2 * margin, (3, 3, f, piece.pixels), (-piece.width, -1, row, 1))
    clear_border(shares, piece, 0)
    return shares


def clear_border(shares, piece, margin):
    """Nothing is given across the edge of an image: not from its last column to the next row, not to the next image."""
    row, w, f = shares.shape[1], piece.width, len(shares) // 9
    size = piece.height * w
    at = view(shares, margin, (3, 3, f, piece.images, piece.height, w), (3 * f * row, f * row, row, size, w, 1))
    at[:, 0, ..., -1] = 0
    at[:, 2, ..., 0] = 0
    if piece.images > 1:
        at[0, :, :, :, -1] = 0
        at[2, :, :, :, 0] = 0


def view(array, start, shape, steps):
    """The values of a contiguous array from `start` on, in steps of so many values along each axis of `shape`."""
    item = array.itemsize
    return numpy.ndarray(shape, array.dtype, array, start * item, [step * item for step in steps])
