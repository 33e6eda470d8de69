"""Sigmoid against ReLU: the same stack, 3, 10 and 20 layers deep, trained on digits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from functools import partial

from ..config import nearest
from ..data import Dataset, load, training_batches
from ..errors import ConfigError
from ..plots import Picture, curves, several
from .experiment import Experiment, Notebook, Numbers
from .perceptrons import ACTIVATIONS, USUAL, WRITTEN, first_to_last, gradient_norms, perceptron, trained_perceptron
from .seeds import chosen, once, over_seeds, written
from .seeds import options as seeds_and_epochs
from .training import CHANCE

SEEDS, EPOCHS, WIDTH = 5, 30, 64
DEPTHS = (3, 10, 20)
# At 0.01 3 layers of sigmoid are not half done after 20 epochs; at 0.1 10 layers of ReLU diverge.
RATES = {"sigmoid": 0.1, "tanh": 0.01, "relu": 0.01}
STARTS = {"xavier_uniform": "Xavier", "he_normal": "He"}


def learning(
    dataset: Dataset, *, activation: str, depth: int, learning_rate: float, epochs: int = EPOCHS, seed: int = 0
) -> Numbers:
    """Train one stack: gradient_ratio at the start, train_loss and test_accuracy of each epoch, diverged, seconds.

    An epoch after the loss has become no number has no entry.
    """
    began = time.perf_counter()
    model = perceptron(depth=depth, width=WIDTH, activation=activation, seed=seed)
    examples = next(training_batches(dataset, size=64, seed=(seed, 0), augment=False))
    ratio = first_to_last(gradient_norms(model, *examples))
    history = trained_perceptron(
        dataset, depth=depth, width=WIDTH, activation=activation, learning_rate=learning_rate, epochs=epochs, seed=seed
    )[1]
    done = [record for record in history if not record["diverged"]]
    return {
        "gradient_ratio": ratio,
        "train_loss": [record["train_loss"] for record in done],
        "test_accuracy": [record["test_accuracy"] for record in done],
        "diverged": history[-1]["diverged"],
        "seconds": time.perf_counter() - began,
    }


def sigmoid_against_relu(
    *,
    activations: Sequence[str] = ("sigmoid", "tanh", "relu"),
    depths: Sequence[int] = DEPTHS,
    seeds: Sequence[int] = range(SEEDS),
    epochs: int = EPOCHS,
    notebook: Notebook | None = None,
) -> Numbers:
    """Train perceptrons of width 64 on digits: sigmoid and tanh from Xavier's weights, ReLU from He's, each at a rate of its own.

    depths   hidden layers

    returns  depths, seeds, epochs, rates (of each activation), test_images, and in "stacks" for each activation and depth
             activation, depth, learning_rate    as asked
             gradient_ratio    first hidden layer's gradient norm over the last one's, before training, on 64 images: median of seeds
             test_accuracy     at the end: {"values": a fraction for each seed, "mean", "spread"}; what diverged counts as guessing
             diverged          seeds whose loss was no number any more
             train_losses, test_accuracies    the mean over the seeds after each epoch, without those that diverged: learning curves
             seconds           mean of a run

    Raises ConfigError for an unknown activation.
    """
    for name in activations:
        if name not in ACTIVATIONS:
            raise ConfigError(f"sigmoid_against_relu: unknown activation {name!r}{nearest(name, ACTIVATIONS)}")
    dataset = load("digits")
    runs: dict[tuple[str, int], list[Numbers]] = {}
    for seed in seeds:  # seed after seed, so that what is interrupted has something of everything
        for name in activations:
            for depth in depths:
                asked: Numbers = {"activation": name, "depth": depth, "learning_rate": RATES[name], "epochs": epochs}
                measure = partial(learning, dataset, seed=seed, **asked)
                runs.setdefault((name, depth), []).append(once(notebook, {**asked, "seed": seed}, measure))
    return {
        "depths": list(depths),
        "seeds": list(seeds),
        "epochs": epochs,
        "rates": {name: RATES[name] for name in activations},
        "test_images": len(dataset.test_labels),
        "stacks": [row(name, depth, each) for (name, depth), each in runs.items()],
    }


def row(activation: str, depth: int, runs: Sequence[Numbers]) -> Numbers:
    """What the seeds of a stack come to."""
    whole = [run for run in runs if not run["diverged"]]
    curve = {
        key: [statistics.fmean(values) for values in zip(*(run[key] for run in whole), strict=True)]
        for key in ("train_loss", "test_accuracy")
    }
    return {
        "activation": activation,
        "depth": depth,
        "learning_rate": runs[0]["learning_rate"],
        "gradient_ratio": statistics.median(run["gradient_ratio"] for run in runs),
        "test_accuracy": over_seeds([accuracy(run) for run in runs]),
        "diverged": len(runs) - len(whole),
        "train_losses": curve["train_loss"],
        "test_accuracies": curve["test_accuracy"],
        "seconds": statistics.fmean(run["seconds"] for run in runs),
    }


def accuracy(run: Numbers) -> float:
    """At the end of a run, as a fraction; what diverged is guessing."""
    return CHANCE if run["diverged"] else run["test_accuracy"][-1]


def table(numbers: Numbers) -> str:
    """A row an activation and depth."""
    n = len(numbers["seeds"])
    lines = [
        f"Width {WIDTH}, SGD with momentum 0.9, batches of 50, {numbers['epochs']} epochs on digits; mean ± standard deviation of "
        f"{n} {'seed' if n == 1 else 'seeds'}. One test image of {numbers['test_images']} is {100 / numbers['test_images']:.2f} %. "
        "The ratio is that of gradient norms, first hidden layer over last, before training (median).",
        "",
        "| activation | weights | hidden layers | rate | first/last | test accuracy, % | training loss | seconds |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for each in numbers["stacks"]:
        diverged = f" ({each['diverged']} diverged)" if each["diverged"] else ""
        loss = f"{each['train_losses'][-1]:.3f}" if each["train_losses"] else "–"
        lines.append(
            f"| {WRITTEN[each['activation']]} | {STARTS[USUAL[each['activation']]]} | {each['depth']} | {each['learning_rate']:g} | "
            f"{each['gradient_ratio']:.2g} | {written(each['test_accuracy'], unit=100)}{diverged} | {loss} | {each['seconds']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def picture(numbers: Numbers) -> Picture:
    """Test accuracy by epoch: a panel a depth, a line an activation."""
    figure, (panels,) = several(len(numbers["depths"]), width=10.5, height=3.7, sharey=True)
    said = []
    for axes, depth in zip(panels, numbers["depths"], strict=True):
        rows = [each for each in numbers["stacks"] if each["depth"] == depth]
        lines = {WRITTEN[each["activation"]]: [100 * value for value in each["test_accuracies"]] for each in rows}
        places = {name: range(1, len(values) + 1) for name, values in lines.items()}
        curves(places, lines, alt="", axes=axes, title=f"{depth} hidden layers", xlabel="epoch", ylim=(0, 102))
        ends = ", ".join(f"{WRITTEN[each['activation']]} {written(each['test_accuracy'], unit=100)} %" for each in rows)
        said.append(f"{depth} hidden layers: {ends}")
    panels[0].set_ylabel("test accuracy, %")
    return Picture(
        figure, f"Test accuracy on digits by epoch, a panel for each depth. At the end, with {'; with '.join(said)}."
    )


READING = """How to read this: with 3 layers all of them learn; with 10, sigmoid guesses from the first epoch to the
last. Depth is the trouble, not sigmoid alone: the same function that does well in a shallow network passes hardly
anything on in a deep one. A network that always names the same digit is right in 7 to 13 % of the test images,
depending on the digit.

Sigmoid has ten times the rate of the others, because with 3 layers it learns slowly at theirs. That it stays at
chance with 10 is not for want of a better rate: batch-norm-rates tries more. With 20 layers ReLU learns from some
seeds and not from others: it is hard without batch norm or short paths.

It does not show that ReLU is always better: tanh, which saturates as sigmoid does, learns too, for its slope at 0 is
1. These are 30 epochs of 29 steps with constant rates; a longer run would bring the deep ones a little further."""


SIGMOID_AGAINST_RELU = Experiment(
    name="sigmoid-against-relu",
    about="the same stack of 3, 10 and 20 layers trained on digits with sigmoid, tanh and ReLU",
    measure=lambda given, notebook: sigmoid_against_relu(**chosen(given), notebook=notebook),
    table=table,
    picture=picture,
    reading=READING,
    line=lambda run: (
        f"{run['activation']:7} {run['depth']:2} layers, seed {run['seed']}: accuracy {100 * accuracy(run):.1f} %, {run['seconds']:.1f} s"
    ),
    options=seeds_and_epochs(SEEDS, EPOCHS),
)
