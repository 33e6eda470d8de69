"""The vanishing gradient: how much of it is left at the first layer, by depth, activation and initial weights, before any training."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

import numpy

from ..config import nearest, reader
from ..errors import ConfigError
from ..plots import Picture, curves, gradient_flow, several
from .experiment import Experiment, Numbers
from .perceptrons import first_to_last, gradient_norms, norm, perceptron, random_examples, weight_gradients

SEEDS = 5
DEPTHS = (2, 5, 10, 20, 50)
WIDTH = BATCH_SIZE = 64


def settings(activation: str, initialiser: str, *, batch_norm: bool = False) -> dict[str, Any]:
    return {"activation": activation, "initialiser": initialiser, "batch_norm": batch_norm}


STACKS: dict[str, dict[str, Any]] = {
    "sigmoid, Xavier": settings("sigmoid", "xavier_uniform"),
    "sigmoid, N(0, 1/n)": settings("sigmoid", "lecun_normal"),
    "sigmoid, He": settings("sigmoid", "he_normal"),
    "tanh, Xavier": settings("tanh", "xavier_uniform"),
    "ReLU, N(0, 1/n)": settings("relu", "lecun_normal"),
    "ReLU, He": settings("relu", "he_normal"),
    "sigmoid, Xavier, BN": settings("sigmoid", "xavier_uniform", batch_norm=True),
    "tanh, Xavier, BN": settings("tanh", "xavier_uniform", batch_norm=True),
    "ReLU, He, BN": settings("relu", "he_normal", batch_norm=True),
}


def vanishing_gradient(
    *,
    stacks: Sequence[str] = tuple(STACKS),
    depths: Sequence[int] = DEPTHS,
    seeds: Sequence[int] = range(SEEDS),
    width: int = WIDTH,
    batch_size: int = BATCH_SIZE,
    dtype: str = "float32",
) -> Numbers:
    """Gradient norms of untrained perceptrons for inputs from N(0, 1) and random labels of ten classes.

    stacks      names in STACKS: activation, initial weights, and with batch norm or not
    depths      hidden layers
    width       of the input and of each hidden layer
    batch_size  examples; noise of the labels grows less important with more of them
    dtype       "float32" or "float64"; the weights are the same

    returns  depths, seeds, width, batch_size, dtype, and in "stacks" for each name and depth
             stack, depth    as asked
             norms           ‖dL/dW‖ of hidden layers 1 … depth, each the median over the seeds
             first, last     of these the first and the last: absolute sizes
             ratios          first/last for each seed
             ratio           their median

    Raises ConfigError for an unknown name.
    """
    for name in stacks:
        if name not in STACKS:
            raise ConfigError(f"vanishing_gradient: unknown stack {name!r}{nearest(name, STACKS)}")
    rows = []
    for name in stacks:
        for depth in depths:
            runs = []
            for seed in seeds:
                model = perceptron(depth=depth, width=width, inputs=width, seed=seed, **STACKS[name])
                model.to(dtype=numpy.dtype(dtype))
                runs.append(gradient_norms(model, *random_examples(batch_size, inputs=width, seed=seed)))
            norms = [statistics.median(run[f"linear{i}"] for run in runs) for i in range(1, depth + 1)]
            ratios = [first_to_last(run) for run in runs]
            rows.append(
                {
                    "stack": name,
                    "depth": depth,
                    "norms": norms,
                    "first": norms[0],
                    "last": norms[-1],
                    "ratios": ratios,
                    "ratio": statistics.median(ratios),
                }
            )
    return {
        "depths": list(depths),
        "seeds": list(seeds),
        "width": width,
        "batch_size": batch_size,
        "dtype": dtype,
        "stacks": rows,
    }


def underflow(
    *,
    depths: Sequence[int] = (50, 60, 65, 70, 75, 80),
    seeds: Sequence[int] = range(SEEDS),
    width: int = WIDTH,
    batch_size: int = BATCH_SIZE,
) -> list[Numbers]:
    """Where float32 ends: the first layer's gradient in very deep stacks of sigmoid with Xavier's weights, in both float types.

    The smallest number above 0 is 1.4e-45 in float32 and 4.9e-324 in float64.

    returns  for each depth: depth, float32 and float64, the median norm ‖dL/dW₁‖ in each, and zeros, the share of the entries of
             dL/dW₁ that are exactly 0 in float32, mean of the seeds
    """
    rows = []
    for depth in depths:
        norms: dict[str, list[float]] = {"float32": [], "float64": []}
        zeros = []
        for seed in seeds:
            for dtype, found in norms.items():
                model = perceptron(depth=depth, width=width, inputs=width, seed=seed, **STACKS["sigmoid, Xavier"])
                model.to(dtype=numpy.dtype(dtype))
                examples = random_examples(batch_size, inputs=width, seed=seed)
                gradient = weight_gradients(model, *examples)["linear1"]
                found.append(norm(gradient))
                if dtype == "float32":
                    zeros.append(float((gradient == 0).mean()))
        medians = {dtype: statistics.median(found) for dtype, found in norms.items()}
        rows.append({"depth": depth, **medians, "zeros": statistics.fmean(zeros)})
    return rows


# -- the table and the picture ----------------------------------------------------------------------------------------


def rows_of(numbers: Numbers) -> dict[str, list[Numbers]]:
    """{stack: its rows, one a depth}, in order."""
    names = dict.fromkeys(each["stack"] for each in numbers["stacks"])
    return {name: [each for each in numbers["stacks"] if each["stack"] == name] for name in names}


def table(numbers: Numbers) -> str:
    """Ratios by depth, absolute norms in the deepest, and where float32 ends."""
    n, depths, by_stack = len(numbers["seeds"]), numbers["depths"], rows_of(numbers)
    deepest = max(depths)
    lines = [
        f"Gradient norm of the first hidden layer's weight over that of the last, by the number of hidden layers; width "
        f"{numbers['width']}, {numbers['batch_size']} examples, {numbers['dtype']}, median of {n} {'seed' if n == 1 else 'seeds'}; "
        f"in the deepest, lowest and highest too. Then, for {deepest} layers, the norms themselves.",
        "",
        f"| stack | {' | '.join(map(str, depths))} | lowest … highest | first | last |",
        f"|---|{len(depths) * '--:|'}---|--:|--:|",
    ]
    for name, rows in by_stack.items():
        last = next(each for each in rows if each["depth"] == deepest)
        cells = " | ".join(f"{each['ratio']:.2g}" for each in rows)
        lines.append(
            f"| {name} | {cells} | {min(last['ratios']):.1g} … {max(last['ratios']):.1g} | {last['first']:.1e} | {last['last']:.1e} |"
        )
    if "underflow" in numbers:
        lines += [
            "",
            "Sigmoid with Xavier's weights, deeper still: norm of the first layer's gradient in two float types.",
            "",
            "| hidden layers | float32 | float64 | exactly 0 in float32 |",
            "|--:|--:|--:|--:|",
        ]
        for each in numbers["underflow"]:
            lines.append(
                f"| {each['depth']} | {each['float32']:.1e} | {each['float64']:.1e} | {each['zeros']:.0%} of the entries |"
            )
    return "\n".join(lines) + "\n"


VANISHED = 0.01  # a first layer with less than this share of the last one's gradient


def picture(numbers: Numbers) -> Picture:
    """Norm by layer for the first stack, a line a depth; first/last by depth for the stacks that lose it, and for those that do not."""
    by_stack = rows_of(numbers)
    deepest = {name: max(rows, key=lambda each: each["depth"]) for name, rows in by_stack.items()}
    figure, (panels,) = several(3, width=11.0, height=4.4)
    name, rows = next(iter(by_stack.items()))
    lines = {f"{each['depth']} layers": each["norms"] for each in rows}
    places = {label: range(1, len(norms) + 1) for label, norms in lines.items()}
    words: dict[str, Any] = {"xlabel": "hidden layer", "ylabel": "gradient norm of its weight"}
    curves(places, lines, alt="", axes=panels[0], log="y", title=f"{name}: layer by layer", **words)
    for axes, vanishing in zip(panels[1:], (True, False), strict=True):
        ratios = {
            each: [row["ratio"] for row in by_stack[each]]
            for each in by_stack
            if (deepest[each]["ratio"] < VANISHED) == vanishing
        }
        if not ratios:
            axes.set_visible(False)
            continue
        words = {"xlabel": "hidden layers", "ylabel": "ratio", "title": "first over last: vanishes"}
        if not vanishing:
            words["title"] = "first over last: does not vanish"
        curves(numbers["depths"], ratios, alt="", axes=axes, log="xy", **words)
        axes.legend(frameon=False, fontsize="small", loc="lower left" if vanishing else "upper left")
    said = "; ".join(f"{each} {row['ratio']:.2g}" for each, row in deepest.items())
    first = deepest[name]
    alt = (
        f"Gradient norms before training, on logarithmic axes. Left, norm by hidden layer, a line a depth: {name} goes from "
        f"{first['last']:.2g} at the last of {first['depth']} layers to {first['first']:.2g} at the first. Then first layer over last "
        f"by depth, a line a stack; with {first['depth']} layers: {said}."
    )
    return Picture(figure, alt)


def flow_at(numbers: Numbers, depth: int) -> Picture:
    """``plots.gradient_flow`` of all stacks at one of the depths. Raises ConfigError when it was not measured."""
    if depth not in numbers["depths"]:
        raise ConfigError(
            f"flow_at: depth {depth} was not measured; there are {', '.join(map(str, numbers['depths']))}"
        )
    rows = [each for each in numbers["stacks"] if each["depth"] == depth]
    return gradient_flow({each["stack"]: each["norms"] for each in rows}, title=f"{depth} hidden layers, untrained")


READING = """How to read this: 1 means that the first layer gets as much gradient as the last. Every layer of sigmoid
multiplies it by about 0.23: the slope of the sigmoid is at most 0.25, and weights with a variance of 1/n leave the
rest as it is. In a logarithmic plot that is a straight line. He's weights, larger by √2, only slow it down. With
tanh, whose slope at 0 is 1, and with ReLU, whose slope is 0 or 1, nothing vanishes.

A ratio hides sizes. ReLU with N(0, 1/n) has a ratio near 1, but both ends shrink by √½ a layer: look at the last two
columns. He's factor 2 is there for that. And with batch norm gradients do not vanish but explode, with ReLU soonest:
see batch-norm-explodes.

The numbers depend on the batch. The labels are noise, which averages out in the first layer and not in the last;
with 256 examples instead of 64 sigmoid's ratios are about half. From seed to seed they vary by a factor of 2 to 3 at
10 layers, and of 5 at 50. This is the start of training only, with inputs that mean nothing. What follows from it is
in sigmoid-against-relu."""


def options(parser: argparse.ArgumentParser) -> None:
    whole = reader(int)
    parser.add_argument("--seeds", type=whole, default=SEEDS, metavar="N", help=f"seeds 0 to N − 1 (default: {SEEDS})")
    parser.add_argument(
        "--batch-size", type=whole, default=BATCH_SIZE, metavar="N", help=f"examples (default: {BATCH_SIZE})"
    )


def asked_of(given: argparse.Namespace) -> dict[str, Any]:
    """What the command was told. Raises ConfigError for what makes no sense."""
    for option, value, least in (("--seeds", given.seeds, 1), ("--batch-size", given.batch_size, 2)):
        if not least <= value <= 10_000:
            raise ConfigError(f"{option} must be at least {least} and at most 10,000, got {value}")
    return {"seeds": range(given.seeds), "batch_size": given.batch_size}


VANISHING_GRADIENT = Experiment(
    name="vanishing-gradient",
    about="gradient norms of untrained stacks by depth, activation and initial weights, with and without batch norm",
    measure=lambda given, notebook: {
        **vanishing_gradient(**asked_of(given)),
        "underflow": underflow(**asked_of(given)),
    },
    table=table,
    picture=picture,
    reading=READING,
    options=options,
)
