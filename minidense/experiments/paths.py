"""How many ways lead through a network and how long they are: exact arithmetic on its connections, nothing is trained.

A way goes from the first feature maps to the last and takes or leaves each layer that it may go around; its length is how many it
takes. Where every layer can be taken or left by itself, counting is multiplying polynomials: the coefficient of xᵏ is the number of
ways of length k, (1 + x) is a layer with a shortcut around it, and x is one without.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import numpy

from ..config import reader
from ..errors import ConfigError
from ..models.highway import GATE_BIAS
from ..models.stochastic_depth import GatedUnit, stochastic_depth_resnet
from ..plots import BLUE, GREY, ORANGE, Picture, curves, plain, several
from .experiment import Experiment, Numbers

UNITS = 54  # of the 110-layer residual network in Huang et al. 2016
COLUMNS = 2  # of the fractal blocks in the comparison: two convolutions on a block's longest path
SURVIVAL = 0.5
MINI_BATCHES = 2000


# -- counting -----------------------------------------------------------------------------------------------------------


def product(factors: Sequence[Sequence[Any]]) -> list[Any]:
    """Of polynomials given by their coefficients, lowest power first; exact where the coefficients are whole numbers."""
    total: list[Any] = [1]
    for factor in factors:
        longer: list[Any] = [0] * (len(total) + len(factor) - 1)
        for i, a in enumerate(total):
            for j, b in enumerate(factor):
                longer[i + j] += a * b
        total = longer
    return total


def plain_ways(layers: int) -> list[int]:
    """One way, through everything: xᴸ."""
    return product(layers * [[0, 1]])


def residual_ways(units: int) -> list[int]:
    """(1 + x)ⁿ: C(n, k) ways take k of n units (Veit, Wilber & Belongie 2016, §3). Of all 2ⁿ most take about half."""
    return product(units * [[1, 1]])


def fractal_ways(columns: int, blocks: int = 1) -> list[int]:
    """f_{C+1}(z) = join(f_C(f_C(z)), conv(z)) counts as P_{C+1} = P_C² + x with P₁ = x (Larsson et al. 2017, §2), for each block.

    The longest way through a block takes 2^{C−1} convolutions, the shortest one.
    """
    ways = [0, 1]
    for _ in range(columns - 1):
        ways = product([ways, ways])
        ways[1] += 1
    return product(blocks * [ways])


def dense_ways(layers: int) -> list[int]:
    """C(L, k) ways from what comes into a dense block of L layers to its result take k layers, 2ᴸ in all.

    To the result of layer m alone lead C(m − 1, k − 1): choose the other k − 1 among the m − 1 before it. The block's result holds
    every layer's side by side, and Σ_m C(m − 1, k − 1) = C(L, k); one more way, of length 0, is the input that stands in front.
    """
    ways = [1] + layers * [0]
    for m in range(1, layers + 1):
        for k in range(1, m + 1):
            ways[k] += math.comb(m - 1, k - 1)
    return ways


def connections(layers: int) -> int:
    """L(L + 1)/2 connections among the L layers of a dense block, its input included; a plain stack has L (Huang et al. 2017, §1)."""
    return layers * (layers + 1) // 2


def bernoulli_sum(chances: Sequence[float]) -> list[float]:
    """P(k of them happen) for events that happen independently with these chances: the Poisson binomial distribution."""
    return product([[1 - p, p] for p in chances])


def survival_chances(units: int, survival: float = SURVIVAL) -> list[float]:
    """p_l = 1 − l/L·(1 − p_L), l = 1 … L: how likely each unit takes part in a mini-batch (Huang et al. 2016, eq. 4)."""
    return [1 - l / units * (1 - survival) for l in range(1, units + 1)]  # noqa: E741  the paper's name for it


def described(weights: Sequence[float]) -> Numbers:
    """A distribution over lengths 0, 1, 2, …, from numbers of ways or from chances.

    Keys: lengths and shares (only where there is a way), shortest, longest, mean, deviation.
    """
    total = sum(weights)
    lengths = [k for k, weight in enumerate(weights) if weight]
    shares = [weights[k] / total for k in lengths]
    mean = sum(k * share for k, share in zip(lengths, shares, strict=True))
    variance = sum((k - mean) ** 2 * share for k, share in zip(lengths, shares, strict=True))
    return {
        "lengths": lengths,
        "shares": shares,
        "shortest": lengths[0],
        "longest": lengths[-1],
        "mean": mean,
        "deviation": math.sqrt(variance),
    }


# -- drawing ------------------------------------------------------------------------------------------------------------


def drawn_open_units(
    units: int, survival: float = SURVIVAL, *, mini_batches: int = MINI_BATCHES, seed: int = 0
) -> numpy.ndarray:
    """How many units take part in each mini-batch: the gates of a stochastic-depth network of this package, drawn as in training.

    units  a multiple of three, as there are three stages. Nothing but the gates is computed.
    """
    model = stochastic_depth_resnet(depth=2 * units + 2, survival=survival, widths=(1, 1, 1), seed=seed)
    gates = [unit.gate for unit in model.modules() if isinstance(unit, GatedUnit)]
    return numpy.array([sum(not gate.is_closed() for gate in gates) for _ in range(mini_batches)])


# -- the experiment -----------------------------------------------------------------------------------------------------


def path_lengths(
    *, units: int = UNITS, survival: float = SURVIVAL, mini_batches: int = MINI_BATCHES, seed: int = 0
) -> Numbers:
    """How long the ways through stacks of `units` layers are, and how many units stochastic depth leaves.

    units         layers of every stack; a multiple of six, so that blocks of two and stages of a third come out even
    survival      p_L of the last unit
    mini_batches  for which a stochastic-depth network of this package draws its gates, from `seed`

    Keys: ``units``, ``survival``, ``seed``; ``connections`` {"plain", "dense"}; ``stacks``, one for each kind, with its ``name``,
    ``paths`` (how many ways there are; None where chance decides), and ``lengths``, ``shares``, ``shortest``, ``longest``, ``mean``,
    ``deviation`` of their lengths; ``open_units`` the same for the number of units that take part, with ``chances`` (p_l),
    and what was ``drawn``: ``mini_batches``, ``mean``, ``error`` (the standard error that the mean has by chance), ``shares``.

    Raises ConfigError when units does not divide by six, or survival is no probability.
    """
    if not isinstance(units, int) or units < 6 or units % 6:
        raise ConfigError(f"path_lengths: units must be a multiple of 6 from 6 up, got {units!r}")
    if not 0 < survival <= 1:
        raise ConfigError(f"path_lengths: survival is a probability above 0 and at most 1, got {survival!r}")
    gate = 1 / (1 + math.exp(-GATE_BIAS))
    chances = survival_chances(units, survival)
    counted = {
        "plain": plain_ways(units),
        "fractal": fractal_ways(COLUMNS, units // 2 ** (COLUMNS - 1)),
        "residual": residual_ways(units),
        "dense": dense_ways(units),
    }
    stacks = [{"name": name, "paths": sum(ways), **described(ways)} for name, ways in counted.items()]
    weighed = {
        # A closed unit cannot be taken, and among the open ones each way is as good as the other.
        "stochastic depth": [p / 2 for p in chances],
        # y = H·T + x·(1 − T): with gates all at T, a way that takes k of n layers has the weight Tᵏ(1 − T)ⁿ⁻ᵏ.
        "highway, at the start": units * [gate],
    }
    stacks += [{"name": name, "paths": None, **described(bernoulli_sum(each))} for name, each in weighed.items()]
    exact = described(bernoulli_sum(chances))
    drawn = drawn_open_units(units, survival, mini_batches=mini_batches, seed=seed)
    return {
        "units": units,
        "survival": survival,
        "seed": seed,
        "connections": {"plain": units, "dense": connections(units)},
        "stacks": stacks,
        "open_units": {
            "chances": chances,
            **exact,
            "drawn": {
                "mini_batches": mini_batches,
                "mean": float(drawn.mean()),
                "error": exact["deviation"] / math.sqrt(mini_batches),
                "shares": [float((drawn == k).mean()) for k in exact["lengths"]],
            },
        },
    }


def table(numbers: Numbers) -> str:
    """A row a stack, then the units that stochastic depth leaves."""
    lines = [
        f"Ways through {numbers['units']} layers that take some and go around others; lengths in layers.",
        "",
        "| stack | ways | shortest | longest | mean | deviation |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for each in numbers["stacks"]:
        ways = "by chance" if each["paths"] is None else f"{each['paths']:,}"
        lines.append(
            f"| {each['name']} | {ways} | {each['shortest']} | {each['longest']} | {each['mean']:.2f} | {each['deviation']:.2f} |"
        )
    of, drawn = numbers["open_units"], numbers["open_units"]["drawn"]
    lines += [
        "",
        f"Connections: {numbers['connections']['plain']:,} in the plain stack, {numbers['connections']['dense']:,} in the dense block.",
        "",
        f"Stochastic depth, last unit with {numbers['survival']:g}: {of['mean']:.2f} ± {of['deviation']:.2f} of {numbers['units']} "
        f"units take part; drawn in {drawn['mini_batches']:,} mini-batches: {drawn['mean']:.2f} ± {drawn['error']:.2f}.",
    ]
    return "\n".join(lines) + "\n"


def picture(numbers: Numbers) -> Picture:
    """Left, shares of ways by length; right, units that take part: exact and drawn."""
    figure, axes = several(2, width=11, height=4.0)
    left, right = axes[0]
    # Dense and residual are the same curve; plain is a single point.
    shown = [each for each in numbers["stacks"] if each["name"] not in ("plain", "dense")]
    names = {"residual": "residual and dense"}
    curves(
        {names.get(each["name"], each["name"]): each["lengths"] for each in shown},
        {names.get(each["name"], each["name"]): each["shares"] for each in shown},
        alt="",
        axes=left,
    )
    left.axvline(numbers["units"], color=GREY, linestyle=":", label="plain: one way")
    left.legend(frameon=False, fontsize="small")
    plain(
        left,
        title=f"Ways through {numbers['units']} layers",
        xlabel="layers that a way takes",
        ylabel="share of the ways",
        ylim=(0, None),
    )
    of = numbers["open_units"]
    right.bar(of["lengths"], of["drawn"]["shares"], color=ORANGE, alpha=0.5, label="drawn by the network")
    right.plot(of["lengths"], of["shares"], "o-", color=BLUE, markersize=3, label="exact")
    low = [k for k, share in zip(of["lengths"], of["shares"], strict=True) if share > 1e-4]
    right.axvline(of["mean"], color=GREY, linestyle=":", label=f"mean {of['mean']:.2f}")
    right.legend(frameon=False, fontsize="small", loc="upper left")
    plain(
        right,
        title="Stochastic depth: units in a mini-batch",
        xlabel="units that take part",
        ylabel="chance",
        xlim=(low[0] - 1, low[-1] + 1),
    )
    by_name = {each["name"]: each for each in numbers["stacks"]}
    alt = (
        f"Two panels. Left: the lengths of ways through {numbers['units']} layers. A plain stack has one, of length {numbers['units']}; "
        f"residual and dense stacks have a bell around {by_name['residual']['mean']:.0f}, fractal ones around "
        f"{by_name['fractal']['mean']:.0f}, stochastic depth around {by_name['stochastic depth']['mean']:.0f}, and a highway stack at the "
        f"start around {by_name['highway, at the start']['mean']:.0f}. Right: how many units take part under stochastic depth, a bell "
        f"around {of['mean']:.2f}; bars drawn by the network follow the exact curve."
    )
    return Picture(figure, alt)


READING = """How to read this: each layer that can be gone around doubles the number of ways, and most ways take about half of the
layers. So a network of 54 residual units is hardly ever 54 units deep for a gradient: ways much longer or shorter than
27 are few. Dense and residual stacks have the same number of ways of each length; what differs is that a residual
stack adds them up into the same feature maps, and a dense block keeps each layer's side by side. A plain stack has one
way, the longest.

What it does not show: how much each way carries. Long ways carry far less gradient than their number suggests, which
Veit et al. 2016 measure. Only for the highway stack is a way weighed, by gates as they are at the start: all open by
T = σ(−2) = 0.12, the bias of the released 19-layer network. The highway stack of short-paths starts from −4."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--units", type=reader(int), default=UNITS, metavar="N", help=f"layers of each stack (default: {UNITS})"
    )
    parser.add_argument(
        "--survival",
        type=reader(float),
        default=SURVIVAL,
        metavar="P",
        help=f"chance of the last unit to take part (default: {SURVIVAL})",
    )


PATH_LENGTHS = Experiment(
    name="path-lengths",
    about="how many ways lead through each kind of stack, and how long they are",
    measure=lambda given, notebook: path_lengths(units=given.units, survival=given.survival),
    table=table,
    picture=picture,
    reading=READING,
    options=options,
)
