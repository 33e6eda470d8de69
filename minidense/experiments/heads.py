"""Global average pooling against flattening: parameters of the head, accuracy, and what moving the images does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy

from .. import functional as F
from .. import models
from ..data import Dataset, crop, load
from ..errors import ConfigError
from ..models import Classifier, DenseNet
from ..models.entry import finished
from ..models.initialise import like_fb_resnet
from ..nn import Conv2d, Linear, init
from ..plots import Picture, curves, several
from ..tensor import Tensor
from .experiment import Experiment, Notebook, Numbers
from .paper_recipe import PaperRecipe, trained_and_tested
from .seeds import apart, chosen, dots, once, options, over_seeds, written
from .training import loss_and_accuracy

SEEDS, EPOCHS = 5, 12
HEADS = ("average", "flatten")
SHIFTS = (0, 1, 2)  # pixels


class Flattened(Classifier):
    """A DenseNet's features, BN-ReLU, and a linear layer that reads every pixel of every feature map: (N, C·H·W) instead of (N, C).

    model   gives the features; its own head is left out
    pixels  (H, W) of its last feature maps
    """

    def __init__(self, model: DenseNet, pixels: tuple[int, int]):
        classes, channels = model.classifier.weight.shape
        self.features = model.features
        self.classifier = Linear(channels * pixels[0] * pixels[1], classes)

    def forward(self, x: Tensor) -> Tensor:
        features = F.relu(self.features(x.astype(self.dtype)))
        return self.classifier(F.reshape(features, (len(x), -1)))


def with_head(
    head: str,
    *,
    blocks: Sequence[int] = (3, 3),
    growth_rate: int = 6,
    size: int = 8,
    in_channels: int = 1,
    seed: int = 0,
) -> Classifier:
    """A small DenseNet-BC with one of the two heads: "average" or "flatten".

    blocks  layers of each block; each but the last is followed by a transition that halves height and width
    size    height and width of the images

    Raises ConfigError for another head.
    """
    if head not in HEADS:
        raise ConfigError(f"with_head: unknown head {head!r}; choose one of {', '.join(HEADS)}")
    stem, last = 2 * growth_rate, size // 2 ** (len(blocks) - 1)

    def make():
        model = DenseNet(
            stem={"conv0": Conv2d(in_channels, stem, 3, padding=1, bias=False)},
            stem_channels=stem,
            blocks=blocks,
            growth_rate=growth_rate,
            bottleneck=True,
            compression=0.5,
            dropout=0.0,
            classes=10,
        )
        return model if head == "average" else Flattened(model, (last, last))

    return finished(make, like_fb_resnet, seed=seed, dtype=numpy.float32, device="cpu")


def moved(dataset: Dataset, down: int, right: int) -> Dataset:
    """The same with all test images moved by so many pixels; what leaves is lost, and what comes in is background, 0."""
    d = max(abs(down), abs(right))
    place = [numpy.full(len(dataset.test_images), d - way) for way in (down, right)]
    return replace(dataset, test_images=crop(dataset.test_images, *place, padding=d))


def around(distance: int) -> list[tuple[int, int]]:
    """(down, right) of the moves by so many pixels in the four directions; one move that is none for 0."""
    return [(0, 0)] if distance == 0 else [(distance, 0), (-distance, 0), (0, distance), (0, -distance)]


def trained_with_head(
    head: str, dataset: Dataset, *, epochs: int, blocks: Sequence[int], growth_rate: int, augment: bool, seed: int
) -> Numbers:
    """Train once: ``trained_and_tested``, accuracy and loss on the training images as they are, and on moved test images."""
    began = time.perf_counter()
    model = with_head(head, blocks=blocks, growth_rate=growth_rate, seed=seed)
    result = trained_and_tested(PaperRecipe(epochs=epochs, augment=augment), model, dataset, seed=seed)
    seen = replace(dataset, test_images=dataset.train_images, test_labels=dataset.train_labels)
    result["train_loss"], result["train_accuracy"] = loss_and_accuracy(model, seen)
    shifted = [
        float(numpy.mean([loss_and_accuracy(model, moved(dataset, *way))[1] for way in around(distance)]))
        for distance in SHIFTS
    ]
    return {**result, "shifted": shifted, "seconds": time.perf_counter() - began}


def global_average_pooling(
    *,
    seeds: Sequence[int] = range(SEEDS),
    epochs: int = EPOCHS,
    blocks: Sequence[int] = (3, 3),
    growth_rate: int = 6,
    augment: Sequence[bool] = (False, True),
    notebook: Notebook | None = None,
) -> Numbers:
    """Count both heads of the paper's DenseNet-BC, and train a small one with each of them on digits.

    blocks   layers of each block; with two of them the last feature maps of digits have 4×4 pixels
    augment  False: images never moved in training. True: by at most a pixel

    returns  epochs, seeds, blocks, growth_rate, distances (pixels, of "shifted")
             paper  head parameters of DenseNet-BC (L = 100, k = 12) for CIFAR-10: channels, pixels (of the last feature maps), average,
                    flatten, and features (parameters of everything before the head)
             rows   for each head and augmentation
                    head, augment, head_parameters, parameters
                    test_accuracy, train_accuracy, gap (train − test), test_loss, train_loss    {"values", "mean", "spread"}; the
                                    training images are tested as the test images are: as they are, in evaluation mode
                    shifted         one {"values", "mean", "spread"} a distance: accuracy on test images moved so far, mean of the four
                                    directions
                    lost            the same of shifted[0] − shifted[i]: what moving costs
                    seconds         mean of a run
             beyond_chance  for each augmentation: are the heads apart by more than chance in test_accuracy, in gap, and in "lost" at
                    each distance?
    """
    dataset = load("digits")
    settings: Numbers = {"epochs": epochs, "growth_rate": growth_rate, "blocks": list(blocks)}
    kinds = [(head, moving) for moving in augment for head in HEADS]
    runs: dict[tuple[str, bool], list[Numbers]] = {kind: [] for kind in kinds}
    for seed in seeds:
        for head, moving in kinds:
            asked = {"head": head, "augment": moving, "seed": seed, **settings}
            measure = partial(trained_with_head, head, dataset, augment=moving, seed=seed, **settings)
            runs[head, moving].append(once(notebook, asked, measure))
    rows = [row(head, moving, runs[head, moving], blocks, growth_rate) for head, moving in kinds]
    return {
        **settings,
        "seeds": list(seeds),
        "distances": list(SHIFTS),
        "paper": heads_of_the_paper(),
        "rows": rows,
        "beyond_chance": [compared(rows, moving) for moving in augment],
    }


def heads_of_the_paper() -> Numbers:
    """Parameters of both heads on DenseNet-BC (L = 100, k = 12), whose last feature maps have 8×8 pixels, for ten classes."""
    with init.undrawn():
        model = models.densenet(depth=100, growth_rate=12)
        flat = Flattened(model, (8, 8))
    return {
        "channels": model.classifier.weight.shape[1],
        "pixels": 64,
        "average": model.classifier.parameter_count(),
        "flatten": flat.classifier.parameter_count(),
        "features": model.features.parameter_count(),
    }


def row(head: str, augment: bool, runs: Sequence[Numbers], blocks: Sequence[int], growth_rate: int) -> Numbers:
    """What the runs with a head come to."""
    model = with_head(head, blocks=blocks, growth_rate=growth_rate)
    return {
        "head": head,
        "augment": augment,
        "head_parameters": model.last_layer.parameter_count(),
        "parameters": model.parameter_count(),
        **{key: over_seeds([run[key] for run in runs]) for key in ("test_accuracy", "train_accuracy")},
        "gap": over_seeds([run["train_accuracy"] - run["test_accuracy"] for run in runs]),
        **{key: over_seeds([run[key] for run in runs]) for key in ("test_loss", "train_loss")},
        "shifted": [over_seeds([run["shifted"][i] for run in runs]) for i in range(len(SHIFTS))],
        "lost": [over_seeds([run["shifted"][0] - run["shifted"][i] for run in runs]) for i in range(len(SHIFTS))],
        "seconds": sum(run["seconds"] for run in runs) / len(runs),
    }


def compared(rows: Sequence[Numbers], augment: bool) -> Numbers:
    """Where the two heads are apart by more than chance."""
    average, flatten = (each for each in rows if each["augment"] == augment)
    return {
        "augment": augment,
        "test_accuracy": apart(average["test_accuracy"], flatten["test_accuracy"]),
        "gap": apart(average["gap"], flatten["gap"]),
        "lost": [apart(a, b) for a, b in zip(average["lost"], flatten["lost"], strict=True)],
    }


def name_of(each: Numbers) -> str:
    return f"{each['head']}, {'moved in training' if each['augment'] else 'not moved'}"


def table(numbers: Numbers) -> str:
    """The paper's heads, and a row for each head and augmentation."""
    paper, n = numbers["paper"], len(numbers["seeds"])
    lines = [
        f"DenseNet-BC (L = 100, k = 12) ends with {paper['channels']} maps of 8×8: the average's head has {paper['average']:,} parameters, "
        f"a flattening one {paper['flatten']:,}; everything before it {paper['features']:,}.",
        "",
        f"A small DenseNet-BC on digits, blocks of {', '.join(map(str, numbers['blocks']))} layers, k = {numbers['growth_rate']}, "
        f"{numbers['epochs']} epochs; accuracies in percent, mean ± standard deviation of {n} {'seed' if n == 1 else 'seeds'}.",
        "",
        "| head | in training images are | parameters of the head | of all | training images | test images | gap | "
        + " | ".join(f"moved by {distance}" for distance in numbers["distances"][1:])
        + " |",
        f"|---|---|--:|--:|--:|--:|--:|{(len(numbers['distances']) - 1) * '--:|'}",
    ]
    for each in numbers["rows"]:
        accuracies = (each["train_accuracy"], each["test_accuracy"], each["gap"], *each["shifted"][1:])
        lines.append(
            f"| {each['head']} | {'moved' if each['augment'] else 'never moved'} | {each['head_parameters']:,} | "
            f"{each['parameters']:,} | {' | '.join(written(value, unit=100) for value in accuracies)} |"
        )
    lines.append("")
    for each in numbers["beyond_chance"]:
        how = "moved" if each["augment"] else "never moved"
        said = {"test accuracy": each["test_accuracy"], "the gap": each["gap"]}
        said |= {
            f"what moving by {d} costs": x for d, x in zip(numbers["distances"][1:], each["lost"][1:], strict=True)
        }
        differs = [what for what, beyond in said.items() if beyond]
        lines.append(
            f"Trained on images {how}, the heads differ by more than chance in: {', '.join(differs) or 'nothing'}."
        )
    return "\n".join(lines) + "\n"


def picture(numbers: Numbers) -> Picture:
    """Accuracy on moved images by distance, and the gap between training and test images."""
    rows = numbers["rows"]
    figure, ((shifted, gap),) = several(2, width=11, height=3.8)
    curves(
        numbers["distances"],
        {name_of(each): [100 * value["mean"] for value in each["shifted"]] for each in rows},
        alt="",
        between={name_of(each): (edge(each["shifted"], -1), edge(each["shifted"], 1)) for each in rows},
        axes=shifted,
        xlabel="test images moved by, pixels",
        ylabel="accuracy, %",
        xticks=numbers["distances"],
        title="Head, and whether images move in training",
    )
    dots(
        gap,
        {name_of(each): each["gap"] for each in rows},
        unit=100,
        form=".2f",
        marked=[name_of(each) for each in rows if each["head"] == "average"],
        xlabel="accuracy on training images less test images, %",
    )
    accuracies = [", ".join(f"{100 * value['mean']:.1f}" for value in each["shifted"]) for each in rows]
    said = "; ".join(f"{name_of(each)}: {text} %" for each, text in zip(rows, accuracies, strict=True))
    distances = ", ".join(map(str, numbers["distances"]))
    alt = f"Left: accuracy on test images moved by {distances} pixels. {said}. Right: accuracy on training less test images, by seed."
    return Picture(figure, alt)


def edge(values: Sequence[Numbers], sign: int) -> list[float]:
    """Mean less or plus the spread, percent."""
    return [100 * (value["mean"] + sign * (value["spread"] or 0)) for value in values]


READING = """How to read this: both networks are the same up to the head. Averaging keeps one number of each feature map, flattening all its
pixels, so that the linear layer has a weight for every place. Moved images are tested as a network has never seen them ("never moved"),
or as training has moved them by at most a pixel ("moved"). A digit fills most of its 8×8 pixels: moved by two, some of it is gone, for
either head.

The average is no more blind to place than its features are: zeros beside the border, and pooling by twos, tell a convolution where it is.
The sizes matter: the paper's last maps have 64 pixels, and here there are 16. That the flattening head has many times the parameters
does not by itself mean that it overfits; look at the gap, and at whether it is beyond chance."""

GLOBAL_AVERAGE_POOLING = Experiment(
    name="global-average-pooling",
    about="the head that averages against one that flattens: parameters, accuracy, and moved images",
    measure=lambda given, notebook: global_average_pooling(**chosen(given), notebook=notebook),
    table=table,
    picture=picture,
    reading=READING,
    line=lambda run: (
        f"{name_of(run):22} seed {run['seed']}: {100 * run['test_accuracy']:5.1f} %, "
        f"moved {', '.join(f'{100 * x:.1f}' for x in run['shifted'][1:])} %, {run['seconds']:.1f} s"
    ),
    options=options(SEEDS, EPOCHS),
)
