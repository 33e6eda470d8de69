"""Accuracy against parameters: plain, residual and dense stacks of several sizes, all as deep as each other, trained alike."""

from __future__ import annotations

from collections.abc import Sequence

from ..data import Dataset, load
from ..plots import Picture, curves
from .experiment import Experiment, Notebook, Numbers
from .seeds import chosen, options
from .stack_training import EPOCHS, SEEDS, accuracy_table, compared, in_epochs, told
from .stacks import width_for

KINDS = ("plain", "residual", "dense")
SIZES = (3_000, 7_000, 15_000)
DEPTH = 18


def equal_parameters(
    *,
    kinds: Sequence[str] = KINDS,
    sizes: Sequence[int] = SIZES,
    depth: int = DEPTH,
    seeds: Sequence[int] = range(SEEDS),
    epochs: int = EPOCHS,
    dataset: Dataset | None = None,
    notebook: Notebook | None = None,
) -> Numbers:
    """Test accuracy after a short training on digits, of stacks as near to each of several sizes as their widths allow.

    kinds  plain, residual, dense, and the others of ``stacks.stack``
    sizes  parameters; what each stack really has is in its row
    depth  3×3 convolutions on the longest way, even

    Keys: ``depth``, ``epochs``, ``seeds``, ``test_images``, and in ``stacks`` a row for each kind and size: ``kind``, ``size`` (what was
    asked), ``width``, ``parameters``, ``test_accuracy`` ({"values": a fraction for each seed, "mean", "spread"}), ``test_loss``,
    ``train_loss``, ``diverged``, ``seconds``.
    """
    dataset = dataset or load("digits")
    asked = {f"{kind}, about {size:,}": (kind, size) for size in sizes for kind in kinds}
    stacks = {
        name: {"kind": kind, "depth": depth, "width": width_for(kind, size, depth=depth)}
        for name, (kind, size) in asked.items()
    }
    rows = compared(stacks, seeds=seeds, epochs=epochs, dataset=dataset, notebook=notebook)
    return {
        "depth": depth,
        "epochs": epochs,
        "seeds": list(seeds),
        "test_images": len(dataset.test_labels),
        "stacks": [{**row, "size": asked[row["name"]][1]} for row in rows],
    }


def table(numbers: Numbers) -> str:
    """A row a stack."""
    first = f"Accuracy on {numbers['test_images']} test images after {in_epochs(numbers)} on digits; mean ± standard deviation."
    return "\n".join([first, "", *accuracy_table(numbers["stacks"])]) + "\n"


def picture(numbers: Numbers) -> Picture:
    """Accuracy by parameters, a line a kind; the band is from the worst seed to the best."""
    lines: dict[str, list[Numbers]] = {}
    for row in numbers["stacks"]:
        lines.setdefault(row["kind"], []).append(row)
    for rows in lines.values():
        rows.sort(key=lambda row: row["parameters"])
    values = {
        kind: [[100 * value for value in row["test_accuracy"]["values"]] for row in rows]
        for kind, rows in lines.items()
    }
    reached = "; ".join(
        f"{kind} " + ", ".join(f"{100 * row['test_accuracy']['mean']:.1f} % with {row['parameters']:,}" for row in rows)
        for kind, rows in lines.items()
    )
    drawn = curves(
        {kind: [row["parameters"] for row in rows] for kind, rows in lines.items()},
        {kind: [100 * row["test_accuracy"]["mean"] for row in rows] for kind, rows in lines.items()},
        between={kind: ([min(each) for each in all_], [max(each) for each in all_]) for kind, all_ in values.items()},
        alt=f"Test accuracy against the number of parameters, a line a kind of stack: {reached}.",
        log="x",
        title=f"{numbers['depth']} layers on digits, {in_epochs(numbers)}, {len(numbers['seeds'])} seeds",
        xlabel="parameters",
        ylabel="test accuracy, %",
    )
    drawn.figure.axes[0].legend(frameon=False, loc="lower right")
    return drawn


READING = """How to read this: a line that lies further left reaches the same accuracy with fewer parameters. All stacks are as
deep as each other and are trained alike; only their widths differ. The band is from the worst seed to the best: where
bands overlap, nothing is better. Short paths decide: a plain stack is far behind at every size. Between the two that
have them, the residual one is ahead here: as deep as this and as small, a dense stack has a growth rate of 1 to 3.

What it does not show: the paper's Figure 4, where a DenseNet-BC needs a third of the parameters of a pre-activation
ResNet on CIFAR-10 after 300 epochs. Digits are easy: soon all stacks with short paths are at 98 or 99 %, and what the
smallest of them reach in so few epochs is as much a matter of how quickly they learn."""


EQUAL_PARAMETERS = Experiment(
    name="equal-parameters",
    about="accuracy against parameters, for plain, residual and dense stacks of the same depth",
    measure=lambda given, notebook: equal_parameters(**chosen(given), notebook=notebook),
    table=table,
    picture=picture,
    reading=READING,
    line=told,
    options=options(SEEDS, EPOCHS),
)
