"""Convolutions that keep the size of an image, as kernels launch them: 1×1 (kernels/pointwise.cu) and 3×3 (kernels/spatial.cu).

Each knows three products, on feature maps (C, P), P = N·H·W: forward, the gradient of its input, the gradient of its weight. What stands
before the convolution, batch norm and ReLU, is a `fold` (C, 4) and applied on the way in; see tile.cuh.
"""

from typing import Any, NamedTuple

from ...backend import array_module
from .launch import SHARED_BYTES, divided, launch

ACROSS = 4  # warps side by side along the pixels, WARPS_ACROSS in tile.cuh
BLOCKS = 256  # that keep a GPU busy: where large tiles of pixels would make fewer, they are smaller
WIDEST = 256  # pixels in a row of an image that spatial.cu has the memory for


class Behind(NamedTuple):
    """A norm behind a convolution that has yet to take its part of the gradient: the convolution's result, the norm's fold and debt."""

    y: Any
    fold: Any
    debt: Any


class Pointwise:
    """A 1×1 convolution: weight (F, C, 1, 1)."""

    def __init__(self, weight: Any, height: int, width: int):
        self.weight, self.xp = array_module(weight).ascontiguousarray(weight), array_module(weight)
        self.filters, self.channels = weight.shape[:2]

    def forward(self, x: Any, fold: Any, result: Any, *, moments: bool) -> tuple[Any, int]:
        """conv(relu(BN(x))) into result (F, P); (its moments by tiles or None, pixels in a tile)."""
        pixels, tile = x.shape[1], self.tile(x.shape[1])
        down = min(divided(self.filters, 48), 2)
        grid = divided(pixels, tile), divided(self.filters, 48 * down)
        found = self.xp.empty((self.filters, grid[0], 2), "float32") if moments else None
        args = (x, fold, self.weight, result, found, self.channels, self.filters, pixels)
        shared = 4 * (48 * down * 36 + 32 * (tile + 8))
        launch("pointwise.cu", f"pointwise_forward_{tile}", grid, 32 * ACROSS * down, *args, shared=shared)
        return found, tile

    def input_gradient(
        self, dy: Any, x: Any, fold: Any, dx: Any, *, scaled=False, added=False, behind: Behind | None = None
    ) -> Any:
        """Into dx (C, P), back through ReLU and norm but for the norm's debt; returns the sums for norm.finish, None without fold."""
        pixels, tile = dy.shape[1], self.tile(dy.shape[1])
        down = min(divided(self.channels, 48), 2)
        grid = divided(pixels, tile), divided(self.channels, 48 * down)
        sums = None if fold is None else self.xp.empty((self.channels, grid[0], 2), "float32")
        args = (
            dy,
            *(behind or (None,) * 3),
            self.weight,
            x,
            fold,
            dx,
            sums,
            scaled,
            added,
            self.channels,
            self.filters,
            pixels,
        )
        shared = 4 * 48 * (padded(48 * down, 8) + tile + 8)
        launch("pointwise.cu", f"pointwise_input_gradient_{tile}", grid, 32 * ACROSS * down, *args, shared=shared)
        return sums

    def weight_parts(self, dy: Any, x: Any, fold: Any, *, behind: Behind | None = None) -> Any:
        """The gradient of the weight in parts (shares, F, C, 1, 1), for norm.finish or ``total`` to add up."""
        pixels, tiles = dy.shape[1], divided(self.channels, 128)
        share = share_of(pixels, tiles)
        parts = self.xp.empty((divided(pixels, share), *self.weight.shape), "float32")
        grid = len(parts), tiles, divided(self.filters, 48)
        args = (dy, *(behind or (None,) * 3), x, fold, parts, self.channels, self.filters, pixels, share)
        launch("pointwise.cu", "pointwise_weight_gradient", grid, 128, *args, shared=4 * (48 + 128) * 36)
        return parts

    def tile(self, pixels: int) -> int:
        """Pixels in a block's tile."""
        return next((tile for tile in (128, 64) if divided(pixels, tile) >= BLOCKS), 32)


class Spatial:
    """A 3×3 convolution with a border of one zero: weight (F, C, 3, 3), images of height × width."""

    TILE, CHUNK = 128, 64

    def __init__(self, weight: Any, height: int, width: int):
        self.weight, self.xp = array_module(weight).ascontiguousarray(weight), array_module(weight)
        self.filters, self.channels = weight.shape[:2]
        self.height, self.width = height, width
        self.margin = 4 * divided(width + 1, 4)

    def forward(self, x: Any, fold: Any, result: Any, *, moments: bool) -> tuple[Any, int]:
        """As Pointwise.forward."""
        pixels = x.shape[1]
        grid, block, shared, suffix = self.blocks(pixels, self.filters)
        found = self.xp.empty((self.filters, grid[0], 2), "float32") if moments else None
        args = (x, fold, self.weight, result, found, self.channels, self.filters, pixels, self.height, self.width)
        launch("spatial.cu", f"spatial_forward{suffix}", grid, block, *args, shared=shared)
        return found, self.TILE

    def input_gradient(self, dy: Any, x: Any, fold: Any, dx: Any, *, scaled=False, added=False) -> Any:
        """As Pointwise.input_gradient; no norm may be behind."""
        pixels = dy.shape[1]
        grid, block, shared, suffix = self.blocks(pixels, self.channels)
        sums = None if fold is None else self.xp.empty((self.channels, grid[0], 2), "float32")
        sizes = (self.channels, self.filters, pixels, self.height, self.width)
        args = (dy, self.weight, x, fold, dx, sums, scaled, added, *sizes)
        launch("spatial.cu", f"spatial_input_gradient{suffix}", grid, block, *args, shared=shared)
        return sums

    def weight_parts(self, dy: Any, x: Any, fold: Any) -> Any:
        """As Pointwise.weight_parts; no norm may be behind."""
        pixels = dy.shape[1]
        share = max(self.CHUNK, share_of(pixels))
        parts = self.xp.empty((divided(pixels, share), *self.weight.shape), "float32")
        wide, fixed = padded(self.CHUNK + 2 * self.margin, 4), 16 * (self.CHUNK + 4) + self.CHUNK
        warps = min(divided(self.channels, 8), 6, (SHARED_BYTES // 4 - fixed) // wide // 8)
        grid = len(parts), divided(self.channels, 8 * warps), divided(self.filters, 16)
        args = (dy, x, fold, parts, self.channels, self.filters, pixels, self.height, self.width, share)
        shared = 4 * (fixed + 8 * warps * wide)
        launch("spatial.cu", "spatial_weight_gradient", grid, 32 * warps, *args, shared=shared)
        return parts

    def blocks(self, pixels: int, count: int) -> tuple[tuple[int, int], int, int, str]:
        """(grid, threads, bytes of shared memory, how the kernel's name ends) for results of `count` rows."""
        rows, suffix = (16, "_low") if count <= 32 else (48, "")

        def floats(down):
            return rows * down * (9 * 8 + 4) + 8 * padded(self.TILE + 2 * self.margin, 8)

        down = 2 if count > rows and 4 * floats(2) <= SHARED_BYTES else 1
        grid = divided(pixels, self.TILE), divided(count, rows * down)
        return grid, 32 * ACROSS * down, 4 * floats(down), suffix


def convolution(weight: Any, height: int, width: int) -> Pointwise | Spatial:
    """The one that goes with a weight's kernel."""
    return (Pointwise if weight.shape[2] == 1 else Spatial)(weight, height, width)


def keeps_size(weight: Any, stride: int, padding: int, width: int) -> bool:
    """Is it one that ``convolution`` knows?"""
    kernel = weight.shape[2:]
    return (
        stride == 1 and width <= WIDEST and ((kernel == (1, 1) and padding == 0) or (kernel == (3, 3) and padding == 1))
    )


def share_of(pixels: int, tiles: int = 1) -> int:
    """Pixels that one block of a weight gradient sums over, where so many blocks have the same pixels.

    The same for every GPU: it decides the order of a sum.
    """
    return 32 * divided(pixels * tiles, 32 * BLOCKS)


def total(parts: Any) -> Any:
    """The sum over all shares, in their order."""
    result = array_module(parts).empty(parts.shape[1:], "float32")
    launch("norm.cu", "sum_of_parts", (divided(result.size, 128),), 128, parts, result, len(parts), result.size)
    return result


def padded(length: int, apart: int) -> int:
    """At least `length`, and `apart` more than a multiple of 32; as in spatial.cu."""
    return (length + 31 - apart) // 32 * 32 + apart
