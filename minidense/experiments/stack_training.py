"""A stack trained on digits for a short while, from several seeds: what all comparisons of stacks by accuracy have in common."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..data import Dataset, load
from ..schedule import one_cycle
from .experiment import Notebook, Numbers
from .paper_recipe import PaperRecipe, trained_and_tested
from .seeds import once, over_seeds, written
from .stacks import stack

EPOCHS = 6
SEEDS = 3
DEPTH = 30


@dataclass(frozen=True)
class OneCycle(PaperRecipe):
    """The paper's recipe for a few epochs: batches of 50, images stay where they are, and the rate goes up once and down once.

    With so few steps, a deep stack wants small steps first and last.
    """

    epochs: int = EPOCHS
    batch_size: int = 50
    augment: bool = False

    def rate(self, epoch: float) -> float:
        """The learning rate at an epoch; ``learning_rate`` is the highest, after three tenths."""
        return one_cycle(epoch, peak=self.learning_rate, epochs=self.epochs, warmup=0.3)


def highest_rate(*, kind: str, norm: bool = True, **_: Any) -> float:
    """0.1, and 0.03 without batch norm: at 0.1 a highway stack of 30 layers may end with a loss that is no number."""
    return 0.1 if norm and kind != "highway" else 0.03


def trained_stack(
    kind: str,
    *,
    depth: int = DEPTH,
    width: int = 12,
    seed: int = 0,
    epochs: int = EPOCHS,
    learning_rate: float | None = None,
    dataset: Dataset | None = None,
    **how: Any,
) -> Numbers:
    """Train one stack on digits and test it once: ``test_accuracy`` and the rest of ``trained_and_tested``, and ``seconds``.

    learning_rate  highest; by default 0.1, and 0.03 without batch norm
    dataset        instead of all the digits
    The others as for ``stacks.stack``.
    """
    began = time.perf_counter()
    recipe = OneCycle(epochs=epochs, learning_rate=learning_rate or highest_rate(kind=kind, **how))
    model = stack(kind, depth=depth, width=width, seed=seed, **how)
    outcome = trained_and_tested(recipe, model, dataset or load("digits"), seed=seed)
    return {**outcome, "seconds": time.perf_counter() - began}


def compared(
    stacks: Mapping[str, Mapping[str, Any]],
    *,
    seeds: Sequence[int] = range(SEEDS),
    epochs: int = EPOCHS,
    dataset: Dataset | None = None,
    notebook: Notebook | None = None,
) -> list[Numbers]:
    """Train each of several stacks from each seed.

    stacks  {name: arguments of ``stacks.stack``, "kind" among them}

    Returns a row for each: its ``name`` and arguments, ``parameters``, ``test_accuracy``, ``test_loss`` and ``train_loss``
    (each {"values": one a seed, "mean", "spread"}; accuracies are fractions), ``diverged`` (runs), ``seconds`` (mean of a run).
    """
    dataset = dataset or load("digits")
    runs: dict[str, list[Numbers]] = {name: [] for name in stacks}
    for seed in seeds:  # seed after seed, so that what is interrupted has something of everything
        for name, arguments in stacks.items():
            measure = partial(trained_stack, **arguments, seed=seed, epochs=epochs, dataset=dataset)
            runs[name].append(once(notebook, {"name": name, **arguments, "seed": seed, "epochs": epochs}, measure))
    return [
        {
            "name": name,
            **arguments,
            "parameters": stack(**arguments).parameter_count(),
            **{
                key: over_seeds([run[key] for run in runs[name]])
                for key in ("test_accuracy", "test_loss", "train_loss")
            },
            "diverged": sum(run["diverged"] for run in runs[name]),
            "seconds": statistics.fmean(run["seconds"] for run in runs[name]),
        }
        for name, arguments in stacks.items()
    ]


def accuracy_table(rows: Sequence[Numbers]) -> list[str]:
    """A line of Markdown for each row of ``compared``."""
    lines = ["| stack | depth | parameters | accuracy, % | each seed | seconds a run |", "|---|--:|--:|--:|---|--:|"]
    for row in rows:
        each = ", ".join(f"{100 * value:.1f}" for value in row["test_accuracy"]["values"])
        lines.append(
            f"| {row['name']} | {row['depth']} | {row['parameters']:,} | {written(row['test_accuracy'], unit=100)} | {each} | "
            f"{row['seconds']:.0f} |"
        )
    return lines


def in_epochs(numbers: Numbers) -> str:
    """How long they were trained: "6 epochs"."""
    return f"{numbers['epochs']} {'epoch' if numbers['epochs'] == 1 else 'epochs'}"


def told(run: Numbers) -> str:
    """A run that is done, for whoever waits."""
    accuracy, seconds = 100 * run["test_accuracy"], run["seconds"]
    return f"{run['name']:20} seed {run['seed']}: accuracy {accuracy:5.1f} %, {seconds:.0f} s"
