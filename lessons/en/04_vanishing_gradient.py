# %% [markdown] id="why-vanish"
# "Before 2006 it appears that deep multi-layer neural networks were not successfully trained", Xavier Glorot and
# Yoshua Bengio wrote in 2010. Not for want of trying. You stack ten layers instead of two, train, and get a worse
# network, though nothing is wrong with the code: the first layers stay about as random as they were drawn.
#
# The lecture gives the reason in one sentence: going backwards the derivative of the sigmoid is multiplied again
# and again, it is 0.25 at most and goes to 0 at both ends, and so the gradient gets lost. In this lesson you
# measure that sentence: which part of it does the damage, and what it leaves out. And you find a depth at which
# the first layer gets *exactly nothing*.

# %% id="imports" tags=["setup"]
import inspect
import math
import statistics

import numpy as np

from minidense import Tensor, no_grad
from minidense import functional as F
from minidense.data import load, training_batches
from minidense.experiments.perceptrons import first_to_last, gradient_norms
from minidense.experiments.vanishing import underflow, vanishing_gradient
from minidense.lessons import SEED, check, claim
from minidense.nn import Flatten, Linear, Sequential, Sigmoid, init
from minidense.ops import Sigmoid as SigmoidOp
from minidense.plots import activation_histograms, curves, gradient_flow

FIVE = range(5 * SEED, 5 * SEED + 5)  # five seeds of our own

# %% [markdown] id="slope"
# ## One sigmoid
#
# $$\sigma(z) = \frac{1}{1 + e^{-z}}, \qquad \sigma'(z) = \sigma(z)\,(1 - \sigma(z))$$
#
# It turns any number into one between 0 and 1, which is why it was loved: a unit that fires, or does not. In
# lesson 01 you gave your engine its slope.

# %% [markdown] id="predict-slope"
# **Predict.** Where is $\sigma$ steepest, and how steep is it there?
#
# - (a) at $z = 0$, with slope 1
# - (b) at $z = 0$, with slope a quarter
# - (c) towards the ends, where it has to bend
#
# Choose before you run the next cell.

# %% id="slope-run"
z = Tensor(np.linspace(-8, 8, 161), requires_grad=True)
y = F.sigmoid(z)
y.sum().backward()  # each y depends on its own z only, so the gradient of the sum holds each one's slope
slopes = z.grad
curves(
    z.data,
    {"σ(z)": y.data, "σ′(z)": slopes},
    title="The sigmoid and its slope",
    xlabel="z",
    ylabel="",
    alt=f"σ rises from 0 to 1 as an S; its slope is largest at z = {z.data[slopes.argmax()]:.0f}, {slopes.max():.2f}.",
)

# %% id="slope-claim"
claim("largest slope of the sigmoid", slopes.max(), 0.25, 0.25)
claim("its slope at z = 5", slopes[z.data == 5.0].item(), 0.0066, 0.0067, seen=(0.00664, 0.00665))

# %% [markdown] id="why-slope"
# It is (b). With $y = \sigma(z)$ the slope is $y(1 - y)$, and the product of two numbers that add up to 1 is
# largest when both are a half. (How to read the picture: the lower line is the slope of the upper one.) So the
# lecture's two facts are right: at most 0.25, and next to nothing towards the ends.

# %% [markdown] id="chain"
# ## Ten sigmoids
#
# Lesson 01: along a path, slopes multiply. Put sigmoids into each other, $y = \sigma(\sigma(\dots\sigma(z)))$,
# and the slope of the whole is the product of their slopes.

# %% [markdown] id="predict-chain"
# **Predict.** Ten sigmoids in a row, with no weights between them, starting where $\sigma$ is steepest, at $z =
# 0$. The slope of the whole is
#
# - (a) $0.25^{10}$, about one in a million
# - (b) a good deal larger
# - (c) smaller still

# %% id="chain-run"
z = Tensor(np.zeros(1), requires_grad=True)
y = z
for _ in range(10):
    y = F.sigmoid(y)
y.sum().backward()
print(f"slope of ten sigmoids: {z.grad.item():.2e};   0.25 to the tenth: {0.25**10:.2e}")
claim("slope of ten sigmoids at 0, over 0.25 to the tenth", z.grad.item() / 0.25**10, 0.40, 0.42, seen=(0.406, 0.407))

# %% [markdown] id="why-chain"
# It is (c). Only the *first* sigmoid stands at 0. What it returns is $\sigma(0) = 0.5$, so the second stands at
# 0.5, the third at $\sigma(0.5) \approx 0.62$, and none comes back to the middle, because what a sigmoid returns
# is never negative. Those nine contribute a bit less than a quarter each.

# %% [markdown] id="x1"
# ## Exercise 1: the slope of a chain
#
# The same by hand, without an engine, and with a weight before each sigmoid, as a network of one unit a layer has
# it:
#
# $$y_0 = z, \qquad y_l = \sigma(w_l\, y_{l-1}) \quad\text{for } l = 1, 2, \dots$$
#
# Return $dy/dz$ of the last one.


# %% id="x1-stub"
def chain_slope(z, weights):
    """The slope dy/dz of y = σ(w_n · … σ(w_2 · σ(w_1 · z))): z is a float, weights a list of floats, w_1 first."""
    raise NotImplementedError


# %% [markdown] id="x1-hint"
# <details>
# <summary>Hint</summary>
#
# Walk forwards, and carry two numbers: the value so far and the slope so far. A layer multiplies the slope by two
# factors. One is $\sigma'$, at the place where *this* sigmoid stands. The other you find if you ask how fast $w
# y$ moves with $y$.
#
# </details>


# %% id="x1-solution"
def chain_slope(z, weights):
    """The slope dy/dz of y = σ(w_n · … σ(w_2 · σ(w_1 · z))): z is a float, weights a list of floats, w_1 first."""
    y, slope = z, 1.0
    for w in weights:
        y = 1 / (1 + math.exp(-w * y))
        slope *= w * y * (1 - y)
    return slope


# %% id="x1-check"
@check
def chain_slope_multiplies():
    def value(z, weights):
        for w in weights:
            z = 1 / (1 + math.exp(-w * z))
        return z

    got = chain_slope(0.0, [1.0])
    assert got is not None, "return the slope"
    assert abs(got - 0.25) < 1e-12, f"one sigmoid at 0 has the slope 0.25, got {got!r}"
    rng = np.random.default_rng(4)
    for n in (1, 2, 3, 4):
        z, weights = rng.uniform(-2, 2), rng.uniform(-4, 4, n).tolist()
        asked = list(weights)
        measured = (value(z + 1e-5, weights) - value(z - 1e-5, weights)) / 2e-5
        got = chain_slope(z, asked)
        assert abs(got - measured) < 1e-6 * abs(measured) + 1e-9, (
            f"for {n} layers, moving z a little gives the slope {measured:.6g}, chain_slope {got:.6g}"
        )
        assert asked == weights, "the list of weights belongs to the caller: leave it as it was"
    assert chain_slope(0.7, []) == 1.0, f"without layers y is z, and its slope 1; got {chain_slope(0.7, [])}"


# %% [markdown] id="stack"
# ## A network of sigmoids
#
# Now a real one: 64 units a layer. This is the whole construction, in the package's own parts:


# %% id="stack-code" tags=["setup"]
def stack(depth, seed, gain=1.0):
    """depth hidden layers of 64 sigmoids, and a classifier of ten classes; Xavier's initial weights, times gain."""
    rng = np.random.default_rng(seed)
    layers = [Flatten()]
    for _ in range(depth):
        layers += [Linear(64, 64), Sigmoid()]
    layers += [Linear(64, 10)]
    model = Sequential(*layers)
    for layer in linear_layers(model):
        layer.weight.data[...] = gain * init.xavier_uniform(rng, layer.weight.shape)
        layer.bias.data[...] = 0
    return model


def linear_layers(model):
    """Its linear layers, first to last; the classifier is the last of them."""
    return [layer for _, layer in model.named_children() if isinstance(layer, Linear)]


def size(gradient):
    """The norm √(Σ g²), computed in float64: in float32 the square of 1e-23 is 0 already."""
    return float(np.linalg.norm(gradient.astype(np.float64)))


# %% [markdown] id="stack-words"
# *Xavier's* weights (Glorot & Bengio 2010) are random numbers of mean 0 and, where a layer is as wide as the one
# before, variance $1/n$ for $n$ inputs. Lesson 05 derives why.
#
# We feed it 64 pictures of handwritten digits, 8 × 8 pixels each, and ask every layer for the size of its
# gradient, $\lVert \partial L/\partial W_l \rVert$. There is no training: we look at the very first step.

# %% [markdown] id="predict-ten"
# **Predict.** Ten hidden layers. Compared with the gradient of the tenth, that of the first is
#
# - (a) about the same
# - (b) about a tenth
# - (c) a few millionths

# %% id="ten-run"
images, labels = next(training_batches(load("digits"), size=64, seed=(SEED, 0), augment=False))

model = stack(10, SEED)
loss = F.cross_entropy(model(Tensor(images)), labels)
loss.backward()
sizes = [size(layer.weight.grad) for layer in linear_layers(model)]
for number, each in enumerate(sizes[:10], start=1):
    print(f"layer {number:2}   {each:.1e}   {'█' * round(50 + 8 * math.log10(each))}")
print(f"classifier {sizes[10]:.1e}")

# %% id="ten-claim"
claim(
    "ten layers of sigmoid, digits: first layer's gradient over the last's",
    sizes[0] / sizes[9],
    1e-6,
    2e-5,
    seen=(2.97e-6, 6.24e-6),
)

# %% [markdown] id="why-ten"
# It is (c). (How to read the bars: every step in length is a *factor*.) Nine times on its way from layer 10 to
# layer 1 the gradient went through a sigmoid and was left with a bit less than a quarter, and $0.25^9$ is about
# $4 \cdot 10^{-6}$.
#
# Think about what an optimiser does with this. Any learning rate that moves the last layer sensibly leaves the
# first one where it is. A rate that would move the first layer throws the last one through the wall.

# %% [markdown] id="depths"
# ## By depth
#
# The same for 2 to 50 layers, with `vanishing_gradient` of `minidense.experiments`. It feeds random numbers with
# random labels instead of digits, so that nothing depends on a data set, and takes the median of five seeds.

# %% id="depths-run"
numbers = vanishing_gradient(stacks=["sigmoid, Xavier"], seeds=FIVE)
rows = {row["depth"]: row for row in numbers["stacks"]}
print("hidden layers   first/last")
for depth, row in rows.items():
    print(f"{depth:13}   {row['ratio']:.1e}")
gradient_flow({f"{depth} layers": row["norms"] for depth, row in rows.items()}, title="Sigmoid, Xavier, untrained")

# %% [markdown] id="depths-words"
# How to read it: the loss is at the right end of each line, and the gradient walks to the left. On a logarithmic
# axis a straight line means the same factor at every layer, and parallel lines mean the same factor in every
# network.

# %% id="depths-claim"
claim("first/last at depth 2", rows[2]["ratio"], 0.08, 0.7, seen=(0.183, 0.323))
claim("first/last at depth 5", rows[5]["ratio"], 1.5e-3, 9e-3, seen=(2.42e-3, 3.44e-3))
claim("first/last at depth 10", rows[10]["ratio"], 8e-7, 8e-6, seen=(1.64e-6, 2.4e-6))
claim("first/last at depth 20", rows[20]["ratio"], 4e-13, 5e-12, seen=(9.21e-13, 1.28e-12))
claim("first/last at depth 50", rows[50]["ratio"], 3e-32, 9e-31, seen=(9.51e-32, 1.41e-31))
factor = rows[50]["ratio"] ** (1 / 49)  # 49 steps back from layer 50 to layer 1
claim("factor a layer", factor, 0.228, 0.24, seen=(0.232, 0.235))
with_digits = statistics.median(first_to_last(gradient_norms(stack(10, seed), images, labels)) for seed in FIVE)
claim(
    "ratio at depth 10 with digits, over that with noise", with_digits / rows[10]["ratio"], 1.1, 4.5, seen=(1.59, 2.62)
)

# %% [markdown] id="why-depths"
# A factor of about 0.23 a layer, whatever the depth: that is the whole law. Ten layers keep a few millionths,
# twenty about $10^{-12}$, fifty about $10^{-31}$. Digits instead of noise, the last claim, make the ratio about
# twice as large; against $10^{-6}$ that is nothing.

# %% [markdown] id="x2"
# ## Exercise 2: measure it yourself
#
# Write the measurement: given a model made by `stack`, a batch of images and its labels, return the size of the
# *first* hidden layer's weight gradient over that of the *last hidden* layer. Use `linear_layers` and `size` from
# above. It should give the right answer however often it is called, and leave the weights as they are.


# %% id="x2-stub"
def gradient_ratio(model, images, labels):
    """‖dL/dW‖ of the first hidden layer over that of the last hidden layer, L the cross-entropy of this batch."""
    raise NotImplementedError


# %% [markdown] id="x2-hint"
# <details>
# <summary>Hint</summary>
#
# Loss and `backward()` are as in the cell that printed the bars. Two traps: the last of the linear layers is the
# classifier, which is no hidden layer. And gradients add up (lesson 01): a second `backward()` adds to what the
# first has left in `.grad`, so set every `parameter.grad` to `None` first.
#
# </details>


# %% id="x2-solution"
def gradient_ratio(model, images, labels):
    """‖dL/dW‖ of the first hidden layer over that of the last hidden layer, L the cross-entropy of this batch."""
    for parameter in model.parameters():
        parameter.grad = None
    F.cross_entropy(model(Tensor(images)), labels).backward()
    sizes = [size(layer.weight.grad) for layer in linear_layers(model)]
    return sizes[0] / sizes[-2]


# %% id="x2-check"
@check
def gradient_ratio_of_stacks():
    rng = np.random.default_rng(5)
    for depth in (2, 4, 50):
        model = stack(depth, depth)
        before = [parameter.data.copy() for parameter in model.parameters()]
        for again in range(2):
            images, labels = rng.normal(size=(16, 64)).astype("float32"), rng.integers(0, 10, 16)
            got = gradient_ratio(model, images, labels)
            wanted = first_to_last(gradient_norms(stack(depth, depth), images, labels))
            assert got is not None, "return the ratio"
            assert abs(got - wanted) < 1e-4 * wanted, (
                f"{depth} hidden layers, and the classifier behind them: expected a ratio of {wanted:.4g}, got {got:.4g}"
                + (" the second time: is something left of the first?" if again else "")
            )
        for old, parameter in zip(before, model.parameters(), strict=True):
            assert (old == parameter.data).all(), "the weights have moved; a measurement should leave them alone"


# %% [markdown] id="weights"
# ## The other half of the product
#
# Look at what a step back really is. With $z_l = W_l\, y_{l-1}$ and $y_l = \sigma(z_l)$,
#
# $$\frac{\partial L}{\partial y_{l-1}} = W_l^\top \left(\sigma'(z_l) \odot \frac{\partial L}{\partial y_l}\right)$$
#
# There are **two** factors, and the lecture's sentence speaks of one. Xavier's weights have a size at which
# multiplying by $W^\top$ leaves a vector about as long as it was; so only the slope shows. Suppose we draw them
# four times as large. A quarter times four is one.
#
# We shall also count **saturated** units, those that stand at a flat end: output below 0.01 or above 0.99.

# %% [markdown] id="predict-weights"
# **Predict.** With weights four times Xavier's, the factor a layer is
#
# - (a) about 1: the gradient is saved
# - (b) about 0.23: only the slope counts
# - (c) in between

# %% id="weights-run"
gains = [0.5, 1, 2, 4, 8, 16]
factors, saturated = [], []
for gain in gains:
    models = [stack(20, seed, gain) for seed in FIVE]
    factors.append(statistics.median(first_to_last(gradient_norms(m, images, labels)) ** (1 / 19) for m in models))
    with no_grad():
        hidden = Sequential(*[layer for _, layer in models[0].named_children()][:-1])
        saturated.append(float((abs(hidden(Tensor(images)).data - 0.5) > 0.49).mean()))
for gain, each, share in zip(gains, factors, saturated, strict=True):
    print(f"weights × {gain:<4} factor a layer {each:.2f}   saturated units in the last layer {share:4.0%}")
curves(
    gains,
    {"measured, 20 layers": factors, "0.25 · gain": [0.25 * gain for gain in gains]},
    log="x",
    ylim=(0, 2.2),
    title="Factor a layer by size of the weights",
    xlabel="gain: weights are so many times Xavier's",
    ylabel="factor a layer",
    alt="Measured factor a layer: "
    + ", ".join(f"{each:.2f} at gain {gain}" for gain, each in zip(gains, factors, strict=True))
    + "; a second line shows a quarter of the gain.",
)

# %% id="weights-claim"
claim("factor a layer with weights four times Xavier's", factors[3], 0.45, 0.75, seen=(0.589, 0.624))
claim("factor a layer with weights half of Xavier's", factors[0], 0.1, 0.15, seen=(0.128, 0.13))
claim("factor a layer with weights eight times Xavier's", factors[4], 0.7, 0.95, seen=(0.8, 0.834))
claim("factor a layer with weights sixteen times Xavier's", factors[5], 1, 1.4, seen=(1.13, 1.19))
claim("saturated units with weights sixteen times Xavier's", saturated[5], 0.5, 0.85, seen=(0.628, 0.717))

# %% [markdown] id="why-weights"
# It is (c). (How to read the picture: the steep line, which leaves the frame, is what the lecture's sentence
# gives, and the other what comes out; above 1 a gradient would grow.) For small weights the two are one. But
# weights do two things at once. They multiply the gradient on its way back, and on the way forward they push $z$
# away from 0, to where the slope is *less* than a quarter. That is the second half of the lecture's sentence, the
# flat ends. At eight times Xavier's weights the gradient still shrinks. At sixteen it no longer does, but by then
# more than half of the units in the last layer are saturated.
#
# So "0.25 again and again" is right for weights of the usual size, and the whole truth is a product: **slope
# times weight**. Lesson 05 starts from there.

# %% [markdown] id="histograms"
# ## What the layers say
#
# And at the usual weights, do any units stand at their flat ends?

# %% [markdown] id="predict-histograms"
# **Predict.** In an untrained stack of ten layers with Xavier's weights, how many of the outputs are saturated?
#
# - (a) most of those in the last layers
# - (b) about a third, everywhere
# - (c) hardly any, anywhere

# %% id="histograms-run"
outputs = {}
with no_grad():
    y = Tensor(images)
    for _, layer in stack(10, SEED).named_children():
        y = layer(y)
        if isinstance(layer, Sigmoid):
            outputs[f"layer {len(outputs) + 1}"] = y.data
activation_histograms(outputs, saturated="sigmoid", title="Outputs of ten layers of sigmoid, untrained")

# %% [markdown] id="histograms-words"
# How to read it: a small picture a layer, over all units and all 64 images; orange would be a saturated output.
# Why is it smooth in the first layer, and later made of spikes? Keep the question for a moment.

# %% id="histograms-claim"
between_images = [float(y.std(axis=0).mean()) for y in outputs.values()]
print("spread of a unit's output over the images, by layer:", " ".join(f"{each:.0e}" for each in between_images))
claim("saturated outputs in layer 10, share", float((abs(outputs["layer 10"] - 0.5) > 0.49).mean()), 0, 0)
claim("mean output of layer 10", float(outputs["layer 10"].mean()), 0.45, 0.55, seen=(0.494, 0.516))
claim(
    "spread over the images, layer 10 over layer 1",
    between_images[-1] / between_images[0],
    5e-7,
    1e-5,
    seen=(2.2e-6, 2.48e-6),
)

# %% [markdown] id="why-histograms"
# It is (c). At the start no unit stands at the flat ends; what is lost is lost to the quarter. But look at the
# printed line: from layer to layer, a unit's output moves *less and less from picture to picture*. That is what
# the spikes are: each is one unit, or a few, which says the same of all 64 images, in the tenth layer to six
# decimals. What vanishes on the way back vanishes on the way forward too, by about the same factor and for the
# same reason. The classifier at the end has to tell digits apart by what is left.

# %% [markdown] id="zero"
# ## Exactly nothing
#
# A float32 has an end: the smallest number above 0 that it can hold is $2^{-149} \approx 1.4 \cdot 10^{-45}$.
# Below half of that, it is 0.

# %% [markdown] id="predict-zero"
# **Predict.** 80 layers, weights and gradients in float32. The gradient of the first layer is
#
# - (a) tiny, but a very patient optimiser could use it
# - (b) exactly 0 in every single entry
# - (c) not a number

# %% id="zero-run"
both = {
    dtype: vanishing_gradient(stacks=["sigmoid, Xavier"], depths=[80], seeds=FIVE, dtype=dtype)["stacks"][0]
    for dtype in ("float32", "float64")
}
gradient_flow({dtype: row["norms"] for dtype, row in both.items()}, title="80 layers of sigmoid, untrained")

# %% [markdown] id="zero-words"
# How to read it: the two lines are one until float32 ends. Each triangle in the grey band is a layer whose
# gradient is exactly 0. Now deeper and deeper, and the share of the first layer's 4,096 entries that are exactly
# 0:

# %% id="zero-claim"
ends = {row["depth"]: row for row in underflow(depths=(60, 66, 70, 80), seeds=FIVE)}
for depth, row in ends.items():
    print(
        f"{depth} layers   float32 {row['float32']:.1e}   float64 {row['float64']:.1e}   exactly 0: {row['zeros']:.0%}"
    )
print(f"a typical entry of the last layer: {both['float64']['last'] / 64:.1e}")
claim("entries that are exactly 0 at 60 layers, share", ends[60]["zeros"], 0, 0)
claim("entries that are exactly 0 at 66 layers, share", ends[66]["zeros"], 0.001, 0.2, seen=(0.0158, 0.0191))
claim("entries that are exactly 0 at 70 layers, share", ends[70]["zeros"], 0.99, 1, seen=(1, 1))
claim("entries that are exactly 0 at 80 layers, share", ends[80]["zeros"], 1, 1)
claim("float64 at 80 layers", ends[80]["float64"], 5e-52, 5e-50, seen=(4.89e-51, 6.21e-51))

# %% [markdown] id="why-zero"
# It is (b), and no optimiser, learning rate or patience can do anything with a 0. In float64 the number is there,
# $10^{-51}$ or so, and as useless: a float64 has 16 digits, so added to a weight of about 0.1 it changes nothing.
# Underflow is the visible end of something that was over long before, at ten layers.
#
# The end can be told beforehand. The cell printed the size of a typical entry in the last layer: the norm over
# 64, since there are 64 · 64 entries. Going back it loses the same factor at every layer.

# %% [markdown] id="x3"
# ## Exercise 3: predict the end
#
# The last of $d$ layers has a gradient whose entries are about `entry`; going back, each layer multiplies it by
# `factor`, so the first layer's are about $\text{entry} \cdot \text{factor}^{\,d-1}$. What is less than half of
# the smallest number that a float32 holds, less than $2^{-150}$, becomes 0. Return the smallest depth $d$ at
# which the first layer's entries are 0.


# %% id="x3-stub"
def underflow_depth(entry, factor, smallest=2.0**-150):
    """The smallest depth d ≥ 1 with entry · factor^(d − 1) < smallest, a whole number; 0 < factor < 1."""
    raise NotImplementedError


# %% [markdown] id="x3-hint"
# <details>
# <summary>Hint</summary>
#
# A loop is enough: begin at depth 1 with `entry`, and multiply until it is too small. (Python's floats are
# float64: they hold $2^{-150}$ with ease.) With logarithms it is one line, and the trap is to be off by one.
#
# </details>


# %% id="x3-solution"
def underflow_depth(entry, factor, smallest=2.0**-150):
    """The smallest depth d ≥ 1 with entry · factor^(d − 1) < smallest, a whole number; 0 < factor < 1."""
    depth = 1
    while entry >= smallest:
        entry *= factor
        depth += 1
    return depth


# %% id="x3-check"
@check
def underflow_depth_by_the_factor():
    got = underflow_depth(0.004, 0.2336)
    assert got == 69, (
        f"with entries of 0.004 and a factor of 0.2336 float32 ends at 69 layers (measured: between 66 and 70); got {got}"
    )
    assert underflow_depth(1e-50, 0.5) == 1, "1e-50 is below the end of float32 already: depth 1"
    rng = np.random.default_rng(6)
    for _ in range(50):
        entry, factor, smallest = 10 ** rng.uniform(-4, 0), rng.uniform(0.1, 0.9), 2.0 ** -int(rng.integers(20, 300))
        got = underflow_depth(entry, factor, smallest)
        words = f"entry {entry:.3g}, factor {factor:.3g}, smallest {smallest:.3g}"
        assert got == int(got), f"{words}: a depth is a whole number, got {got}"
        assert entry * factor ** (got - 1) < smallest, f"{words}: at depth {got} the first layer is not yet 0"
        assert entry * factor ** (got - 2) >= smallest, f"{words}: at depth {got - 1} it is 0 already, got {got}"


# %% [markdown] id="break-it"
# ## Break it
#
# - In `stack`, draw the weights with `init.he_normal` instead (they are √2 times as large). Can you tell the
#   factor beforehand from the picture of gains?
# - Replace `Sigmoid()` by `Tanh()` in the stack (import it from `minidense.nn`). Its ends are as flat. Why are
#   the bars so different? This is how lesson 05 begins.
# - In `size`, leave out `.astype(np.float64)`, and let the cell with the bars build `stack(50, SEED)`, go over
#   `sizes[:50]` and take `max(each, 1e-50)` for the bars. About a third of the layers report a gradient of 0 that
#   is none. Measurements underflow too.

# %% [markdown] id="summary"
# ## Three lines to keep
#
# 1. The sigmoid's slope is at most a quarter, slopes multiply along a path, and so each layer of an untrained
#    stack keeps about 0.23 of the gradient.
# 2. The true factor is slope times weight. At usual weights no unit is saturated; larger weights push the units
#    to where the slope is lower, and so help less than they should.
# 3. What vanishes backwards vanishes forwards: the last layer says the same of every picture. Near 70 layers a
#    float32 gradient is exactly 0; it was useless at ten.

# %% [markdown] id="paper"
# ## What the lecture and the papers say
#
# **The lecture** is right about the sigmoid's slope and the multiplying. What it leaves out is the weights, and
# that the flat ends play no part at the start. It says that the problem came up with networks of more than 100
# layers. It is older: Sepp Hochreiter described it in his diploma thesis of 1991, and Bengio, Simard and Frasconi
# in 1994, for recurrent networks, whose depth is the length of the sequence.
#
# **Glorot & Bengio 2010** watched networks of up to five hidden layers while they trained, and with sigmoid they
# saw something that an untrained stack cannot show: early in training the outputs of the last hidden layer are
# pushed towards 0, it seems because they carry no information yet and the classifier does best without them
# (§3.1). For tanh 0 is the steepest place. For the sigmoid, whose outputs begin near 0.5, it is a flat end. The
# initial weights of this lesson are theirs (eq. 16).
#
# **Huang et al. 2017** have the problem on their first page: "as information about the input or gradient passes
# through many layers, it can vanish and 'wash out' by the time it reaches the end (or beginning) of the network"
# (§1). *Information or gradient, end or beginning*: you have seen both directions.
#
# **Limits of what was measured here.** Fully connected layers of width 64, before the first step of training. The
# table by depth has no counterpart in a paper: the numbers are ours. That a small gradient means bad training is
# not shown yet. Lesson 05 trains.

# %% [markdown] id="source"
# ## The real one
#
# The line that all this came from: the last one.

# %% id="source-code"
print(inspect.getsource(SigmoidOp))
