"""Every kernel against NumPy in float64, in each precision and in each order of threads; that they compile; that the checks can fail.

What computes here is tests/cuda_on_cpu.py's shim, or a GPU where there is one (then in the only order that a GPU has).
"""

from types import SimpleNamespace

import numpy as np
import pytest
from cuda_on_cpu import ORDERS, thread_order

from minidense.backend import to_device, to_numpy
from minidense.fast.gpu import convolve, norm
from minidense.fast.gpu.convolve import Behind, Pointwise, Spatial, total
from minidense.precision import PRECISIONS, precision

pytestmark = pytest.mark.usefixtures("kernels")

# Of the largest result. float32: 2⁻²⁴ for each of some hundred roundings. tf32: two factors rounded to 2⁻¹¹ each, of up to 2,000 products
# the errors of which mostly cancel. mixed: the result is rounded to 2⁻⁹ besides; what goes in is made representable first.
TOLERANCE = {"float32": 2e-6, "tf32": 1.5e-3, "mixed": 6e-3}


@pytest.fixture(params=ORDERS, ids=["in order", "reversed", "shuffled 1", "shuffled 2"])
def order(request):
    with thread_order(request.param):
        yield request.param


@pytest.fixture(params=PRECISIONS)
def how(request):
    with precision(request.param):
        yield request.param


class Maps:
    """Feature maps (C, P) on the device as they are stored, and the very same numbers in float64."""

    def __init__(self, values, how):
        bits = values.astype(np.float32).view(np.uint32)
        if how == "mixed":
            bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
        self.exact = bits.view(np.float32).astype(np.float64)
        stored = (bits >> 16).astype(np.uint16) if how == "mixed" else bits.view(np.float32)
        self.array = to_device(np.ascontiguousarray(stored), "gpu")


def numbers(array):
    """Feature maps, read back."""
    found = to_numpy(array)
    return (found.astype(np.uint32) << 16).view(np.float32) if found.dtype == np.uint16 else found


def room(c, pixels, how, value=None):
    values = np.full((c, pixels), np.nan if value is None else value)
    return Maps(values, how)


def fold_of(rng, c):
    """(mean, scale, shift, inv_std) of a norm, scales of both signs."""
    values = rng.standard_normal((c, 4), np.float32)
    values[:, 3] = abs(values[:, 3]) + 0.5
    return to_device(values, "gpu"), values.astype(np.float64)[:, :, None]


def on_device(values):
    return to_device(values.astype(np.float32), "gpu"), values.astype(np.float32).astype(np.float64)


def same(found, expected, how, what):
    assert found.shape == expected.shape, what
    assert np.isfinite(found).all(), f"{what}: not all of it was written"
    error = abs(found - expected).max() / max(abs(expected).max(), 1e-3)
    assert error <= TOLERANCE[how], f"{what}: off by {error:.1e} of its largest value"


def same_moments(moments, tile, y):
    """Of every tile the mean and Σ (x − mean)² of what was stored."""
    moments = to_numpy(moments)
    for i in range(moments.shape[1]):
        piece = y[:, i * tile : (i + 1) * tile]
        np.testing.assert_allclose(
            moments[:, i, 0], piece.mean(1), rtol=1e-5, atol=1e-5
        )  # float32, 4,096 terms at most
        np.testing.assert_allclose(moments[:, i, 1], piece.var(1) * piece.shape[1], rtol=1e-4, atol=1e-4)


def rectified(x, fold):
    return np.maximum((x - fold[:, 0]) * fold[:, 1] + fold[:, 2], 0)


def active(x, fold):
    return (x - fold[:, 0]) * fold[:, 1] + fold[:, 2] > 0


POINTWISE = [(5, 7, 36), (100, 50, 132), (33, 100, 204), (3, 260, 64)]  # channels, filters, pixels
SPATIAL = [
    (4, 5, 7, 11, 12),
    (2, 8, 8, 24, 12),
    (4, 1, 1, 3, 40),
    (4, 3, 1, 5, 50),
    (1, 4, 40, 9, 33),
]  # N, H, W, channels, filters


@pytest.mark.parametrize(("channels", "filters", "pixels"), POINTWISE)
@pytest.mark.parametrize("tile", [128, 64, 32])
def test_pointwise(channels, filters, pixels, tile, how, order, gpu, rng, monkeypatch):
    monkeypatch.setattr(convolve, "BLOCKS", {128: 0, 64: -(-pixels // 128) + 1, 32: 10**9}[tile])
    monkeypatch.setattr(convolve, "share_of", lambda pixels, tiles: 64)
    x, fold, (weight, w) = (
        Maps(rng.standard_normal((channels, pixels)), how),
        *[
            fold_of(rng, channels),
            on_device(rng.standard_normal((filters, channels, 1, 1))),
        ],
    )
    w = w[:, :, 0, 0]
    convolution, y = Pointwise(weight, 1, pixels), room(filters, pixels, how)
    moments, width = convolution.forward(x.array, fold[0], y.array, moments=True)
    h = rectified(x.exact, fold[1])
    same(numbers(y.array), w @ h, how, "result")
    same_moments(moments, width, numbers(y.array).astype(np.float64))
    convolution.forward(x.array, None, y.array, moments=False)
    same(numbers(y.array), w @ x.exact, how, "result without a norm")

    dy, debt, behind = Maps(rng.standard_normal((filters, pixels)), how), *behind_of(rng, filters, pixels, how)
    dx = room(channels, pixels, how, value=1)
    sums = convolution.input_gradient(dy.array, x.array, fold[0], dx.array, scaled=True, added=True, behind=behind)
    settled = debt(dy.exact)
    dh = (w.T @ settled) * active(x.exact, fold[1])
    same(numbers(dx.array), 1 + dh * fold[1][:, 1], how, "gradient of the input")
    same_sums(sums, dh, x.exact, fold[1], how)
    convolution.input_gradient(dy.array, None, None, dx.array)
    same(numbers(dx.array), w.T @ dy.exact, how, "gradient of the input without norms")

    dweight = to_numpy(total(convolution.weight_parts(dy.array, x.array, fold[0], behind=behind)))
    same(dweight[:, :, 0, 0], settled @ h.T, how, "gradient of the weight")


def behind_of(rng, filters, pixels, how):
    """A norm behind a convolution: (what it makes of a gradient, Behind)."""
    y, (fold, f), (debt, d) = (
        Maps(rng.standard_normal((filters, pixels)), how),
        fold_of(rng, filters),
        on_device(rng.random((filters, 2))),
    )

    def of(dy):
        return f[:, 1] * dy - d[:, :1] - (y.exact - f[:, 0]) * f[:, 3] * d[:, 1:]

    return of, Behind(y.array, fold, debt)


def same_sums(sums, dz, x, fold, how):
    found = to_numpy(sums).sum(1)
    terms = np.stack([dz, dz * (x - fold[:, 0]) * fold[:, 3]], 1)
    # Sums of terms of either sign: held against the sum of their sizes.
    assert (abs(found - terms.sum(2)) <= TOLERANCE[how] * abs(terms).sum(2).max()).all(), "sums"


def convolved(h, w, shape):
    """3×3 in float64, by its definition: h (C, P), w (F, C, 3, 3)."""
    n, height, width = shape
    padded = np.pad(h.reshape(-1, n, height, width), ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sum(
        np.einsum("fc,cnij->fnij", w[:, :, r, s], padded[:, :, r : r + height, s : s + width])
        for r in range(3)
        for s in range(3)
    ).reshape(len(w), -1)


@pytest.mark.parametrize(("n", "height", "width", "channels", "filters"), SPATIAL)
def test_spatial(n, height, width, channels, filters, how, order, gpu, rng, monkeypatch):
    monkeypatch.setattr(convolve, "share_of", lambda pixels, tiles=1: 128)  # two chunks, as with many more pixels
    pixels, shape = n * height * width, (n, height, width)
    x, (fold, f) = Maps(rng.standard_normal((channels, pixels)), how), fold_of(rng, channels)
    weight, w = on_device(rng.standard_normal((filters, channels, 3, 3)))
    convolution, y = Spatial(weight, height, width), room(filters, pixels, how)
    moments, tile = convolution.forward(x.array, fold, y.array, moments=True)
    h = rectified(x.exact, f)
    same(numbers(y.array), convolved(h, w, shape), how, "result")
    same_moments(moments, tile, numbers(y.array).astype(np.float64))

    dy, dx = Maps(rng.standard_normal((filters, pixels)), how), room(channels, pixels, how)
    sums = convolution.input_gradient(dy.array, x.array, fold, dx.array)
    turned = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    dh = convolved(dy.exact, turned, shape) * active(x.exact, f)
    same(numbers(dx.array), dh, how, "gradient of the input")
    same_sums(sums, dh, x.exact, f, how)
    dx = room(channels, pixels, how, value=1)
    convolution.input_gradient(dy.array, x.array, fold, dx.array, scaled=True, added=True)
    same(numbers(dx.array), 1 + dh * f[:, 1], how, "gradient of the input, added")

    dweight = to_numpy(total(convolution.weight_parts(dy.array, x.array, fold)))
    padded = np.pad(h.reshape(channels, *shape), ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = np.empty_like(w)
    for r in range(3):
        for s in range(3):
            seen = padded[:, :, r : r + height, s : s + width].reshape(channels, -1)
            expected[:, :, r, s] = dy.exact @ seen.T
    same(dweight, expected, how, "gradient of the weight")


@pytest.mark.parametrize(("channels", "pixels"), [(3, 4100), (5, 8), (2, 9004)])
def test_moments_and_norms(channels, pixels, how, order, gpu, rng):
    """Statistics of a mean a hundred times the deviation, too; then a norm forward and back."""
    x = Maps(rng.standard_normal((channels, pixels)) + 100 * (np.arange(channels)[:, None] % 2), how)
    moments, tile = norm.moments_of_rows(x.array)
    mean, var = (to_device(np.zeros(channels, np.float32), "gpu") for _ in range(2))
    gamma, beta = on_device(rng.standard_normal(channels)), on_device(rng.standard_normal(channels))
    layer = SimpleNamespace(weight=SimpleNamespace(data=gamma[0]), bias=SimpleNamespace(data=beta[0]), eps=1e-3)
    folded = norm.prepare(moments, tile, pixels, mean, var, 0, layer)
    np.testing.assert_allclose(to_numpy(mean), x.exact.mean(1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(to_numpy(var), x.exact.var(1), rtol=1e-5)
    inv_std = 1 / np.sqrt(x.exact.var(1) + 1e-3)
    expected = np.stack([x.exact.mean(1), gamma[1] * inv_std, beta[1], inv_std], 1)
    np.testing.assert_allclose(to_numpy(folded), expected, rtol=1e-5, atol=1e-6)  # as the variance

    fold, f = fold_of(rng, channels)
    for rectify in (False, True):
        expected = (x.exact - f[:, 0]) * f[:, 1] + f[:, 2]
        y = norm.normalise(x.array, fold, rectify=rectify)
        same(numbers(y), np.maximum(expected, 0) if rectify else expected, how, "y")
        dy = Maps(rng.standard_normal((channels, pixels)), how)
        dx, sums = norm.normalise_gradient(dy.array, x.array, fold, rectify=rectify)
        dz = dy.exact * (expected > 0) if rectify else dy.exact
        same(numbers(dx), dz * f[:, 1], how, "dx")
        same_sums(sums, dz, x.exact, f, how)


def test_a_transition_pools_what_it_normalises(how, order, gpu, rng):
    n, height, width, channels = 3, 6, 10, 4
    pixels = n * height * width
    x, (fold, f) = Maps(rng.standard_normal((channels, pixels)), how), fold_of(rng, channels)

    def pooled(values):
        return values.reshape(channels, n, height // 2, 2, width // 2, 2).mean((3, 5)).reshape(channels, -1)

    y = norm.normalise_and_pool(x.array, fold, width // 2)
    same(numbers(y), pooled(rectified(x.exact, f)), how, "y")
    dy, dx = Maps(rng.standard_normal((channels, pixels // 4)), how), room(channels, pixels, how)
    sums = norm.normalise_and_pool_gradient(dy.array, x.array, fold, dx.array, width // 2)
    spread = dy.exact.reshape(channels, n, height // 2, 1, width // 2, 1) / 4
    dz = np.broadcast_to(spread, (channels, n, height // 2, 2, width // 2, 2)).reshape(channels, -1) * active(
        x.exact, f
    )
    same(numbers(dx.array), dz * f[:, 1], how, "dx")
    same_sums(sums, dz, x.exact, f, how)


def test_what_a_norm_owes(how, order, gpu, rng):
    """dγ, dβ and the debt from sums by tiles, and the settling."""
    channels, pixels, tiles = 6, 500, 40
    sums, s = on_device(rng.standard_normal((channels, tiles, 2)))
    (fold, f), (debt, d) = fold_of(rng, channels), on_device(rng.standard_normal((channels, 2)))
    expected = s.sum(1)
    parts, w = on_device(rng.standard_normal((7, 30, 5, 3, 3)))
    for first in (True, False):
        dgamma, dbeta, dweight = norm.finish(sums, pixels, fold, debt, parts, settles=True, first=first)
        np.testing.assert_allclose(to_numpy(dweight), w.sum(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(to_numpy(dbeta), expected[:, 0], rtol=1e-5)
        np.testing.assert_allclose(to_numpy(dgamma), expected[:, 1], rtol=1e-5)
        share = f[:, 1] / pixels * expected
        d = share if first else d + share
        np.testing.assert_allclose(to_numpy(debt), d, rtol=1e-4, atol=1e-6)
    assert norm.finish(sums, pixels, fold, debt, settles=False, first=True)[2] is None
    assert (to_numpy(debt) == 0).all()

    x, dx = Maps(rng.standard_normal((channels, pixels)), how), Maps(rng.standard_normal((channels, pixels)), how)
    (mean, m), (var, v), (debt, d) = (
        on_device(rng.standard_normal(channels)),
        on_device(rng.random(channels)),
        on_device(rng.random((channels, 2))),
    )
    norm.settle(dx.array, x.array, mean, var, debt, 1e-5)
    expected = dx.exact - d[:, :1] - (x.exact - m[:, None]) / np.sqrt(v + 1e-5)[:, None] * d[:, 1:]
    same(numbers(dx.array), expected, how, "dx")


def test_brain_floats_round_to_nearest_and_keep_what_is_not_a_number(gpu):
    """1 + 2⁻⁸ lies halfway between two and goes to the even one; infinities, NaN and the smallest numbers stay what they are."""
    values = np.array(
        [[1, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, np.inf, -np.inf, np.nan, 1e-40, 3.4e38, 0, -0.0, 2**-7 + 1]],
        np.float32,
    )
    stored = to_device(np.zeros(values.shape, np.uint16), "gpu")
    norm.narrow(to_device(values, "gpu"), stored)
    found = to_numpy(norm.widened(stored))[0]
    assert found[:4].tolist() == [1, 1, 1 + 2**-6, -1]
    assert found[4:6].tolist() == [np.inf, -np.inf]
    assert np.isnan(found[6])
    assert abs(found[7] - 1e-40) <= 2**-134
    assert found[8] == np.inf  # above the largest but half a step, as in IEEE 754
    assert found[11] == 1 + 2**-7
