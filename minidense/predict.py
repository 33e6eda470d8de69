"""The command: minidense predict. What a network with published weights, or one of your own runs, sees in a picture."""

from __future__ import annotations

import argparse
import json
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
from .data import normalise
from .errors import CheckpointError, ConfigError, DataError, ShapeError
from .nn import Module
from .pictures import FORMATS, KNOWN, View, picture, view_of
from .tensor import Tensor, no_grad
from .weights import load_weights

PROGRAM = "minidense predict"
BAR = 30  # characters of a probability of 1


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


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} FILE... (--model NAME --weights FILE | --run FOLDER) [options]",
        description="Say what a network sees in pictures: the likeliest classes, with their probabilities.",
        epilog=f"Pictures: {', '.join(FORMATS)}, of any size. Digits must be light on dark, as those of the data set are.\n"
        "Weights: torchvision publishes those of densenet121 as\n"
        "https://download.pytorch.org/models/densenet121-a639ec97.pth; its documentation names others.\n"
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
    """Which network looks, with what weights, and on what it was trained; scaled: its pixels were only divided by the brightest level."""

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
        view = replace(view, mean=channels * (0.0,), std=channels * (float(view.levels),))
    model = models.create(asked.model, classes=len(view.class_names), in_channels=channels, device=device)
    load_weights(model, asked.weights)
    return model, view


def misfit(asked: Plan, view: View) -> str:
    """Both sides, where pictures are too small or too large for a network."""
    made_for, given = ("×".join(map(str, shape[1:])) for shape in (models.about(asked.model).image_shape, view.shape))
    return (
        f"{asked.model} was made for images of {made_for} pixels and cannot look at those of --data {asked.data}, {given}; "
        "name the data set that these weights were trained on"
    )


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
            except ShapeError:
                raise ConfigError(misfit(asked, view)) from None
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
