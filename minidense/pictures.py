"""What a network was trained to see, and how a picture becomes that: torchvision's bytes, from files that are not trusted."""

from __future__ import annotations

import os
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from .data import DATASETS, load
from .data.datasets import PHOTOGRAPHS
from .errors import DataError

KNOWN = ("imagenet", *DATASETS)  # whose networks' view is known
MOST_PIXELS = 2**27  # of a picture, as it is and brought to size: 400 MB
# Pillow hands some others, such as EPS, to other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

# What Pillow has been seen to raise for damaged pictures. OSError: cut short; SyntaxError: a broken PNG.
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, struct.error, TypeError, KeyError, IndexError, OverflowError)


@dataclass(frozen=True)
class View:
    """What a network was trained to see: its classes, and how a picture becomes its numbers.

    shape         (C, H, W): channels, 3 or 1, and the piece cut out of the middle
    shorter_side  of the picture, in pixels, before that
    mean, std     per channel, in units of levels
    levels        the brightest pixel; 255 but for digits
    """

    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    shorter_side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    levels: int = 255


def view_of(data: str) -> View:
    """How networks trained on a data set see pictures."""
    if data == "imagenet":  # as torchvision and timm prepare pictures for these weights
        mean, std = (tuple(255 * v for v in values) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        return View(imagenet_classes(), (3, 224, 224), 256, mean, std)
    if (known := PHOTOGRAPHS.get(data)) is not None:
        return View(known.class_names, (3, 32, 32), 32, known.mean, known.std)
    images = load(data)
    c, h, w = images.test_images.shape[1:]
    return View(images.class_names, (c, h, w), min(h, w), images.mean, images.std, images.levels)


def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 classes of the ImageNet challenge of 2012, in the order of their numbers, which is that of their WordNet ids.

    Each is called by the first word that WordNet has for it, as in torchvision; two, 134 and 639, by two words, to tell them
    from 517 and 638.
    """
    text = (Path(__file__).parent / "data" / "imagenet_classes.txt").read_text(encoding="ascii")
    return tuple(text.splitlines())


# -- reading a picture ------------------------------------------------------------------------------------------------


def picture(path: str | Path, view: View) -> numpy.ndarray:
    """A picture as uint8 (C, H, W), of the size and channels that a network sees.

    Turned upright as its EXIF data says, what is transparent on white, brought to size (bilinear, every pixel counts) and cut
    out of the middle: torchvision's Resize and CenterCrop, byte for byte.
    Raises DataError when it cannot be read or is too large.
    """
    import PIL.Image

    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{path}: not a file")
    try:
        with warnings.catch_warnings():
            # Of tags that Pillow finds odd, and of sizes, which are checked here.
            warnings.simplefilter("ignore")
            with PIL.Image.open(path, formats=FORMATS) as image:
                refuse_size(path, *image.size, view.shorter_side)
                colours = "RGB" if view.shape[0] == 3 else "L"
                fitted = cut_out(plain(upright(image)).convert(colours), view)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (PIL.Image.DecompressionBombError, DataError) as error:
        raise DataError(str(error) if isinstance(error, DataError) else f"{path}: {error}") from None
    except PIL.UnidentifiedImageError:
        raise DataError(f"{path}: not a picture in a format known here ({', '.join(FORMATS)})") from None
    except DAMAGED as error:
        words = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: the picture cannot be read: {words}") from None
    pixels = numpy.asarray(fitted)
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]


def refuse_size(path: str | Path, width: int, height: int, shorter_side: int) -> None:
    """Raises DataError for a picture that would fill the memory, as it is or brought to size."""
    if not width or not height:
        raise DataError(f"{path}: a picture without pixels")
    longer_side = shorter_side * max(width, height) // min(width, height)
    if max(width * height, shorter_side * longer_side) > MOST_PIXELS:
        raise DataError(f"{path}: {width:,} × {height:,} pixels are more than is read here; make it smaller, or cut it")


def upright(image: Any) -> Any:
    """The picture as it was taken: cameras write how they were held instead of turning it. Damaged notes count as none."""
    import PIL.ImageOps

    image.load()
    try:
        return PIL.ImageOps.exif_transpose(image)
    except DAMAGED:
        return image


def plain(image: Any) -> Any:
    """A picture of 8 bits a channel without transparency: 16 bits lose the lower eight, and what is transparent lies on white."""
    import PIL.Image

    if image.mode.startswith(("I", "F")):
        levels = numpy.asarray(image).astype(numpy.float64)
        if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
            raise ValueError("its pixels are neither of 8 nor of 16 bits")
        return PIL.Image.fromarray((levels // 256).astype(numpy.uint8))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        white = PIL.Image.new("RGBA", seen.size, (255, 255, 255, 255))
        return PIL.Image.alpha_composite(white, seen).convert("RGB")
    return image


def cut_out(image: Any, view: View) -> Any:
    """Bring the shorter side to its size and cut the middle out. What Pillow calls bilinear looks at every pixel (antialias)."""
    import PIL.Image

    _, h, w = view.shape
    width, height = image.size
    side = view.shorter_side
    size = (side, side * height // width) if width <= height else (side * width // height, side)
    if image.size != size:
        image = image.resize(size, PIL.Image.Resampling.BILINEAR)
    left, top = (round((have - want) / 2) for have, want in zip(size, (w, h), strict=True))
    return image.crop((left, top, left + w, top + h))
