"""Mean and variance of every channel, piece by piece, safe where the mean is large against the deviation."""

import numpy

from ...threads import scratch


def of_piece(x):
    """(mean, Σ (x − mean)²) of each row of x (C, P)."""
    mean = x @ numpy.full(x.shape[1], 1 / x.shape[1], x.dtype)
    centred = scratch("threshold", x.shape, x.dtype)
    numpy.subtract(x, mean[:, None], out=centred)
    return mean, numpy.vecdot(centred, centred)


def merge(parts, pieces):
    """(mean, biased variance) in float64 over all pieces, from what of_piece says of each (Chan, Golub & LeVeque 1983)."""
    weights = numpy.array([[piece.pixels] for piece in pieces], numpy.float64)
    means = numpy.array([mean for mean, _ in parts], numpy.float64)
    squares = numpy.array([square for _, square in parts], numpy.float64)
    total = weights.sum()
    mean = (weights * means).sum(0) / total
    return mean, (squares.sum(0) + (weights * (means - mean) ** 2).sum(0)) / total
