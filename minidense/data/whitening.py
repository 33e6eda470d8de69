"""What is done to a whole set of images once, before training: a mean image, contrast, whitening.

Everything that is learnt from images is learnt from the training part alone. The results are float32 arrays; what only needs a mean
and a deviation a channel stays as bytes, and ``augment.normalise`` does it batch by batch.
"""

from collections.abc import Callable
from typing import Any

import numpy

CHUNK = 1000  # images at a time: 25 MB of float64 for CIFAR
CONTRAST = 55.0  # length that contrast normalisation gives an image, close to √3072: values of CIFAR get a deviation of about 1
LEAST_CONTRAST = 1e-8  # an image of one colour is left as it is, all zeros
FILTER_BIAS = 0.1  # added to the variance in every direction, so that directions without any are not blown up


def whole_set(how: str, train: Any, *others: Any) -> list[Any]:
    """The training images and other parts, uint8 (N, C, H, W), all treated as the training images say: float32 arrays.

    how  "pixel_mean": each pixel less its mean over the training images (He et al. 2016a).
         "pixel_mean_std": the same, divided by the deviation of all training values (Huang et al. 2016, Stochastic_Depth code).
         "gcn", "zca": see ``contrast_normalised`` and ``zca``.
    """
    treat: Callable[[Any], Any]
    if how == "gcn":
        treat = contrast_normalised
    elif how == "zca":
        mean, matrix = zca(train)

        def treat(images):
            x = contrast_normalised(images)
            return ((x.reshape(len(x), -1) - mean) @ matrix).reshape(x.shape)
    else:
        image, deviation = mean_and_deviation(train)
        divisor = deviation if how == "pixel_mean_std" and deviation > 0 else 1.0

        def treat(images):
            return (images - image) / divisor

    return [in_chunks(treat, part) for part in (train, *others)]


def mean_and_deviation(images):
    """The mean image (C, H, W), and the deviation of all values about their one mean; both in float64."""
    total, squares = numpy.zeros(images.shape[1:]), 0.0
    for chunk in chunks(images):
        x = chunk.astype(numpy.float64)
        total += x.sum(0)
        squares += float((x * x).sum())
    image = total / len(images)
    return image, max(squares / images.size - image.mean() ** 2, 0.0) ** 0.5


def contrast_normalised(images):
    """Each image less its own mean, then scaled to a length of 55: global contrast normalisation (pylearn2, CIFAR10 with gcn=55)."""
    x = images.reshape(len(images), -1).astype(numpy.float64)
    x -= x.mean(1, keepdims=True)
    length = numpy.sqrt((x * x).sum(1, keepdims=True)) / CONTRAST
    length[length < LEAST_CONTRAST] = 1
    return (x / length).astype(numpy.float32).reshape(images.shape)


def zca(images):
    """Mean (D,) and matrix (D, D) that whiten contrast-normalised images, in float32: Krizhevsky 2009, appendix A; pylearn2's ZCA.

        x ← (x − mean) · V (Λ + 0.1)^(−1/2) Vᵀ      with V Λ Vᵀ = covariance of the training images, D = C·H·W

    Of all matrices that whiten, this symmetric one changes the images least: they still look like themselves.
    """
    d = images[0].size
    total, products = numpy.zeros(d), numpy.zeros((d, d))
    for chunk in chunks(images):
        x = contrast_normalised(chunk).reshape(len(chunk), d)
        total += x.sum(0, dtype=numpy.float64)
        products += x.T @ x  # in float32 over a chunk: errors of 1e-6, beside the 0.1 that is added
    mean = total / len(images)
    covariance = products / len(images) - numpy.outer(mean, mean)
    variances, directions = numpy.linalg.eigh(covariance)
    matrix = (directions / numpy.sqrt(numpy.maximum(variances, 0) + FILTER_BIAS)) @ directions.T
    return mean.astype(numpy.float32), matrix.astype(numpy.float32)


def chunks(images):
    return (images[i : i + CHUNK] for i in range(0, len(images), CHUNK))


def in_chunks(treat, images):
    """treat(images) in float32, without a float64 copy of all of them."""
    treated = numpy.empty(images.shape, numpy.float32)
    for i in range(0, len(images), CHUNK):
        treated[i : i + CHUNK] = treat(images[i : i + CHUNK])
    return treated
