"""The command: minidense summary NAME. Layers, shapes, parameters, multiply-adds, and the bytes that training keeps."""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from types import FunctionType
from typing import Any

from . import models
from .command import DONE, WRONG_COMMAND_LINE, ended, show
from .config import Parser, reader
from .errors import ConfigError, MinidenseError, ShapeError
from .memory import freed_memory_kept
from .nn import init
from .summary import Summary, summarise

PROGRAM = "minidense summary"
MOST_PIXELS, MOST_IMAGES = 10_000, 1_000_000
SAID_BY_OTHERS = {"classes": "--classes", "seed": None, "dtype": None, "device": None}


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} NAME [options]",
        description="Build a network without drawing its weights, run it once, and say what it consists of and what it costs.",
        epilog="NAME is any name that models.create knows; minidense models lists them.\n\n"
        "examples:\n"
        "  minidense summary densenet_bc_100_12\n"
        "  minidense summary densenet_40_12 --classes 100 --option stem_channels=24\n"
        "  minidense summary densenet121 --image 256x256 --depth 2\n"
        "  minidense summary resnet20 --option widths=8,16,32\n"
        "  minidense summary fractalnet_c3_b5 --option project=true --json",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=120),
        allow_abbrev=False,
    )
    whole = reader(int)
    made.add_argument("name", nargs="?", metavar="NAME", help="the network")
    made.add_argument("--classes", type=whole, metavar="CLASSES", help="logits an image (default: the data set's)")
    made.add_argument(
        "--image",
        metavar="HxW|C,H,W",
        help="size of an image (default: what the network was made for, 32x32 or 224x224)",
    )
    made.add_argument(
        "--batch-size",
        type=whole,
        metavar="IMAGES",
        default=64,
        help="of the training step in the last line (default: 64)",
    )
    made.add_argument("--depth", type=whole, metavar="LEVELS", help="levels of modules to show (default: all)")
    made.add_argument("--all", action="store_true", help="show rows that are alike one by one (default: as one)")
    made.add_argument(
        "--option",
        action="append",
        metavar="KEY=VALUE",
        default=[],
        help="of the model, may be repeated (default: none)",
    )
    made.add_argument("--json", action="store_true", help="print one JSON object instead (default: a table)")
    return made


def checked(given: argparse.Namespace) -> argparse.Namespace:
    """What was typed, if it makes sense. Raises ConfigError."""
    if given.name is None:
        raise ConfigError(f"which model? For example: {PROGRAM} densenet_bc_100_12; minidense models lists them")
    given.image = image_shape(given.image, models.about(given.name).image_shape)
    given.typed = " ".join(f"--option {text}" for text in given.option)
    given.option = dict(map(option, given.option))
    for key in given.option:
        refuse_untypable(given.name, key)
    for name, value, most in (
        ("--classes", given.classes, 1_000_000),
        ("--batch-size", given.batch_size, MOST_IMAGES),
        ("--depth", given.depth, 100),
    ):
        if value is not None and not 1 <= value <= most:
            raise ConfigError(f"{name} must be at least 1 and at most {most:,}, got {value}")
    return given


def image_shape(text: str | None, usual: tuple[int, int, int]) -> tuple[int, int, int]:
    """(C, H, W) from what was typed: 32x32 or 3,32,32. Raises ConfigError."""
    if text is None:
        return usual
    match = re.fullmatch(r"(?:(\d{1,5}),(?=\d+,))?(\d{1,5})[x×,](\d{1,5})", text)
    if not match or ("," in text) != (match[1] is not None):
        raise ConfigError(f"--image is height x width or channels,height,width, as in 32x32 or 3,32,32; got {text!r}")
    channels, height, width = int(match[1] or usual[0]), int(match[2]), int(match[3])
    if not all(1 <= size <= MOST_PIXELS for size in (channels, height, width)):
        raise ConfigError(f"--image: sizes must be at least 1 and at most {MOST_PIXELS:,}, got {text!r}")
    return channels, height, width


def option(text: str) -> tuple[str, Any]:
    """key=value as Python would have it: true, 24, 0.5, none, several numbers between commas, or text. Raises ConfigError."""
    key, _, value = text.partition("=")
    key = key.strip().replace("-", "_")
    if not value or not key.isidentifier():
        raise ConfigError(f"--option is KEY=VALUE, as in stem_channels=24 or project=true; got {text!r}")
    if key in SAID_BY_OTHERS:
        instead = SAID_BY_OTHERS[key]
        raise ConfigError(f"--option {key}: {f'use {instead}' if instead else 'makes no difference to a summary'}")
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return key, words[value.lower()]
    try:
        numbers = tuple(map(number, value.split(",")))
    except ValueError:
        return key, value
    return key, numbers if len(numbers) > 1 else numbers[0]


def number(text: str) -> int | float:
    """A whole one where it can be. Raises ValueError."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def refuse_untypable(name: str, key: str) -> None:
    """Raises ConfigError for an option that no text stands for: a function, or sizes in groups."""
    build = models.about(name).build
    parameter = inspect.signature(build).parameters.get(key)
    match parameter and parameter.default:
        case (tuple(), *_) as groups:
            what = f"sizes in groups, {groups} by default"
        case FunctionType():
            what = "a function"
        case _:
            return
    raise ConfigError(f"--option {key}: cannot be typed, it is {what}; call {build.__name__}({key}=...) in Python")


def takes(name: str, key: str) -> str:
    """What a model's option is, by its default."""
    usual = inspect.signature(models.about(name).build).parameters[key].default
    if isinstance(usual, int | float) and not isinstance(usual, bool):
        return f"{key} takes a number, as in {key}={usual}"
    return f"{key} is {usual} where it is left out"


def summary(given: argparse.Namespace) -> Summary:
    """Of the network that was asked for. Raises ConfigError or ShapeError for what cannot be built or run."""
    about = models.about(given.name)
    options = given.option if given.image == about.image_shape else {**about.for_images(given.image), **given.option}
    with init.undrawn(), freed_memory_kept():
        try:
            model = models.create(given.name, classes=given.classes, **options)
        except (TypeError, ValueError) as error:
            if isinstance(error, MinidenseError) or not given.option:
                raise
            wanted = "; ".join(takes(given.name, key) for key in given.option)
            raise ConfigError(f"{given.name} cannot be built with {given.typed}: {wanted}") from None
        return replace(summarise(model, given.image, batch_size=given.batch_size), name=given.name)


def main(argv: Sequence[str] | None = None) -> int:
    """minidense summary. Exit codes: 0 done, 2 wrong command line, 4 cannot write, 5 no memory, 130 interrupted."""

    def work() -> int:
        given = checked(parser().parse_args(argv))
        found = summary(given)
        if given.json:
            show(json.dumps(found.as_dict(), ensure_ascii=False))
        else:
            show(found.table(depth=given.depth, fold=not given.all))
        return DONE

    def words(error: BaseException) -> str | None:
        if isinstance(error, MemoryError):
            return "not enough memory to run the network once; try a smaller --image"
        return None

    return ended(PROGRAM, work, codes={ShapeError: WRONG_COMMAND_LINE}, words=words)
