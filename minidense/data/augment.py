"""Images on their way to the network: pure functions of images and of what chance has chosen, on either device.

The order is that of the DenseNet authors' code (fb.resnet.torch): normalise, mirror, then pad with zeros and crop. Padding comes
after normalising, so the border has the mean colour; padding first would make it black. Wide ResNets (Zagoruyko & Komodakis 2016)
fill the border with the image's own reflection instead.

Chance comes from a generator that counts, Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): what
it gives image i depends on a key and on i alone, so any thread can work it out by itself, on a GPU too.
"""

import numpy

from ..backend import array_module
from ..speed import reference


@reference
def prepared(
    images,
    chosen,
    mean,
    std,
    *,
    key: tuple[int, int] | None = None,
    padding: int = 0,
    flip: bool = False,
    reflect: bool = False,
):
    """The chosen images, normalised and, with a key, mirrored and cropped as ``moves`` says.

    images     uint8 (N, C, H, W), all of a part; or float32, normalised already (data/whitening.py)
    chosen     int64 (n,): which of them, on the same device
    mean, std  C numbers each, in units of the pixels
    key        two numbers in 0 … 2⁶⁴ − 1; None augments nothing
    padding    pixels that a crop may move the image by
    flip       mirror about half of the images
    reflect    beyond its border an image goes on as its reflection; otherwise as zeros
    returns    float32 (n, C, H, W)

    Raises DeviceError when images and chosen are on two devices.
    """
    xp = array_module(images, chosen)
    batch = normalise(images[chosen], mean, std)
    if key is None:
        return batch
    mirrored, top, left = map(xp.asarray, moves(key, len(chosen), padding=padding, flip=flip))
    return crop(mirror(batch, mirrored), top, left, padding=padding, reflect=reflect)


def moves(key: tuple[int, int], count: int, *, padding: int, flip: bool):
    """What happens to each image of a batch: (mirrored, top, left), NumPy arrays of bool, int64 and int64, (count,) each.

    Image i has the four words of Philox4x64-10 at counter i + 1. The top bit of the first word mirrors it (never without
    `flip`); the upper halves of the second and the third, as fractions of 2³², choose among the 2·padding + 1 rows and columns.
    """
    generator = numpy.random.Philox(key=numpy.array(key, numpy.uint64))  # a plain list may pass through float64
    words = generator.random_raw(4 * count).reshape(count, 4)
    mirrored = (words[:, 0] >> 63 == 1) & flip
    top, left = ((words[:, 1:3] >> 32) * (2 * padding + 1) >> 32).astype(numpy.int64).T
    return mirrored, top, left


def normalise(images, mean, std):
    """(images − mean)/std per channel in float32: (N, C, H, W) of any type, (C,), (C,)."""
    xp = array_module(images)
    mean, std = (xp.asarray(v, xp.float32).reshape(-1, 1, 1) for v in (mean, std))
    return (images.astype(xp.float32) - mean) / std


def mirror(images, mirrored):
    """Those images left to right for which mirrored (N,) is true."""
    xp = array_module(images, mirrored)
    return xp.where(mirrored[:, None, None, None], images[:, :, :, ::-1], images)


def crop(images, top, left, *, padding: int, reflect: bool = False):
    """Surround each image with `padding` zeros and cut out a piece of the old size, from row top (N,) and column left (N,) on.

    0 … 2·padding each; top = left = padding gives the image back.

    reflect  surround it with its own reflection, in which the outermost pixels are not repeated; padding < H, W
    """
    xp = array_module(images, top, left)
    n, c, h, w = images.shape
    image, channel = xp.arange(n)[:, None, None, None], xp.arange(c)[:, None, None]
    row, column = top[:, None] + xp.arange(h), left[:, None] + xp.arange(w)
    if reflect:
        row, column = reflected(row - padding, h), reflected(column - padding, w)
        return images[image, channel, row[:, None, :, None], column[:, None, None, :]]
    padded = xp.zeros((n, c, h + 2 * padding, w + 2 * padding), images.dtype)
    padded[:, :, padding : padding + h, padding : padding + w] = images
    return padded[image, channel, row[:, None, :, None], column[:, None, None, :]]


def reflected(i, size: int):
    """Places −size < i < 2·size − 1 beside a row of `size` pixels, as places in it: … 2 1 | 0 1 2 … is 0's neighbourhood."""
    xp = array_module(i)
    i = abs(i)
    return xp.minimum(i, 2 * (size - 1) - i)
