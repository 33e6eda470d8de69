"""Short paths: plain, residual, highway, stochastic depth, fractal and dense stacks, by gradient flow and by accuracy."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy

from .. import functional as F
from ..config import nearest
from ..data import Dataset, load, training_batches
from ..errors import ConfigError
from ..models import Classifier
from ..nn import watch_gradients, without_chance
from ..plots import Picture, curves, several
from ..tensor import Tensor
from .experiment import Experiment, Notebook, Numbers
from .perceptrons import norm
from .seeds import chosen, dots, options
from .stack_training import DEPTH, EPOCHS, SEEDS, accuracy_table, compared, in_epochs, told
from .stacks import STACKS, longest_path, stack, width_for

FLOW_DEPTH = 42
PARAMETERS = 42_000
BATCH = 64

# The six, and plain stacks as they were before batch norm: a highway stack has none either, so the first of these is what to compare it
# with. The second is not trained: it would learn nothing.
WITHOUT_NORM, SIGMOID = "plain, no batch norm", "plain, sigmoid, no batch norm"
COMPARED: dict[str, dict[str, Any]] = {
    **{kind: {"kind": kind} for kind in STACKS},
    WITHOUT_NORM: {"kind": "plain", "norm": False},
    SIGMOID: {"kind": "plain", "norm": False, "activation": "sigmoid"},
}
TRAINED = tuple(name for name in COMPARED if name != SIGMOID)
# With nothing left out, stochastic depth is the residual stack.
FOLLOWED = tuple(name for name in COMPARED if name != "stochastic depth")


def of_size(name: str, *, depth: int, parameters: int) -> dict[str, Any]:
    """The arguments of ``stacks.stack`` for one of COMPARED, as wide as comes nearest to so many parameters. Raises ConfigError."""
    if name not in COMPARED:
        raise ConfigError(f"unknown stack {name!r}{nearest(name, COMPARED)}; there are: {'; '.join(COMPARED)}")
    arguments = {**COMPARED[name], "depth": depth}
    return {**arguments, "width": width_for(parameters=parameters, **arguments)}


# -- gradient flow --------------------------------------------------------------------------------------------------------


def gradient_flow(model: Classifier, images: Any, labels: Any) -> dict[str, list[float]]:
    """How large the loss's gradient is along a stack's longest way, from front to back, for one batch in training mode.

    returns  {"weights": ‖dL/dW‖ of each 3×3 convolution, "results": ‖dL/dy‖ of what each of them returns}

    No weight moves. Nothing is left out by chance. Norms are added up in float64, of gradients in the model's float type.
    """
    for w in model.parameters():
        w.grad = None
    with watch_gradients(model) as seen, without_chance(model):
        loss = F.cross_entropy(model(Tensor(images)), labels)
    loss.backward()
    path = longest_path(model)
    return {
        "weights": [norm(numpy.asarray(conv.weight.grad)) for conv in path.values()],
        "results": [norm(numpy.asarray(seen[name].grad)) for name in path],
    }


def flow_of_stacks(
    *,
    stacks: Sequence[str] = FOLLOWED,
    depth: int = FLOW_DEPTH,
    parameters: int = PARAMETERS,
    seeds: Sequence[int] = range(5),
    batch_size: int = BATCH,
    dataset: Dataset | None = None,
) -> Numbers:
    """Gradient by depth at initialisation, of stacks of about as many parameters as each other.

    stacks      names in COMPARED
    depth       3×3 convolutions on the longest way, even
    parameters  that each comes as near to as its width allows
    batch_size  digits in the batch that the loss is the mean of; seeds decide which, and the weights

    Keys: ``depth``, ``seeds``, ``batch_size``, and in ``stacks`` for each of them ``name``, ``width``, ``parameters``,
    ``weights`` and ``results`` (medians over seeds of the norms ``gradient_flow`` returns, front to back), ``ratio`` (median of
    ‖dL/dW‖ of the first over the last), ``ratios`` (of each seed), ``result_ratio`` (the same of what convolutions return).
    A ratio is exactly 0 where no gradient reaches the first layer.
    """
    dataset = dataset or load("digits")
    rows = []
    for name in stacks:
        arguments = of_size(name, depth=depth, parameters=parameters)
        flows = []
        for seed in seeds:
            model = stack(**arguments, seed=seed)
            images, labels = next(training_batches(dataset, size=batch_size, seed=(seed,), augment=False))
            flows.append(gradient_flow(model, images, labels))
        ratios = {of: [flow[of][0] / flow[of][-1] for flow in flows] for of in ("weights", "results")}
        rows.append(
            {
                "name": name,
                "width": arguments["width"],
                "parameters": model.parameter_count(),
                **{of: numpy.median([flow[of] for flow in flows], axis=0).tolist() for of in ("weights", "results")},
                "ratio": statistics.median(ratios["weights"]),
                "ratios": ratios["weights"],
                "result_ratio": statistics.median(ratios["results"]),
            }
        )
    return {"depth": depth, "seeds": list(seeds), "batch_size": batch_size, "stacks": rows}


# -- accuracy -------------------------------------------------------------------------------------------------------------


def accuracy_of_stacks(
    *,
    stacks: Sequence[str] = TRAINED,
    depth: int = DEPTH,
    parameters: int = PARAMETERS,
    seeds: Sequence[int] = range(SEEDS),
    epochs: int = EPOCHS,
    dataset: Dataset | None = None,
    notebook: Notebook | None = None,
) -> Numbers:
    """Test accuracy after a short training on digits, of stacks of about as many parameters as each other.

    stacks      names in COMPARED
    parameters  that each comes as near to as its width allows; plain and residual stacks have exactly the same, and the same
                weights to start with

    Keys: ``depth``, ``epochs``, ``seeds``, ``test_images``, and in ``stacks`` for each of them ``name``, ``width``, ``parameters``,
    ``test_accuracy`` ({"values": a fraction for each seed, "mean", "spread"}), ``test_loss``, ``train_loss``, ``diverged``, ``seconds``.
    """
    dataset = dataset or load("digits")
    asked = {name: of_size(name, depth=depth, parameters=parameters) for name in stacks}
    rows = compared(asked, seeds=seeds, epochs=epochs, dataset=dataset, notebook=notebook)
    return {
        "depth": depth,
        "epochs": epochs,
        "seeds": list(seeds),
        "test_images": len(dataset.test_labels),
        "stacks": rows,
    }


# -- the experiment -------------------------------------------------------------------------------------------------------


def short_paths(
    *,
    flow_depth: int = FLOW_DEPTH,
    depth: int = DEPTH,
    parameters: int = PARAMETERS,
    seeds: Sequence[int] = range(SEEDS),
    epochs: int = EPOCHS,
    dataset: Dataset | None = None,
    notebook: Notebook | None = None,
) -> Numbers:
    """Both: ``flow`` (``flow_of_stacks`` at `flow_depth`) and ``accuracy`` (``accuracy_of_stacks`` at `depth`)."""
    dataset = dataset or load("digits")
    common: dict[str, Any] = {"parameters": parameters, "seeds": seeds, "dataset": dataset}
    return {
        "flow": flow_of_stacks(depth=flow_depth, **common),
        "accuracy": accuracy_of_stacks(depth=depth, epochs=epochs, notebook=notebook, **common),
    }


def table(numbers: Numbers) -> str:
    """Flow, then accuracy."""
    flow, accuracy = numbers["flow"], numbers["accuracy"]
    lines = [
        f"Gradient at initialisation along {flow['depth']} convolutions, a batch of {flow['batch_size']} digits, "
        f"median of {len(flow['seeds'])} seeds.",
        "",
        "| stack | width | parameters | weights, first | weights, last | first/last | results, first/last |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for each in flow["stacks"]:
        first, last = each["weights"][0], each["weights"][-1]
        lines.append(
            f"| {each['name']} | {each['width']} | {each['parameters']:,} | {first:.2g} | {last:.2g} | {each['ratio']:.3g} | "
            f"{each['result_ratio']:.3g} |"
        )
    lines += [
        "",
        f"Accuracy on {accuracy['test_images']} test images after {in_epochs(accuracy)} on digits; mean ± standard deviation.",
        "",
        *accuracy_table(accuracy["stacks"]),
    ]
    return "\n".join(lines) + "\n"


def flow_picture(numbers: Numbers, *, axes: Any = None, low: float | None = 1e-9) -> Picture:
    """‖dL/dW‖ by depth, of what ``flow_of_stacks`` returns; nothing is drawn where it is exactly 0.

    low  where the axis begins: a sigmoid stack falls by tens of powers of ten, and the others would become one line
    """
    ratios = ", ".join(f"{each['name']} {each['ratio']:.3g}" for each in numbers["stacks"])
    drawn = curves(
        range(1, numbers["depth"] + 1),
        {each["name"]: [value or float("nan") for value in each["weights"]] for each in numbers["stacks"]},
        alt=f"Gradient of each convolution's weights against its depth, a curve a stack. Ratio of first to last: {ratios}.",
        axes=axes,
        log="y",
        title="Gradient at initialisation",
        xlabel="convolution, from the image on",
        ylabel="‖dL/dW‖",
        ylim=(low, None),
    )
    on = drawn.figure.axes[0] if axes is None else axes
    for line, marker in zip(on.lines, "osD^vPX", strict=False):
        line.set(marker=marker, markersize=4, markevery=max(1, numbers["depth"] // 7))
    on.legend(frameon=False, fontsize="small", loc="lower left")
    return drawn


def picture(numbers: Numbers) -> Picture:
    """Left, gradient by depth; right, accuracy."""
    figure, axes = several(2, width=11, height=4.4)
    left, right = axes[0]
    flow = flow_picture(numbers["flow"], axes=left)
    accuracy = numbers["accuracy"]
    rows = {f"{each['name']}\n{each['parameters']:,}": each["test_accuracy"] for each in accuracy["stacks"]}
    dots(
        right,
        rows,
        unit=100,
        title=f"{accuracy['depth']} layers on digits, {in_epochs(accuracy)}",
        xlabel="test accuracy, % (circles: seeds; bar: mean)",
    )
    reached = ", ".join(f"{each['name']} {100 * each['test_accuracy']['mean']:.1f} %" for each in accuracy["stacks"])
    return Picture(figure, f"Two panels. Left: {flow.alt} Right: test accuracy after training: {reached}.")


READING = """How to read this: all stacks keep the size of the image and have about as many parameters. Left, how large the
gradient of each layer's weights is before training; the slope counts, not the height. In a plain stack with batch norm
and ReLU it grows by a constant factor a layer towards the image, so no learning rate suits both ends. In a stack of
sigmoids without batch norm it shrinks by a factor of about five a layer, until a step is too small to change a weight.
A path around layers flattens the curve. Right, what that means for training. Plain and residual have the same
parameters, the same weights at the start and the same images in the same order; only the additions differ.

What it does not show: which of the short paths is best. Digits are easy and training is short; differences of 1 % are
noise (one test image is 0.28 %). The fractal stack has blocks of two columns here, so its shortest path is half as
long as its longest, and that is no help. Highway stacks have no batch norm, as in their paper: compare them with
the plain stack that has none, and expect them to need a longer training than this."""


SHORT_PATHS = Experiment(
    name="short-paths",
    about="plain stacks against those with short paths, by gradient flow and by accuracy",
    measure=lambda given, notebook: short_paths(**chosen(given), notebook=notebook),
    table=table,
    picture=picture,
    reading=READING,
    line=told,
    options=options(SEEDS, EPOCHS),
)
