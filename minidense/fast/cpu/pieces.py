"""A batch in pieces: some images each, laid out channel by channel, small enough for the cache."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy

from ...ops.window import output_size
from ...tensor import Tensor
from ...threads import in_parallel, scratch

# A piece is long enough that handing over the interpreter between its steps does not show, and short enough for the caches.
VALUES = 1 << 18
PIXELS = 512, 8192  # at least and at most
SHARES = 32  # work is dealt out in at most so many shares, however many threads there are: sums come out the same


class Piece(NamedTuple):
    """Images `start` to `stop` of a batch, whose values are laid out (C, n·H·W): every channel one long row."""

    start: int
    stop: int
    height: int
    width: int

    @property
    def images(self) -> int:
        return self.stop - self.start

    @property
    def pixels(self) -> int:
        return self.images * self.height * self.width

    def of(self, batch: numpy.ndarray) -> numpy.ndarray:
        """These images of a batch (N, C, H, W), as a view (C, n, H·W)."""
        n, c = batch.shape[:2]
        return batch.reshape(n, c, -1)[self.start : self.stop].swapaxes(0, 1)

    def take(self, batch: numpy.ndarray) -> numpy.ndarray:
        """These images as one matrix (C, n·H·W): a view where it is one image, else a copy."""
        return self.of(batch).reshape(batch.shape[1], self.pixels)

    def place(self, batch: numpy.ndarray, name: str) -> numpy.ndarray:
        """Where to write a matrix (C, n·H·W) that ``put`` will bring to the batch: there itself where it is one image."""
        if self.images == 1:
            return self.take(batch)
        return scratch(name, (batch.shape[1], self.pixels), batch.dtype)

    def put(self, array: numpy.ndarray, batch: numpy.ndarray) -> None:
        """Bring what was written at ``place`` to the batch."""
        if self.images > 1:
            self.of(batch)[...] = self.rows(array)

    def rows(self, array: numpy.ndarray) -> numpy.ndarray:
        """An array (C, n·H·W) of this piece as (C, n, H·W)."""
        return array.reshape(len(array), self.images, -1)


def pieces_of(shape: tuple[int, ...], channels: int) -> list[Piece]:
    """The pieces of a batch (N, C, H, W) to which `channels` channels are done at a time.

    At least four where there are four images, or two where four would be shorter than PIXELS[0].
    """
    n, _, h, w = shape
    pixels = min(max(PIXELS[0], VALUES // channels), PIXELS[1])
    images = max(1, min(pixels // (h * w), max(n // 4, min(n // 2, PIXELS[0] // (h * w)))))
    # Batches are powers of two as a rule; pieces that are too give all threads equally much.
    images = 1 << (images.bit_length() - 1)
    return [Piece(start, min(start + images, n), h, w) for start in range(0, n, images)]


def result_of(piece: Piece, weight_shape: tuple[int, ...], stride: int, padding: int) -> Piece:
    """The same images after a convolution."""
    sizes = zip((piece.height, piece.width), weight_shape[2:], strict=True)
    return Piece(piece.start, piece.stop, *(output_size(size, k, stride, padding) for size, k in sizes))


def empty_pieces(channels: int, pieces: Sequence[Piece], dtype) -> list[numpy.ndarray]:
    """One array (C, n·H·W) a piece."""
    ends = numpy.cumsum([channels * piece.pixels for piece in pieces])
    parts = numpy.split(numpy.empty(ends[-1], dtype), ends[:-1])
    return [part.reshape(channels, -1) for part in parts]


def in_pieces(work: Callable[[int, Piece], Any], pieces: Sequence[Piece]) -> list:
    """[work(i, piece) for every piece], several at once, see in_parallel."""
    done = in_parallel(lambda share: [work(i, pieces[i]) for i in share], shares_of(len(pieces)))
    return list(itertools.chain.from_iterable(done))


def shared_out(
    work: Callable[[int, Piece, Any], None],
    pieces: Sequence[Piece],
    new_sums: Callable[[], Any],
) -> list:
    """work(i, piece, sums) for every piece, several at once; one `sums` for each share of the pieces, all of them returned in order."""

    def do(share):
        sums = new_sums()
        for i in share:
            work(i, pieces[i], sums)
        return sums

    return in_parallel(do, shares_of(len(pieces)))


def shares_of(count: int) -> list[range]:
    """The numbers 0 … count − 1 in at most SHARES runs."""
    size = -(-count // SHARES)
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def on_cpu(x) -> bool:
    """Is x a Tensor that NumPy's fast loops are there for: on the CPU, in float32 or float64?"""
    return isinstance(x, Tensor) and x.device == "cpu" and x.dtype.char in "fd" and x.dtype.isnative


def runs_of(shape: tuple[int, ...], values: int = VALUES) -> list[slice]:
    """A batch (N, ...) in runs of images of about so many values, for work that takes the batch as it lies."""
    n, size = shape[0], math.prod(shape[1:])
    images = max(1, min(values // size, n // 4))
    return [slice(start, min(start + images, n)) for start in range(0, n, images)]
