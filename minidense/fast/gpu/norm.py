"""Batch norm by kernels, step by step: moments, what follows from them for a layer, and the same for gradients (kernels/norm.cu)."""

from typing import Any

from ...backend import array_module
from .launch import divided, launch

FILE = "norm.cu"
TILE = 4096  # pixels of a row that a block looks at; norm.cu has the same
WARPS = 4  # channels of a block where each has a warp


def tiles(pixels: int) -> int:
    return divided(pixels, TILE)


def moments_of_rows(x: Any) -> tuple[Any, int]:
    """(mean and Σ (x − mean)² of every tile of every row (C, tiles, 2), pixels in a tile)."""
    c, pixels = x.shape
    moments = array_module(x).empty((c, tiles(pixels), 2), "float32")
    launch(FILE, "moments_of_rows", (tiles(pixels), c), 256, x, moments, pixels)
    return moments, TILE


def prepare(moments: Any, width: int, pixels: int, mean: Any, var: Any, known: int, norm: Any) -> Any:
    """Set mean and var (C,) of the channels from `known` on from their moments; the fold (C, 4) of `norm` with all of them.

    moments  (C − known, tiles, 2) of tiles of `width` pixels; None where all is known
    """
    c = len(mean)
    fold = array_module(mean).empty((c, 4), "float32")
    count = 0 if moments is None else moments.shape[1]
    args = (moments, count, width, pixels, mean, var, known, norm.weight.data, norm.bias.data, fold, c, float(norm.eps))
    launch(FILE, "prepare_norm", (divided(c, WARPS),), 32 * WARPS, *args)
    return fold


def finish(
    sums: Any, pixels: int, fold: Any, debt: Any, parts: Any = None, *, settles: bool, first: bool
) -> tuple[Any, Any, Any]:
    """(dγ, dβ) from the sums of all tiles, and dweight from its parts, where there are any; all in one launch.

    What the norm takes from dx goes onto the debt (C, 2), or is all of it where `first`.
    """
    c, count, _ = sums.shape
    xp, blocks = array_module(sums), divided(c, WARPS)
    dgamma, dbeta = (xp.empty(c, "float32") for _ in range(2))
    dweight, size, shares = None, 0, 0
    if parts is not None:
        dweight = xp.empty(parts.shape[1:], "float32")
        size, shares = dweight.size, len(parts)
    args = (sums, count, pixels, fold, dgamma, dbeta, debt, settles, first, c, blocks, parts, dweight, shares, size)
    launch(FILE, "finish_norm", (blocks + divided(size, 32 * WARPS),), 32 * WARPS, *args)
    return dgamma, dbeta, dweight


def settle(dx: Any, x: Any, mean: Any, var: Any, debt: Any, eps: float) -> None:
    """Take from dx (C, P), in place, what it owes."""
    c, pixels = dx.shape
    launch(FILE, "settle", (tiles(pixels), c), 256, dx, x, mean, var, debt, float(eps), pixels)


def normalise(x: Any, fold: Any, *, rectify: bool) -> Any:
    """BN(x), or relu of it."""
    y = array_module(x).empty(x.shape, x.dtype)
    launch(FILE, "normalise", (tiles(x.shape[1]), len(x)), 256, x, fold, y, rectify, x.shape[1])
    return y


def normalise_gradient(dy: Any, x: Any, fold: Any, *, rectify: bool) -> tuple[Any, Any]:
    """(dx but for its debt, sums for ``finish``)."""
    c, pixels = x.shape
    xp = array_module(x)
    dx, sums = xp.empty(x.shape, x.dtype), xp.empty((c, tiles(pixels), 2), "float32")
    launch(FILE, "normalise_gradient", (tiles(pixels), c), 256, dy, x, fold, dx, sums, rectify, pixels)
    return dx, sums


def normalise_and_pool(x: Any, fold: Any, width: int) -> Any:
    """The means of 2×2 pixels of relu(BN(x)): (C, P) gives (C, P/4); width is that of the result."""
    c, pixels = x.shape
    y = array_module(x).empty((c, pixels // 4), x.dtype)
    launch(FILE, "normalise_and_pool", (tiles(pixels), c), 256, x, fold, y, pixels // 4, width)
    return y


def normalise_and_pool_gradient(dy: Any, x: Any, fold: Any, dx: Any, width: int) -> Any:
    """Into dx, but for its debt; returns the sums for ``finish``."""
    c, pixels = x.shape
    sums = array_module(x).empty((c, tiles(pixels), 2), "float32")
    args = (dy, x, fold, dx, sums, pixels // 4, width)
    launch(FILE, "normalise_and_pool_gradient", (tiles(pixels), c), 256, *args)
    return sums


def narrow(x: Any, out: Any) -> None:
    """Copy float32 rows into a feature map as it is stored."""
    launch(FILE, "narrow", (tiles(x.shape[1]), len(x)), 256, x, out, x.shape[1])


def widened(x: Any) -> Any:
    """A feature map as it is stored as float32; itself where it is."""
    if x.dtype == "float32":
        return x
    y = array_module(x).empty(x.shape, "float32")
    launch(FILE, "widen", (tiles(x.shape[1]), len(x)), 256, x, y, x.shape[1])
    return y


def narrowed(x: Any, dtype: Any) -> Any:
    """float32 rows as feature maps are stored; themselves where they are."""
    if x.dtype == dtype:
        return x
    y = array_module(x).empty(x.shape, dtype)
    narrow(x, y)
    return y
