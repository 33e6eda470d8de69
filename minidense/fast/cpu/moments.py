"""Mean and variance of every channel, piece by piece, safe where the mean is large against the deviation."""

from functools import cache

import numpy

from ...threads import scratch

CANCELS = 16.0  # a mean so many times the deviation would cost Σ x² − P·mean² two digits: then the mean goes first


def of_piece(x):
    """(mean, Σ (x − mean)²) of each row of x (C, P)."""
    p = x.shape[1]
    mean = x @ filled(1 / p, p, x.dtype)
    squares = numpy.vecdot(x, x)
    about_mean = squares - p * mean * mean
    if (squares > CANCELS * about_mean).any():
        centred = scratch("threshold", x.shape, x.dtype)
        numpy.subtract(x, mean[:, None], out=centred)
        about_mean = numpy.vecdot(centred, centred)
    return mean, about_mean


@cache
def filled(value, length, dtype):
    """A row of equal numbers, to multiply with: a sum or a mean as a matrix product."""
    return numpy.full(length, value, dtype)


def merge(parts, pieces):
    """(mean, biased variance) in float64 over all pieces, from what of_piece says of each (Chan, Golub & LeVeque 1983)."""
    weights = numpy.array([[piece.pixels] for piece in pieces], numpy.float64)
    means = numpy.array([mean for mean, _ in parts], numpy.float64)
    squares = numpy.array([square for _, square in parts], numpy.float64)
    total = weights.sum()
    mean = (weights * means).sum(0) / total
    return mean, (squares.sum(0) + (weights * (means - mean) ** 2).sum(0)) / total
