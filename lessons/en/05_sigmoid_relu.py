# %% [markdown] id="why-relu"
# Lesson 04 ended with ten layers of sigmoid, of which the first gets a few millionths of the gradient. The
# lecture names the cure in the next sentence: ReLU, and "when it was actually applied, much of the loss of
# gradient could be prevented".
#
# It is one word in the code. This lesson puts that word in, and asks three things that the sentence skips. *Why*
# does it help: because ReLU does not flatten? Does it help by itself, or do the first weights have to be right
# for it? And is the sigmoid the culprit, or the depth? For that we train.

# %% id="imports" tags=["setup"]
import inspect
import math
from itertools import pairwise

import numpy as np

from minidense import Tensor, no_grad
from minidense import functional as F
from minidense.data import load, training_batches
from minidense.experiments.perceptrons import trained_perceptron
from minidense.experiments.sigmoid_relu import picture, sigmoid_against_relu, table
from minidense.experiments.vanishing import vanishing_gradient
from minidense.lessons import SEED, check, claim
from minidense.nn import init
from minidense.ops import ReLU
from minidense.plots import BLACK, Picture, curves, gradient_flow, several

# %% [markdown] id="three"
# ## Three functions
#
# $$\sigma(z) = \frac{1}{1 + e^{-z}}, \qquad \tanh z = 2\sigma(2z) - 1, \qquad \mathrm{ReLU}(z) = \max(z, 0)$$
#
# tanh is the sigmoid in disguise: stretched to twice the height, moved down to be symmetric, and twice as fast.
# ReLU (rectified linear unit) lets through what is positive.

# %% id="three-run"
z = np.linspace(-5, 5, 201)
functions = {"sigmoid": F.sigmoid, "tanh": F.tanh, "ReLU": F.relu}
values, slopes = {}, {}
for name, function in functions.items():
    x = Tensor(z, requires_grad=True)
    y = function(x)
    y.sum().backward()
    values[name], slopes[name] = y.data, x.grad

figure, ((left, right),) = several(2, width=9.5, height=3.6)
curves(z, values, alt="", axes=left, title="value", xlabel="z", ylim=(-1.2, 2.2))
curves(z, slopes, alt="", axes=right, title="slope", xlabel="z", ylim=(-0.1, 1.1))
tops = ", ".join(f"{name} {slope.max():.2f}" for name, slope in slopes.items())
Picture(
    figure,
    f"Three activations and their slopes. Largest slopes: {tops}. Those of sigmoid and tanh fall to 0 on both sides.",
)

# %% [markdown] id="predict-tanh"
# How to read it: on the right is the factor by which each multiplies a gradient on its way back.
#
# **Predict.** The slope of tanh falls to 0 on both sides, faster than that of the sigmoid. Twenty untrained
# layers of tanh, with Xavier's initial weights as in lesson 04: of the last layer's gradient the first gets
#
# - (a) next to nothing, as with the sigmoid
# - (b) about a hundredth
# - (c) all of it, more or less
#
# Choose before you run the next cell.

# %% id="flow-run"
names = ["sigmoid, Xavier", "tanh, Xavier", "ReLU, He", "ReLU, N(0, 1/n)"]
numbers = vanishing_gradient(stacks=names, depths=[10, 20], seeds=range(5 * SEED, 5 * SEED + 5))
rows = {(row["stack"], row["depth"]): row for row in numbers["stacks"]}
for (name, depth), row in rows.items():
    print(f"{name:16} {depth:2} layers   first {row['first']:.1e}   last {row['last']:.1e}   ratio {row['ratio']:.2g}")
gradient_flow({name: rows[name, 20]["norms"] for name in names}, title="20 layers, untrained")

# %% [markdown] id="flow-words"
# How to read it: as in lesson 04, the loss is at the right, and a line that falls to the left vanishes. What "He"
# and "N(0, 1/n)" mean comes in a moment.

# %% id="flow-claim"
claim("first/last, 10 layers of sigmoid", rows["sigmoid, Xavier", 10]["ratio"], 8e-7, 8e-6, seen=(1.64e-6, 2.4e-6))
claim("first/last, 10 layers of ReLU from He's weights", rows["ReLU, He", 10]["ratio"], 0.15, 1.5, seen=(0.339, 0.524))
claim("first/last, 10 layers of tanh", rows["tanh, Xavier", 10]["ratio"], 0.8, 1.6, seen=(1.06, 1.24))
claim("first/last, 20 layers of tanh", rows["tanh, Xavier", 20]["ratio"], 0.7, 2.2, seen=(1.07, 1.4))

# %% [markdown] id="why-tanh"
# It is (c). Flat ends are not what loses the gradient: tanh has them, and loses nothing. What counts is the slope
# *where the units stand*. They stand around 0, and there the slope of tanh is 1 and that of the sigmoid a
# quarter.
#
# ReLU's slope is 1 for half of the units and 0 for the other half. That sounds like a factor of a half or so;
# where has it gone? Into the initial weights.

# %% [markdown] id="variance"
# ## One line of arithmetic
#
# A unit adds up $n$ inputs, $z = \sum_{j=1}^n w_j\, y_j$. Draw the weights independently, with mean 0. When we
# square the sum and average, every cross term $w_i w_j\, y_i y_j$ has a factor of mean 0 and goes; what is left
# is $n$ equal terms:
#
# $$E[z^2] = n \,\mathrm{Var}[w] \; E[y^2]$$
#
# That is the line. Now see what the activation does to $E[y^2]$:
#
# - **tanh near 0** changes little, $y \approx z$. To keep the size from layer to layer, $n\,\mathrm{Var}[w] = 1$.
#   On the way back the same line holds for gradients, with the number of *outputs* in place of $n$. Both cannot
#   be had at once where a layer is not square, so Xavier Glorot takes the mean of the two numbers:
#   $\mathrm{Var}[w] = 2/(n_\text{in} + n_\text{out})$.
# - **ReLU** deletes the negative half. $z$ is symmetric around 0, so exactly half of its mean square is gone:
#   $E[y^2] = \frac12 E[z^2]$. To keep the size, $n\,\mathrm{Var}[w] = 2$. These are Kaiming He's weights,
#   $\mathrm{Var}[w] = 2/n$, and the 2 is all there is to them. The way back is the same: half of the gradients
#   are deleted, the other half pass unchanged.

# %% [markdown] id="predict-variance"
# **Predict.** Ten layers of ReLU, weights from $N(0, 1/n)$, which would be right for tanh. The mean square of $z$
# in layer 10, compared with layer 1, is
#
# - (a) half as large
# - (b) about a tenth
# - (c) about two thousandths


# %% id="variance-run"
def mean_squares(scale, depth=10, width=512, seed=SEED):
    """E[z²] of each layer of a ReLU stack, for weights from N(0, scale/n) and inputs from N(0, 1)."""
    rng = np.random.default_rng(seed)
    y, found = rng.normal(size=(128, width)), []
    for _ in range(depth):
        weight = rng.normal(0, math.sqrt(scale / width), (width, width))
        z = y @ weight.T
        found.append((z * z).mean())
        y = np.maximum(z, 0)
    return found


layers = range(1, 11)
measured = {scale: mean_squares(scale) for scale in (1, 2, 4)}
lines = {f"n·Var[w] = {scale}": found for scale, found in measured.items()}
squares = curves(
    layers,
    lines,
    log="y",
    title="Size of the sums z in ten layers of ReLU",
    xlabel="layer",
    ylabel="mean square of z",
    alt="From layer 1 to 10 the mean square goes "
    + "; ".join(f"from {found[0]:.2g} to {found[-1]:.2g} with {name}" for name, found in lines.items())
    + ". Dotted lines: what the arithmetic predicts.",
)
for scale in measured:
    predicted = [scale * (scale / 2) ** (layer - 1) for layer in layers]
    squares.figure.axes[0].plot(layers, predicted, ":", color=BLACK, linewidth=2.5)
squares

# %% id="variance-claim"
per_layer = {scale: (found[-1] / found[0]) ** (1 / 9) for scale, found in measured.items()}
claim("factor a layer of E[z²] in ReLU with N(0, 1/n)", per_layer[1], 0.45, 0.55, seen=(0.492, 0.521))
claim("factor a layer of E[z²] in ReLU with N(0, 2/n), He", per_layer[2], 0.9, 1.1, seen=(0.984, 1.05))
less = rows["ReLU, He", 20]["first"] / rows["ReLU, N(0, 1/n)", 20]["first"]
claim(
    "20 layers: first layer's gradient with He's weights, over that with N(0, 1/n)", less, 500, 2500, seen=(1010, 1340)
)

# %% [markdown] id="why-variance"
# It is (c): a half for each of nine steps, $2^{-9} = 1/512$. (How to read the picture: coloured lines are
# measured, the dotted ones are the arithmetic; level is what one wants.) With four instead of two it explodes at
# the same pace.
#
# Go back to the picture of gradients: ReLU with $N(0, 1/n)$ lies level, and nothing seems wrong. But *both ends*
# are about a thousand times smaller than with He's weights: the signal has shrunk by $\sqrt{1/2}$ a layer on the
# way forward, the gradient on the way back, and a weight's gradient is the product of the two. **A ratio hides
# sizes.** Twenty factors of $\sqrt 2$ are $2^{10} = 1024$, and the last claim finds them.

# %% [markdown] id="x1"
# ## Exercise 1: He's weights
#
# Draw He's initial weights, with the $n$ of the arithmetic above. The shape is (out, in) for a linear layer and
# (out, in, k, k) for a convolution with k × k kernels. How many numbers does one output add up?


# %% id="x1-stub"
def he_normal(rng, shape):
    """Weights of this shape from a normal distribution of mean 0 and variance 2/n; rng is a numpy.random.Generator."""
    raise NotImplementedError


# %% [markdown] id="x1-hint"
# <details>
# <summary>Hint</summary>
#
# `rng.normal(mean, deviation, shape)` wants the standard deviation, not the variance. One output of a convolution
# adds up a k × k window of *every* input channel; `math.prod` multiplies a tuple.
#
# </details>


# %% id="x1-solution"
def he_normal(rng, shape):
    """Weights of this shape from a normal distribution of mean 0 and variance 2/n; rng is a numpy.random.Generator."""
    n = math.prod(shape[1:])
    return rng.normal(0, math.sqrt(2 / n), shape)


# %% id="x1-check"
@check
def he_weights():
    for shape, n in (((400, 100), 100), ((100, 400), 400), ((64, 32, 3, 3), 288)):
        weight = he_normal(np.random.default_rng(7), shape)
        assert weight is not None, "return the weights"
        assert weight.shape == shape, f"weights of shape {shape} were asked for, got {weight.shape}"
        wanted, std = math.sqrt(2 / n), weight.std()
        assert abs(std / wanted - 1) < 0.03, (
            f"{shape}: the deviation should be √(2/{n}) = {wanted:.4f}, it is {std:.4f}"
        )
        assert abs(weight.mean()) < 0.05 * wanted, f"{shape}: the mean should be 0, it is {weight.mean():.4f}"
        tails = ((weight / std) ** 4).mean()
        assert abs(tails - 3) < 0.3, (
            f"{shape}: E[w⁴]/Var² is 3 for a normal distribution and 1.8 for a uniform one; yours has {tails:.2f}"
        )
    again, other = he_normal(np.random.default_rng(7), (8, 8)), he_normal(np.random.default_rng(8), (8, 8))
    same = he_normal(np.random.default_rng(7), (8, 8))
    assert (again == same).all(), "the same rng should give the same weights: draw from the rng that is given"
    assert (again != other).any(), "another rng should give other weights: draw from the rng that is given"


# %% [markdown] id="x2"
# ## Exercise 2: a ReLU stack, by hand
#
# Forward and backward through a stack of ReLU layers without biases, in NumPy:
#
# $$z_l = y_{l-1} W_l^\top, \qquad y_l = \max(z_l, 0), \qquad y_0 = x$$
#
# `x` is (N, n₀), `weights[l]` is (nₗ₊₁, nₗ) as in `Linear`, and `dy` is the gradient of the loss with respect to
# what the last layer returns. Return the gradient with respect to `x`.


# %% id="x2-stub"
def gradient_of_input(weights, x, dy):
    """dL/dx of shape (N, n₀), for dy = dL/dy of the last layer; all three arguments stay as they are."""
    raise NotImplementedError


# %% [markdown] id="x2-hint"
# <details>
# <summary>Hint</summary>
#
# ReLU's slope is 1 where $z > 0$ and 0 elsewhere: a mask. Go forwards once and keep each layer's mask in a list.
# Then go backwards, last layer first: mask, then weights.
#
# </details>

# %% [markdown] id="x2-hint-2"
# <details>
# <summary>One more: transposed or not?</summary>
#
# Forwards, (N, nₗ) becomes (N, nₗ₊₁) with `weight.T`. Backwards, (N, nₗ₊₁) must become (N, nₗ). The shapes leave
# one choice.
#
# </details>


# %% id="x2-solution"
def gradient_of_input(weights, x, dy):
    """dL/dx of shape (N, n₀), for dy = dL/dy of the last layer; all three arguments stay as they are."""
    masks = []
    for weight in weights:
        z = x @ weight.T
        masks.append(z > 0)
        x = np.maximum(z, 0)
    for weight, mask in zip(weights[::-1], masks[::-1], strict=True):
        dy = (dy * mask) @ weight
    return dy


# %% id="x2-check"
@check
def gradient_through_relu():
    rng = np.random.default_rng(8)
    for sizes in ((3, 4), (5, 7, 6), (6, 6, 6, 6, 6)):
        weights = [rng.normal(size=(out, n)) for n, out in pairwise(sizes)]
        x, dy = rng.normal(size=(5, sizes[0])), rng.normal(size=(5, sizes[-1]))
        asked = [weight.copy() for weight in weights], x.copy(), dy.copy()
        got = gradient_of_input(*asked)
        y = start = Tensor(x, requires_grad=True)
        for weight in weights:
            y = F.relu(F.linear(y, Tensor(weight)))
        y.backward(dy)
        words = f"{len(weights)} layer{'s' * (len(weights) > 1)} of sizes {sizes}"
        assert np.shape(got) == x.shape, f"{words}: dx should have the shape of x, {x.shape}, got {np.shape(got)}"
        error = abs(got - start.grad).max()
        assert error < 1e-9, f"{words}: dx differs from what minidense's engine gives, by up to {error:.3g}"
        for mine, before in zip((*asked[0], *asked[1:]), (*weights, x, dy), strict=True):
            assert (mine == before).all(), f"{words}: weights, x and dy belong to the caller; work on copies"


# %% [markdown] id="train"
# ## Does it train?
#
# Until now we have looked at gradients before the first step. Now 3, 10 and 20 hidden layers of 64 units learn to
# read digits: 1,437 pictures of 8 × 8 pixels to train with, 360 others to test. One test picture is 0.28 %, and
# every number below is the mean of two seeds, so differences of a per cent or so mean nothing. SGD with momentum
# 0.9, batches of 50, 30 epochs, constant rates: 0.1 for the sigmoid, 0.01 for the others. (This takes a while:
# eighteen networks.)

# %% [markdown] id="predict-train"
# **Predict.** Sigmoid against ReLU, on the test pictures:
#
# - (a) ReLU is clearly better with 3 layers, and more so with 10
# - (b) about equal with 3 layers; with 10 the sigmoid is worse, but learns
# - (c) about equal with 3 layers; with 10 the sigmoid is not better than guessing

# %% id="train-run"
trained = sigmoid_against_relu(seeds=[2 * SEED, 2 * SEED + 1], epochs=30)
print(table(trained))
picture(trained)

# %% [markdown] id="train-words"
# How to read it: a panel for each depth, a line for each activation. 10 % is about what guessing gives; a network
# that names the same digit for every picture is right in 7 to 13 %, depending on the digit.

# %% id="train-claim"
final = {(row["activation"], row["depth"]): row for row in trained["stacks"]}
accuracy = {key: 100 * row["test_accuracy"]["mean"] for key, row in final.items()}
claim("accuracy of 3 layers of sigmoid, %", accuracy["sigmoid", 3], 90, 99, seen=(95.9, 97))
claim("accuracy of 3 layers of ReLU, %", accuracy["relu", 3], 92, 99.5, seen=(96.5, 97.8))
claim(
    "3 layers: accuracy of ReLU minus that of sigmoid, %",
    accuracy["relu", 3] - accuracy["sigmoid", 3],
    -3,
    5,
    seen=(-0.139, 1.25),
)
claim("accuracy of 10 layers of sigmoid, %", accuracy["sigmoid", 10], 5, 15, seen=(7.5, 7.78))
claim("accuracy of 10 layers of ReLU, %", accuracy["relu", 10], 85, 99, seen=(96.6, 97.4))
claim("accuracy of 20 layers of tanh, %", accuracy["tanh", 20], 85, 99, seen=(96.8, 98.2))
claim(
    "digits, 10 layers of sigmoid: first/last before training",
    final["sigmoid", 10]["gradient_ratio"],
    1e-6,
    2e-5,
    seen=(3.42e-06, 6.11e-06),
)
claim(
    "digits, 10 layers of ReLU: first/last before training",
    final["relu", 10]["gradient_ratio"],
    0.15,
    3,
    seen=(0.483, 1.1),
)

# %% [markdown] id="why-train"
# It is (c). With three layers the sigmoid starts slowly and ends about where the others do. The same sigmoid does
# not learn *at all* with ten. **Depth is the trouble, not the sigmoid alone.**
#
# Would another rate help? Lesson 04 said no: a rate that moves the first layer throws the last one through the
# wall. Three rates to see it:

# %% id="rates-run"
digits = load("digits")
best = 0.0
for rate in (0.01, 1.0, 10.0):
    _, history = trained_perceptron(digits, depth=10, activation="sigmoid", learning_rate=rate, epochs=5, seed=SEED)
    print(f"10 layers of sigmoid at rate {rate:<4}: {100 * history[-1]['test_accuracy']:.1f} % of the test pictures")
    best = max(best, 100 * history[-1]["test_accuracy"])
claim("best accuracy of 10 layers of sigmoid at three other rates, %", best, 5, 20, seen=(10, 13.4))

# %% [markdown] id="twenty"
# Now look at the third panel. With 20 layers ReLU's curve jumps, and where it ends depends on the seed (the ± in
# the table): by the claim below it stays behind tanh by next to nothing or by tens of points. Yet the gradients
# of both looked well before the first step. A good ratio at the start does not promise a good training. For
# depths like these one needs batch normalisation (lesson 07) and short paths (lesson 09).

# %% id="twenty-claim"
claim(
    "20 layers: accuracy of tanh minus that of ReLU, %",
    accuracy["tanh", 20] - accuracy["relu", 20],
    -4,
    90,
    seen=(1.66, 49.4),
)

# %% [markdown] id="dead"
# ## ReLU's own danger
#
# A slope of exactly 0 on one side has a price. If a unit's $z$ is negative for *every* picture, then its output
# is 0 for every picture, its gradient is 0 for every picture, and its own weights do not change any more. It is
# **dead**, unless the layers below happen to move its inputs.

# %% [markdown] id="predict-dead"
# **Predict.** Three layers, as above, but with a learning rate of 0.3 instead of 0.01. ReLU will
#
# - (a) learn faster, with some trembling
# - (b) be about as good as tanh at the same rate
# - (c) lose most of its units in the first epochs, for good

# %% id="dead-run"
pictures, _ = next(training_batches(digits, size=1000, seed=(SEED, 0), augment=False))


def last_hidden(model, x):
    """What the last hidden layer says of each picture: (N, 64)."""
    y = Tensor(x)
    with no_grad():
        for name, layer in model.named_children():
            if name == "classifier":
                break
            y = layer(y)
    return y.data


rates = [0.01, 0.03, 0.1, 0.3]
shown = {"ReLU: accuracy": [], "tanh: accuracy": [], "ReLU: dead units in layer 3": []}
for rate in rates:
    for name in ("relu", "tanh"):
        model, history = trained_perceptron(digits, depth=3, activation=name, learning_rate=rate, epochs=5, seed=SEED)
        shown[{"relu": "ReLU", "tanh": "tanh"}[name] + ": accuracy"].append(100 * history[-1]["test_accuracy"])
        if name == "relu":
            shown["ReLU: dead units in layer 3"].append(100 * (last_hidden(model, pictures) == 0).all(axis=0).mean())
curves(
    rates,
    shown,
    log="x",
    title="Three layers after five epochs, by learning rate",
    xlabel="learning rate",
    ylabel="%",
    ylim=(-3, 103),
    alt="By learning rate, "
    + "; ".join(f"{name}: {', '.join(f'{value:.0f} %' for value in line)}" for name, line in shown.items())
    + f"; rates {', '.join(map(str, rates))}.",
)

# %% [markdown] id="dead-words"
# How to read it: two lines of accuracy, and one for the share of the third layer's 64 units that say 0 of each of
# 1,000 training pictures.

# %% id="dead-claim"
claim("dead units at rate 0.01, %", shown["ReLU: dead units in layer 3"][0], 0, 25, seen=(3.12, 14.1))
claim("dead units at rate 0.3, %", shown["ReLU: dead units in layer 3"][3], 75, 100, seen=(100, 100))
claim("accuracy of ReLU at rate 0.3, %", shown["ReLU: accuracy"][3], 4, 35, seen=(7.22, 11.7))
claim("accuracy of tanh at rate 0.3, %", shown["tanh: accuracy"][3], 75, 98, seen=(88.8, 92.5))

# %% [markdown] id="why-dead"
# It is (c). Steps that are far too long throw weights and biases to where every $z$ is negative, and when a whole
# layer is dead, nothing comes back through it that could revive it: the network says the same of every picture,
# and more epochs do not help. tanh learns even at this rate, because a slope that is small is not a slope of 0.
#
# At the left end a few dead units do no visible harm. And a unit that is 0 for *most* pictures still learns from
# the others; the one that is 0 for *all* of them is lost.

# %% [markdown] id="x3"
# ## Exercise 3: count the dead
#
# `y` holds what a layer of ReLU says: a row for each picture, a column for each unit. Count the units that are
# dead.


# %% id="x3-stub"
def dead_units(y):
    """How many columns of y (N pictures, units) are exactly 0 in every row: a whole number."""
    raise NotImplementedError


# %% [markdown] id="x3-hint"
# <details>
# <summary>Hint</summary>
#
# `y == 0` is an array of truths. `all` and `any` take an `axis`: the one that disappears. Which one should,
# pictures or units?
#
# </details>


# %% id="x3-solution"
def dead_units(y):
    """How many columns of y (N pictures, units) are exactly 0 in every row: a whole number."""
    return int((y == 0).all(axis=0).sum())


# %% id="x3-check"
@check
def dead_units_are_counted():
    rng = np.random.default_rng(9)
    for pictures, units, dead in ((6, 4, 0), (5, 9, 3), (40, 7, 7), (1, 5, 2)):
        y = np.maximum(rng.normal(size=(pictures, units)), 0)
        y[rng.integers(0, pictures), :] += 1e-6 + np.abs(rng.normal(size=units)) * 1e-6  # all alive, some hardly
        gone = rng.permutation(units)[:dead]
        y[:, gone] = 0
        y[:, np.setdiff1d(np.arange(units), gone)[1:2]] *= 1e-9  # whispers, but lives
        got = dead_units(y.copy())
        assert got == dead, f"{dead} of {units} units are 0 for all of {pictures} pictures; dead_units says {got}"
    y = np.ones((3, 5))
    y[1] = 0
    assert dead_units(y) == 0, "all are 0 for one picture, and none for all of them: nobody is dead"


# %% [markdown] id="differs-16"
# ## Where lecture and paper differ
#
# **Lecture and paper differ.** The lecture presents ReLU as *the* solution of the vanishing gradient, and batch
# normalisation as another. Both sentences are too strong. For ReLU you have seen three reasons:
#
# - tanh does it as well. The cure is a slope of 1 where the units stand, not that the right end does not flatten.
# - ReLU needs initial weights of its own, and a ratio does not show it.
# - With good gradients at the start, 20 layers can still train badly.
#
# The ResNet paper says the same of much larger networks. Vanishing gradients have "been largely addressed by
# normalized initialization and intermediate normalization layers" (He et al. 2016, §1), and still a plain network
# of 56 layers, ReLU and batch normalisation throughout, has a *higher training error* on CIFAR-10 than one of 20
# (Fig. 1). Of the same effect on ImageNet the authors argue that it is "unlikely to be caused by vanishing
# gradients" (§4.1). Lesson 08 tells batch normalisation's half of the story.

# %% [markdown] id="break-it"
# ## Break it
#
# - In `mean_squares`, replace `np.maximum(z, 0)` by `np.maximum(z, 0.2 * z)`, a *leaky* ReLU. Which scale keeps
#   the size now? (Half of the mean square stays, and of the other half $0.2^2$.)
# - Train 20 layers of ReLU at a tenth of the rate: `trained_perceptron(digits, depth=20, activation="relu",
#   learning_rate=0.001, epochs=15, seed=SEED)`. Calmer? Better?
# - Draw the initial weights of ten ReLU layers from $N(0, 1/n)$: `initialiser="lecun_normal"` in
#   `trained_perceptron`. Gradients are $2^5$ times smaller at the start. Does the network care, at ten layers? At
#   twenty?

# %% [markdown] id="summary"
# ## Three lines to keep
#
# 1. What counts is the slope where the units stand: a quarter for sigmoid, 1 for tanh, 1 or 0 for ReLU. At ten
#    layers that is a few millionths of the gradient against a third or more of it.
# 2. $E[z^2] = n\,\mathrm{Var}[w]\,E[y^2]$: Xavier's weights keep it for tanh, He's, with a 2 for the half that
#    ReLU deletes, for ReLU.
# 3. Three layers of sigmoid learn about as well as three of ReLU, ten learn nothing. Depth is the trouble. ReLU
#    moves it from ten layers to twenty or so, and brings dead units.

# %% [markdown] id="paper"
# ## What the lecture and the papers say
#
# **He et al. 2015** derive the line of arithmetic above: $\frac12 n\,\mathrm{Var}[w] = 1$ (eq. 10 forwards, eq.
# 14 backwards). Their experiment is larger than ours. A convolutional network of 22 layers trains from Xavier's
# weights and from He's, but from He's the error falls sooner (Fig. 2); one of 30 layers trains from He's only
# (Fig. 3).
#
# **Glorot & Bengio 2010** give $\mathrm{Var}[w] = 2/(n_\text{in} + n_\text{out})$ (eq. 12), derived for functions
# with slope 1 at 0: for tanh, not for the sigmoid, which they call "unsuited for deep networks with random
# initialization".
#
# **ReLU** came to deep learning with Nair & Hinton 2010 and Glorot, Bordes & Bengio 2011. Krizhevsky, Sutskever &
# Hinton 2012 chose it for speed: a network of *four* convolutional layers comes to 25 % training error on
# CIFAR-10 six times faster than with tanh (Fig. 1). **DenseNet** uses ReLU in every composite function, He's
# weights (Huang et al. 2017, §4.2), *and* batch normalisation, *and* dense connections.
#
# **Limits of what was measured here.** Fully connected layers of width 64, two seeds, 30 epochs, one rate for
# each activation, not searched for at each depth. That 20 layers of ReLU are hard is a statement about these
# settings. Which of tanh and ReLU is better at 3 or 10 layers, 360 pictures cannot say.

# %% [markdown] id="source"
# ## The real ones
#
# The weights of exercise 1, and the mask of exercise 2, as the package has them.

# %% id="source-code"
print(inspect.getsource(init.he_normal))
print(inspect.getsource(ReLU))
