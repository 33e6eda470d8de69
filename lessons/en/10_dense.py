# %% [markdown] id="why-dense"
# Four families in lesson 09, and all of them add or average. Whoever stands at the end sees the sum, and cannot
# take it apart again.
#
# The DenseNet paper changes one symbol: "we combine features by concatenating them" (Huang et al. 2017, §1).
# Nothing is added, everything is laid side by side, and each layer sees all of it. You write the block, and its
# gradient; you count its connections; and you measure what arrives at the first of 42 layers.

# %% id="imports" tags=["setup"]
import inspect
import statistics

import numpy as np

from minidense import Tensor, no_grad
from minidense import functional as F
from minidense.data import load, training_batches
from minidense.experiments.paths import dense_ways, residual_ways
from minidense.experiments.shortcuts import gradient_flow as flow_of
from minidense.experiments.stacks import stack
from minidense.lessons import SEED, check, claim
from minidense.models.densenet import BottleneckLayer, DenseBlock, DenseLayer, dense_block
from minidense.ops import Concat
from minidense.plots import curves, gradient_flow, heat_map

rng = np.random.default_rng(SEED)
images, labels = next(training_batches(load("digits"), size=64, seed=(SEED, 0), augment=False))


def layers_of(block):
    """The layers of a dense block, first to last."""
    return [layer for _, layer in block.named_children()]


# %% [markdown] id="formula"
# ## One symbol
#
# | | layer $l$ computes |
# |---|---|
# | plain | $x_l = H_l(x_{l-1})$ |
# | residual (eq. 1) | $x_l = H_l(x_{l-1}) + x_{l-1}$ |
# | dense (eq. 2) | $x_l = H_l([x_0, x_1, \dots, x_{l-1}])$ |
#
# $H_l$ is batch norm, ReLU and a convolution (more on that in lesson 12). The square brackets are the news:
# feature maps side by side, along the axis of channels. $x_0$, with $k_0$ channels, is what comes into the block.
# Each $H_l$ returns the same small number of feature maps, $k$, the *growth rate* (12 in many of the paper's
# networks). The result of the block is $[x_0, x_1, \dots, x_L]$.

# %% [markdown] id="predict-channels"
# **Predict.** The first block of DenseNet-121: 64 feature maps come in, $k = 32$, six layers. How many feature
# maps does the *sixth layer* see?
#
# - (a) 192
# - (b) 224
# - (c) 256
#
# Choose before you run the next cell.

# %% id="channels-run"
# six layers, 64 channels in, k = 32, no dropout; what a bottleneck is, lesson 11 tells
block = DenseBlock(BottleneckLayer, 6, 64, 32, 0.0)
seen = [layer.conv1.weight.shape[1] for layer in layers_of(block)]  # a kernel is (channels out, channels in, …)
print("channels that each layer sees:", seen)

# %% id="channels-claim"
claim("channels that the sixth layer sees", seen[5], 224, 224)
claim("channels that the block returns", block(Tensor(np.zeros((2, 64, 4, 4), "float32"))).shape[1], 256, 256)

# %% [markdown] id="why-channels"
# It is (b). Layer $l$ sees $x_0$ and $l - 1$ results before it: $k_0 + k(l - 1)$ channels, which is $64 + 32
# \cdot 5 = 224$. What leaves the block is one result more: $k_0 + kL = 256$.

# %% [markdown] id="x1"
# ## Exercise 1: the gradient of a concatenation
#
# Forward, $y = [x_0, x_1, \dots]$ is a copy of each $x_i$ to its place. Backward is *handing back*: the gradient
# of $x_i$ is the part of $dy$ that lies where $x_i$ lay. Write it.


# %% id="x1-stub"
def hand_back(dy, channels):
    """[dx_0, dx_1, …] of y = [x_0, x_1, …]: dy is (N, Σ channels, H, W), channels a list of each x_i's number of channels."""
    raise NotImplementedError


# %% [markdown] id="x1-hint"
# <details>
# <summary>Hint</summary>
#
# The channels are axis 1. Carry along where the next part begins; its number of channels says where it ends.
#
# </details>


# %% id="x1-solution"
def hand_back(dy, channels):
    """[dx_0, dx_1, …] of y = [x_0, x_1, …]: dy is (N, Σ channels, H, W), channels a list of each x_i's number of channels."""
    dxs, start = [], 0
    for c in channels:
        dxs.append(dy[:, start : start + c])
        start += c
    return dxs


# %% id="x1-check"
@check
def hand_back_each_part():
    rng = np.random.default_rng(12)
    for channels in ([3], [2, 2, 2], [5, 1, 3], [1, 4, 2, 7]):
        shapes = [(2, c, 3, 4) for c in channels]
        wanted = [rng.normal(size=shape) for shape in shapes]
        dy, asked = np.concatenate(wanted, axis=1), list(channels)
        got = hand_back(dy, asked)
        assert asked == channels, "the list of channels belongs to the caller: leave it as it was"
        assert got is not None, "return the list of gradients"
        assert len(got) == len(channels), f"expected {len(channels)} gradients, one for each x_i; got {len(got)}"
        for i, (mine, part) in enumerate(zip(got, wanted, strict=True)):
            assert np.shape(mine) == part.shape, (
                f"channels {channels}: dx_{i} should be {part.shape}, got {np.shape(mine)}"
            )
            assert (mine == part).all(), (
                f"channels {channels}: dx_{i} has the right shape, but other values than its part of dy"
            )


# %% [markdown] id="x2"
# ## Exercise 2: a dense block
#
# Equation 2, with the package's Tensors. `F.concat(list)` lays Tensors side by side, and a layer is called like a
# function. The check compares your block with the package's definition, bit by bit.


# %% id="x2-stub"
def my_block(x, layers):
    """[x_0, x_1, …, x_L] side by side, x_0 = x and x_l = H_l([x_0, …, x_{l−1}]) for the layers H_1, …, H_L."""
    raise NotImplementedError


# %% [markdown] id="x2-hint"
# <details>
# <summary>Hint</summary>
#
# Keep a list of everything that exists so far. What does it hold before the first layer? (Not the empty list.)
#
# </details>


# %% id="x2-solution"
def my_block(x, layers):
    """[x_0, x_1, …, x_L] side by side, x_0 = x and x_l = H_l([x_0, …, x_{l−1}]) for the layers H_1, …, H_L."""
    features = [x]
    for layer in layers:
        new = layer(F.concat(features))
        features.append(new)
    return F.concat(features)


# %% id="x2-check"
@check
def my_block_against_the_package():
    rng = np.random.default_rng(13)
    for count, k0, k in ((0, 3, 2), (1, 4, 3), (5, 8, 4)):
        layers = layers_of(DenseBlock(DenseLayer, count, k0, k, 0.0))
        x = Tensor(rng.normal(size=(6, k0, 5, 5)).astype("float32"))
        before, asked = x.data.copy(), list(layers)
        got = my_block(x, asked)
        assert isinstance(got, Tensor), f"return a Tensor, got {type(got).__name__}"
        wanted = dense_block.definition(x, layers)
        assert got.shape == wanted.shape, (
            f"{count} layers, k0 = {k0}, k = {k}: expected the shape {wanted.shape}, got {got.shape}"
        )
        assert (got.data == wanted.data).all(), f"{count} layers: the right shape, but not the package's values"
        assert (x.data == before).all(), "x has changed; it belongs to the caller"
        assert asked == layers, "the list of layers has changed; it belongs to the caller"
    simple = [lambda t: F.relu(t).sum(axis=1, keepdims=True), lambda t: (t * t).sum(axis=1, keepdims=True)]
    got = my_block(Tensor(np.array([[[[-1.0]], [[2.0]]]])), simple)
    assert got.data.ravel().tolist() == [-1, 2, 2, 9], (
        f"of (−1, 2), Σ ReLU and Σ squares: expected −1, 2, 2, 9, got {got.data.ravel()}"
    )


# %% [markdown] id="kept"
# ## Sum against concatenation: what is kept
#
# Send the digits through twelve layers, once with additions (six residual units of two convolutions), once with
# concatenation, and look for what came in.

# %% [markdown] id="predict-kept"
# **Predict.** Where in the result are the feature maps that came in, before any training?
#
# - (a) in both: residual and dense networks have identity connections
# - (b) in the dense block, bit by bit, as the first of its channels; in the residual stack they are painted over
# - (c) in neither: twelve layers have changed everything

# %% id="kept-run"
dense, residual = (stack(kind, depth=12, width=12, seed=SEED) for kind in ("dense", "residual"))
with no_grad():
    came_in = dense.features.conv0(Tensor(images))
    came_out = dense.features.denseblock1(came_in)
    before = F.relu(residual.bn(residual.conv(Tensor(images))))
    after = residual.layer1(before)
print("dense:   ", came_in.shape, "→", came_out.shape)
print("residual:", before.shape, "→", after.shape)
change = np.linalg.norm(after.data - before.data) / np.linalg.norm(before.data)

# %% id="kept-claim"
claim(
    "dense: largest change of the 12 feature maps that came in", abs(came_out.data[:, :12] - came_in.data).max(), 0, 0
)
claim("residual: size of the change over the size of what came in", change, 1.5, 5, seen=(2.75, 2.93))

# %% [markdown] id="why-kept"
# It is (b). In the dense block $x_0$ and every later result stand where they were put. A layer can *use* them, no
# layer can change them; the paper calls the feature maps the "global state" of the network, which every layer can
# read and none has to copy for the next (§3, "growth rate").
#
# In the residual stack the change is larger than what came in, and given $a + b$ nobody can tell $a$ from $b$.
# And addition asks for equal channels, as the lecture says; concatenation does not. Both want height and width to
# agree, so a network that makes its images smaller needs several blocks, with something in between (lesson 11).

# %% [markdown] id="count"
# ## Counting the connections
#
# A connection is a pair: one of $x_0, x_1, \dots$, and a layer that takes it.

# %% [markdown] id="predict-count"
# **Predict.** A block of twelve layers, as in DenseNet-40. A plain stack has twelve connections, one into each
# layer. How many has the block, without its last concatenation?
#
# - (a) 24, each layer has its input and its shortcut
# - (b) 78
# - (c) 144

# %% [markdown] id="count-words"
# We count in a real block. For each layer we give it every earlier result as a separate Tensor, go back from what
# it returns, and see who gets a gradient.


# %% id="count-code"
def connected(block, x):
    """A row a layer, a column for each of x_0, …, x_{L−1}: how many feature maps of it the layer takes; 0 for none."""
    layers, features = layers_of(block), [x.data]
    taken = np.zeros((len(layers), len(layers)), int)
    for row, layer in enumerate(layers):
        inputs = [Tensor(f, requires_grad=True) for f in features]
        y = layer(F.concat(inputs))
        (y * Tensor(rng.normal(size=y.shape).astype("float32"))).sum().backward()
        for s, x_s in enumerate(inputs):
            taken[row, s] = (abs(x_s.grad).max(axis=(0, 2, 3)) > 0).sum()
        features.append(y.data)
    return taken


# %% id="count-run"
x = Tensor(rng.normal(size=(16, 8, 5, 5)).astype("float32"))
five = connected(DenseBlock(DenseLayer, 5, 8, 4, 0.0), x)  # figure 1 of the paper: L = 5, k = 4
twelve = connected(DenseBlock(DenseLayer, 12, 8, 4, 0.0), x)
heat_map(
    np.where(five > 0, five, np.nan),
    rows=[f"H{number}" for number in range(1, 6)],
    columns=[f"x{s}" for s in range(5)],
    form="{:.0f}",
    title="Feature maps that each layer takes",
    xlabel="from",
    ylabel="layer",
    alt=f"A lower triangle with its diagonal: {(five > 0).sum()} of 25 fields are filled, 8 in the column of x0, 4 in the others.",
)

# %% id="count-claim"
claim("connections in a block of 5 layers", (five > 0).sum(), 15, 15)
claim("connections in a block of 12 layers", (twelve > 0).sum(), 78, 78)
claim("feature maps that layer 5 takes", five[4].sum(), 8 + 4 * 4, 8 + 4 * 4)

# %% [markdown] id="why-count"
# It is (b). Layer 1 takes $x_0$ alone, layer 2 takes two, layer $L$ takes $L$: $1 + 2 + \dots + L = L(L+1)/2$, 15
# for five layers and 78 for twelve. How to read the picture: each row is a layer, each field a connection; a row
# adds up to the channels that the layer sees. A residual stack would fill this triangle too if one wrote out its
# sums. The difference is that a dense layer has *weights of its own* for each field, and can take from $x_2$
# something else than from $x_3$.

# %% [markdown] id="ways"
# ## Paths, again
#
# Lesson 09 counted $2^n$ paths through $n$ residual units. Count those through a dense block, from $x_0$ to the
# result: a path may jump from any feature map to any later layer.

# %% [markdown] id="predict-ways"
# **Predict.** Through a block of twelve dense layers lead, compared with twelve residual units,
#
# - (a) fewer paths
# - (b) exactly as many, of each length
# - (c) more: 78 connections against 24

# %% id="ways-run"
dense_12, residual_12 = dense_ways(12), residual_ways(12)
print("length  ", *(f"{n:4}" for n in range(13)))
print("dense   ", *(f"{n:4}" for n in dense_12))
print("residual", *(f"{n:4}" for n in residual_12))
claim("paths through twelve dense layers", sum(dense_12), 4096, 4096)
claim(
    "lengths at which dense and residual differ", sum(a != b for a, b in zip(dense_12, residual_12, strict=True)), 0, 0
)

# %% [markdown] id="why-ways"
# It is (b). A path through a dense block is a choice of layers, those it stops at, and any choice will do:
# $2^{12}$. Seen as paths, the network is a ResNet. The paper says it too: "Superficially, DenseNets are quite
# similar to ResNets" (§5). What differs is what is *on* the paths: nothing is summed on the way forward, and each
# layer is narrow.
#
# Backwards there is a sum all the same. Each feature map is used by every later layer, and lesson 01 says what
# happens to what is used many times.

# %% [markdown] id="x3"
# ## Exercise 3: back through the block
#
# Let each $H_l$ be a matrix $W_l$ and each feature map a single number, so that $x_0$ is a vector of $k_0$
# numbers and
#
# $$x_l = W_l\,[x_0, x_1, \dots, x_{l-1}], \qquad y = [x_0, x_1, \dots, x_L].$$
#
# Given $dy = \partial L/\partial y$, return $\partial L/\partial x_0$.


# %% id="x3-stub"
def back_through_block(dy, weights):
    """dL/dx_0 (k_0,) of a dense block: dy (k_0 + L·k,), weights a list of L matrices W_l (k, k_0 + (l − 1)·k), first layer first."""
    raise NotImplementedError


# %% [markdown] id="x3-hint"
# <details>
# <summary>Hint</summary>
#
# Work on a *copy* of $dy$. It holds, for each feature map, what has arrived so far; at the start, what arrives
# directly. Whose gradient is complete at that moment? Only that of the last layer, which nobody used.
#
# </details>

# %% [markdown] id="x3-hint-2"
# <details>
# <summary>Another hint</summary>
#
# `W.shape` is $k$ and the number of channels before the layer, so it says where the layer's own part of the
# gradient begins and ends. What the layer hands back belongs to all that lies before, added to what is there.
#
# </details>


# %% id="x3-solution"
def back_through_block(dy, weights):
    """dL/dx_0 (k_0,) of a dense block: dy (k_0 + L·k,), weights a list of L matrices W_l (k, k_0 + (l − 1)·k), first layer first."""
    d = dy.copy()
    for W in reversed(weights):
        k, c = W.shape
        d[:c] += W.T @ d[c : c + k]
    k_0 = len(dy) - sum(len(W) for W in weights)
    return d[:k_0]


# %% id="x3-check"
@check
def back_through_a_dense_block():
    def forward(x, weights):
        for W in weights:
            x = np.concatenate([x, W @ x])
        return x

    rng = np.random.default_rng(14)
    for count, k_0, k in ((0, 3, 2), (1, 3, 2), (2, 2, 3), (6, 5, 2)):
        weights = [rng.normal(size=(k, k_0 + before * k)) for before in range(count)]
        dy = rng.normal(size=k_0 + count * k)
        unchanged, kept = dy.copy(), [W.copy() for W in weights]
        got = back_through_block(dy, weights)
        assert (dy == unchanged).all(), "dy has changed; it belongs to the caller. Work on a copy"
        assert all((a == b).all() for a, b in zip(weights, kept, strict=True)), "the weights have changed"
        assert np.shape(got) == (k_0,), f"{count} layers: dL/dx_0 should have the shape ({k_0},), got {np.shape(got)}"
        wanted = [forward(e, weights) @ dy for e in np.eye(k_0)]  # y is linear in x_0
        assert np.allclose(got, wanted), (
            f"{count} layers, k = {k}: expected {np.round(wanted, 4)}, got {np.round(got, 4)}"
        )


# %% [markdown] id="direct"
# ## How far is the loss?
#
# In exercise 3, $dy$ itself brings something to *every* layer with no other layer in between. On top of a dense
# block stands a classifier, and it sees all feature maps, the first layer's as well as the last one's.
#
# We measure it in a block of 42 layers with $k = 8$. For each layer's result $x_l$: the part of its gradient that
# comes **directly**, its slice of what arrives at the last concatenation; and the whole, with what all later
# layers hand back.

# %% [markdown] id="predict-direct"
# **Predict.** What comes directly, without passing any other layer, is
#
# - (a) about the same for the first layer as for the last
# - (b) largest for the last layers, which are nearest to the loss
# - (c) nothing at all for the first layers

# %% id="direct-run"
net = stack("dense", depth=42, width=8, seed=SEED)
features = [net.features.conv0(Tensor(images))]
for layer in layers_of(net.features.denseblock1):
    features.append(layer(F.concat(features)))
result = F.concat(features)
for each in (*features, result):
    each.retain_grad()
logits = net.classifier(F.global_avg_pool2d(F.relu(net.features.norm5(result))))
F.cross_entropy(logits, labels).backward()

direct = [float(np.linalg.norm(result.grad[:, start : start + 8])) for start in range(8, 8 + 42 * 8, 8)]
whole = [float(np.linalg.norm(x_l.grad)) for x_l in features[1:]]
curves(
    range(1, 43),
    {"whole": whole, "direct, no layer in between": direct},
    log="y",
    title="Gradient of what each layer returns, untrained",
    xlabel="layer",
    ylabel="‖dL/dx‖",
    alt=f"Direct part: {direct[0]:.1e} at layer 1 and {direct[-1]:.1e} at layer 42, nearly level. "
    f"The whole: {whole[0]:.1e} at layer 1, falling to the direct part at layer 42.",
)

# %% id="direct-claim"
claim("direct part, first layer over last", direct[0] / direct[-1], 0.4, 2.5, seen=(0.822, 1.34))
claim("last layer: whole over direct", whole[-1] / direct[-1], 1 - 1e-6, 1 + 1e-6, seen=(1, 1))
claim("first layer: whole over direct", whole[0] / direct[0], 3, 25, seen=(7.22, 9.91))

# %% [markdown] id="why-direct"
# It is (a). To the classifier no layer is further away than another. The paper calls it **implicit deep
# supervision** (§5). Deeply Supervised Nets hang a classifier of its own upon every hidden layer; in a DenseNet
# "a single classifier on top of the network provides direct supervision to all layers through at most two or
# three transition layers".
#
# How to read the picture: the upper line is all that arrives. At layer 42 the lines meet, since nobody used what
# it made. Further to the left a feature map has more and more users, and each hands something back: `+=`,
# forty-one times for layer 1.

# %% [markdown] id="flow"
# ## Gradient flow at 42 layers
#
# Untrained stacks of 42 convolutions, digits, and the gradient of each layer's *weights*. Plain and residual
# stacks have 12 channels, the dense one $k = 8$. (The dense one has more weights by far; we look at how evenly
# the gradient is spread, not at who learns better.) And as a reminder of lesson 04, a plain stack of sigmoids
# without batch norm.

# %% [markdown] id="predict-flow"
# **Predict.** The ratio first/last is hundreds in the plain stack. In the dense one it will be
#
# - (a) about 1
# - (b) about 10, as in the residual one
# - (c) far below 1, since the first layers are many layers away

# %% id="flow-run"
kinds = {
    "plain": {"kind": "plain", "width": 12},
    "residual": {"kind": "residual", "width": 12},
    "dense": {"kind": "dense", "width": 8},
    "sigmoid, no batch norm": {"kind": "plain", "width": 12, "norm": False, "activation": "sigmoid"},
}
seeds = range(3 * SEED, 3 * SEED + 3)
flows = {
    name: [flow_of(stack(**how, depth=42, seed=seed), images, labels) for seed in seeds] for name, how in kinds.items()
}
ratio = {
    (name, of): statistics.median(each[of][0] / each[of][-1] for each in runs)
    for name, runs in flows.items()
    for of in ("weights", "results")
}
print("first/last of the gradient of         weights   results")
for name in kinds:
    print(f"{name:35} {ratio[name, 'weights']:9.2g} {ratio[name, 'results']:9.2g}")
shown = {name: np.median([each["weights"] for each in flows[name]], axis=0) for name in ("plain", "residual", "dense")}
gradient_flow(shown, title="‖dL/dW‖ of 42 convolutions, untrained")

# %% id="flow-claim"
claim("first/last, plain", ratio["plain", "weights"], 50, 5000, seen=(290, 738))
claim("first/last, residual", ratio["residual", "weights"], 2, 25, seen=(6.28, 8.74))
claim("first/last, dense", ratio["dense", "weights"], 0.6, 2.8, seen=(1.19, 1.56))
claim("first/last of results, residual", ratio["residual", "results"], 5, 40, seen=(11.5, 14))
claim("first/last of results, dense", ratio["dense", "results"], 3, 30, seen=(7.82, 11))
claim(
    "first/last, sigmoid without batch norm",
    ratio["sigmoid, no batch norm", "weights"],
    2e-29,
    5e-27,
    seen=(2.33e-28, 6.29e-28),
)
eighty = flow_of(stack(**kinds["sigmoid, no batch norm"], depth=80, seed=SEED), images, labels)["weights"]
claim("sigmoid without batch norm, 80 layers: gradient of the first", eighty[0], 0, 0)

# %% [markdown] id="why-flow"
# It is (a). How to read the picture: a line that rises to the left explodes. The plain stack does, as lesson 08
# found. The residual one has a slope left, a factor of several. The dense one is level. The sigmoid stack is not
# in the picture: its first layer gets some $10^{-28}$ of the last one's gradient, and with 80 layers the float32
# number is exactly 0.
#
# One honest remark. The level line is of the *weights*. Of what the layers return (second column of the table,
# and the picture before), the gradient falls about tenfold from left to right in the dense stack, and somewhat
# more in the residual one. But layer 42 sees 336 channels and layer 1 sees 8. The norm of a kernel's gradient
# adds up over them, and $\sqrt{336/8} \approx 6.5$ takes back most of the ten. What stands is the comparison with
# the plain stack: no layer's step is hundreds of times too large for the others.

# %% [markdown] id="differs-20-27"
# **Lecture and paper differ.** Two small things, both in the lecture's part on dense blocks.
#
# It writes that *after the layers have been summed*, they go through the non-linear $H$. Nothing is summed: "we
# never combine features through summation before they are passed into a layer", says the paper (§1), and the
# lecture's own equation a few lines above has the square brackets.
#
# The comment in its code of the first block reads `# 96 -> 128 -> 160 -> 192 -> 224 -> 256`. These are the
# channels *after* each concatenation. What the six layers see is 64, 96, …, 224, as you saw.

# %% [markdown] id="break-it"
# ## Break it
#
# - In exercise 2, begin with `features = []` instead of `[x]`: which message do you get, and from which function?
# - On paper: twelve layers of which each sees only the *last two* results, and the block returns the last two. Is
#   $x_0$ still in the result? How many connections are left, of 78?
# - In "direct-run", set `net.features.norm5.weight.data[8:16] = 0` after the first line. The classifier no longer
#   sees layer 1. What becomes of its direct gradient, and of the whole? Which paths are left?

# %% [markdown] id="summary"
# ## Three lines to keep
#
# 1. Dense means: side by side instead of a sum. Layer $l$ sees $k_0 + k(l-1)$ feature maps, and a block of $L$
#    layers has $L(L+1)/2$ connections.
# 2. The gradient of a concatenation is handing back slices; what is used many times gets the sum of what its
#    users hand back.
# 3. The loss is next door to every layer. At 42 untrained layers the weights' gradients are level, where a plain
#    stack's differ by hundreds.

# %% [markdown] id="paper"
# ## What the lecture and the papers say
#
# **The lecture** is right in what it says of the two operations: ResNets add, which asks for equal channels,
# DenseNets lay side by side, which does not, and so old information stays as it was.
#
# **Huang et al. 2017** introduce equation 2 in §3 and count the $L(L+1)/2$ connections in §1. They give the
# improved flow of gradients as a reason why DenseNets are easy to train: "each layer has direct access to the
# gradients from the loss function and the original input signal, leading to an implicit deep supervision" (§1).
# They print no measurement of gradients; ours are ours.
#
# **The connections are not free.** A concatenation copies its inputs, so in a block of $L$ layers written as
# above the memory for copies grows with $L^2$. The authors wrote a report on it (Pleiss et al. 2017); lesson 16
# does something about it.
#
# **Limits of what was measured here.** One block, images of 8 × 8 pixels, one batch of 64, before the first step
# of training. Whether level gradients mean better accuracy is another question: `minidense experiment
# equal-parameters` trains plain, residual and dense stacks of equal size, and lesson 15 the last two.

# %% [markdown] id="source"
# ## The real one
#
# The definition, and the operation below it. minidense has quicker versions of the block; all of them are tested
# against this one.

# %% id="source-code"
print(inspect.getsource(dense_block))
print(inspect.getsource(Concat.backward))
