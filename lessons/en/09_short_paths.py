# %% [markdown] id="why-short"
# Lesson 08 left you with a network in which nothing vanishes any more, and which still has a problem: with batch
# norm and ReLU the gradient *grows* by a fifth at every layer on its way to the image. After thirty layers of
# that, no learning rate suits both ends.
#
# In 2015 and 2016 came four ways out: Highway Networks, ResNets, stochastic depth, FractalNets. The DenseNet
# paper sees one idea in all four: "they create short paths from early layers to later layers" (Huang et al. 2017,
# §1). You train a network without such paths beside its twin with them, count the paths, and build the heart of
# three of the four by hand.

# %% id="imports" tags=["setup"]
import inspect
import math
from fractions import Fraction

import numpy as np

from minidense import Tensor, no_grad
from minidense import functional as F
from minidense.data import load, training_batches
from minidense.experiments.paths import fractal_ways, path_lengths, residual_ways
from minidense.experiments.shortcuts import flow_of_stacks
from minidense.experiments.stack_training import OneCycle
from minidense.experiments.stacks import stack
from minidense.lessons import SEED, check, claim
from minidense.models import fractalnet
from minidense.models.highway import HighwayLayer
from minidense.models.stochastic_depth import GatedUnit
from minidense.nn import Conv2d
from minidense.plots import Picture, curves, gradient_flow, several

digits = load("digits")

# %% [markdown] id="twins"
# ## Two networks from the same parts
#
# Thirty 3 × 3 convolutions of 12 channels, each with batch norm. (One more stands in front, from one channel to
# twelve.) We wire them up twice. The **plain** network puts one behind the other, $x \to
# \mathrm{ReLU}(\mathrm{BN}(\mathrm{conv}(x)))$. The **residual** network takes them in pairs, $\mathcal F$, and
# adds to what a pair returns what went into it (He et al. 2015, eq. 1):
#
# $$x \to \mathrm{ReLU}(x + \mathcal F(x))$$


# %% id="twins-code"
def plain_forward(x, parts):
    for conv, bn in parts:
        x = F.relu(bn(conv(x)))
    return x


def residual_forward(x, parts):
    for (conv1, bn1), (conv2, bn2) in zip(parts[0::2], parts[1::2], strict=True):
        branch = bn2(conv2(F.relu(bn1(conv1(x)))))
        x = F.relu(x + branch)
    return x


plain = stack("plain", depth=30, width=12, seed=SEED)
residual = stack("residual", depth=30, width=12, seed=SEED)

images, labels = next(training_batches(digits, size=64, seed=(SEED, 0), augment=False))
(stem, *parts) = [(getattr(plain, f"conv{i}"), getattr(plain, f"bn{i}")) for i in range(31)]  # the plain one's parts
with no_grad():
    x = plain_forward(Tensor(images), [stem])
    by_hand = {"plain": plain_forward(x, parts), "residual": residual_forward(x, parts)}
    logits = {name: plain.fc(F.global_avg_pool2d(y)).data for name, y in by_hand.items()}
    apart = max(
        abs(logits[model] - net(Tensor(images)).data).max() for model, net in (("plain", plain), ("residual", residual))
    )
claim("largest difference between our wiring and the package's, either network", apart, 0, 1e-3, seen=(0, 0))
claim("parameters of the plain network", plain.parameter_count(), 39_862, 39_862)
claim("parameters of the residual network", residual.parameter_count(), 39_862, 39_862)

# %% [markdown] id="twins-words"
# Our residual wiring took its parts from the *plain* network: the two start from the same 39,862 numbers, and an
# addition has nothing to learn. Now both see the same digits in the same order.

# %% [markdown] id="predict-train"
# **Predict.** Four epochs of training, the same rates for both. On the 360 test images
#
# - (a) both get nearly all right: they have the same parameters
# - (b) the residual one is ahead by a few percent
# - (c) the residual one gets nearly all right, and the plain one is far behind, by more than ten percent
#
# Choose before you run the next cell.

# %% id="train-run"
recipe = OneCycle(epochs=4)  # SGD, Nesterov momentum 0.9; the rate goes up to 0.1 and down to 0 again
shallow = stack("plain", depth=6, width=12, seed=SEED)
histories = {
    name: recipe.train(model, digits, seed=SEED)
    for name, model in (("plain, 30 layers", plain), ("residual, 30 layers", residual), ("plain, 6 layers", shallow))
}
figure, ((left, right),) = several(2, width=9.5, height=3.6)
for axes, key, unit, title in (
    (left, "train_loss", 1, "Training loss"),
    (right, "test_accuracy", 100, "Test accuracy, %"),
):
    lines = {name: [unit * record[key] for record in history] for name, history in histories.items()}
    curves(range(1, 5), lines, axes=axes, alt="", title=title, xlabel="epoch", xticks=range(1, 5))
ends = {name: history[-1] for name, history in histories.items()}
Picture(
    figure,
    "Training loss and test accuracy over four epochs. At the end: "
    + "; ".join(
        f"{name}: loss {end['train_loss']:.2f}, accuracy {end['test_accuracy']:.0%}" for name, end in ends.items()
    ),
)

# %% id="train-claim"
plain_end, residual_end, shallow_end = ends.values()
lead = shallow_end["test_accuracy"] - plain_end["test_accuracy"]
claim("test accuracy, residual, 30 layers", residual_end["test_accuracy"], 0.94, 1.0, seen=(0.98, 0.987))
claim("test accuracy, plain, 30 layers", plain_end["test_accuracy"], 0.1, 0.83, seen=(0.291, 0.481))
claim("test accuracy, plain, 6 layers", shallow_end["test_accuracy"], 0.7, 1.0, seen=(0.869, 0.981))
claim("plain: 6 layers ahead of 30, test accuracy", lead, 0.1, 0.9, seen=(0.408, 0.623))
claim("training loss of the last epoch, plain, 30 layers", plain_end["train_loss"], 0.5, 2.3, seen=(1.2, 1.78))
claim(
    "training loss of the last epoch, residual, 30 layers", residual_end["train_loss"], 0.01, 0.2, seen=(0.0412, 0.0641)
)

# %% [markdown] id="why-train"
# It is (c). Look at the left panel first: the deep plain network is bad at its own *training* images, so this is
# no overfitting. And a plain network of only six layers is far better than the one with thirty.
#
# That is absurd, and He et al. built their paper upon it. The deep network could copy the shallow one: six layers
# that do the work, twenty-four that hand on what they get. The solution is there; training does not find it. They
# called it the **degradation** problem, and concluded: if doing nothing is hard to learn, let layers start near
# it. In $x + \mathcal F(x)$ a branch that returns zero is a layer that is not there.

# %% [markdown] id="sum"
# ## What an addition does to a gradient
#
# Lesson 01: paths that meet add up. In $y = x + \mathcal F(x)$ two paths lead from $y$ back to $x$:
#
# $$\frac{\partial L}{\partial x} = \frac{\partial L}{\partial y} + \mathcal F'(x)^\top \frac{\partial L}{\partial y}$$
#
# The first term arrives as it is, whatever the weights are, through one unit or through $n$.

# %% [markdown] id="x1"
# ## Exercise 1: back through n units
#
# A small residual network of vectors, without batch norm and without the ReLU behind the addition. Unit $l$ has
# two matrices:
#
# $$x_{l} = x_{l-1} + W_2\, \mathrm{ReLU}(W_1\, x_{l-1})$$
#
# Given $x_0$, the units, and $\partial L/\partial x_n$, return $\partial L/\partial x_0$.


# %% id="x1-stub"
def back_through_units(x, units, dy):
    """dL/dx_0 for x = x_0 (C,), units a list of (W1 (H, C), W2 (C, H)), first unit first, and dy = dL/dx_n (C,)."""
    raise NotImplementedError


# %% [markdown] id="x1-hint"
# <details>
# <summary>Hint</summary>
#
# Go forward first and keep each unit's $z = W_1 x$: the way back asks where it was positive. Then take the units
# from the last to the first. The branch's part goes back through $W_2$, the ReLU and $W_1$, the matrices
# transposed. What of the other part?
#
# </details>


# %% id="x1-solution"
def back_through_units(x, units, dy):
    """dL/dx_0 for x = x_0 (C,), units a list of (W1 (H, C), W2 (C, H)), first unit first, and dy = dL/dx_n (C,)."""
    kept = []
    for W1, W2 in units:
        z = W1 @ x
        kept.append(z)
        x = x + W2 @ np.maximum(z, 0)
    for (W1, W2), z in zip(reversed(units), reversed(kept), strict=True):
        through_branch = W1.T @ ((W2.T @ dy) * (z > 0))
        dy = dy + through_branch
    return dy


# %% id="x1-check"
@check
def back_through_residual_units():
    def forward(x, units):
        for W1, W2 in units:
            x = x + W2 @ np.maximum(W1 @ x, 0)
        return x

    rng = np.random.default_rng(9)
    for n in (0, 1, 2, 5):
        units = [(rng.normal(size=(6, 4)) / 2, rng.normal(size=(4, 6)) / 2) for _ in range(n)]
        x, dy = rng.normal(size=4), rng.normal(size=4)
        before = x.copy(), dy.copy()
        got = back_through_units(x, units, dy)
        assert np.shape(got) == (4,), f"dL/dx_0 has the shape of x_0, (4,); got {np.shape(got)}"
        assert (x == before[0]).all(), "x has changed; it belongs to the caller"
        assert (dy == before[1]).all(), "dy has changed (dy += … works in place); it belongs to the caller"
        step = 1e-6 * np.eye(4)
        wanted = [(forward(x + h, units) - forward(x - h, units)) @ dy / 2e-6 for h in step]
        assert np.allclose(got, wanted, rtol=1e-5, atol=1e-6), (
            f"{n} units: moving x_0 a little gives {np.round(wanted, 4)}, back_through_units {np.round(got, 4)}"
        )
    silent = 50 * [(np.zeros((6, 4)), np.zeros((4, 6)))]
    got = back_through_units(np.ones(4), silent, np.arange(4.0))
    assert (got == np.arange(4.0)).all(), f"through 50 branches that return 0 dy should arrive as it was, got {got}"


# %% [markdown] id="paths"
# ## Counting paths
#
# Write a unit as $(1 + f)$, "take the shortcut, or take the branch". Three units one behind the other are
#
# $$(1 + f_3)(1 + f_2)(1 + f_1) = 1 + f_1 + f_2 + f_3 + f_2f_1 + f_3f_1 + f_3f_2 + f_3f_2f_1 .$$
#
# If the $f$ are *derivatives*, the product may be multiplied out like this: eight paths for the gradient, of
# lengths 0 to 3. Veit, Wilber and Belongie (2016) proposed to see a residual network as such a bundle of $2^n$
# paths. (The code calls them `ways`.)

# %% [markdown] id="predict-paths"
# **Predict.** The 110-layer ResNet has 54 units, so there are $2^{54}$ paths, the longest through all 54. Draw
# one of the paths at random. How likely is it to go through at least 45 units?
#
# - (a) about one in six, since 45 to 54 is about a sixth of all lengths
# - (b) about one in a hundred
# - (c) less than one in a million

# %% id="paths-run"
ways = residual_ways(54)  # ways[k]: how many paths take k branches
shares = [count / sum(ways) for count in ways]
typical = sum(shares[19:36])
curves(
    range(55),
    {"residual, 54 units": shares},
    title="Paths through a residual network by length",
    xlabel="units that a path goes through",
    ylabel="share of the paths",
    alt=f"A bell around 27 of 54 units; {typical:.0%} of the paths have 19 to 35, the ends of the axis are empty.",
)

# %% id="paths-claim"
claim("paths through 54 units", sum(ways), 2**54, 2**54)
claim("paths through all 54", ways[54], 1, 1)
claim("share of paths through at least 45", sum(shares[45:]), 3.6e-7, 3.7e-7, seen=(3.64e-7, 3.65e-7))
claim("share of paths through 19 to 35", typical, 0.980, 0.981, seen=(0.98, 0.981))

# %% [markdown] id="why-paths"
# It is (c). How to read the picture: the height is the share of all paths that have this length. A path is 54
# tosses of a coin, so the mean is 27, and 98 % lie within 19 to 35. The path through everything, the only one
# that the plain network has, is one in $2^{54} \approx 1.8 \cdot 10^{16}$.
#
# *How many* is not *how much*: a long path has many factors, and may carry next to nothing. Veit et al. measured
# that on a trained network: "most of the gradient in a residual network with 110 layers comes from paths that are
# only 10-34 layers deep" (abstract), and 34 layers are 17 of the 54 units. (The ReLU behind the addition, left
# out here, is a subject of lesson 12.)

# %% [markdown] id="x2"
# ## Exercise 2: paths by length
#
# Count them for any stack. Some layers have a shortcut around them, some do not. Return a list: how many paths
# have length 0, 1, 2, …, up to the number of layers, where the length is how many layers a path goes through.


# %% id="x2-stub"
def ways_by_length(has_shortcut):
    """[ways of length 0, of length 1, …, of length n] through n layers; has_shortcut is a list of n truth values."""
    raise NotImplementedError


# %% [markdown] id="x2-hint"
# <details>
# <summary>Hint</summary>
#
# Begin with no layers: one path, of length 0. Then add layer after layer, and ask how the list changes. A layer
# without a shortcut makes every path longer by one: the list moves one place to the right.
#
# </details>

# %% [markdown] id="x2-hint-2"
# <details>
# <summary>Another hint</summary>
#
# With a shortcut, each path becomes two: one as long as before, one longer by one. (Listing all combinations
# would be right too, and need $2^{54}$ steps.)
#
# </details>


# %% id="x2-solution"
def ways_by_length(has_shortcut):
    """[ways of length 0, of length 1, …, of length n] through n layers; has_shortcut is a list of n truth values."""
    ways = [1]
    for around in has_shortcut:
        through = [0, *ways]
        beside = [*ways, 0] if around else len(through) * [0]
        ways = [a + b for a, b in zip(through, beside, strict=True)]
    return ways


# %% id="x2-check"
@check
def ways_of_each_length():
    def wanted(flags):
        bypassed, fixed = sum(flags), len(flags) - sum(flags)
        return fixed * [0] + [math.comb(bypassed, k) for k in range(bypassed + 1)]

    cases = ([], [False], [True], [True, True, True], [False, True], [True, False], 5 * [False], [True, False] * 4)
    for flags in cases:
        got = ways_by_length(list(flags))
        assert got is not None, "return the list"
        assert list(got) == wanted(flags), f"ways_by_length({flags}) should be {wanted(flags)}, got {got}"
    asked = 54 * [True]
    got = ways_by_length(asked)
    assert asked == 54 * [True], "the list of shortcuts belongs to the caller: leave it as it was"
    assert got[27] == math.comb(54, 27), f"of 54 units with shortcuts, {math.comb(54, 27)} ways take 27; got {got[27]}"


# %% [markdown] id="highway"
# ## Highway Networks: a shortcut with a gate
#
# Half a year before the ResNet, Srivastava, Greff and Schmidhuber let a layer *learn* how much to let through
# (eq. 3):
#
# $$y = H(x) \odot T(x) + x \odot (1 - T(x)), \qquad T(x) = \sigma(W_T\, x + b_T)$$
#
# $T$, the *transform gate*, is a number between 0 and 1 for each value; $1 - T$ is the *carry gate*. The bias
# begins negative, so that the layers begin by carrying: −2 in the authors' files for convolutional networks.
# $\sigma(-2)$ is 0.12, so each layer lets 88 % through.

# %% [markdown] id="predict-carry"
# **Predict.** How much of the first feature maps is carried straight through 30 such layers, before training?
#
# - (a) about 88 %
# - (b) about a third
# - (c) about 2 % or less


# %% id="carry-run"
def carried_through(bias):
    """The product of all carry gates of an untrained highway stack, a mean over values, after each of 30 layers."""
    model = stack("highway", depth=30, width=8, seed=SEED)
    first, *gated = (getattr(model, name) for name in model.stages[0])
    with no_grad():
        x = F.relu(first(Tensor(images)))
        carried, after = np.ones(x.shape), [1.0]
        for layer in gated:
            layer.T.bias.data[...] = bias
            carried = carried * (1 - F.sigmoid(layer.T(x)).data)
            after.append(carried.mean())
            x = layer(x)
    return after


carried = {bias: carried_through(bias) for bias in (-1, -2, -4)}
curves(
    range(31),
    {"residual: the identity": 31 * [1.0], **{f"highway, bias −{-bias}": after for bias, after in carried.items()}},
    log="y",
    title="What is carried straight through, untrained",
    xlabel="layers",
    ylabel="share carried",
    alt="Share of the first feature maps that is left after 30 layers: "
    + ", ".join(f"{after[-1]:.2g} with a bias of −{-bias}" for bias, after in carried.items())
    + "; all of it on an identity.",
)

# %% id="carry-claim"
claim("0.88… to the thirtieth, (1 − σ(−2))³⁰", (1 - 1 / (1 + math.exp(2))) ** 30, 0.022, 0.023, seen=(0.0221, 0.0222))
claim("share carried through 30 layers with a bias of −2", carried[-2][-1], 0.003, 0.06, seen=(0.0108, 0.0156))
claim("share carried through 30 layers with a bias of −4", carried[-4][-1], 0.2, 0.6, seen=(0.392, 0.472))

# %% [markdown] id="why-carry"
# It is (c): 0.88 to the thirtieth is about 0.02, and the gates' random weights make it somewhat less. A shortcut
# with a gate on it is a product again, with factors below 1; only the ResNet's line stays at the top. So a deeper
# network wants a more negative bias: the authors tried −1 to −10, our stacks in `minidense.experiments` start at
# −4. What a gate buys is that it can treat each value in each image in its own way.

# %% [markdown] id="x3"
# ## Exercise 3: a highway layer
#
# Write it for vectors, a batch of them in the rows of $x$, with $H = \mathrm{ReLU}(x\,W_H^\top + b_H)$.


# %% id="x3-stub"
def highway_layer(x, W_H, b_H, W_T, b_T):
    """y = H(x)·T(x) + x·(1 − T(x)) for x (N, C); both W are (C outputs, C inputs), both b are (C,)."""
    raise NotImplementedError


# %% [markdown] id="x3-hint"
# <details>
# <summary>Hint</summary>
#
# Both gate and transform look at the *same* $x$, the layer's input. The products with $T$ are element by element,
# so `*`; those with the weights are `@`.
#
# </details>


# %% id="x3-solution"
def highway_layer(x, W_H, b_H, W_T, b_T):
    """y = H(x)·T(x) + x·(1 − T(x)) for x (N, C); both W are (C outputs, C inputs), both b are (C,)."""
    H = np.maximum(x @ W_H.T + b_H, 0)
    T = 1 / (1 + np.exp(-(x @ W_T.T + b_T)))
    return H * T + x * (1 - T)


# %% id="x3-check"
@check
def highway_layer_gates():
    rng = np.random.default_rng(10)
    x = rng.normal(size=(5, 3))
    W_H, W_T, b_H = rng.normal(size=(3, 3)), rng.normal(size=(3, 3)), rng.normal(size=3)
    before = x.copy()
    closed = highway_layer(x, W_H, b_H, W_T, np.full(3, -60.0))
    assert closed is not None, "return y"
    assert np.shape(closed) == (5, 3), f"y has the shape of x, (5, 3); got {np.shape(closed)}"
    assert np.allclose(closed, before), "with a gate bias of −60 T is 0, and y should be x itself"
    opened = highway_layer(x, W_H, b_H, W_T, np.full(3, 60.0))
    assert np.allclose(opened, np.maximum(before @ W_H.T + b_H, 0)), (
        "with a gate bias of +60 T is 1, and y should be H(x)"
    )
    b_T = rng.normal(size=3)
    got = highway_layer(x, W_H, b_H, W_T, b_T)
    for n in range(5):
        for c in range(3):
            h = max(0.0, sum(W_H[c, i] * before[n, i] for i in range(3)) + b_H[c])
            t = 1 / (1 + math.exp(-sum(W_T[c, i] * before[n, i] for i in range(3)) - b_T[c]))
            wanted = h * t + before[n, c] * (1 - t)
            assert abs(got[n, c] - wanted) < 1e-9, f"y[{n}, {c}] should be {wanted:.6f}, got {got[n, c]:.6f}"
    assert (x == before).all(), "x has changed; it belongs to the caller"


# %% [markdown] id="chance"
# ## Stochastic depth: units that are not there
#
# Huang, Sun and others (2016) took a ResNet, and for every mini-batch of training closed some of its units. An
# open unit is $\mathrm{ReLU}(x + \mathcal F(x))$, a closed one $\mathrm{ReLU}(x)$: in its branch nothing is
# computed, nothing learned. Unit $l$ of $L$ stays open with probability (eq. 4)
#
# $$p_l = 1 - \frac{l}{L}\,(1 - p_L), \qquad p_L = 0.5,$$
#
# so early units, on which all others depend, are nearly always open, and the last one half of the time.

# %% [markdown] id="predict-open"
# **Predict.** 54 units, $p_{54} = 0.5$. How many are open, on average?
#
# - (a) 27
# - (b) about 40
# - (c) about 50

# %% id="open-run"
expected = sum(1 - Fraction(number, 54) * Fraction(1, 2) for number in range(1, 55))
print(f"expected: {expected} = {float(expected)}")
numbers = path_lengths(units=54, mini_batches=1000, seed=SEED)["open_units"]  # drawn by a network of the package
exact, drawn = dict(zip(numbers["lengths"], numbers["shares"], strict=True)), numbers["drawn"]
curves(
    numbers["lengths"],
    {"exact": numbers["shares"], "1,000 mini-batches": drawn["shares"]},
    title="Stochastic depth: open units in a mini-batch",
    xlabel="open units of 54",
    ylabel="probability",
    xlim=(25, 55),
    alt=f"A bell around {numbers['mean']:.2f} open units with a deviation of {numbers['deviation']:.1f}; what was drawn follows it.",
)

# %% id="open-claim"
claim("expected number of open units of 54", float(expected), 40.25, 40.25)
claim("mean of 1,000 mini-batches", drawn["mean"], 39.7, 40.8, seen=(40.1, 40.4))
claim("standard deviation", numbers["deviation"], 2.9, 3.1, seen=(3.02, 3.03))
claim("probability that all 54 are open", exact[54], 4e-8, 5e-8, seen=(4.49e-8, 4.5e-8))

# %% [markdown] id="why-open"
# It is (b): $54 - \tfrac12 \cdot \tfrac{54 \cdot 55}{2 \cdot 54} = 40.25$ exactly. The authors save a quarter of
# the training time with it. How to read the picture: the height is the probability of so many open units. All 54,
# the network that is tested, is far out on the right (the last claim): it has in all likelihood *never once been
# there* during training.
#
# In the test all units are open, and then a unit contributes more than it did on average. So its branch is scaled
# down (eq. 5):
#
# $$x_l = \mathrm{ReLU}(p_l\,\mathcal F(x_{l-1}) + x_{l-1})$$

# %% [markdown] id="x4"
# ## Exercise 4: one unit, in training and in the test
#
# Write it: open, closed, or in the test, always with the ReLU at the end. `branch` is a function that costs time:
# do not call it where its result is not needed.


# %% id="x4-stub"
def stochastic_unit(x, branch, p, *, training, rng):
    """A unit that is open with probability p in training (one draw, rng.random(), for the whole batch), and scaled by p in the test."""
    raise NotImplementedError


# %% [markdown] id="x4-hint"
# <details>
# <summary>Hint</summary>
#
# `rng.random()` is a number between 0 and 1; it is below $p$ with probability $p$. Only one of the three cases
# knows $p$ as a factor. (Unlike PyTorch's dropout, which scales *up*, in training.)
#
# </details>


# %% id="x4-solution"
def stochastic_unit(x, branch, p, *, training, rng):
    """A unit that is open with probability p in training (one draw, rng.random(), for the whole batch), and scaled by p in the test."""
    if not training:
        y = x + p * branch(x)
    elif rng.random() < p:
        y = x + branch(x)
    else:
        y = x
    return np.maximum(y, 0)


# %% id="x4-check"
@check
def stochastic_unit_in_both_modes():
    rng = np.random.default_rng(11)
    x = rng.normal(size=(4, 3))
    before, calls = x.copy(), []

    def branch(values):
        calls.append(1)
        return np.cos(3 * values)

    tested = stochastic_unit(x, branch, 0.3, training=False, rng=rng)
    wanted = np.maximum(x + 0.3 * np.cos(3 * x), 0)
    assert tested is not None, "return the unit's result"
    assert np.allclose(tested, wanted), "in the test the result should be ReLU(x + p·branch(x)), every time"
    opened, shut = np.maximum(x + np.cos(3 * x), 0), np.maximum(x, 0)
    for p in (0.2, 0.8):
        calls.clear()
        results = [stochastic_unit(x, branch, p, training=True, rng=rng) for _ in range(1000)]
        times = sum(np.allclose(y, opened) for y in results)
        assert times + sum(np.allclose(y, shut) for y in results) == 1000, (
            "in training the result should be ReLU(x + branch(x)) or ReLU(x), for the whole batch alike, and nothing else"
        )
        assert abs(times - 1000 * p) < 80, f"with p = {p} about {1000 * p:.0f} of 1,000 should be open, got {times}"
        assert len(calls) == times, (
            f"the branch was computed {len(calls)} times for {times} open units: a closed one should cost nothing"
        )
    assert (x == before).all(), "x has changed; it belongs to the caller"


# %% [markdown] id="fractal"
# ## FractalNet: short paths without shortcuts
#
# Larsson, Maire and Shakhnarovich (2017) asked whether the identity matters at all. They have none. A rule makes
# a block of $C + 1$ columns from one of $C$ columns:
#
# $$f_1(z) = \mathrm{conv}(z), \qquad f_{C+1}(z) = \mathrm{join}\big(f_C(f_C(z)),\ \mathrm{conv}(z)\big)$$
#
# The join is the mean of what arrives. Written out, with `|` for a join:


# %% id="fractal-code"
def written_out(columns):
    """The fractal of so many columns, with its blocks from left to right."""
    if columns == 1:
        return "conv"
    smaller = written_out(columns - 1)
    return f"[{smaller} → {smaller} | conv]"


for columns in (1, 2, 3):
    print(f"C = {columns}: {written_out(columns)}")

# %% [markdown] id="predict-fractal"
# **Predict.** Five blocks of four columns, one behind the other. How many convolutions does the longest path
# through the network take, and how many the shortest?
#
# - (a) 20 and 20
# - (b) 20 and 5
# - (c) 40 and 5

# %% id="fractal-run"
for columns in (1, 2, 3, 4):
    ways = fractal_ways(columns)  # P₁ = x, P_{C+1} = P_C² + x: exercise 2, with a rule instead of a list
    lengths = [length for length, count in enumerate(ways) if count]
    print(f"C = {columns}: {sum(ways):3} paths through a block, of {lengths[0]} to {lengths[-1]} convolutions: {ways}")

net = fractalnet(columns=4, widths=5 * (1,))
convolutions = [name for name, module in net.named_modules() if isinstance(module, Conv2d)]
numbers = path_lengths(units=54, mini_batches=1)
lengths = {each["name"]: each for each in numbers["stacks"] if each["name"] not in ("plain", "dense")}
curves(
    {name: each["lengths"] for name, each in lengths.items()},
    {name: each["shares"] for name, each in lengths.items()},
    title="Paths through 54 layers, by length",
    xlabel="layers that a path goes through",
    ylabel="share of the paths",
    alt="Bells over the number of layers, of 54, that a path goes through. Means: "
    + ", ".join(f"{name} {each['mean']:.0f}" for name, each in lengths.items())
    + ". The plain stack would be a point at 54.",
)

# %% id="fractal-claim"
claim("convolutions of the network with five blocks of four columns", len(convolutions), 75, 75)
claim("convolutions of its deepest column", sum(".col3." in name for name in convolutions), 40, 40)
claim("convolutions of its shallowest column", sum(".col0." in name for name in convolutions), 5, 5)
claim("paths through a block of four columns", sum(fractal_ways(4)), 26, 26)

# %% [markdown] id="why-fractal"
# It is (c). Each step of the rule puts the block behind itself, so the longest path doubles, to $2^{C-1}$; the
# shortest stays at one. A block of four columns has 15 convolutions and 26 paths.
#
# How to read the picture: each bell is a kind of network of 54 layers; a plain one would be a single point at the
# right end. (Fractal: blocks of two columns. Stochastic depth: paths through closed units do not count. Highway:
# a path counts as much as its untrained gates let through, with a bias of −2.) All four have moved the paths to
# the left.

# %% [markdown] id="flow"
# ## And the gradient?
#
# Untrained stacks of 30 convolutions and about 20,000 parameters each, digits, the median of three seeds.

# %% [markdown] id="predict-flow"
# **Predict.** Of residual, highway and fractal (blocks of two columns): where is the gradient of the first layer
# closest to that of the last?
#
# - (a) in all three alike: all have short paths
# - (b) in the residual and the highway stack; the fractal one lies between them and the plain one
# - (c) in the fractal one, which needs no identity

# %% id="flow-run"
flows = flow_of_stacks(
    stacks=["plain", "residual", "highway", "fractal"],
    depth=30,
    parameters=20_000,
    seeds=range(3 * SEED, 3 * SEED + 3),
)
ratio = {row["name"]: row["ratio"] for row in flows["stacks"]}
for name, each in ratio.items():
    print(f"{name:9} first/last {each:.2g}")
gradient_flow({row["name"]: row["weights"] for row in flows["stacks"]}, title="‖dL/dW‖ of 30 convolutions, untrained")

# %% id="flow-claim"
claim("first/last, plain", ratio["plain"], 10, 600, seen=(55.1, 136))
claim("first/last, residual", ratio["residual"], 2, 20, seen=(4.73, 8.07))
claim("first/last, highway", ratio["highway"], 0.15, 6, seen=(0.713, 1.6))
claim("fractal: times steeper than residual", ratio["fractal"] / ratio["residual"], 1, 35, seen=(2.17, 4.96))
claim("plain: times steeper than fractal", ratio["plain"] / ratio["fractal"], 1, 20, seen=(3.04, 5.24))

# %% [markdown] id="why-flow"
# It is (b). How to read it: the loss is at the right; a line that rises to the left explodes. The plain stack
# does, as in lesson 08. The residual stack is far flatter, and so is the highway one, which has no batch norm (as
# in its paper). In the fractal one, with two columns, *every* path still goes through at least half of the
# layers, and half an exponent is an exponent.

# %% [markdown] id="shared"
# ## What they share, and in what they differ
#
# | | the short path | learned? | in the test |
# |---|---|---|---|
# | Highway | $x \odot (1 - T(x))$ | yes, by gates | as in training |
# | ResNet | $x$ itself | no | as in training |
# | Stochastic depth | $x$; some branches are missing | no, by chance | all open, branches times $p_l$ |
# | FractalNet | a convolution beside a longer sequence | yes, as any convolution | all columns, a mean |
#
# (FractalNets may drop paths by chance in training too.) In all four, what meets is **added** or averaged. From
# the sum nobody can tell any more who said what. Lesson 10 is about a fifth way, which adds nothing.

# %% [markdown] id="differs-17-18"
# **Lecture and paper differ.** Two sentences of the lecture are a little off.
#
# It says that Highway Networks and ResNets both skip layers by an identity connection. Only the ResNet's is one;
# a Highway Network mixes by gates, and you saw what they leave of the input.
#
# It says that FractalNets get a "nominal" depth that is deeper than the real one. In the DenseNet paper they have
# parallel sequences "to obtain a large nominal depth, while maintaining many short paths in the network" (§1).
# The nominal depth is real: you counted 40 convolutions in a row. But beside them there is a path of five.

# %% [markdown] id="break-it"
# ## Break it
#
# - Set `epochs=12` in "train-run" and `range(1, 13)` in its picture. How far does the plain network catch up? (A
#   claim may stop you: that is an answer.) Is degradation about what it *can* learn, or how fast?
# - In "twins-code", leave `x +` away in `residual_forward`. Which claim stops you? Then put $2x$ for $x$ in
#   exercise 1's sum: what does the gradient do over 50 silent units?
# - In "open-run", set `survival=0.1` in `path_lengths` (and mend the sum). How many units are open now?

# %% [markdown] id="summary"
# ## Three lines to keep
#
# 1. Thirty plain layers train badly on data that six learn well; with an addition around every two of them, the
#    same parameters train well.
# 2. $n$ units that can be gone around are $2^n$ paths, nearly all about $n/2$ long.
# 3. Gates, identities, chance and fractals differ in how, and share the result: short paths from early layers to
#    late ones.

# %% [markdown] id="paper"
# ## What the lecture and the papers say
#
# **The lecture** names the four and what they share as the DenseNet paper's introduction does.
#
# **Degradation.** On CIFAR-10, He et al. (2015) have a higher error in training *and* in the test with 56 plain
# layers than with 20 (figure 1), and above 60 % with 110. Their residual networks get better with depth: 8.75 %
# with 20 layers, 6.43 % with 110 (table 6).
#
# **The others**, CIFAR-10 with augmentation, as printed in DenseNet's table 2: Highway 7.72 %; stochastic depth
# 5.23 %, without it 6.41 %; FractalNet 5.22 %, with dropout and drop-path 4.60 %.
#
# **Limits of what was measured here.** 1,437 digits of 8 × 8 pixels, four epochs. That shows a plain network
# fail, since the gap is so large. It cannot show which of the four is best: we trained only one of them, and one
# test image is 0.28 %. The paths were counted, not weighed.

# %% [markdown] id="source"
# ## The real ones
#
# The highway layer and the unit of stochastic depth, as the package's full-size networks use them. (`gate.p` is
# the probability of being *closed*; `across` is the shortcut.)

# %% id="source-code"
print(inspect.getsource(HighwayLayer.forward))
print(inspect.getsource(GatedUnit.forward))
