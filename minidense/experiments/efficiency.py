"""Parameter efficiency, figure 4 of the DenseNet paper in small: accuracy against parameters for three families of several sizes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from .. import models
from ..config import nearest
from ..data import Dataset, load
from ..errors import ConfigError
from ..models import Classifier
from ..nn import init
from ..plots import Picture, curves, several
from ..summary import summarise
from .experiment import Experiment, Notebook, Numbers
from .figures import densenet_sizes, resnet_sizes
from .paper_recipe import PaperRecipe, trained_and_tested
from .seeds import chosen, once, options, over_seeds, written

SEEDS, EPOCHS = 3, 12
DIGITS = (1, 8, 8)


def dense(k: int, seed: int) -> Classifier:
    """DenseNet, 13 layers: three in each block, 2k channels from the first convolution."""
    return models.densenet(
        depth=13, growth_rate=k, bottleneck=False, compression=1.0, stem_channels=2 * k, in_channels=1, seed=seed
    )


def dense_bc(k: int, seed: int) -> Classifier:
    """DenseNet-BC, 22 layers: three with bottlenecks in each block."""
    return models.densenet(depth=22, growth_rate=k, in_channels=1, seed=seed)


def pre_activation(width: int, seed: int) -> Classifier:
    """Pre-activation ResNet, 14 layers: two units in each stage, width, 2·width and 4·width channels."""
    return models.resnet(depth=14, unit="full_preact", widths=(width, 2 * width, 4 * width), in_channels=1, seed=seed)


# family -> (what its sizes are, (size, seed) -> network, sizes)
FAMILIES: dict[str, tuple[str, Callable[[int, int], Classifier], tuple[int, ...]]] = {
    "DenseNet": ("k", dense, (2, 4, 6, 9)),
    "DenseNet-BC": ("k", dense_bc, (2, 4, 6, 9)),
    "pre-activation ResNet": ("width", pre_activation, (2, 4, 6, 10)),
}


def trained_size(family: str, size: int, dataset: Dataset, *, epochs: int, seed: int) -> Numbers:
    """Train one network of a family by the paper's recipe: ``trained_and_tested``, and seconds."""
    began = time.perf_counter()
    model = FAMILIES[family][1](size, seed)
    result = trained_and_tested(PaperRecipe(epochs=epochs), model, dataset, seed=seed)
    return {**result, "seconds": time.perf_counter() - began}


def parameter_efficiency(
    *,
    families: Sequence[str] = tuple(FAMILIES),
    sizes: Sequence[int] | None = None,
    seeds: Sequence[int] = range(SEEDS),
    epochs: int = EPOCHS,
    notebook: Notebook | None = None,
) -> Numbers:
    """Train networks of three families and several sizes on digits by one recipe, and count the paper's own sizes.

    sizes  which places in each family's list of sizes, 0 the smallest; all unless given

    returns  epochs, seeds
             points   for each network: family, size ("k = 4"), parameters, multiply_adds (of an 8×8 image), seconds (mean of a run),
                      test_accuracy (fractions), test_loss, train_loss (nats), each {"values": one a seed, "mean", "spread"}
             matches  for each size of the ResNet: what each other family needs for its mean test loss, read off the straight line between
                      the neighbouring sizes, both on logarithmic axes: {"family", "size", "parameters", "other", "needs", "share"};
                      needs and share are None where the loss lies outside what that family was measured at
             paper    parameters of the sizes for figure 4's curves, as in ``paper_figures``

    Raises ConfigError for an unknown family.
    """
    for family in families:
        if family not in FAMILIES:
            raise ConfigError(f"parameter_efficiency: unknown family {family!r}{nearest(family, FAMILIES)}")
    dataset = load("digits")
    wanted = [
        (family, size)
        for family in families
        for place, size in enumerate(FAMILIES[family][2])
        if sizes is None or place in sizes
    ]
    runs: dict[tuple[str, int], list[Numbers]] = {each: [] for each in wanted}
    for seed in seeds:
        for family, size in wanted:
            asked = {"family": family, "size": size, "seed": seed, "epochs": epochs}
            measure = partial(trained_size, family, size, dataset, epochs=epochs, seed=seed)
            runs[family, size].append(once(notebook, asked, measure))
    points = [point(family, size, runs[family, size]) for family, size in wanted]
    with init.undrawn():
        paper = [*densenet_sizes(), *resnet_sizes()]
    return {"epochs": epochs, "seeds": list(seeds), "points": points, "matches": matches(points), "paper": paper}


def point(family: str, size: int, runs: Sequence[Numbers]) -> Numbers:
    """A network of the figure."""
    word, build, _ = FAMILIES[family]
    counted = summarise(build(size, 0), DIGITS, kept=False)
    return {
        "family": family,
        "size": f"{word} = {size}",
        "parameters": counted.parameters,
        "multiply_adds": counted.multiply_adds,
        **{key: over_seeds([run[key] for run in runs]) for key in ("test_accuracy", "test_loss", "train_loss")},
        "seconds": sum(run["seconds"] for run in runs) / len(runs),
    }


def matches(points: Sequence[Numbers]) -> list[Numbers]:
    """How many parameters each family of DenseNets needs for the mean test loss of each ResNet."""
    residual = [each for each in points if each["family"] == "pre-activation ResNet"]
    others = dict.fromkeys(each["family"] for each in points if each not in residual)
    rows = []
    for each in residual:
        for other in others:
            line = [(p["parameters"], p["test_loss"]["mean"]) for p in points if p["family"] == other]
            needs = needed(line, each["test_loss"]["mean"])
            rows.append(
                {
                    **{key: each[key] for key in ("family", "size", "parameters")},
                    "other": other,
                    "needs": needs,
                    "share": None if needs is None else needs / each["parameters"],
                }
            )
    return rows


def needed(line: Sequence[tuple[int, float | None]], loss: float | None) -> float | None:
    """Where a line of (parameters, loss), straight between its points on logarithmic axes, first comes down to a loss. None: nowhere."""
    known = [(n, value) for n, value in line if value]
    if not loss:
        return None
    for (n_a, a), (n_b, b) in pairwise(known):
        if a >= loss >= b and a > b:
            share = math.log(a / loss) / math.log(a / b)
            return n_a * (n_b / n_a) ** share
    return None


def table(numbers: Numbers) -> str:
    """A row a network, what matches what, and the paper's sizes."""
    n = len(numbers["seeds"])
    lines = [
        f"Digits, {numbers['epochs']} epochs; mean ± standard deviation of {n} {'seed' if n == 1 else 'seeds'}.",
        "",
        "| family | size | parameters | multiply-adds | test accuracy, % | test loss | training loss |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {each['family']} | {each['size']} | {each['parameters']:,} | {each['multiply_adds']:,} | "
        f"{written(each['test_accuracy'], form='.2f', unit=100)} | {written(each['test_loss'], form='.3f')} | "
        f"{written(each['train_loss'], form='.3f')} |"
        for each in numbers["points"]
    ]
    if numbers["matches"]:
        lines += [
            "",
            "| ResNet with parameters | family | needs for the same test loss | share |",
            "|--:|---|--:|--:|",
        ]
    for each in numbers["matches"]:
        needs = "not measured" if each["needs"] is None else f"about {each['needs']:,.0f}"
        share = "" if each["share"] is None else f"{100 * each['share']:.0f} %"
        lines.append(f"| {each['parameters']:,} | {each['other']} | {needs} | {share} |")
    lines += ["", "The paper's figure 4 has these sizes, k = 12, ten classes (counted, not trained):", ""]
    lines += ["| family | parameters by depth |", "|---|---|"]
    for family in dict.fromkeys(each["family"] for each in numbers["paper"]):
        members = [each for each in numbers["paper"] if each["family"] == family]
        counts = [f"{each['depth']}: {each['parameters']:,}" for each in members]
        lines.append(f"| {family} | {', '.join(counts)} |")
    return "\n".join(lines) + "\n"


TICKS = [digit * 10**power for power in range(2, 7) for digit in (1, 2, 5)]


def picture(numbers: Numbers) -> Picture:
    """Test error and test loss against parameters, a line a family, with the spread over seeds."""
    figure, ((errors, losses),) = several(2, width=11, height=4)
    families = list(dict.fromkeys(each["family"] for each in numbers["points"]))
    members = {family: [each for each in numbers["points"] if each["family"] == family] for family in families}
    x = {family: [each["parameters"] for each in points] for family, points in members.items()}
    error = {
        family: [100 * (1 - each["test_accuracy"]["mean"]) for each in points] for family, points in members.items()
    }
    curves(x, error, alt="", axes=errors, log="x", xlabel="parameters", ylabel="test error, %")
    loss = {family: [each["test_loss"]["mean"] for each in points] for family, points in members.items()}
    curves(x, loss, alt="", axes=losses, log="xy", xlabel="parameters", ylabel="test loss, nats")
    for axes, key, unit, start in ((errors, "test_accuracy", -100, 100), (losses, "test_loss", 1, 0)):
        for family, line in zip(families, axes.get_lines(), strict=True):
            for each in members[family]:
                values = [start + unit * value for value in each[key]["values"] if value is not None]
                at = [each["parameters"]] * len(values)
                axes.plot(at, values, "o", markersize=3, alpha=0.5, color=line.get_color())
        low, high = axes.get_xlim()
        axes.set_xticks([], minor=True)
        axes.set_xticks([n for n in TICKS if low <= n <= high], [f"{n:,}" for n in TICKS if low <= n <= high])
    said = "; ".join(
        f"{family} from {x[family][0]:,} parameters and {error[family][0]:.1f} % of errors to {x[family][-1]:,} and "
        f"{error[family][-1]:.1f} %"
        for family in families
    )
    figure.suptitle("Digits: lines are means, dots seeds; further left and further down is better", fontsize="medium")
    return Picture(figure, f"Left: test error against parameters, right: test loss. {said}.")


READING = """How to read this: all networks are trained by one recipe, the paper's, for the same number of epochs. At one height the family
further to the left reaches the same with fewer parameters; the second table reads that off the lines of the test loss, which has less
chance in it than errors: of 360 test images one is 0.28 %.

It shows how quickly small networks learn as much as what they could learn in the end: after few epochs the smallest have not finished.
Depth differs between the families (13, 22 and 14), as does the work an image costs: at equal parameters a DenseNet's is about twice the
ResNet's. DenseNet-BC is behind DenseNet here because its blocks are short: no layer reads more than 7.2k channels, so no bottleneck pays
(dense-arithmetic). The paper's claim is of another size: DenseNet-BC
with 0.8 M parameters as accurate as a pre-activation ResNet of 1001 layers with 10.2 M on CIFAR-10 (4.51 % and 4.62 % of errors), and
about a third of a ResNet's parameters on its figure 4."""

PARAMETER_EFFICIENCY = Experiment(
    name="parameter-efficiency",
    about="accuracy against parameters for DenseNet, DenseNet-BC and a pre-activation ResNet, on digits",
    measure=lambda given, notebook: parameter_efficiency(**chosen(given), notebook=notebook),
    table=table,
    picture=picture,
    reading=READING,
    line=lambda run: (
        f"{run['family']:22} {run['size']:3} seed {run['seed']}: {100 * run['test_accuracy']:5.1f} %, {run['seconds']:.1f} s"
    ),
    options=options(SEEDS, EPOCHS),
)
