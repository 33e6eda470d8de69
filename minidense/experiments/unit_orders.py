"""The order inside H and inside a residual unit: what it decides for certain, and what a short training can show of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy

from .. import functional as F
from ..data import Dataset, load, training_batches
from ..models import Classifier
from ..models.published import PUBLISHED
from ..models.residual_units import UNITS, Unit
from ..nn import watch_gradients
from ..plots import Picture, curves, several
from ..tensor import Tensor
from .experiment import Experiment, Notebook, Numbers
from .perceptrons import norm
from .seeds import apart, chosen, dots, options
from .shortcuts import gradient_flow
from .stack_training import EPOCHS, accuracy_table, compared, in_epochs, told
from .stacks import ORDERS, stack

SEEDS = 3
FLOW_DEPTH = 42
DENSE = {"kind": "dense", "depth": 12, "width": 6}
RESIDUAL = {"kind": "residual", "depth": 18, "width": 8}

# Which parts stand where, as in Table 2 of He et al. 2016: c a convolution, b batch norm, r ReLU; + the addition.
PARTS = {
    "original": "c b r c b + r",
    "bn_after_add": "c b r c + b r",
    "relu_before_add": "c b r c b r +",
    "relu_only_preact": "r c b r c b +",
    "full_preact": "b r c b r c +",
}


# -- what is certain: the way beside the branches -------------------------------------------------------------------------


def silence(model: Classifier) -> Classifier:
    """Set the last convolution of every branch to 0, so that nothing but the shortcuts carries anything; returns the model."""
    for unit in model.modules():
        if isinstance(unit, Unit):
            conv, _ = unit.pair(unit.count)
            conv.weight.data[...] = 0
    return model


def shortcut_gradients(
    unit: str, *, depth: int = FLOW_DEPTH, width: int = 10, seed: int = 0, dataset: Dataset | None = None
) -> Numbers:
    """The gradient along the shortcuts alone: dL/dx_l of what goes into each residual unit, with all branches at 0.

    unit     one of He et al. 2016, Table 2
    depth    convolutions, two a unit
    dataset  whose training images the loss is of; digits unless given

    With full pre-activation x_{l+1} = x_l + F(x_l), so dL/dx_l = dL/dx_{l+1}·(1 + dF/dx_l): the 1 is what is measured here
    (their eq. 5). What stands behind the addition, ReLU or BN-ReLU, stands in the way of it.

    Keys: ``norms`` ‖dL/dx‖ of the result of each unit, front to back; ``factors`` of one to the next, what each unit but the first
    does to the norm on the way back; ``unchanged``: are all gradients the same to the last bit?
    """
    model = silence(stack("residual", depth=depth, width=width, seed=seed, unit=unit))
    images, labels = next(training_batches(dataset or load("digits"), size=64, seed=(seed,), augment=False))
    with watch_gradients(model) as seen:
        loss = F.cross_entropy(model(Tensor(images)), labels)
    loss.backward()
    names = [name for name, module in model.named_modules() if isinstance(module, Unit)]
    gradients = [numpy.asarray(seen[name].grad) for name in names]
    norms = [norm(gradient) for gradient in gradients]
    return {
        "norms": norms,
        "factors": [before / after for before, after in itertools.pairwise(norms)],
        "unchanged": all(numpy.array_equal(gradient, gradients[-1]) for gradient in gradients),
    }


def published_errors() -> list[Numbers]:
    """What He et al. 2016 report in Table 2: errors in % on CIFAR-10 with augmentation, at 110 and 164 layers, with ``source``."""
    known = {each.name: each for each in PUBLISHED}
    return [
        {
            "unit": unit,
            "parts": PARTS[unit],
            "110": known[f"resnet110_unit_{unit}"].errors["C10+"],
            "164": known[f"resnet164_unit_{unit}"].errors["C10+"],
            "source": known[f"resnet110_unit_{unit}"].source,
        }
        for unit in UNITS
    ]


# -- the experiment -------------------------------------------------------------------------------------------------------


def composite_function(
    *,
    dense: dict[str, Any] | None = None,
    residual: dict[str, Any] | None = None,
    flow_depth: int = FLOW_DEPTH,
    seeds: Sequence[int] = range(SEEDS),
    epochs: int = EPOCHS,
    dataset: Dataset | None = None,
    notebook: Notebook | None = None,
) -> Numbers:
    """Train small dense stacks with either order inside H, and residual stacks with each of five units; measure the shortcut.

    dense, residual  depth and width of the stacks trained; DENSE and RESIDUAL by default
    flow_depth       convolutions of the residual stacks whose gradient is followed at initialisation

    Keys: ``seeds``, ``epochs``, ``test_images``; ``orders`` and ``units_trained``, rows of ``stack_training.compared``;
    ``beyond_chance``: are the two orders' accuracies apart by more than 3 standard errors (None with one seed)?
    ``units``, for each of five ``unit``, ``parts``, ``shortcut`` (``shortcut_gradients``) and ``ratio``, first to last ‖dL/dW‖ of
    the whole stack; ``published``, what He et al. 2016 report (``published_errors``).
    """
    dataset = dataset or load("digits")
    how: dict[str, Any] = {"seeds": seeds, "epochs": epochs, "dataset": dataset, "notebook": notebook}
    orders = compared({order: {**DENSE, **(dense or {}), "order": order} for order in ORDERS}, **how)
    trained = compared({unit: {**RESIDUAL, **(residual or {}), "unit": unit} for unit in UNITS}, **how)
    images, labels = next(training_batches(dataset, size=64, seed=(0,), augment=False))
    units = []
    for unit in UNITS:
        flow = gradient_flow(stack("residual", depth=flow_depth, width=10, unit=unit), images, labels)["weights"]
        units.append(
            {
                "unit": unit,
                "parts": PARTS[unit],
                "shortcut": shortcut_gradients(unit, depth=flow_depth, dataset=dataset),
                "ratio": flow[0] / flow[-1],
            }
        )
    return {
        "seeds": list(seeds),
        "epochs": epochs,
        "test_images": len(dataset.test_labels),
        "flow_depth": flow_depth,
        "orders": orders,
        "beyond_chance": apart(*(row["test_accuracy"] for row in orders)),
        "units_trained": trained,
        "units": units,
        "published": published_errors(),
    }


def table(numbers: Numbers) -> str:
    """The orders, the units, and the published errors."""
    verdict = {None: "one seed says nothing", True: "more than chance", False: "no more than chance"}
    lines = [
        f"Accuracy on {numbers['test_images']} test images of digits after {in_epochs(numbers)}; mean ± standard deviation.",
        f"The two orders inside H differ by {verdict[numbers['beyond_chance']]}.",
        "",
        *accuracy_table([*numbers["orders"], *numbers["units_trained"]]),
        "",
        f"The gradient at initialisation through {numbers['flow_depth']} convolutions of residual units. Shortcut: with all branches",
        "at 0; unchanged: to the last bit; first/last: of ‖dL/dW‖ in the whole stack.",
        "",
        "| unit | parts | shortcut, factors of a unit | unchanged | first/last | published, 110 layers | 164 |",
        "|---|---|--:|---|--:|--:|--:|",
    ]
    for each, published in zip(numbers["units"], numbers["published"], strict=True):
        shortcut = each["shortcut"]
        lines.append(
            f"| {each['unit']} | {each['parts']} | {span(shortcut['factors'])} | {'yes' if shortcut['unchanged'] else 'no'} | "
            f"{each['ratio']:.3g} | {published['110']:.2f} % | {published['164']:.2f} % |"
        )
    lines += ["", f"Published: {numbers['published'][0]['source']}, CIFAR-10 with augmentation."]
    return "\n".join(lines) + "\n"


def span(factors: Sequence[float]) -> str:
    """The lowest and the highest."""
    low, high = f"{min(factors):.2f}", f"{max(factors):.2f}"
    return low if low == high else f"{low} to {high}"


def picture(numbers: Numbers) -> Picture:
    """Left, accuracy of either order and of each unit; right, the gradient along the shortcuts."""
    figure, axes = several(2, width=11, height=4.2)
    left, right = axes[0]
    rows = [*numbers["orders"], *numbers["units_trained"]]
    dots(
        left,
        {row["name"]: row["test_accuracy"] for row in rows},
        unit=100,
        marked=ORDERS,
        title=f"After {in_epochs(numbers)} on digits",
        xlabel="test accuracy, % (circles: seeds; bar: mean)",
    )
    lines: dict[str, list[float]] = {}
    for changed in (each for each in numbers["units"] if not each["shortcut"]["unchanged"]):
        norms = changed["shortcut"]["norms"]
        lines[changed["unit"]] = [value / norms[-1] for value in norms]
    if straight := [each for each in numbers["units"] if each["shortcut"]["unchanged"]]:  # all of these are one line
        lines["\n".join(each["unit"] for each in straight)] = [1.0 for _ in straight[0]["shortcut"]["norms"]]
    curves(
        range(1, len(numbers["units"][0]["shortcut"]["norms"]) + 1),
        lines,
        alt="",
        axes=right,
        ylim=(0, None),
        title="Along the shortcuts alone, at the start",
        xlabel="residual unit",
        ylabel="‖dL/dx‖, relative to the last unit",
    )
    factors = ", ".join(f"{each['unit']} {span(each['shortcut']['factors'])}" for each in numbers["units"])
    reached = ", ".join(f"{row['name']} {100 * row['test_accuracy']['mean']:.1f} %" for row in rows)
    return Picture(
        figure,
        f"Two panels. Left: test accuracy: {reached}. Right: the gradient along the shortcuts, factors of a unit: {factors}.",
    )


READING = """How to read this: left, small networks that differ in nothing but the order of batch norm, ReLU and convolution. The
two orders inside H (orange) show no difference beyond chance at this size. In the smaller stacks that lesson 12 trains,
with three layers, the lecture's order (Conv-BN-ReLU) came out slightly but consistently ahead, in each of five
repetitions, while no single set of five runs shows it. Of the five residual units, batch norm behind the addition
learns most slowly, and it is the worst in He et al.'s table too; the others do not come in the order of that table,
where a point or so lies between them, at 110 layers after some 160 epochs on CIFAR-10. Right, what is certain. With
every branch at 0, a gradient that comes to the end of a stack of units with nothing behind the addition is at its front
the same to the last bit. Batch norm behind the addition rescales it in every unit. ReLU there takes away, once, what
belongs to sums that are not positive, and passes the rest on.

What it does not show: that an unchanged gradient makes a better network. That is He et al.'s finding, at 1,001 layers
above all. The two orders inside H do not have quite the same parameters: batch norm in front has more channels."""


COMPOSITE_FUNCTION = Experiment(
    name="composite-function",
    about="the order of batch norm, ReLU and convolution inside H and inside a residual unit",
    measure=lambda given, notebook: composite_function(**chosen(given), notebook=notebook),
    table=table,
    picture=picture,
    reading=READING,
    line=told,
    options=options(SEEDS, EPOCHS),
)
