"""Mean and variance of every channel, part by part, safe where the mean is large against the deviation."""

from functools import cache
from typing import NamedTuple

import numpy

from ...threads import scratch

# Where Σ x² is so many times Σ x² − P·mean², the difference would lose more than a digit: then the mean goes first.
CANCELS = 16.0


class Moments(NamedTuple):
    """Of some values of each channel: how many, their mean, and Σ (x − mean)²."""

    values: int
    mean: numpy.ndarray
    about_mean: numpy.ndarray


def of_rows(x):
    """The Moments of each row: x (..., P) gives arrays (...)."""
    p = x.shape[-1]
    ones = filled(1, p, x.dtype)
    mean = numpy.matmul(x, ones) / p
    squares = numpy.vecdot(x, x)
    about_mean = squares - p * mean * mean
    if (squares > CANCELS * about_mean).any():
        centred = scratch("centred", x.shape, x.dtype)
        numpy.subtract(x, mean[..., None], out=centred)
        missed = (centred @ ones).astype(numpy.float64) / p  # what rounding left of the mean
        mean = mean + missed
        about_mean = numpy.vecdot(centred, centred) - p * missed * missed
    return Moments(p, mean, about_mean)


def of_images(x):
    """The Moments of each channel of some images (n, C, H, W)."""
    n, c = x.shape[:2]
    each = of_rows(x.reshape(n, c, -1))
    return combined(numpy.full(n, each.values), each.mean, each.about_mean)


def merge(parts):
    """(mean, biased variance) in float64 over all parts."""
    counts, means, abouts = (numpy.array(values) for values in zip(*parts, strict=True))
    whole = combined(counts, means, abouts)
    return whole.mean, whole.about_mean / whole.values


def combined(counts, means, abouts):
    """Moments of several parts as those of the whole: (parts,), (parts, C), (parts, C) (Chan, Golub & LeVeque 1983)."""
    weights = counts.astype(numpy.float64)[:, None]
    total = weights.sum()
    mean = (weights * means).sum(0) / total
    return Moments(total, mean, (abouts + weights * (means - mean) ** 2).sum(0))


@cache
def filled(value, length, dtype):
    """A row of equal numbers, to multiply with: a sum or a mean as a matrix product."""
    return numpy.full(length, value, dtype)
