# %% [markdown] id="why-care"
# The lecture has two cures for the vanishing gradient: ReLU, and batch normalisation, with which "the vanishing
# of the gradient can be solved too". You have seen both work. With He's weights, ReLU keeps the gradient alive
# through ten layers (lesson 05); batch norm does it for sigmoid (lesson 07). Then fifty layers with *both* should
# be in the best of health.
#
# They are not. The gradient of the first layers explodes, and nothing in your code is wrong. In this lesson you
# measure by how much, find out where it comes from, derive it from a formula with a π in it, look for a cure, and
# find one. That cure is what the rest of the course is about.

# %% id="imports" tags=["setup"]
import inspect
import math

import numpy

from minidense import Tensor
from minidense import functional as F
from minidense.data import load
from minidense.experiments.exploding import batch_norm_explodes, factor_a_layer, picture
from minidense.experiments.perceptrons import BatchNorm1d, first_to_last, gradient_norms, perceptron, random_examples
from minidense.experiments.training import loss_and_accuracy, train
from minidense.lessons import SEED, check, claim
from minidense.models.initialise import draw
from minidense.nn import Linear, Module, init
from minidense.optim import SGD
from minidense.plots import curves, gradient_flow
from minidense.threads import threads

rng = numpy.random.default_rng(SEED)

# %% [markdown] id="build"
# ## Both cures at once
#
# A perceptron of 50 hidden layers, each linear – batch norm – ReLU, with He's weights. Forward, loss, backward,
# and from each layer's weight the size of its gradient: nothing is trained yet.

# %% id="build-code"
DEPTH, WIDTH = 50, 128
inputs, labels = random_examples(256, inputs=WIDTH, seed=SEED)


def norms_of(model):
    """‖dL/dW‖ of each hidden layer."""
    loss = F.cross_entropy(model(Tensor(inputs, dtype=model.dtype)), labels)
    loss.backward()
    return [float(numpy.linalg.norm(getattr(model, f"linear{i}").weight.grad)) for i in range(1, DEPTH + 1)]


# %% [markdown] id="predict-both"
# **Predict.** Without batch norm, the gradient of the first layer of this network is as large as that of the
# last, give or take a small factor. With batch norm, first divided by last is about
#
# - (a) 2: a trace more than without
# - (b) 50: as many as there are layers
# - (c) thousands
#
# Choose before you run the next cell.

# %% id="both-run"
flow = {
    name: norms_of(perceptron(depth=DEPTH, width=WIDTH, inputs=WIDTH, activation="relu", batch_norm=with_it, seed=SEED))
    for name, with_it in (("ReLU, He", False), ("ReLU, He, batch norm", True))
}
gradient_flow(flow, title="50 layers before training")

# %% id="both-claim"
plain, both = (norms[0] / norms[-1] for norms in flow.values())
claim("first/last gradient, 50 layers of ReLU without batch norm", plain, 0.03, 8, seen=(0.23, 0.832))
claim("first/last gradient, 50 layers of ReLU with batch norm", both, 2000, 30_000, seen=(6410, 9000))

# %% [markdown] id="why-both"
# It is (c). How to read the picture: the loss is at the right, and the gradient walks to the left. A level line
# is healthy; a straight one on this logarithmic axis gains the same factor at every layer. It is the picture of
# lesson 04 in a mirror, and as bad: all layers share one learning rate, and one that suits the last layer throws
# the first across the room.

# %% [markdown] id="depths"
# ## One number describes it
#
# If the line is straight, one factor a layer tells everything. We take networks of 10, 20 and 50 layers, three
# seeds each, and fit a straight line to the logarithms.

# %% id="depths-run"
three_seeds = range(3 * SEED, 3 * SEED + 3)
numbers = batch_norm_explodes(depths=(10, 20, 50), seeds=three_seeds, width=WIDTH)
for each in numbers["stacks"]:
    print(f"{each['depth']} layers: first/last {each['ratio']:8.1f}, fitted factor a layer {each['factor']:.3f}")

# %% id="depths-claim"
ten, twenty, fifty = numbers["stacks"]
claim("first/last gradient at 20 layers, median of three seeds", twenty["ratio"], 18, 55, seen=(27.5, 36.5))
claim("factor a layer at 20 layers, fitted", twenty["factor"], 1.18, 1.23, seen=(1.19, 1.21))
claim("factor a layer at 50 layers, fitted", fifty["factor"], 1.18, 1.23, seen=(1.2, 1.21))

# %% [markdown] id="predict-forty"
# **Predict.** At 20 layers first/last is about 30. What will it be at 40?
#
# - (a) about 60
# - (b) about 200
# - (c) about 1,000

# %% id="forty-run"
(forty,) = batch_norm_explodes(depths=(40,), seeds=three_seeds, width=WIDTH)["stacks"]
claim("first/last gradient at 40 layers", forty["ratio"], 500, 2600, seen=(1060, 1420))
claim(
    "the same, from 20 layers: factor^39 over what was measured",
    twenty["factor"] ** 39 / forty["ratio"],
    0.5,
    2.5,
    seen=(0.884, 1.19),
)

# %% [markdown] id="why-forty"
# It is (c), or a little more. Between the first and the last of $L$ layers lie $L - 1$ steps, so the ratio is
# about $f^{L-1}$: twice the depth squares it, roughly. The factor must be known well for that: one per cent more
# in $f$ is nearly half more in $f^{39}$. That is why one fits it to all layers; the two ends alone carry all of
# their own noise.

# %% [markdown] id="x1"
# ## Exercise 1: fit a factor
#
# Given a gradient norm for each layer, the first layer first: by which factor does it grow for each layer
# **towards the input**? Use all layers: draw the best straight line through the logarithms.


# %% id="x1-stub"
def fitted_factor(norms):
    """The factor a layer towards the input, by least squares on ln(norm): above 1 where gradients explode, below 1 where they vanish."""
    raise NotImplementedError


# %% [markdown] id="x1-hint"
# <details>
# <summary>Hint</summary>
#
# `numpy.polyfit(x, y, 1)` returns the slope and the intercept of the line. If $\|g_l\| = c \cdot f^{-l}$, what is
# the slope of $\ln \|g_l\|$ against $l$?
#
# </details>


# %% id="x1-solution"
def fitted_factor(norms):
    """The factor a layer towards the input, by least squares on ln(norm): above 1 where gradients explode, below 1 where they vanish."""
    slope, _ = numpy.polyfit(range(len(norms)), numpy.log(norms), 1)
    return math.exp(-slope)


# %% id="x1-check"
@check
def factor_by_a_fit():
    grows, shrinks = [3 * 1.25**-i for i in range(12)], [1e-9 * 4.0**i for i in range(9)]
    for norms, wanted in ((grows, 1.25), (shrinks, 0.25)):
        got = fitted_factor(norms)
        assert got is not None, "return the factor"
        assert abs(got - wanted) < 1e-9, (
            f"norms {norms[0]:.3g}, {norms[1]:.3g}, … have the factor {wanted} towards the input, got {got:.4g}"
        )
    bent = list(grows)
    bent[0] *= 50  # one noisy end
    middle = numpy.arange(12) - 5.5
    wanted = math.exp(-(middle * numpy.log(bent)).sum() / (middle**2).sum())
    got = fitted_factor(bent)
    assert abs(got - wanted) < 1e-9, (
        f"with an outlier in the first layer the fit gives {wanted:.4f}, got {got:.4f}: use all layers, not the ends"
    )


# %% [markdown] id="where"
# ## Where does it come from?
#
# Back through one layer the gradient passes ReLU, batch norm and the weight. We walk by hand, in a few lines of
# NumPy, and note what each of the three does to its size. Batch norm's backward is the third line of lesson 07's
# derivation.

# %% id="where-run"
m, n, layers = 256, 256, 30
z, kept = rng.normal(size=(m, n)), []  # z: what batch norm has made, mean 0 and width 1
for _ in range(layers):
    weight = rng.normal(size=(n, n)) * math.sqrt(2 / n)  # He
    h = numpy.maximum(z, 0) @ weight.T
    kept.append((z, weight, h.std(axis=0)))
    z = (h - h.mean(axis=0)) / h.std(axis=0)

# %% [markdown] id="predict-where"
# **Predict.** Which of the three makes the gradient grow?
#
# - (a) the weight: He's factor of 2
# - (b) ReLU
# - (c) batch norm

# %% id="where-back"
size = numpy.linalg.norm
gains = {"batch norm": [], "weight": [], "ReLU": []}
after, dz = z, rng.normal(size=(m, n))  # after: what this layer's batch norm has made; dz: its gradient
for z, weight, std in reversed(kept):
    dh = (dz - dz.mean(axis=0) - after * (dz * after).mean(axis=0)) / std
    dy = dh @ weight
    gains["batch norm"].append(size(dh) / size(dz))
    gains["weight"].append(size(dy) / size(dh))
    after, dz = z, dy * (z > 0)
    gains["ReLU"].append(size(dz) / size(dy))
curves(
    range(layers, 0, -1),
    gains,
    ylim=(0.5, 1.6),
    title="What each step does to the gradient's size on its way back",
    xlabel="layer",
    ylabel="factor",
    alt="Factors by layer, three level lines: " + ", ".join(f"{k} {numpy.mean(v):.2f}" for k, v in gains.items()),
)

# %% id="where-claim"
gain = {name: float(numpy.mean(values)) for name, values in gains.items()}
claim("what the weight does to the gradient (√2 = 1.414)", gain["weight"], 1.38, 1.45, seen=(1.4, 1.41))
claim("what ReLU does to it (√½ = 0.707)", gain["ReLU"], 0.69, 0.725, seen=(0.706, 0.708))
claim("what batch norm does to it", gain["batch norm"], 1.18, 1.24, seen=(1.21, 1.22))

# %% [markdown] id="why-where"
# It is (c). How to read the picture: at 1 the size stays. Weight and ReLU cancel, $\sqrt 2 \cdot \sqrt{1/2} = 1$,
# as He et al. have arranged it. What is left over is batch norm.
#
# It divides by the width $\sigma$ of what comes in, forwards and (lesson 07) backwards. So the question is: how
# wide is that?

# %% [markdown] id="predict-variance"
# **Predict.** $z$ is standard normal, $y = \max(z, 0)$. The variance of $y$ is
#
# - (a) 1/2: half of the values are gone
# - (b) about a third
# - (c) 1/4

# %% id="variance-run"
y = numpy.maximum(rng.normal(size=1_000_000), 0)
print(f"mean {y.mean():.4f}, mean of squares {(y**2).mean():.4f}, variance {y.var():.4f}")
claim("variance of max(z, 0)", float(y.var()), 0.336, 0.346, seen=(0.339, 0.342))

# %% [markdown] id="why-variance"
# It is (b), and exactly:
#
# $$E[y^2] = \tfrac12, \qquad E[y] = \int_0^\infty z\,\frac{e^{-z^2/2}}{\sqrt{2\pi}}\,dz = \frac{1}{\sqrt{2\pi}}, \qquad
# \mathrm{Var}[y] = \frac12 - \frac1{2\pi} = \frac{\pi - 1}{2\pi} \approx 0.341 .$$
#
# ReLU's outputs are all on one side of zero, and a good part of their size is just their **mean**. Now go through
# one layer, forwards. He's weights have variance $2/n$, so that each of the next layer's sums has the variance
#
# $$\sigma^2 = n \cdot \frac2n \cdot \mathrm{Var}[y] = \frac{\pi - 1}{\pi} \approx 0.682$$
#
# over the batch. Without batch norm this is no loss: He's factor of 2 keeps the mean of the *squares* at 1, the
# mean included. Batch norm takes the mean out, a share of $1/\pi$ of the whole, and stretches what is left back
# to width 1. The gradient is stretched with it, by
#
# $$\frac1\sigma = \sqrt{\frac{\pi}{\pi - 1}} \approx 1.211 .$$
#
# And does the gradient not lose something too? Batch norm's backward takes two directions out of it, its mean and
# its part along $\hat x$. But a gradient that points anywhere has next to nothing in 2 of its $m = 256$
# directions.
#
# The next picture has the factor as a dashed line that begins at the last of 50 layers: if it runs nearly
# parallel to what we measured, the factor is right.

# %% id="theory-run"
picture(numbers)

# %% id="theory-claim"
theory = math.sqrt(math.pi / (math.pi - 1))
claim("factor by theory: √(π/(π − 1))", round(theory, 4), 1.2112, 1.2112)
claim(
    "variance in front of batch norm over (π − 1)/π",
    float(numpy.mean([std**2 for *_, std in kept[1:]])) * math.pi / (math.pi - 1),
    0.97,
    1.08,
    seen=(1.02, 1.04),
)
claim("measured factor at 20 layers over theory", twenty["factor"] / theory, 0.97, 1.02, seen=(0.988, 0.996))

# %% [markdown] id="cure"
# ## Looking for a cure
#
# In lesson 05 the cure was in the initial weights. So let us try them.

# %% [markdown] id="predict-cure"
# **Predict.** All hidden weights of a network with batch norm start ten times as small. First/last becomes
#
# - (a) much smaller: small weights, small gradients
# - (b) much larger: batch norm has to stretch more
# - (c) nothing happens to it

# %% id="cure-run"
scaled = {}
for scale in (0.1, 1.0, 10.0):
    model = perceptron(depth=20, width=WIDTH, inputs=WIDTH, activation="relu", batch_norm=True, seed=SEED)
    for name, weight in model.named_parameters():
        if name.startswith("linear"):
            weight.data *= scale
    scaled[scale] = first_to_last(gradient_norms(model, inputs, labels))
    print(f"weights × {scale:4}: first/last {scaled[scale]:.4g}")
claim(
    "first/last with weights ten times as small, over as they were",
    scaled[0.1] / scaled[1.0],
    0.96,
    1.04,
    seen=(1, 1.02),
)
claim(
    "first/last with weights ten times as large, over as they were",
    scaled[10.0] / scaled[1.0],
    0.99,
    1.01,
    seen=(0.999, 1.01),
)

# %% [markdown] id="why-cure"
# It is (c), but for a trace of $\varepsilon$. Ten times smaller weights make $\sigma$ ten times smaller, and on
# the way back division by $\sigma$ and multiplication by the weight cancel. It is the scale invariance of lesson
# 07, which was a blessing there. The knob that Xavier and He turned is not connected any more.
#
# Then another activation? The derivation works for any $f$. With weights of variance $v$ the signal has $\sigma^2
# = n v\, \mathrm{Var}[f(z)]$, and the square of the gradient is multiplied by $n v\, E[f'(z)^2]$ in weight and
# activation, so that
#
# $$\text{factor}^2 = \frac{E[f'(z)^2]}{\mathrm{Var}[f(z)]}, \qquad z \sim N(0, 1).$$

# %% [markdown] id="x2"
# ## Exercise 2: the factor of any activation
#
# Compute it. Means over the standard normal distribution are weighted sums: `grid` holds values of $z$ and
# `share` the probability of each, so that $E[g(z)]$ is `(share * g(grid)).sum()`.

# %% id="grid" tags=["setup"]
grid = numpy.linspace(-9, 9, 20_000)  # 0, where ReLU has no slope, lies between two of them
share = numpy.exp(-(grid**2) / 2)
share /= share.sum()


# %% id="x2-stub"
def growth(f, slope):
    """The gradient's factor a layer behind batch norm and the activation f, whose derivative is slope: both take and return arrays."""
    raise NotImplementedError


# %% [markdown] id="x2-hint"
# <details>
# <summary>Hint</summary>
#
# The variance is $E[f^2] - E[f]^2$, each a weighted sum. Mind that $E[f'^2]$ is the mean of the squares and not
# the square of the mean. Try it on $f(z) = z$: a straight line does nothing to the gradient.
#
# </details>


# %% id="x2-solution"
def growth(f, slope):
    """The gradient's factor a layer behind batch norm and the activation f, whose derivative is slope: both take and return arrays."""
    y = f(grid)
    variance = (share * y**2).sum() - (share * y).sum() ** 2
    return math.sqrt((share * slope(grid) ** 2).sum() / variance)


# %% id="x2-check"
@check
def factor_of_an_activation():
    line = growth(lambda z: 3 * z + 5, lambda z: numpy.full_like(z, 3.0))
    assert abs(line - 1) < 1e-6, f"for the straight line 3z + 5 the factor should be 1, got {line:.4f}"
    relu = growth(lambda z: numpy.maximum(z, 0), lambda z: (z > 0) * 1.0)
    wanted = math.sqrt(math.pi / (math.pi - 1))
    assert abs(relu - wanted) < 1e-4, f"for ReLU it should be √(π/(π − 1)) = {wanted:.4f}, got {relu:.4f}"
    square = growth(lambda z: z**2, lambda z: 2 * z)
    assert abs(square - math.sqrt(2)) < 1e-4, f"for z² it should be √(4/2) = 1.4142, got {square:.4f}"
    tanh = growth(numpy.tanh, lambda z: 1 / numpy.cosh(z) ** 2)
    assert abs(tanh - 1.08527) < 1e-4, f"for tanh it should be 1.0853, got {tanh:.4f}"
    sine = growth(numpy.sin, numpy.cos)  # E[cos²] = (1 + e⁻²)/2, Var[sin] = (1 − e⁻²)/2
    wanted = math.sqrt((1 + math.exp(-2)) / (1 - math.exp(-2)))
    assert abs(sine - wanted) < 1e-4, f"for the sine it should be {wanted:.4f}, got {sine:.4f}"


# %% [markdown] id="predict-others"
# **Predict.** The formula gives 1.085 for tanh and 1.017 for sigmoid. At 50 layers with batch norm, first/last
# will be
#
# - (a) below 1 for sigmoid: σ′ is at most a quarter, after all
# - (b) about 1 for both
# - (c) above 1 for both, and dozens for tanh

# %% id="others-run"
others = {
    name: batch_norm_explodes(depths=(DEPTH,), seeds=three_seeds, width=WIDTH, activation=name)["stacks"][0]
    for name in ("sigmoid", "tanh")
}
for name, formula in (("sigmoid", 1.017), ("tanh", 1.085)):
    each = others[name]
    print(f"{name:8} first/last {each['ratio']:5.1f}, factor a layer {each['factor']:.3f} (formula {formula})")

# %% id="others-claim"
claim("first/last gradient, 50 layers of sigmoid with batch norm", others["sigmoid"]["ratio"], 2, 6, seen=(3.15, 3.45))
claim("first/last gradient, 50 layers of tanh with batch norm", others["tanh"]["ratio"], 40, 140, seen=(64.3, 77.1))
claim("factor a layer of tanh, fitted (formula: 1.085)", others["tanh"]["factor"], 1.07, 1.12, seen=(1.09, 1.1))

# %% [markdown] id="why-others"
# It is (c). Sigmoid's small slope does not matter any more: if $f$ is flat, its output has little variance, batch
# norm stretches it, and the two cancel. What matters is how *bent* $f$ is over the range from −2 to 2 in which
# most $z$ lie. Sigmoid is nearly a straight line there, ReLU has a corner.
#
# Can a cleverly bent $f$ get below 1? No. For $z$ from a normal distribution, $\mathrm{Var}[f(z)] \le E[f'(z)^2]$
# holds for every $f$ without jumps, and the two are equal only for straight lines (the Gaussian Poincaré
# inequality), and a network of straight lines is one straight line. So in a wide network with batch norm in every
# layer and no way around, **whatever is not linear explodes** at the start of training; the only question is how
# fast.

# %% [markdown] id="skips"
# ## What does help: a way around
#
# Let each layer only *add* to what is there, $x_{l+1} = x_l + W_l\,\mathrm{ReLU}(\mathrm{BN}(x_l))$. This is a
# residual network, with batch norm and ReLU before the weights, as in DenseNet; lesson 09 is about its family.
# Here is one, small enough to read:


# %% id="skips-code"
class ResidualStack(Module):
    """x + linear(ReLU(BN(x))), over and over; then BN, ReLU and a classifier."""

    def __init__(self, depth, width, seed):
        self.depth = depth
        with init.undrawn():
            for i in range(1, depth + 1):
                setattr(self, f"norm{i}", BatchNorm1d(width))
                setattr(self, f"linear{i}", Linear(width, width))
            self.last_norm = BatchNorm1d(width)
            self.classifier = Linear(width, 10)
        draw(self, numpy.random.default_rng(seed), conv=init.he_normal, linear=init.he_normal)

    def forward(self, x):
        x = F.reshape(x, (x.shape[0], -1))  # images as rows of pixels
        for i in range(1, self.depth + 1):
            norm, linear = getattr(self, f"norm{i}"), getattr(self, f"linear{i}")
            x = x + linear(F.relu(norm(x)))
        return self.classifier(F.relu(self.last_norm(x)))


# %% [markdown] id="predict-skips"
# **Predict.** Every layer still has batch norm and ReLU. From depth 40 to depth 80, first/last of the residual
# stack is multiplied by
#
# - (a) thousands, as without skips
# - (b) less than 3
# - (c) exactly 1

# %% id="skips-run"
depths = (5, 10, 20, 40, 80)
examples = random_examples(256, inputs=WIDTH, seed=SEED)
with_skips = [first_to_last(gradient_norms(ResidualStack(depth, WIDTH, SEED), *examples)) for depth in depths]
without = [each["ratio"] for each in batch_norm_explodes(depths=depths, seeds=[SEED], width=WIDTH)["stacks"]]
curves(
    depths,
    {"plain": without, "residual": with_skips},
    log="xy",
    title="First over last gradient, ReLU with batch norm",
    xlabel="layers",
    ylabel="first/last",
    alt=(
        f"On logarithmic axes, from 5 to 80 layers: plain from {without[0]:.1f} to {without[-1]:.1g}, "
        f"residual from {with_skips[0]:.1f} to {with_skips[-1]:.3g}."
    ),
)

# %% id="skips-claim"
claim("first/last at 80 layers, plain", without[-1], 1e5, 2e7, seen=(1.51e6, 2.21e6))
claim("first/last at 80 layers, residual", with_skips[-1], 6, 22, seen=(10.4, 12.6))
claim("residual: 80 layers over 40", with_skips[-1] / with_skips[-2], 1.1, 2.6, seen=(1.46, 1.81))

# %% [markdown] id="why-skips"
# It is (b). How to read it: both axes count factors. An exponential bends upwards in such a picture, a power
# $L^a$ is a straight line with slope $a$. With skips the gradient still grows, but as a **power** of the depth.
#
# The reason is short. Each branch has variance 0.682 (its batch norm and ReLU see to that, whatever comes in), so
# the sum on the main road grows: $v_{l+1} = v_l + 0.682$. The deeper a layer, the wider its input, and the more
# its batch norm has to *shrink*. Backwards, the skip hands the gradient on as it is. In the branch weight and
# ReLU cancel as before, batch norm divides by $\sqrt{v_l}$, and so it adds $1/v_l$ of the square:
#
# $$\|dx_l\|^2 \approx \Big(1 + \frac1{v_l}\Big)\,\|dx_{l+1}\|^2 .$$
#
# A plain layer multiplies the square by the same $1.467 = 1.211^2$ every time. Here the factors approach 1, and
# their product grows no faster than a power.

# %% [markdown] id="x3"
# ## Exercise 3: how slowly?
#
# Predict first/last of a residual stack. Layer 1 sees variance $v_1 = 1$, and $v_{l+1} = v_l + (\pi - 1)/\pi$.
# The gradient of $W_1$ comes from behind layer 1, that of $W_L$ from behind layer $L$: between the two it goes
# back through layers $L, \dots, 2$, and each multiplies its square by $1 + 1/v_l$.


# %% id="x3-stub"
def residual_ratio(depth):
    """First over last gradient norm of a residual stack of so many layers, by theory."""
    raise NotImplementedError


# %% [markdown] id="x3-hint"
# <details>
# <summary>Hint</summary>
#
# Walk from layer 2 to layer `depth`: update $v$ first, then multiply. At the end take the root, because the
# factors are those of the square. One layer is first and last at once: what must `residual_ratio(1)` be?
#
# </details>


# %% id="x3-solution"
def residual_ratio(depth):
    """First over last gradient norm of a residual stack of so many layers, by theory."""
    variance, square = 1.0, 1.0
    for _ in range(2, depth + 1):
        variance += (math.pi - 1) / math.pi
        square *= 1 + 1 / variance
    return math.sqrt(square)


# %% id="x3-check"
@check
def residual_growth():
    step = 1 - 1 / math.pi
    assert residual_ratio(1) == 1, f"one layer is first and last at once: 1, got {residual_ratio(1)}"
    got, two = residual_ratio(2), math.sqrt(1 + 1 / (1 + step))
    assert abs(got - two) < 1e-9, (
        f"with two layers it goes back through layer 2, v = {1 + step:.3f}: {two:.4f}, got {got:.4f}"
    )
    for depth in (3, 20, 300):
        v = 1 + step * numpy.arange(1, depth)
        wanted = math.exp(numpy.log1p(1 / v).sum() / 2)
        got = residual_ratio(depth)
        assert abs(got / wanted - 1) < 1e-9, f"with {depth} layers it should be {wanted:.4f}, got {got:.4f}"
    power = math.log(residual_ratio(8000) / residual_ratio(4000)) / math.log(2)
    assert abs(power - 0.5 / step) < 0.01, (
        f"for great depths it should grow like depth^{0.5 / step:.3f}, yours like depth^{power:.3f}"
    )


# %% [markdown] id="power"
# The check's last line says how slowly: for great depths like $L^{a}$ with $a = \pi/(2(\pi - 1)) \approx 0.73$.
# Measured, from 20 layers to 80:

# %% id="power-run"
power = math.log(with_skips[-1] / with_skips[-3]) / math.log(4)
claim("measured exponent of the residual stack", power, 0.4, 1.05, seen=(0.622, 0.771))

# %% [markdown] id="training"
# ## And then training begins
#
# All of this is about the moment *before* the first step. Batch norm has its brake (lesson 07): the gradient of a
# weight in front of batch norm is at a right angle to the weight, so that every step makes the weight longer, and
# longer weights get smaller gradients. Let us train 50 plain layers of 64 units on digits, in batches of 50, and
# look at the ratio at every step.

# %% [markdown] id="predict-training"
# **Predict.** First/last is in the tens of thousands in the first step. After ten steps at rate 0.1 it is
#
# - (a) infinite: the loss has become no number
# - (b) still in the thousands
# - (c) below 10

# %% id="training-run"
digits = load("digits")
watched = {"ratio": [], "weight": []}


def look(model, optimizer):
    """After a step: the ratio of the gradients that made it, and how long the first layer's weight is now."""
    first, last = (getattr(model, f"linear{i}").weight for i in (1, DEPTH))
    watched["ratio"].append(float(size(first.grad) / size(last.grad)))
    watched["weight"].append(float(size(first.data)))


def trained(model, **how):
    """Six epochs of digits; returns the accuracy on test images, %."""
    with threads(1):  # small matrices: a second thread costs more than it brings
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        train(model, optimizer, digits, epochs=6, learning_rate=0.1, seed=SEED, augment=False, tested=False, **how)
        return 100 * loss_and_accuracy(model, digits)[1]


plain_stack = perceptron(depth=DEPTH, activation="relu", batch_norm=True, seed=SEED)
began = float(size(plain_stack.linear1.weight.data))
plain_accuracy = trained(plain_stack, after_step=look)
curves(
    range(1, 41),
    {"first/last": watched["ratio"][:40]},
    log="y",
    title="50 plain layers with batch norm, rate 0.1",
    xlabel="step",
    ylabel="first/last gradient",
    alt=(
        f"Ratio of first to last gradient by step: {watched['ratio'][0]:.2g} in the first, {watched['ratio'][1]:.2g} in the second, "
        f"and {numpy.median(watched['ratio'][10:40]):.2g} as the median of steps 11 to 40."
    ),
)

# %% id="training-claim"
claim("first/last in the first step", watched["ratio"][0], 5e3, 2e5, seen=(14500, 50200))
claim("first/last in the second step", watched["ratio"][1], 0.5, 2000, seen=(4.02, 77.3))
claim(
    "first/last, median of steps 11 to 40", float(numpy.median(watched["ratio"][10:40])), 0.001, 2, seen=(0.0345, 0.116)
)
claim("growth of the first layer's weight in one step", watched["weight"][0] / began, 20, 2000, seen=(96.6, 341))

# %% [markdown] id="why-training"
# It is (c), and most of it happens in **one** step. (How to read the picture: at $10^0$ first and last layer get
# the same.) The first layer takes a step that is about a hundred times as long as its weight or more; it keeps
# its new length, and from then on gets that much less gradient. The explosion puts itself out. Nothing diverges.
#
# But look at what it has cost: after that step the first layers point in directions that one batch of 50 pictures
# has chosen, and they are so long that later steps hardly turn them. Does the network learn?

# %% [markdown] id="predict-learn"
# **Predict.** Six epochs of digits at rate 0.1, fifty layers each. Test accuracy of plain and residual:
#
# - (a) both above 90 %: the gradients are in order now
# - (b) plain below 50 %, residual above 85 %
# - (c) both near chance: six epochs are too few

# %% id="learn-run"
residual_accuracy = trained(ResidualStack(DEPTH, 64, SEED))
claim("accuracy of 50 plain layers, %", plain_accuracy, 4, 50, seen=(13.3, 22.5))
claim("accuracy of 50 residual layers, %", residual_accuracy, 85, 100, seen=(93.6, 95.9))

# %% [markdown] id="why-learn"
# It is (b). Same activation, same batch norm, same number of weights (and one batch norm more), same rate. The
# gradients of the plain network's first and last layers are no longer thousands of times apart, and yet it learns
# little. **An even gradient is not enough**: it must also still say something about *these* images. Why it does
# not, we have not shown; what a way around does is lesson 09.

# %% [markdown] id="differs-16"
# ## Where lecture and paper differ
#
# **Lecture and paper differ.** The lecture says that ReLU prevents much of the loss of gradient and that batch
# norm can solve its vanishing. Both are too strong. ReLU needs He's weights (lesson 05). Batch norm does remove
# the vanishing of sigmoid, by giving every layer a factor slightly *above* 1; together with ReLU it explodes, by
# $\sqrt{\pi/(\pi - 1)}$ a layer, at the start of training.
#
# Neither changes that the gradient is a **product over all layers**. Only another path does. The networks that
# went to a hundred layers and more in the year of batch norm, the ResNets, have both.

# %% [markdown] id="break-it"
# ## Break it
#
# - In "where-run", take the mean out *before* the weight: `h = (numpy.maximum(z, 0) - 0.399) @ weight.T` (0.399
#   is $1/\sqrt{2\pi}$). Does the factor change? Why not?
# - Replace ReLU by `numpy.where(z > 0, z, 0.5 * z)` in "where-run" and "where-back" (mind its slope, and the
#   weight's scale). How small does the factor get, and what does `growth` say?
# - Take batches of 8 instead of 256 in "depths-run" (`batch_size=8`). Which way does the factor go?

# %% [markdown] id="summary"
# ## Three lines to keep
#
# 1. Behind ReLU and batch norm the gradient grows by $\sqrt{\pi/(\pi - 1)} \approx 1.21$ a layer at the start: 50
#    layers, thousands.
# 2. Neither initial weights nor activation cure it: $\mathrm{Var}[f] \le E[f'^2]$, and weights do not count.
# 3. With a skip the growth is a power of the depth. That is why batch norm and short paths belong together.

# %% [markdown] id="paper"
# ## What the lecture and the papers say
#
# Yang, Pennington, Rao, Sohl-Dickstein & Schoenholz (2019, "A Mean Field Theory of Batch Normalization") prove
# what we measured: in wide networks with batch norm, gradients grow exponentially with depth at initialisation,
# and this "cannot be eliminated by tuning the initial weight variances or by adjusting the nonlinear activation
# function". They too find that after a single step of training the range of the gradients is dramatically
# smaller, and that such networks without skips cannot be trained when they are very deep. The short derivation is
# close to one that Kyle Luther published in 2020 ("Why Batch Norm Causes Exploding Gradients"), with the same
# $\sqrt{\pi/(\pi - 1)}$.
#
# Measured here: a factor of about 1.20, against 1.211, with layers 128 wide and batches of 256; smaller batches
# change it (the third thing to break).
#
# Honest limits. This is the first moment of training, on random data, in fully connected layers. In a trained
# network the ratio is another; in convolutions each channel has more values to normalise. Six epochs on 1,437
# digits show that fifty plain layers are *harder*, not that they cannot be trained with patience. And at 10
# layers first/last is about five: harmless, as the good fields in the last row of lesson 07's map show.

# %% [markdown] id="source"
# ## The real one
#
# The fit, and the batch norm for tables of numbers that these networks use: images of one pixel.

# %% id="source-code"
print(inspect.getsource(factor_a_layer))
print(inspect.getsource(BatchNorm1d))
