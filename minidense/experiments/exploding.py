"""Batch norm alone explodes: in a deep stack of ReLU with batch norm and without skips, the gradient grows from layer to layer."""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from ..config import nearest, reader
from ..errors import ConfigError
from ..plots import BLACK, Picture, curves, several
from .experiment import Experiment, Numbers
from .perceptrons import ACTIVATIONS, WRITTEN, first_to_last, gradient_norms, perceptron, random_examples

SEEDS, DEPTHS, WIDTH, BATCH_SIZE = 5, (10, 20, 50), 128, 256
# y = max(z, 0) with z from N(0, 1) has E[y²] = 1/2 and E[y] = 1/√(2π), so Var[y] = (π − 1)/(2π). He's weights make the
# variance of the next layer 2·Var[y] = (π − 1)/π, and batch norm divides by its root, the gradient on its way back too.
# Weights and ReLU leave the size of the gradient as it is: n·(2/n)·(1/2) = 1.
THEORY = math.sqrt(math.pi / (math.pi - 1))


def factor_a_layer(norms: Sequence[float]) -> float:
    """By how much the gradient norm grows for each layer towards the input: e^−slope of a line fitted to ln(norm) by layer.

    Least squares; norms are those of layers 1, 2, …, and none may be 0.
    """
    slope = numpy.polyfit(numpy.arange(1, len(norms) + 1), numpy.log(norms), 1)[0]
    return float(math.exp(-slope))


def batch_norm_explodes(
    *,
    depths: Sequence[int] = DEPTHS,
    seeds: Sequence[int] = range(SEEDS),
    width: int = WIDTH,
    batch_size: int = BATCH_SIZE,
    activation: str = "relu",
) -> Numbers:
    """Gradient norms of untrained perceptrons with batch norm, for inputs from N(0, 1) and random labels.

    depths   hidden layers, at least 2

    returns  depths, seeds, width, batch_size, activation, theory (√(π/(π − 1)) = 1.211 for ReLU, otherwise None), and in "stacks" for
             each depth
             depth       as asked
             norms       ‖dL/dW‖ of hidden layers 1 … depth, each the median over the seeds
             ratios      first/last for each seed
             ratio       their median
             predicted   theory^(depth − 1), or None
             factors     ``factor_a_layer`` for each seed
             factor      their median

    Raises ConfigError for an unknown activation and for a depth of 1.
    """
    if activation not in ACTIVATIONS:
        raise ConfigError(f"batch_norm_explodes: unknown activation {activation!r}{nearest(activation, ACTIVATIONS)}")
    if min(depths) < 2:
        raise ConfigError(f"batch_norm_explodes: a factor from layer to layer needs depth 2 or more, got {min(depths)}")
    theory = THEORY if activation == "relu" else None
    rows = []
    for depth in depths:
        runs = [
            gradient_norms(
                perceptron(depth=depth, width=width, inputs=width, activation=activation, batch_norm=True, seed=seed),
                *random_examples(batch_size, inputs=width, seed=seed),
            )
            for seed in seeds
        ]
        ratios, factors = [first_to_last(run) for run in runs], [factor_a_layer(hidden(run)) for run in runs]
        rows.append(
            {
                "depth": depth,
                "norms": [statistics.median(layer) for layer in zip(*map(hidden, runs), strict=True)],
                "ratios": ratios,
                "ratio": statistics.median(ratios),
                "predicted": theory and theory ** (depth - 1),
                "factors": factors,
                "factor": statistics.median(factors),
            }
        )
    return {
        "depths": list(depths),
        "seeds": list(seeds),
        "width": width,
        "batch_size": batch_size,
        "activation": activation,
        "theory": theory,
        "stacks": rows,
    }


def hidden(norms: Mapping[str, float]) -> list[float]:
    """Without the classifier, which is the last."""
    return list(norms.values())[:-1]


def table(numbers: Numbers) -> str:
    """A row a depth."""
    n = len(numbers["seeds"])
    seeds = f"{n} {'seed' if n == 1 else 'seeds'}"
    lines = [
        f"{WRITTEN[numbers['activation']]} with batch norm, width {numbers['width']}, {numbers['batch_size']} examples, untrained; "
        f"gradient norm of the first hidden layer's weight over that of the last: median, lowest and highest of {seeds}.",
        "",
        "| hidden layers | first/last | lowest … highest | by theory | factor a layer | lowest … highest | by theory |",
        "|--:|--:|---|--:|--:|---|--:|",
    ]
    for each in numbers["stacks"]:
        predicted, theory = (
            ("–", "–") if numbers["theory"] is None else (f"{each['predicted']:,.3g}", f"{numbers['theory']:.3f}")
        )
        lines.append(
            f"| {each['depth']} | {each['ratio']:,.3g} | {min(each['ratios']):,.3g} … {max(each['ratios']):,.3g} | {predicted} | "
            f"{each['factor']:.3f} | {min(each['factors']):.3f} … {max(each['factors']):.3f} | {theory} |"
        )
    return "\n".join(lines) + "\n"


def picture(numbers: Numbers) -> Picture:
    """Norm by layer, a line a depth, and what the theory says of the deepest from its last layer on."""
    figure, ((axes,),) = several(1, width=8.0, height=4.2)
    lines = {f"{each['depth']} layers": each["norms"] for each in numbers["stacks"]}
    curves(
        {name: range(1, len(norms) + 1) for name, norms in lines.items()},
        lines,
        alt="",
        axes=axes,
        log="y",
        title=f"{WRITTEN[numbers['activation']]} with batch norm, before training",
        xlabel="hidden layer",
        ylabel="gradient norm of its weight",
    )
    deepest = max(numbers["stacks"], key=lambda each: each["depth"])
    said = ""
    if numbers["theory"] is not None:
        depth = deepest["depth"]
        straight = [deepest["norms"][-1] * numbers["theory"] ** (depth - layer) for layer in range(1, depth + 1)]
        label = f"theory: × {numbers['theory']:.3f} a layer"
        axes.plot(range(1, depth + 1), straight, "--", color=BLACK, linewidth=1, label=label)
        said = f" against {numbers['theory']:.3f} by theory"
    axes.legend(frameon=False)
    ratios = "; ".join(f"with {each['depth']} layers {each['ratio']:,.0f} times" for each in numbers["stacks"])
    return Picture(
        figure,
        "Gradient norm by hidden layer on a logarithmic axis, a line for each depth: straight lines that rise towards the first layer, "
        f"{ratios} what the last one gets. The factor a layer is {deepest['factor']:.3f} in the deepest{said}.",
    )


READING = """How to read this: straight lines in a logarithmic plot, as with sigmoid, but they rise towards the
input. Batch norm makes every layer's output as wide as the last one's, and that is where it comes from: ReLU leaves
a variance of (π − 1)/(2π) of what was 1, He's weights double it, and batch norm divides by the root of (π − 1)/π, so
the gradient is multiplied by √(π/(π − 1)) = 1.211 at every layer on its way back. With 50 layers that is a factor of
ten thousand.

The theory is about infinitely wide layers and large batches. With 128 wide layers and 256 examples the factor is
1.20 in 50 layers, with 64 and 64 it is 1.22: over 50 layers that is a ratio of 7,300 or of 17,500. Tanh with batch
norm grows by about 1.09 a layer, sigmoid by 1.03. All of it is the start of training: batch norm makes the loss
indifferent to the size of a weight, so that large gradients make the weights grow at first, and gradients shrink as
they do. Short paths around the layers remove the trouble itself: that is what residual networks add to batch norm."""


def options(parser: argparse.ArgumentParser) -> None:
    whole = reader(int)
    for option, default, what in (
        ("--seeds", SEEDS, "seeds 0 to N − 1"),
        ("--width", WIDTH, "of each layer"),
        ("--batch-size", BATCH_SIZE, "examples"),
    ):
        parser.add_argument(option, type=whole, default=default, metavar="N", help=f"{what} (default: {default})")


def asked_of(given: argparse.Namespace) -> dict[str, Any]:
    """What the command was told. Raises ConfigError for what makes no sense."""
    for option, value, least in (
        ("--seeds", given.seeds, 1),
        ("--width", given.width, 1),
        ("--batch-size", given.batch_size, 2),
    ):
        if not least <= value <= 10_000:
            raise ConfigError(f"{option} must be at least {least} and at most 10,000, got {value}")
    return {"seeds": range(given.seeds), "width": given.width, "batch_size": given.batch_size}


BATCH_NORM_EXPLODES = Experiment(
    name="batch-norm-explodes",
    about="ReLU with batch norm and without skips: the gradient grows by √(π/(π − 1)) a layer",
    measure=lambda given, notebook: batch_norm_explodes(**asked_of(given)),
    table=table,
    picture=picture,
    reading=READING,
    options=options,
)
