"""The command: minidense predict. What a network with published weights, or one of your own runs, sees in a picture."""

from __future__ import annotations

import argparse
import json
import os
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy

from . import functional as F
from . import models
from .backend import DEVICES, to_numpy
from .command import DONE, WRONG_COMMAND_LINE, complain, ended, one_line, show
from .config import Parser, TrainConfig, nearest, read_toml, reader
from .data import DATASETS, load, normalise
from .data.datasets import CIFAR100_CLASSES
from .errors import CheckpointError, ConfigError, DataError
from .nn import Module
from .tensor import Tensor, no_grad
from .weights import load_weights

PROGRAM = "minidense predict"
BAR = 30  # characters of a probability of 1
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


# Of data sets whose files need not be there to know what they hold; a test compares them with data/datasets.py.
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PHOTOGRAPHS: dict[str, tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": (CIFAR10_CLASSES, (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
    "cifar100": (tuple(CIFAR100_CLASSES.split()), (129.3, 124.1, 112.4), (68.2, 65.4, 70.4)),
    "svhn": (tuple("0123456789"), (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
}
KNOWN = ("imagenet", *DATASETS)


def view_of(data: str) -> View:
    """How networks trained on a data set see pictures."""
    if data == "imagenet":  # as torchvision and timm prepare pictures for these weights
        mean, std = (tuple(255 * v for v in values) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        return View(imagenet_classes(), (3, 224, 224), 256, mean, std)
    if data in PHOTOGRAPHS:
        return View(PHOTOGRAPHS[data][0], (3, 32, 32), 32, *PHOTOGRAPHS[data][1:])
    images = load(data)
    c, h, w = images.test_images.shape[1:]
    return View(images.class_names, (c, h, w), min(h, w), images.mean, images.std, levels=int(images.test_images.max()))


def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 classes of the ImageNet challenge of 2012, in the order of their numbers, which is that of their WordNet ids.

    Each is called by the first word that WordNet has for it, as in torchvision; two, 134 and 639, by two words, to tell them
    from 517 and 638.
    """
    text = (Path(__file__).parent / "data" / "imagenet_classes.txt").read_text(encoding="ascii")
    return tuple(text.splitlines())


# -- pictures ---------------------------------------------------------------------------------------------------------


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
            warnings.simplefilter("ignore")  # of tags that Pillow finds odd, and of sizes, which are checked here
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


def likeliest(model: Module, view: View, pixels: numpy.ndarray, top: int) -> list[dict[str, Any]]:
    """The `top` classes that the network finds likeliest: [{"class": number, "name", "probability"}, …]."""
    x = normalise(pixels[None] * numpy.float32(view.levels / 255), view.mean, view.std)
    # Weights that are no numbers are told once, below.
    with no_grad(), numpy.errstate(over="ignore", invalid="ignore"):
        p = to_numpy(F.softmax(model.eval()(Tensor(x, device=model.device))).data)[0]
    if not numpy.isfinite(p).all():
        raise CheckpointError("with these weights the network's results are no numbers")
    order = numpy.argsort(-p, kind="stable")[:top]
    return [{"class": int(i), "name": view.class_names[i], "probability": float(p[i])} for i in order]


# -- the command ------------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} FILE... (--model NAME --weights FILE | --run FOLDER) [options]",
        description="Say what a network sees in pictures: the likeliest classes, with their probabilities.",
        epilog=f"Pictures: {', '.join(FORMATS)}, of any size. Digits must be light on dark, as those of the data set are.\n"
        "Exit code: 0 done, 2 wrong command line, or a file that cannot be read; the others are still looked at.\n\n"
        "examples:\n"
        "  minidense predict dog.jpg --model densenet121 --weights densenet121-a639ec97.pth\n"
        "  minidense predict a.png b.png --run runs/densenet_bc_100_12-cifar10 --top 3",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=120),
        allow_abbrev=False,
    )
    made.add_argument("files", metavar="FILE", nargs="+", help="pictures")
    made.add_argument("--model", metavar="NAME", help="such as densenet121, densenet201 or resnet50_imagenet")
    made.add_argument(
        "--weights",
        metavar="FILE",
        help="safetensors, or .pth as torch.save writes it, with torchvision's, timm's or our names (default: the run's)",
    )
    made.add_argument(
        "--data", metavar="|".join(KNOWN), help="what the network was trained on (default: imagenet, or the run's)"
    )
    made.add_argument("--run", metavar="FOLDER", help="a run folder: takes model, data and weights from there")
    made.add_argument(
        "--top", metavar="COUNT", type=reader(int), default=5, help="how many classes to print (default: 5)"
    )
    made.add_argument("--json", action="store_true", help="print one JSON object instead (default: no)")
    made.add_argument("--device", metavar="|".join(DEVICES), default="cpu", help="where to compute (default: cpu)")
    return made


@dataclass(frozen=True)
class Plan:
    """Which network looks, with what weights, and on what it was trained; scaled: its pixels were only divided by 255."""

    model: str
    data: str
    weights: Path
    scaled: bool = False


def plan(given: argparse.Namespace) -> Plan:
    """What was typed, if it makes sense. Raises ConfigError."""
    if given.device not in DEVICES:
        raise ConfigError(f"--device: unknown {given.device!r}{nearest(given.device, DEVICES)}")
    if given.data is not None and given.data not in KNOWN:
        raise ConfigError(f"--data: unknown {given.data!r}{nearest(given.data, KNOWN)}")
    if given.top < 1:
        raise ConfigError(f"--top must be at least 1, got {given.top}")
    if given.run is not None:
        if given.model is not None or given.data is not None:
            raise ConfigError("--run says which model and data are meant; leave out --model and --data")
        return plan_of_run(Path(given.run), given.weights)
    if given.model is None or given.weights is None:
        raise ConfigError("which network? Give --model NAME and --weights FILE, or --run FOLDER")
    model, data = given.model, given.data or "imagenet"
    if data == "imagenet" and f"{model}_imagenet" in models.names():
        model = f"{model}_imagenet"  # what torchvision calls resnet50 is not the ResNet of 50 layers for CIFAR
    return Plan(model, data, Path(given.weights))


def plan_of_run(folder: Path, weights: str | None) -> Plan:
    """The network of a run folder, with other weights if they are named. Raises ConfigError."""
    settings = folder / "config.toml"
    if not settings.is_file():
        raise ConfigError(f"--run {folder}: no config.toml in it; a run folder of minidense train has one")
    config = TrainConfig(**read_toml(settings))
    if config.normalise not in ("channel", "scale"):
        raise ConfigError(
            f"--run {folder}: its images were normalised by {config.normalise}, which takes all training images; "
            "single pictures cannot be brought there"
        )
    found = [Path(weights)] if weights else [folder / name for name in ("weights.safetensors", "last.safetensors")]
    existing = [path for path in found if path.is_file()]
    if not existing and not weights:
        raise ConfigError(f"--run {folder}: no weights in it yet; the first comes after the first epoch")
    return Plan(config.model, config.data, (existing or found)[0], scaled=config.normalise == "scale")


def network(asked: Plan, device: str) -> tuple[Module, View]:
    """The network with its weights, and its view. Raises ConfigError, DeviceError, DataError or CheckpointError."""
    view = view_of(asked.data)
    channels = view.shape[0]
    if asked.scaled:
        view = replace(view, mean=channels * (0.0,), std=channels * (255.0,))
    model = models.create(asked.model, classes=len(view.class_names), in_channels=channels, device=device)
    load_weights(model, asked.weights)
    return model, view


def report(file: str, found: list[dict[str, Any]]) -> str:
    """A picture's classes, one a line: probability, bar, name."""
    lines = [
        f"  {one['probability']:6.1%}  {'#' * round(BAR * one['probability']):{BAR}}  {one['name']}" for one in found
    ]
    return "\n".join([file, *lines])


def main(argv: Sequence[str] | None = None) -> int:
    """minidense predict. Exit codes: 0 done, 2 wrong command line or unreadable file, 4 cannot write, 5 no memory, 130 interrupted."""

    def work() -> int:
        given = parser().parse_args(argv)
        asked = plan(given)
        model, view = network(asked, given.device)
        results, code = [], DONE
        for file in given.files:
            try:
                found = likeliest(model, view, picture(file, view), given.top)
            except DataError as error:
                code = complain(PROGRAM, one_line(error), WRONG_COMMAND_LINE)
                continue
            results.append({"file": file, "classes": found})
            if not given.json:
                show(report(file, found))
        if given.json:
            about = {"model": asked.model, "data": asked.data, "weights": str(asked.weights)}
            show(json.dumps({**about, "pictures": results}, indent=2))
        return code

    def words(error: BaseException) -> str | None:
        return shortened(str(error)) if isinstance(error, CheckpointError) else None

    return ended(PROGRAM, work, words=words)


def shortened(text: str) -> str:
    """The list of what does not fit may name a thousand arrays; ten are enough to see which network is meant."""
    lines = text.splitlines()
    return "\n".join(lines if len(lines) <= 11 else [*lines[:11], f"  … and {len(lines) - 11:,} more"])
