"""3×3 convolution with 4 multiplications an output instead of 9 (Lavin & Gray 2016, arXiv 1509.09308, F(2×2, 3×3); Winograd 1980).

A tile of 2×2 outputs sees 4×4 pixels d. With a filter g of 3×3,

    y = Aᵀ·[(G·g·Gᵀ) ⊙ (Bᵀ·d·B)]·A

    Bᵀ = 1  0 −1  0     G = 1  0  0     Aᵀ = 1  1  1  0
         0  1  1  0         ½  ½  ½          0  1 −1 −1
         0 −1  1  0         ½ −½  ½
         0  1  0 −1         0  0  1

and ⊙, with the sum over channels, is 16 matrix products of a quarter of the pixels each. Tiles overlap by two pixels: tile i sees the
rows 2i − 1 … 2i + 2, which are odd, even, odd, even. So the even and the odd rows (and columns) are put apart first, into four phases
of the image, and B and A become sums of whole arrays. Each phase lies in zeros, a line below every image and a column right of it: one
step too far is the border.
"""

import itertools
import math
from functools import cached_property

import numpy

from ...threads import scratch

G = numpy.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
LEAST_CHANNELS, LEAST_SIZE = 48, 12  # below these, the sums cost more than the products save


class Winograd:
    """A way to convolve, see ways.py, with a weight (F, C, 3, 3) at stride 1 with padding 1.

    direct  the way to go back, and forward where images are small
    """

    def __init__(self, direct):
        self.weight, self.direct, self.sum_shape = direct.weight, direct, direct.sum_shape
        self.f, self.c = self.weight.shape[:2]

    def forward(self, x, piece, result, out):
        small = min(piece.height, piece.width) < LEAST_SIZE
        (self.direct.forward if small else self.transformed)(x, piece, result, out)

    def backward(self, x, dy, piece, result, total, dx):
        self.direct.backward(x, dy, piece, result, total, dx)

    def dweight(self, total):
        return self.direct.dweight(total)

    @cached_property
    def filters(self):
        """G·g·Gᵀ for each filter and channel: (4, 4, F, C)."""
        both = numpy.kron(G, G).astype(self.weight.dtype)  # (16, 9)
        return (both @ self.weight.reshape(-1, 9).T).reshape(4, 4, self.f, self.c)

    def transformed(self, x, piece, result, out):
        lines = piece.images, (piece.height + 1) // 2 + 1, (piece.width + 1) // 2 + 1  # and the zeros
        line, size = lines[-1], math.prod(lines)
        here = slice(line, line + self.c * size)
        whole = here.stop + line
        phases, rows, tiles, products, sums, part = side_by_side(
            x.dtype,
            (2, 2, whole),
            (2, whole),
            (4, self.c, size),
            (4, self.f, size),
            (2, 2, self.f, size),
            (2, self.f, size),
        )
        lay_out(x, piece, lines, here, phases)
        even, odd = phases
        rows[:, [here.start - 1, here.stop]] = 0
        for r in range(4):
            combine(r, even, odd, here, line, rows[:, here])
            for s in range(4):
                combine(s, rows[0], rows[1], here, 1, tiles[s].reshape(-1))
            numpy.matmul(self.filters[r], tiles, out=products)
            for s in range(4):
                add_up(s, products[s], part)
            add_up(r, part, sums)
        join(sums, lines, piece, out)


def suits(weight):
    """Is it 3×3, with channels enough on both sides?"""
    return weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= LEAST_CHANNELS


def split(x, piece):
    """Even rows with even and with odd columns, odd rows with even and with odd columns: views of x (C, P) or (C, n, H·W)."""
    images = x.reshape(len(x), piece.images, piece.height, piece.width)
    return [images[:, :, p::2, q::2] for p in (0, 1) for q in (0, 1)]


def side_by_side(dtype, *shapes):
    """Arrays of these shapes in one stretch of working memory, which is taken in blocks of large pages."""
    ends = list(itertools.accumulate(map(math.prod, shapes)))
    parts = numpy.split(scratch("winograd", (ends[-1],), dtype), ends[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def lay_out(x, piece, lines, here, phases):
    """The phases of x at `here` in (2, 2, values), each laid out (C, n, lines, columns), in zeros."""
    phases[:, :, : here.start], phases[:, :, here.stop :] = 0, 0
    for place, phase in zip(phases[:, :, here].reshape(4, len(x), *lines), split(x, piece), strict=True):
        high, wide = phase.shape[2:]
        place[:, :, :high, :wide] = phase
        place[:, :, high:], place[..., wide:] = 0, 0


def join(sums, lines, piece, out):
    """The phases of the result, (2, 2, F, values), into out (F, P)."""
    for part, phase in zip(sums.reshape(4, len(out), *lines), split(out, piece), strict=True):
        phase[...] = part[:, :, : phase.shape[2], : phase.shape[3]]


def combine(number, even, odd, here, step, out):
    """A line of Bᵀ times (odd, even, odd, even), of which the first lies a step before `here`, the last a step after."""
    if number == 0:
        numpy.subtract(odd[..., here.start - step : here.stop - step], odd[..., here], out=out)
    elif number == 1:
        numpy.add(even[..., here], odd[..., here], out=out)
    elif number == 2:
        numpy.subtract(odd[..., here], even[..., here], out=out)
    else:
        numpy.subtract(even[..., here], even[..., here.start + step : here.stop + step], out=out)


def add_up(number, part, sums):
    """Column `number` of Aᵀ times part, into sums (2, ...)."""
    even, odd = sums
    if number == 0:
        numpy.copyto(even, part)
    elif number < 3:
        numpy.add(even, part, out=even)
    if number == 1:
        numpy.copyto(odd, part)
    elif number > 1:
        numpy.subtract(odd, part, out=odd)
