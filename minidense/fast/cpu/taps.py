"""Convolution at stride 1 that keeps the size of the image (K odd, padding (K − 1)/2), on pieces.

``shares`` (K·K·F, P) holds, for tap (p, q), filter f and pixel x of the input, what x gives to the output pixel that lies
p − r rows up and q − r columns left of it, r = (K − 1)/2. An output is the sum of K·K shares, each from its own pixel: so every tap
multiplies every pixel and no pixel is copied. Where there are far more filters than channels, copying the channels is cheaper, and
the same adjoint serves: ``spread``. Where there are about as many of both, the taps are shared out: columns before the product, rows
behind it.
"""

import math

import numpy

from ...threads import scratch


def multiply(matrix, x, piece, out):
    """Σ over taps of matrix (K·K·F, C) @ x (C, P), each tap from its own pixels, into out (F, P)."""
    f = len(out)
    k = math.isqrt(len(matrix) // f)
    margin = k // 2 * (piece.width + 1)
    row = piece.pixels + 2 * margin
    shares = scratch(f"shares of {k}×{k} on {piece.height}×{piece.width}", (k * k * f, row), x.dtype, cleared=True)
    numpy.matmul(matrix, x, out=shares[:, margin : row - margin])
    clear_border(shares, k, piece, margin)
    # (K, K, F, P): for every output pixel its shares
    seen = view(shares, 0, (k, k, f, piece.pixels), (k * f * row + piece.width, f * row + 1, row, 1))
    numpy.add.reduce(seen, axis=(0, 1), out=out)


def spread(dy, k, piece):
    """The adjoint: dy (F, n, H·W) or (F, P) back to the shares (K·K·F, P)."""
    f, h, w, r = len(dy), piece.height, piece.width, k // 2
    # Every image lies in zeros, r rows above and below, once for each q, with the columns that tap q cannot reach made zero.
    size = (h + 2 * r) * w + 2 * r
    padded = scratch(f"spread of {h}×{w}", (k, f, piece.images, size), dy.dtype, cleared=True)
    inner = view(
        padded, r * w + r, (k, f, piece.images, h, w), (f * piece.images * size, piece.images * size, size, w, 1)
    )
    numpy.copyto(inner, dy.reshape(f, piece.images, h, w))
    for q in range(k):
        if q < r:
            inner[q, ..., : r - q] = 0
        elif q > r:
            inner[q, ..., r - q :] = 0
    shares = scratch("shares", (k * k * f, piece.pixels), dy.dtype)
    from_dy = view(
        padded,
        2 * r * w + 2 * r,
        (k, k, f, piece.images, h * w),
        (-w, f * piece.images * size - 1, piece.images * size, size, 1),
    )
    numpy.copyto(shares.reshape(from_dy.shape), from_dy)
    return shares


def columns(x, k, piece, name):
    """(K·C, P): x (C, n, H·W) or (C, P) with its columns moved, x[h, w + q − r] for q = 0 … K − 1, zeros from beyond the edge."""
    return shifts(x, k, piece, name, 1, piece.width)


def rows(x, k, piece, name):
    """The same with its rows moved: x[h + p − r, w]."""
    return shifts(x, k, piece, name, piece.width, piece.height)


def shifts(x, k, piece, name, step, length):
    """x moved by q − r along an axis of that length, whose neighbours lie `step` pixels apart, in working memory of that name."""
    c, r = len(x), k // 2
    moved = scratch(name, (k, c, piece.pixels), x.dtype)
    lines = moved.reshape(k, c, -1, length, step)
    here = moved[r]
    numpy.copyto(here.reshape(x.shape), x)
    for q in range(k):
        by = min(abs(q - r) * step, piece.pixels)
        # Adding 0 copies: long plain copies by an odd number of places are ten times slower on some processors (seen on Zen 3).
        if q < r:
            numpy.add(here[:, : piece.pixels - by], 0, out=moved[q, :, by:])
            lines[q, :, :, : r - q] = 0
        elif q > r:
            numpy.add(here[:, by:], 0, out=moved[q, :, : piece.pixels - by])
            lines[q, :, :, max(length - (q - r), 0) :] = 0
    return moved.reshape(k * c, -1)


def sum_of_rows(matrix, columns, piece, out):
    """matrix (K·F, K·C) @ columns, and the sum of the K results, each moved by rows, into out (F, P) or (F, n, H·W)."""
    f, h = len(out), piece.height
    k = len(matrix) // f
    r = k // 2
    parts = scratch("parts", (len(matrix), piece.pixels), columns.dtype)
    numpy.matmul(matrix, columns, out=parts)
    parts = parts.reshape(k, f, piece.images, h, piece.width)
    y = out.reshape(parts.shape[1:])
    # The first sum writes out all rows but the one that only the middle part reaches.
    numpy.add(parts[r][:, :, 1:], parts[r - 1][:, :, :-1], out=y[:, :, 1:])
    y[:, :, 0] = parts[r][:, :, 0]
    for p in range(k):
        by = abs(p - r)
        if by and p != r - 1 and by < h:
            low, high = slice(0, h - by), slice(by, None)
            to, of = (high, low) if p < r else (low, high)
            y[:, :, to] += parts[p][:, :, of]


def clear_border(shares, k, piece, margin):
    """Nothing is given across the edge of an image: not from its last columns to the next row, not to the next image."""
    row, h, w, f = shares.shape[1], piece.height, piece.width, len(shares) // (k * k)
    at = view(shares, margin, (k, k, f, piece.images, h, w), (k * f * row, f * row, row, h * w, w, 1))
    r = k // 2
    for tap in range(k):
        lost = slice(tap - r, None) if tap < r else slice(0, tap - r)  # what would fall over the edge
        if tap != r:
            at[:, tap, ..., lost] = 0
            if piece.images > 1:
                at[tap, :, :, :, lost] = 0


def view(array, start, shape, steps):
    """The values of a contiguous array from `start` on, in steps of so many values along each axis of `shape`."""
    item = array.itemsize
    return numpy.ndarray(shape, array.dtype, array, start * item, [step * item for step in steps])
