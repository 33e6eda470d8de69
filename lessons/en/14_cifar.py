# %% [markdown] id="why-real"
# You have built all the parts, and each was tried by itself. Now they are put together, into what people mean
# when they say "I trained a DenseNet": a long run that writes down what it does, that survives a power cut, and
# whose result you can defend when somebody asks which images you looked at before you stopped.
#
# It is one file, `minidense/train.py`, and one command, `python -m minidense.train`. With no options it is the
# paper's run on CIFAR-10. That is long, and needs a download; so we let the same code work on the built-in
# digits, in seconds, and see everything that the long run does. At the end you know what to type for CIFAR-10 and
# what to expect.

# %% id="imports" tags=["setup"]
import atexit
import contextlib
import inspect
import json
import math
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy
from PIL import Image, ImageDraw

from minidense import DataError, Tensor, data, load_weights, models, no_grad, plots, predict, train
from minidense.checkpoint import Checkpoint
from minidense.config import TrainConfig
from minidense.lessons import SEED, check, claim
from minidense.pictures import picture, view_of
from minidense.plots import Picture, several
from minidense.run_folder import RunFolder, counting

# %% [markdown] id="recipe"
# ## The run as a list of settings
#
# Everything that decides what comes out stands in a `TrainConfig`. Its defaults are the paper's (`drop_at` is in
# shares of all epochs). Only `validation` is new; it comes in a moment.

# %% id="recipe-run"
paper = TrainConfig()
for name in (
    "model",
    "data",
    "epochs",
    "batch_size",
    "learning_rate",
    "drop_at",
    "momentum",
    "weight_decay",
    "validation",
):
    print(f"{name:14} {getattr(paper, name)}")
claim("parameters of the paper's network", models.create(paper.model).parameter_count(), 769_162, 769_162)

# %% [markdown] id="predict-steps"
# **Predict.** 300 epochs of 50,000 images, in batches of 64. How many times do the weights move?
#
# - (a) about 15,000 times
# - (b) about 235,000 times
# - (c) 15 million times
#
# Choose before you run the next cell.

# %% id="steps-run"
steps_an_epoch = math.ceil(50_000 / paper.batch_size)
claim("steps in an epoch of CIFAR-10", steps_an_epoch, 782, 782)
claim("steps of the paper's run", 300 * steps_an_epoch, 234_600, 234_600)
claim("images that the paper's run sees", 300 * 50_000, 15_000_000, 15_000_000)

# %% [markdown] id="why-steps"
# It is (b). The last batch of an epoch has only 16 images, and it is a step as well; forgetting it is an ordinary
# mistake. 15 million *views* go through the network. Each photograph comes 300 times, cropped and mirrored anew,
# and shows most of its 162 views (lesson 13).

# %% [markdown] id="x1"
# ## Exercise 1: before you start it
#
# Before a long run, work out what it costs: steps, images that go through the network, and hours, for `images`
# training images at the speed `images_per_second`.


# %% id="x1-stub"
def cost(images, *, epochs, batch_size, images_per_second):
    """(steps, images seen, hours) of a training run on so many images."""
    raise NotImplementedError


# %% [markdown] id="x1-hint"
# <details>
# <summary>Hint</summary>
#
# Every epoch has its own last batch: round up in each epoch, not once for the whole run. `-(-a // b)` rounds up
# without floats, or take `math.ceil(a / b)`. Time depends on images, not on steps.
#
# </details>


# %% id="x1-solution"
def cost(images, *, epochs, batch_size, images_per_second):
    """(steps, images seen, hours) of a training run on so many images."""
    steps = epochs * math.ceil(images / batch_size)
    seen = epochs * images
    return steps, seen, seen / images_per_second / 3600


# %% id="x1-check"
@check
def what_a_run_costs():
    asked = [
        ((50_000, 300, 64, 45.0), (234_600, 15_000_000)),
        ((1_437, 15, 64, 900.0), (345, 21_555)),
        ((128, 3, 64, 10.0), (6, 384)),
        ((10, 7, 64, 5.0), (7, 70)),
    ]
    for (images, epochs, batch_size, speed), (steps, seen) in asked:
        answer = cost(images, epochs=epochs, batch_size=batch_size, images_per_second=speed)
        what = f"{images:,} images, {epochs} epochs, batches of {batch_size}, {speed:g} images/s"
        assert isinstance(answer, tuple | list), f"return three numbers: steps, images seen, hours; got {answer!r}"
        assert len(answer) == 3, f"return three numbers: steps, images seen, hours; got {answer!r}"
        assert answer[0] == steps, f"{what}: {steps:,} steps, yours says {answer[0]:,}"
        assert answer[1] == seen, f"{what}: {seen:,} images are seen, yours says {answer[1]:,}"
        hours = seen / speed / 3600
        assert abs(answer[2] - hours) < 1e-9 * hours, f"{what}: {hours:.4g} hours, yours says {answer[2]:.4g}"


# %% [markdown] id="run"
# ## A run
#
# The same code, made small: a DenseNet-BC (L = 16, k = 8) on digits, eight epochs, batches of 32. Of the 1,437
# training images 137 are **held out**: never trained on, and looked at after each epoch. They are there so that
# *you* may choose something (an epoch, a rate, a depth) without having looked at the test images. The lecture
# leaves out that the authors did so with 5,000 images of CIFAR.
#
# The run goes into a folder of its own, here a temporary one; at home it is `runs/MODEL-DATA`.


# %% id="run-run"
def said_without_folder(line):
    """Print a line of the report; the name of a temporary folder tells nobody anything."""
    print(line.replace(str(scratch), "…"))


scratch = Path(tempfile.mkdtemp(prefix="lesson-14-"))
atexit.register(shutil.rmtree, scratch, ignore_errors=True)  # it goes when Python does
config = TrainConfig(
    model="densenet_bc_16_8",
    data="digits",
    validation=137,
    epochs=8,
    batch_size=32,
    seed=SEED,
    out=str(scratch / "run"),
)
history = train.fit(config, say=said_without_folder)

# %% id="curves-run"
plots.learning_curves(history, title="DenseNet-BC (16, 8) on digits")

# %% [markdown] id="curves-words"
# How to read it: "train" is measured *during* the epoch, on moved images, with weights that are still changing;
# "validation" and "test" behind it, with the weights as they are, in evaluation mode. The right panel is the
# staircase of lesson 13. While the rate is high, validation and test can be far *worse* than training; with the
# first drop they settle. Batch norm is the likely reason (lesson 07): evaluation uses running statistics, and
# these lag behind weights that move fast.

# %% id="curves-claim"
last = history[-1]
claim("test accuracy after eight epochs", last["test_accuracy"], 0.92, 1.0, seen=(0.963, 0.973))
claim(
    "test loss after the first epoch / after the last",
    history[0]["test_loss"] / last["test_loss"],
    3,
    400,
    seen=(15, 62.6),
)

# %% [markdown] id="folder"
# And this is what it has written. `log.jsonl` has a line of JSON for each epoch, so that any program can read it;
# `config.toml` has all the settings; `last.safetensors` everything that is needed to go on; `weights.safetensors`
# the network alone, of the epoch that counts.

# %% id="folder-run"
run = RunFolder(Path(config.out))
for path in sorted(run.path.rglob("*")):
    if path.is_file():
        print(f"{path.stat().st_size:9,} bytes  {path.relative_to(run.path)}")
log = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
print("\n".join(f"{key:20} {value:.4g}" for key, value in log[-1].items()))
claim(
    "lines of log.jsonl that are what fit() has returned", sum(a == b for a, b in zip(log, history, strict=True)), 8, 8
)

# %% [markdown] id="x2"
# ## Exercise 2: which epoch counts?
#
# On CIFAR the authors report the test error of the *last* epoch. On SVHN they hold out 6,000 images and report
# the test error of the epoch that was best on *those*. What nobody may do is report the best *test* result of all
# epochs: that is choosing with the answers open. Write the SVHN rule; of several epochs that are equally good on
# the validation images, the first counts.


# %% id="x2-stub"
def reported(history):
    """(epoch, test accuracy) of the epoch with the highest validation_accuracy, the first of equals; history is a list of records."""
    raise NotImplementedError


# %% [markdown] id="x2-hint"
# <details>
# <summary>Hint</summary>
#
# `max(history, key=lambda record: ...)` returns the first of several largest. A record has the keys that you have
# just seen printed: `record["epoch"]`, `record["test_accuracy"]`, …
#
# </details>


# %% id="x2-solution"
def reported(history):
    """(epoch, test accuracy) of the epoch with the highest validation_accuracy, the first of equals; history is a list of records."""
    best = max(history, key=lambda record: record["validation_accuracy"])
    return best["epoch"], best["test_accuracy"]


# %% id="x2-check"
@check
def the_epoch_that_counts():
    def records(validation, test, loss):
        each = enumerate(zip(validation, test, loss, strict=True), start=1)
        return [
            {"epoch": e, "validation_accuracy": v, "test_accuracy": t, "validation_loss": x, "train_loss": 1 / e}
            for e, (v, t, x) in each
        ]

    asked = [
        (records([0.5, 0.9, 0.7], [0.6, 0.8, 0.95], [2.0, 0.5, 0.4]), (2, 0.8), "the best on validation is epoch 2"),
        (
            records([0.5, 0.8, 0.8], [0.6, 0.7, 0.75], [2.0, 0.9, 0.8]),
            (2, 0.7),
            "epochs 2 and 3 are equal: the first counts",
        ),
        (records([0.9, 0.8, 0.7], [0.6, 0.7, 0.5], [0.3, 0.2, 0.9]), (1, 0.6), "accuracy decides, not the loss"),
        (records([0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.3, 0.2, 0.1]), (3, 0.1), "the best may be the last"),
    ]
    for history, wanted, why in asked:
        before = json.dumps(history)
        got = reported(history)
        assert isinstance(got, tuple | list), f"return a pair: (epoch, test accuracy), got {got!r}"
        assert tuple(got) == wanted, f"{why}, so (epoch, test accuracy) is {wanted}, yours says {got}"
        assert json.dumps(history) == before, "your function changes the history that it was given"


# %% [markdown] id="stop"
# ## Pulling the plug
#
# Long runs get interrupted. Here is a shorter run, of four epochs on 320 images, twice: once in peace, and once
# with the plug pulled behind the second epoch. `fit` reports each line to `say`, so a `say` that raises an
# exception is a power cut at that moment.

# %% [markdown] id="predict-resume"
# **Predict.** The second run is started again from what it had saved, and goes on to its fourth epoch. Its
# weights, compared with those of the run in peace, are
#
# - (a) different: images come in another order, and momentum begins at zero
# - (b) equal up to rounding, six digits or so
# - (c) equal in every bit


# %% id="stop-run"
class PowerCut(Exception):
    """Everything stops."""


def quietly(line):
    """Say nothing."""


def pull_the_plug(line):
    """Nothing, until the report of the second epoch."""
    if line.lstrip().startswith("2/4"):
        raise PowerCut


short = replace(config, limit_train=320, validation=0, epochs=4)
peace, cut = RunFolder(scratch / "peace"), RunFolder(scratch / "cut")
train.fit(short, folder=peace, say=quietly)
with contextlib.suppress(PowerCut):
    train.fit(short, folder=cut, say=pull_the_plug)

saved = Checkpoint.load(cut.checkpoint)
print(f"after the power cut: {len(saved.history)} epochs in the log; arrays saved: {len(saved.arrays)}")
resumed = train.fit(short, folder=cut, saved=saved, say=quietly)
print(f"after going on: {len(resumed)} epochs")

# %% id="stop-claim"
one, other = (Checkpoint.load(folder.checkpoint).arrays for folder in (peace, cut))
different = sum(one[name].tobytes() != other[name].tobytes() for name in one)
begun = sum(int((saved.arrays[name] != one[name]).any()) for name in one)
claim("epochs that were saved before the power cut", len(saved.history), 2, 2)
claim("share of the arrays that still changed after the power cut", begun / len(one), 0.8, 1.0, seen=(1.0, 1.0))
claim("arrays of which the two runs have different bits at the end", different, 0, 0)

# %% [markdown] id="why-resume"
# It is (c), and it takes four things. The **weights** and batch norm's **running statistics**, that is clear. The
# optimiser's **velocities**, which are as many numbers again as there are weights: whoever saves only the weights
# begins with a standing start. And **chance**: the order of the images and every crop are drawn from the seed
# *and the number of the epoch and the batch*, not from a generator that somebody would have to wind forward.
#
# Why want equal bits, when nearly equal would train as well? Because "equal" can be tested, and "nearly" hides
# mistakes. From the command line it is `python -m minidense.train --resume FOLDER`; Ctrl-C finishes the step at
# hand and saves first.

# %% [markdown] id="confusion"
# ## What does it confuse?
#
# One number says how good the network is, and nothing about *how* it is wrong. A **confusion matrix** does: a row
# for what an image is, a column for what it was taken for, and in each place how often that came.

# %% [markdown] id="x3"
# ## Exercise 3: the matrix
#
# Of each image you get two class numbers from 0 on: `labels` says what it is, `predicted` what it was taken for.
# Count.


# %% id="x3-stub"
def confusion(labels, predicted, classes):
    """Counts (classes, classes): entry [i, j] is how many images of class i were taken for class j."""
    raise NotImplementedError


# %% [markdown] id="x3-hint"
# <details>
# <summary>Hint</summary>
#
# A loop over the pairs is fine. If you want it without one: `matrix[labels, predicted] += 1` looks right and
# counts every pair *once*, however often it comes; `numpy.add.at` does not.
#
# </details>


# %% id="x3-solution"
def confusion(labels, predicted, classes):
    """Counts (classes, classes): entry [i, j] is how many images of class i were taken for class j."""
    matrix = numpy.zeros((classes, classes), int)
    numpy.add.at(matrix, (labels, predicted), 1)
    return matrix


# %% id="x3-check"
@check
def confusion_from_predictions():
    small = numpy.asarray(confusion(numpy.array([0, 0, 1]), numpy.array([0, 1, 1]), 3))
    assert small.shape == (3, 3), f"three classes make a (3, 3) matrix, got shape {small.shape}"
    assert small[0, 1] == 1, "one image of class 0 was taken for class 1: entry [0, 1] should be 1"
    assert small[1, 0] == 0, "rows are what an image is, columns what it was taken for"
    chance = numpy.random.default_rng(3)
    for classes in (2, 5, 10):
        labels, predicted = chance.integers(0, classes, (2, 400))
        got = numpy.asarray(confusion(labels, predicted, classes))
        assert got.sum() == 400, (
            f"400 images should make 400 counts, got {got.sum()}: does a pair count each time it comes?"
        )
        for i, j in numpy.ndindex(classes, classes):
            wanted = int(((labels == i) & (predicted == j)).sum())
            assert got[i, j] == wanted, f"{classes} classes, entry [{i}, {j}]: {wanted}, yours says {got[i, j]}"


# %% [markdown] id="confusion-now"
# Now for the network of the run: load the weights that count, let them name all test images, and count pairs.
# This time each pair becomes one number, $10\cdot\text{label} + \text{predicted}$, and `bincount` does the rest.

# %% id="confusion-run"
digits = config.dataset()
model, _ = train.build(config, digits)
load_weights(model, run.path / "weights.safetensors")
model.eval()
with no_grad():
    logits = [model(Tensor(images)).data for images, _ in data.test_batches(digits, size=100)]
predicted = numpy.concatenate(logits).argmax(axis=1)
matrix = numpy.bincount(10 * digits.test_labels + predicted, minlength=100).reshape(10, 10)
plots.confusion_matrix(matrix, digits.class_names, title="Test images")

# %% [markdown] id="confusion-words"
# How to read it: the diagonal is right; a number elsewhere is a pair that was mixed up, darker when it happened
# more often. A row shows what became of one digit.

# %% id="confusion-claim"
right = int(matrix.trace())
claim("test images in the matrix", int(matrix.sum()), 360, 360)
claim(
    "right ones, less what the log says of the epoch that counts",
    right - round(360 * counting(log)["test_accuracy"]),
    0,
    0,
)

# %% [markdown] id="own"
# ## A picture of your own
#
# The network has seen nothing but its 8×8 scans. Draw a digit in any program, light on dark, and put the file's
# name into `own`. As long as it is `None`, we draw a seven ourselves, of 80×80 pixels.

# %% id="own-run"
own = None  # or the name of your file: "my_digit.png"
if own is None:
    drawing = Image.new("L", (80, 80), 0)
    pen = ImageDraw.Draw(drawing)
    pen.line((18, 10, 62, 10, 34, 78), fill=255, width=16, joint="curve")
    pen.line((24, 42, 62, 42), fill=255, width=12)  # sevens of the data set often have this bar
    own = str(scratch / "seven.png")
    drawing.save(own)

code = predict.main([own, "--run", str(run), "--top", "3"])

# %% [markdown] id="predict-dark"
# That is the command `minidense predict FILE --run FOLDER`. It brought the picture to 8×8 pixels, treated it as
# it had treated the training images, and put the logits through a softmax.
#
# **Predict.** Now the same drawing as one makes it on paper, *dark on light*. To you it is the same seven. The
# network gives it, as the probability of a seven,
#
# - (a) about as much: the shape is the same
# - (b) much less, and says that it is unsure
# - (c) hardly anything, and may be quite sure of something else

# %% id="dark-run"
view = view_of("digits")
seen = picture(own, view)
pictures = {"light on dark": seen, "dark on light": 255 - seen}
found = {name: predict.likeliest(model, view, pixels, 10) for name, pixels in pictures.items()}
figure, panels = several(2, width=6, height=3.2)
for axes, (name, pixels) in zip(panels[0], pictures.items(), strict=True):
    best = found[name][0]
    axes.imshow(pixels[0], cmap="gray", vmin=0, vmax=255)
    axes.set_title(f"{name}:\n{best['name']} with {best['probability']:.0%}", fontsize="medium")
    axes.set_xticks([])
    axes.set_yticks([])
said = " and ".join(f"{name} a {each[0]['name']} with {each[0]['probability']:.0%}" for name, each in found.items())
Picture(figure, f"The drawing in the 8×8 pixels that the network sees. It calls it {said}.")

# %% id="dark-claim"
as_seven = {name: sum(one["probability"] for one in each if one["name"] == "7") for name, each in found.items()}
if own.endswith("seven.png"):
    claim("probability of a seven, light on dark", as_seven["light on dark"], 0.3, 1.0, seen=(0.756, 0.997))
    claim("probability of a seven, dark on light", as_seven["dark on light"], 0.0, 0.15, seen=(1.04e-05, 0.00276))

# %% [markdown] id="why-dark"
# How to read it: the two pictures as the network gets them, above each the likeliest digit and its probability.
#
# It is (c). Ten probabilities add up to one whatever you show, a cat or a white page included. A softmax has no
# "none of these", and nobody has ever told this network about dark digits on light paper. It knows what was in
# its training images and what augmentation made of them.

# %% [markdown] id="x4"
# ## Exercise 4: normalise
#
# "For preprocessing, we normalize the data using the channel means and standard deviations" (§4.1). Take both
# over *all training images and all pixels*, one number for each channel, and apply them to any images.


# %% id="x4-stub"
def normalised(images, training):
    """images (N, C, H, W), less the mean and divided by the deviation of each channel of training (M, C, H, W); float64."""
    raise NotImplementedError


# %% [markdown] id="x4-hint"
# <details>
# <summary>Hint</summary>
#
# `training.mean(axis=(0, 2, 3))` has the shape (C,). To subtract it from (N, C, H, W) it must be (C, 1, 1);
# `keepdims=True` takes care of that.
#
# </details>


# %% id="x4-solution"
def normalised(images, training):
    """images (N, C, H, W), less the mean and divided by the deviation of each channel of training (M, C, H, W); float64."""
    mean = training.mean(axis=(0, 2, 3), keepdims=True)
    std = training.std(axis=(0, 2, 3), keepdims=True)
    return (images - mean) / std


# %% id="x4-check"
@check
def normalised_by_channel():
    chance = numpy.random.default_rng(5)
    for channels in (3, 1):
        low = chance.integers(0, 100, (1, channels, 1, 1))
        training = (low + chance.integers(0, 150, (40, channels, 5, 4))).astype(numpy.uint8)
        images = chance.integers(0, 255, (6, channels, 5, 4)).astype(numpy.uint8)
        before = training.copy(), images.copy()
        own = normalised(training, training)
        assert getattr(own, "shape", None) == training.shape, (
            f"the shape should stay {training.shape}, got {getattr(own, 'shape', own)}"
        )
        assert own.dtype == numpy.float64, f"float64 was asked for, got {own.dtype}"
        for c in range(channels):
            m, s = own[:, c].mean(), own[:, c].std()
            assert abs(m) < 1e-9, f"channel {c} of the training images should have mean 0, it has {m:.4f}"
            assert abs(s - 1) < 1e-9, f"channel {c} of the training images should have deviation 1, it has {s:.4f}"
        got = normalised(images, training)
        for c in range(channels):
            wanted = (images[:, c].astype(float) - training[:, c].mean()) / training[:, c].std()
            off = abs(got[:, c] - wanted).max()
            assert off < 1e-9, f"other images go by the numbers of the training images: channel {c} is off by {off:.3g}"
        for old, new in zip(before, (training, images), strict=True):
            assert numpy.array_equal(old, new), "your function changes its input"


# %% [markdown] id="cifar"
# ## CIFAR-10
#
# All that stands between you and it is 170 MB: `cifar-10-binary.tar.gz` from the page of Alex Krizhevsky, in a
# folder `datasets/` or wherever `MINIDENSE_DATA` points. It stays packed. If the package finds it, the next cell
# trains a DenseNet-BC (L = 22, k = 12) on it, in about a minute: 160 steps of 16 images, the rate in **one
# cycle**, up to 0.1 and down again (the table shows only where it begins). If not, it says so, and the lesson
# goes on.

# %% id="cifar-run"
try:
    data.load("cifar10")
except DataError as missing:
    print(f"SKIPPED: {missing}")
else:
    real = TrainConfig(
        model="densenet_bc_22_12",
        batch_size=16,
        epochs=1,
        schedule="one_cycle",  # a staircase of a single epoch would have only its last step
        limit_train=2_560,
        limit_test=500,
        seed=SEED,
    )
    begun = train.fit(real, folder=RunFolder(scratch / "cifar"), say=said_without_folder)
    print(f"{begun[-1]['test_accuracy']:.0%} of 500 test images are right, by guessing it would be 10%;")
    print("the weights have seen a twentieth of the training images.")

# %% [markdown] id="committed"
# What a beginning of a real run looks like is kept in the repository: four epochs of that network on all 50,000
# images, one cycle of the rate, on two shared cores (`docs/results/densenet_bc_22_12-cifar10`; one run, seed 0).
# Its figures:

# %% id="committed-run"
four_epochs = [
    # train loss, train accuracy, test loss, test accuracy, images/s, rate at the first step; from log.jsonl
    (1.5995, 0.40814, 2.0725, 0.4068, 62.8, 0.0100),
    (1.0980, 0.60854, 1.1105, 0.6122, 38.0, 0.0850),
    (0.8865, 0.68556, 0.9172, 0.6902, 93.4, 0.0714),
    (0.7425, 0.73794, 0.6824, 0.7593, 72.7, 0.0357),
]
names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "images_per_second", "learning_rate")
kept = [{"epoch": e, **dict(zip(names, row, strict=True))} for e, row in enumerate(four_epochs, start=1)]
for record in kept:
    print(
        f"epoch {record['epoch']}: test accuracy {record['test_accuracy']:.2%}, {record['images_per_second']:.0f} images/s"
    )
plots.learning_curves(kept, title="DenseNet-BC (22, 12) on CIFAR-10, four epochs: one run, kept in the repository")

# %% [markdown] id="predict-days"
# How to read it: as above, but the right panel has the rate of each epoch's first step only. Both losses still
# fall at the end: four epochs are a beginning.
#
# **Predict.** And the paper's own run, 769,162 parameters and 300 epochs, on a computer such as yours, without a
# GPU?
#
# - (a) a night
# - (b) days
# - (c) months

# %% id="days-run"
noise = numpy.random.default_rng(SEED)
as_large = replace(
    digits,
    train_images=noise.integers(0, 256, (64, 3, 32, 32), numpy.uint8),
    train_labels=noise.integers(0, 10, 64),
    test_images=noise.integers(0, 256, (16, 3, 32, 32), numpy.uint8),
    mean=(125.3, 123.0, 113.9),
    std=(63.0, 62.1, 66.7),
    validation_images=None,
    validation_labels=None,
    crop_padding=4,
    flip=True,
)
epoch = train.seconds_per_epoch(replace(paper, batch_size=16, augment=True), as_large)
speed = (len(as_large.train_images) + len(as_large.test_images) / 3) / epoch  # a test costs about a third
print(f"here and now: roughly {speed:.0f} images/s in training, so 15 million take {15e6 / speed / 86400:.1f} days")
print(f"on the two cores of docs/results/bench, at 45 images/s: {15e6 / 45 / 86400:.1f} days")

# %% [markdown] id="why-days"
# For most it is (b). The estimate is rough: a few steps with batches of 16, of noise, on a computer that does
# other things too. But it is what `fit` does before it starts, too, and the reason why it prints a forecast
# before you go home.

# %% [markdown] id="differs-12"
# ## Where lecture and paper differ
#
# **Left out of the lecture, and needed to repeat the number:** initial weights (He et al.'s), augmentation
# (mirror, and moves by up to 4 pixels), normalisation (you have just written it; SVHN: divided by 255), and
# *validation*: the paper holds out 5,000 training images of CIFAR while settings are tried, trains on all 50,000
# for the final run, and reports the error at its end (§4.1). Without the last, a table of errors does not say
# whether anybody looked.

# %% [markdown] id="break-it"
# ## Break it
#
# - In "stop-run", forget the velocities before going on: give `fit` `saved=replace(saved, arrays={name: array for
#   name, array in saved.arrays.items() if not name.startswith("velocity.")})`. `fit` does not complain. Which
#   claim notices?
# - In "run-run", set `learning_rate=100.0`. What does `fit` do when the loss is no number any more, and what is
#   in the folder?
# - In "own-run", move the seven to the left, by taking 10 from the first, third, ... of its coordinates, then 20.
#   How far may it move before the network loses it? What has `crop_padding` to do with that?

# %% [markdown] id="summary"
# ## Three lines to keep
#
# 1. A run is its settings and its seed: write both down, and save weights, statistics, velocities and place
#    together.
# 2. Choose on validation images, report on test images, and say how many runs there were.
# 3. Look at what is confused, not only at how much; and never believe a softmax about what it has not been shown.

# %% [markdown] id="paper"
# ## What the lecture and the papers say
#
# Table 2 of Huang et al. (2017), which the lecture copies correctly: DenseNet-BC (L = 100, k = 12), 0.8 M
# parameters, **4.51 % error on C10+**, that is CIFAR-10 with augmentation; 5.92 % without, and with dropout. The
# first is what `python -m minidense.train` sets out for, with every setting at its default. The paper speaks of
# *the* final run of a network, and gives no spread.
#
# Measured here, on CIFAR-10: 24.1 % error after four epochs of a network with 71,686 parameters, once. That is
# *no* check of the paper's number; it shows that the machinery learns photographs. A learning curve that still
# falls says nothing about where it ends. And nothing here about digits carries over in figures: 360 test images
# make steps of 0.28 %.

# %% [markdown] id="source"
# ## The real one
#
# Here is the loop that has run in this lesson, and that runs for 300 epochs if you let it. Everything in it has
# its lesson: 13 the rate, 02 the step backward, 09 `at_epoch` (networks that change while they train).

# %% id="source-code"
print(inspect.getsource(train.train_epoch))
