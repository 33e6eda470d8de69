"""Images on their way to the network: pure functions of images and generator, on either device.

The order is that of the DenseNet authors' code (fb.resnet.torch): normalise, mirror, then pad with zeros and crop. Padding comes
after normalising, so the border has the mean colour; padding first would make it black.
"""

import numpy

from ..backend import array_module


def normalise(images, mean, std):
    """(images − mean)/std per channel in float32: (N, C, H, W) of any type, (C,), (C,)."""
    xp = array_module(images)
    mean, std = (xp.asarray(v, xp.float32).reshape(-1, 1, 1) for v in (mean, std))
    return (images.astype(xp.float32) - mean) / std


def random_flip(images, rng: numpy.random.Generator):
    """Mirror each image left to right with probability one half."""
    mirrored = array_module(images).asarray(rng.random(len(images)) < 0.5)
    return array_module(images).where(mirrored[:, None, None, None], images[:, :, :, ::-1], images)


def random_crop(images, rng: numpy.random.Generator, *, padding: int):
    """Surround each image with `padding` zeros and cut out a piece of the old size at random: (2·padding + 1)² places."""
    xp = array_module(images)
    n, c, h, w = images.shape
    padded = xp.zeros((n, c, h + 2 * padding, w + 2 * padding), images.dtype)
    padded[:, :, padding : padding + h, padding : padding + w] = images
    top, left = xp.asarray(rng.integers(0, 2 * padding + 1, (2, n)))
    image, channel = xp.arange(n)[:, None, None, None], xp.arange(c)[:, None, None]
    row, column = top[:, None] + xp.arange(h), left[:, None] + xp.arange(w)
    return padded[image, channel, row[:, None, :, None], column[:, None, None, :]]
