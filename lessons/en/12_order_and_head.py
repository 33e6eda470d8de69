# %% [markdown] id="why-order"
# The lecture's text on the composite function says: batch norm, then ReLU, then convolution, an idea of the
# improved ResNet that is called *full pre-activation*. In its code of the dense block you read `Conv2D`,
# `BatchNormalization`, `Activation('relu')`: convolution first.
#
# The paper has the order of the text. But does it **matter**? Somebody changes a detail, accuracy moves by half a
# percent, and now what? This lesson asks it of two details of DenseNet, the order inside $H$ and the head of the
# network: what is certain, what has been measured, and what a small computer cannot show.

# %% id="imports" tags=["setup"]
import inspect
import statistics

import numpy

from minidense import Tensor, models
from minidense import functional as F
from minidense.data import load, training_batches
from minidense.experiments.heads import SHIFTS, heads_of_the_paper, trained_with_head, with_head
from minidense.experiments.seeds import apart, dots, over_seeds
from minidense.experiments.stack_training import OneCycle
from minidense.experiments.stacks import ORDERS, stack
from minidense.experiments.unit_orders import PARTS, published_errors, shortcut_gradients, silence
from minidense.lessons import SEED, check, claim
from minidense.models.densenet import DenseLayer
from minidense.models.residual_units import FullPreActivation, Unit
from minidense.nn import BatchNorm2d, Conv2d, init, norm_relu, watch_gradients
from minidense.ops import GlobalAvgPool2d
from minidense.plots import Picture, curves, heat_map, several

# %% [markdown] id="units"
# ## Five residual units
#
# The order comes from He et al. (2016b, *Identity Mappings in Deep Residual Networks*), who moved batch norm and
# ReLU about in a residual unit. Write **c** for a 3×3 convolution, **b** for batch norm, **r** for ReLU, and
# **+** for the addition of the shortcut. Their five units are (Figure 4 there):
#
# | unit | on the branch, and behind the addition |
# |---|---|
# | original | c b r c b **+** r |
# | BN after addition | c b r c **+** b r |
# | ReLU before addition | c b r c b r **+** |
# | ReLU-only pre-activation | r c b r c b **+** |
# | full pre-activation | b r c b r c **+** |
#
# *Pre-activation* means that the activation stands before the convolution, and "full" that batch norm does too.
# Where nothing stands to the right of the **+**, $x_{\ell+1} = x_\ell + F(x_\ell)$, and on the way back
#
# $$\frac{\partial L}{\partial x_\ell} = \frac{\partial L}{\partial x_{\ell+1}} \left(1 + \frac{\partial F}{\partial x_\ell}\right)$$
#
# The 1 is the shortcut's. To see it alone, we set the last convolution of every branch to 0, so that $F = 0$, and
# follow the gradient from unit to unit.

# %% [markdown] id="predict-shortcut"
# **Predict.** A stack of 21 units, all branches at 0. In how many of the five kinds is the gradient behind the
# first unit the same, to the last bit, as the gradient behind the last one?
#
# - (a) in all five: each has a shortcut
# - (b) in three
# - (c) in none: so much floating-point arithmetic leaves traces
#
# Choose before you run the next cell.

# %% id="shortcut-run"
digits = load("digits")
images, labels = next(training_batches(digits, size=64, seed=(SEED,), augment=False))

model = silence(stack("residual", depth=42, width=10, seed=SEED, unit="full_preact"))
with watch_gradients(model) as seen:
    loss = F.cross_entropy(model(Tensor(images)), labels)
loss.backward()
names = [name for name, module in model.named_modules() if isinstance(module, Unit)]
first, last = (seen[name].grad for name in (names[0], names[-1]))
changed = int(numpy.count_nonzero(first != last))
print(
    f"{len(names)} units; of {first.size:,} numbers in the gradient, {changed} differ between the first unit and the last"
)

# %% id="shortcut-plot"
shortcuts = {unit: shortcut_gradients(unit, seed=SEED) for unit in PARTS}  # the same for all five
curves(
    range(1, len(names) + 1),
    {
        f"{unit}: {PARTS[unit]}": [norm / found["norms"][-1] for norm in found["norms"]]
        for unit, found in shortcuts.items()
    },
    title="Gradient along the shortcuts alone, before training",
    xlabel="residual unit",
    ylabel="‖dL/dx‖, relative to the last unit",
    ylim=(0, None),
    alt="Three kinds of unit stay at 1 from end to end, one on top of the other. The original falls once, at the "
    "last unit, and stays. With "
    f"batch norm after the addition it falls to {1 / shortcuts['bn_after_add']['norms'][-1] * shortcuts['bn_after_add']['norms'][-2]:.2f} "
    "there, and then changes in every unit, rising towards the front.",
)

# %% id="shortcut-claim"
kept = [unit for unit, found in shortcuts.items() if found["unchanged"]]
print("unchanged to the last bit:", ", ".join(kept))
claim("numbers in the gradient that 20 units with full pre-activation change", changed, 0, 0)
claim("kinds of unit, of five, that leave the shortcut's gradient as it is", len(kept), 3, 3)
original, after = shortcuts["original"]["factors"], shortcuts["bn_after_add"]["factors"]
claim("units that rescale it in the original kind", sum(factor != 1 for factor in original), 1, 1)
claim("factor by which the original kind rescales it there", min(original), 0.6, 0.8, seen=(0.699, 0.712))
claim(
    "units that rescale it with batch norm after the addition", sum(abs(factor - 1) > 0.01 for factor in after), 20, 20
)

# %% [markdown] id="why-shortcut"
# It is (b). How to read the picture: backward runs from right to left, and a flat line is a gradient that nothing
# has touched. The three kinds with nothing behind the addition lie on each other. In the original, the last
# unit's ReLU takes away, once, what belongs to sums that are not positive; the ReLUs before it find nothing left
# to take. Batch norm behind the addition divides by a standard deviation in **every** unit.
#
# That is what pre-activation is for: the path from the loss to every unit is free. It is a fact about one path,
# at the start of training.

# %% [markdown] id="x1"
# ## Exercise 1: full pre-activation
#
# Write the last unit of the table. You get `x` (N, C, H, W) and four modules that you can call: two batch norms
# and two convolutions, all with C channels in and out.


# %% id="x1-stub"
def unit(x, norm1, conv1, norm2, conv2):
    """The residual unit with full pre-activation: a Tensor like x."""
    raise NotImplementedError


# %% [markdown] id="x1-hint"
# <details>
# <summary>Hint</summary>
#
# Read b r c b r c + from left to right. Keep `x` as it came in: the shortcut adds *that*, not what batch norm and
# ReLU made of it. `F.relu` is the ReLU.
#
# </details>


# %% id="x1-solution"
def unit(x, norm1, conv1, norm2, conv2):
    """The residual unit with full pre-activation: a Tensor like x."""
    y = conv1(F.relu(norm1(x)))
    y = conv2(F.relu(norm2(y)))
    return x + y


# %% id="x1-check"
@check
def unit_with_full_pre_activation():
    rng = numpy.random.default_rng(3)
    parts = FullPreActivation(6, 6)
    parts.to(dtype=numpy.float64)
    for parameter in parts.parameters():
        parameter.data = rng.standard_normal(parameter.shape)
    given = rng.standard_normal((4, 6, 5, 7))
    modules = (parts.bn1, parts.conv1, parts.bn2, parts.conv2)
    x = Tensor(given.copy(), requires_grad=True)
    y = unit(x, *modules)
    assert isinstance(y, Tensor), f"the unit returns a Tensor, yours {type(y).__name__}"
    assert y.shape == given.shape, f"the result should have the shape of x, {given.shape}; yours has {y.shape}"
    wanted = parts(Tensor(given)).data
    off = float(abs(y.data - wanted).max())
    assert off < 1e-9, (
        f"b r c b r c + gives other values: the largest difference is {off:.3g}. The order? Both ReLUs? What is added?"
    )
    parts.conv2.weight.data = numpy.zeros_like(parts.conv2.weight.data)
    dy = rng.standard_normal(given.shape)
    y = unit(x, *modules)
    (y * Tensor(dy)).sum().backward()
    assert (y.data == given).all(), "with conv2 at 0 the unit should return x, bit for bit"
    assert (x.grad == dy).all(), (
        "with conv2 at 0 the gradient of x should be dy, bit for bit: something stands in the shortcut's way"
    )
    assert (x.data == given).all(), "x itself must not change: the shortcut, and whoever else reads it, needs it"


# %% [markdown] id="published"
# ## Does a free path make a better network?
#
# Only training can answer that. He et al. trained all five kinds on CIFAR-10, with 110 layers and with 164
# (bottlenecks there).

# %% [markdown] id="predict-published"
# **Predict.** Which kind has the most errors on the test images at 110 layers?
#
# - (a) the original: it is the oldest
# - (b) the one with batch norm after the addition
# - (c) none stands out; such details are lost in the noise

# %% id="published-plot"
published = published_errors()  # printed by He et al. 2016b, Table 2: nothing of this was trained here
heat_map(
    [[each["110"], each["164"]] for each in published],
    rows=[f"{each['unit']}: {each['parts']}" for each in published],
    columns=["110", "164"],
    form="{:.2f}",
    bar="error, %",
    xlabel="layers",
    title="He et al. 2016b, Table 2",
    alt="Errors in percent at 110 and 164 layers: "
    + "; ".join(f"{each['unit']} {each['110']:.2f} and {each['164']:.2f}" for each in published)
    + ".",
)

# %% id="published-claim"
errors = {each["unit"]: (each["110"], each["164"]) for each in published}
print("source:", published[0]["source"])
claim(
    "printed: best to worst at 110 layers, %", round(max(errors.values())[0] - min(errors.values())[0], 2), 1.80, 1.80
)
claim(
    "printed: original less full pre-activation at 110 layers, %",
    round(errors["original"][0] - errors["full_preact"][0], 2),
    0.24,
    0.24,
)

# %% [markdown] id="why-published"
# It is (b), with 8.17 %. How to read the map: the darker, the more errors. Full pre-activation is best in both
# columns. ReLU before addition leaves the shortcut free too, and its 7.84 % is the second worst: its branch ends
# with a ReLU and can only *add*. So the free path is not all. And original and full pre-activation are 0.24 %
# apart at 110 layers, 24 of the 10,000 test images. Is that more than chance? To say so one has to know how far
# two trainings of the *same* network lie apart.

# %% [markdown] id="order"
# ## The two orders inside H
#
# DenseNet has no additions. Its layer $\ell$ reads $c$ channels that others have made, and here the two orders
# differ in a way of their own. With BN-ReLU-Conv, each layer has its **own** $\gamma$ and $\beta$ for each of the
# $c$ channels. With Conv-BN-ReLU, a feature map is normalised once, by the layer that makes it, and all later
# readers get the same. You can count it: one layer with $c = 150$, $k = 12$ has 300 parameters of batch norm in
# the first order, and 24 in the second.

# %% id="order-run"
depth, width, epochs = 3, 12, 8
for order in ORDERS:
    model = stack("dense", depth=depth, width=width, order=order)
    norms = [module for module in model.modules() if isinstance(module, BatchNorm2d)]
    print(
        f"{order:13} {model.parameter_count():6,} parameters, {sum(norm.parameter_count() for norm in norms)} of them in batch norm"
    )
with init.undrawn():
    claim(
        "batch norm parameters of BN-ReLU-Conv, c = 150, k = 12",
        DenseLayer(150, 12, 0.0).norm1.parameter_count(),
        300,
        300,
    )

# %% [markdown] id="predict-orders"
# **Predict.** We train this small stack on the digits with either order, five times each, with new initial
# weights and another order of the images each time. After eight epochs the mean test accuracies will be
#
# - (a) clearly higher for the paper's order
# - (b) clearly higher for the lecture's
# - (c) so close that five runs hardly tell them apart

# %% id="orders-train"
seeds = range(5 * SEED, 5 * SEED + 5)
histories = {}
for order in ORDERS:
    for seed in seeds:
        model = stack("dense", depth=depth, width=width, seed=seed, order=order)
        histories[order, seed] = OneCycle(epochs=epochs).train(model, digits, seed=seed)  # tested after each epoch
reached = {
    order: [over_seeds([histories[order, seed][epoch]["test_accuracy"] for seed in seeds]) for epoch in range(epochs)]
    for order in ORDERS
}

figure, ((left, right),) = several(2, width=11, height=3.6)
curves(
    range(1, epochs + 1),
    {order: [100 * each["mean"] for each in line] for order, line in reached.items()},
    between={
        order: tuple([100 * (each["mean"] + sign * each["spread"]) for each in line] for sign in (-1, 1))
        for order, line in reached.items()
    },
    alt="",
    axes=left,
    title="Mean of five seeds, band: ± one spread",
    xlabel="epoch",
    ylabel="test accuracy, %",
)
dots(
    right,
    {order: line[-1] for order, line in reached.items()},
    unit=100,
    form=".2f",
    marked=ORDERS[1:],
    title="After the last epoch, each seed",
    xlabel="test accuracy, %",
)
Picture(
    figure,
    "Left: accuracy by epoch; the lecture's order rises earlier, and at the end the lines meet. Right, after the last epoch: "
    + "; ".join(
        f"{order} {100 * line[-1]['mean']:.2f} ± {100 * line[-1]['spread']:.2f} %" for order, line in reached.items()
    ),
)

# %% id="orders-claim"
paper, lecture = (reached[order] for order in ORDERS)
differences = [100 * (b["mean"] - a["mean"]) for a, b in zip(paper, lecture, strict=True)]
standard_error = 100 * ((paper[-1]["spread"] ** 2 + lecture[-1]["spread"] ** 2) / len(seeds)) ** 0.5
print(f"after the last epoch: difference {differences[-1]:+.2f} %, standard error {standard_error:.2f} %;")
print(
    f"one test image is {100 / len(digits.test_images):.2f} %. More than 3 standard errors: {apart(paper[-1], lecture[-1])}"
)
print(f"after epoch 3: difference {differences[2]:+.1f} %. More than 3 standard errors: {apart(paper[2], lecture[2])}")
claim("the worse order at the end, %", 100 * min(paper[-1]["mean"], lecture[-1]["mean"]), 96.5, 99.5, seen=(97.8, 98.3))
claim("lecture's order less the paper's, at the end, %", differences[-1], -1, 1.6, seen=(0.111, 0.556))
early = statistics.mean(differences[1:4])
claim("lecture's order less the paper's, mean of epochs 2 to 4, %", early, 1, 26, seen=(7.96, 16.5))

# %% [markdown] id="why-orders"
# It is (c). How to read the picture: on the right every circle is a training, and the bars are means; on the
# left, the bands reach one spread, the standard deviation of the five runs, to either side of the mean. At the
# end the means lie a fraction of a percent apart, one or two of the 360 images. By our rule (next section) that
# is no more than chance.
#
# But that means "not shown", never "equal". Read the line of the claim to its end: "five seeds gave" is this
# whole experiment, done five times with other seeds, and each time the *lecture's* order was ahead by a hair.
#
# Around the third epoch it is ahead by ten percent or so. (The line for epoch 3 shows whether that passes the
# rule: early on, runs lie far apart.) Whoever stops there could report the opposite of what the papers say. This
# stack learns faster at first with Conv-BN-ReLU; we have not looked into why. None of it says anything about a
# hundred layers on CIFAR-10.

# %% [markdown] id="noise"
# ## How one judges noise
#
# From $n$ runs you have a mean $\bar a$ and a spread $s_a$, with $n - 1$ below. The mean wobbles by $s_a /
# \sqrt{n}$, less than one run, and the difference of two means by the **standard error**
#
# $$\mathrm{SE} = \sqrt{\frac{s_a^2}{n_a} + \frac{s_b^2}{n_b}} .$$
#
# minidense calls a difference more than chance when it is larger than three of these. Fix such a rule *before*
# you look. For a Gaussian whose spread is known, chance exceeds three standard errors 3 times in 1,000.

# %% [markdown] id="predict-alarms"
# **Predict.** But you estimate the spread from the same few runs. Draw **two** runs from a bag and two more from
# the same bag. How often does the rule see a difference where there is none?
#
# - (a) 3 times in 1,000, as for the Gaussian
# - (b) about once in 100
# - (c) about once in 10

# %% id="alarms-run"
rng = numpy.random.default_rng(SEED)
counts = (2, 3, 4, 5, 7, 10, 20)


def false_alarms(n, errors, trials=20_000):
    """How often two groups of n numbers from the same Gaussian lie more than so many standard errors apart."""
    a, b = rng.standard_normal((2, trials, n))
    se = numpy.sqrt(a.var(1, ddof=1) / n + b.var(1, ddof=1) / n)
    return float((abs(a.mean(1) - b.mean(1)) > errors * se).mean())


alarms = {f"{errors} standard errors": [100 * false_alarms(n, errors) for n in counts] for errors in (2, 3)}
curves(
    counts,
    alarms,
    log="x",
    title="Two groups from the same bag: how often the rule sees a difference",
    xlabel="runs in each group",
    ylabel="false alarms, %",
    ylim=(0, None),
    alt="Both lines fall with the number of runs. "
    + "; ".join(
        f"{name}: {line[0]:.0f} % with 2 runs, {line[3]:.1f} % with 5, {line[-1]:.1f} % with 20"
        for name, line in alarms.items()
    ),
)

# %% id="alarms-claim"
three = alarms["3 standard errors"]
claim("false alarms of the rule of three with 2 runs each, %", three[0], 8.5, 10.5, seen=(9.34, 9.96))
claim("false alarms of the rule of three with 5 runs each, %", three[3], 1.2, 2.2, seen=(1.59, 1.71))
claim(
    "false alarms of a rule of two standard errors with 5 runs each, %",
    alarms["2 standard errors"][3],
    7.0,
    9.5,
    seen=(7.96, 8.49),
)

# %% [markdown] id="why-alarms"
# It is (c): two runs that happen to fall close together make the spread look tiny. How to read the picture: a
# point is the share of false alarms with so many runs. Five runs bring it to about 2 in 100; with a rule of two
# standard errors, five runs are wrong one time in twelve or so. Whoever compares ten details that change nothing,
# with two runs each, must expect to "find" one.
#
# Then there is the **ceiling**. At 99 % of 360 images, four are wrong: two good networks can hardly differ,
# whatever their merits. "No difference was found" says something about the networks only if the measurement could
# have found one.

# %% [markdown] id="x2"
# ## Exercise 2: is it noise?
#
# You get two lists of accuracies, of two runs or more, not always equally many. Return three things: the
# difference of the means $\bar a - \bar b$, its standard error, and whether the difference, in either direction,
# is larger than three standard errors.


# %% id="x2-stub"
def judged(a, b):
    """(ā − b̄, its standard error, is |ā − b̄| larger than three of them?) for two lists of accuracies."""
    raise NotImplementedError


# %% [markdown] id="x2-hint"
# <details>
# <summary>Hint</summary>
#
# The standard library has `statistics.mean`, and two standard deviations: `stdev` divides by $n - 1$, `pstdev` by
# $n$. Variances add, standard deviations do not.
#
# </details>


# %% id="x2-solution"
def judged(a, b):
    """(ā − b̄, its standard error, is |ā − b̄| larger than three of them?) for two lists of accuracies."""
    difference = statistics.mean(a) - statistics.mean(b)
    error = (statistics.stdev(a) ** 2 / len(a) + statistics.stdev(b) ** 2 / len(b)) ** 0.5
    return difference, error, abs(difference) > 3 * error


# %% id="x2-check"
@check
def judged_by_standard_errors():
    rng = numpy.random.default_rng(8)
    pairs = [
        ([0.97, 0.98, 0.99], [0.97, 0.98, 0.99]),
        ([0.9, 0.91], [0.98, 0.99, 0.985]),
        ([0.99, 0.98, 0.985], [0.9, 0.91]),
    ]
    pairs.append(([0.90, 0.99, 0.95], [0.88, 0.93, 0.97]))
    pairs.append(([0.9901, 0.9902, 0.9900], [0.9880, 0.9881, 0.9879]))
    for gap in (0.0, 0.01, 0.02, 0.03, 0.05):
        for n, m in ((2, 7), (5, 5), (8, 3)):
            pairs.append(
                (
                    (0.95 + gap + 0.01 * rng.standard_normal(n)).tolist(),
                    (0.95 + 0.004 * rng.standard_normal(m)).tolist(),
                )
            )
    for a, b in pairs:
        kept = list(a), list(b)
        got = judged(a, b)
        assert (a, b) == kept, "the lists must stay as they are"
        told = f"return three things: difference, standard error, verdict; you return {got!r}"
        assert isinstance(got, tuple | list), told
        assert len(got) == 3, told
        difference = sum(a) / len(a) - sum(b) / len(b)
        squares = [sum((x - sum(each) / len(each)) ** 2 for x in each) / (len(each) - 1) / len(each) for each in (a, b)]
        error = sum(squares) ** 0.5
        where = f"for {len(a)} runs {[round(x, 3) for x in a]} and {len(b)} runs {[round(x, 3) for x in b]}"
        assert abs(got[0] - difference) < 1e-12, (
            f"{where}: the difference of the means is {difference:.5f}, you say {got[0]:.5f}"
        )
        assert abs(got[1] - error) < 1e-12, f"{where}: the standard error is {error:.5f}, you say {got[1]:.5f}"
        assert bool(got[2]) == (abs(difference) > 3 * error), (
            f"{where}: {difference:.5f} is {abs(difference) / error:.2f} standard errors, so the verdict is {abs(difference) > 3 * error}"
        )


# %% [markdown] id="last-norm"
# ## Pre-activation needs a last activation
#
# When activations stand in front, a bare convolution leaves the last layer of a DenseNet, and the head takes its
# mean over all pixels. But the mean of a 3×3 convolution's result is, except at the border, the sum of its nine
# taps (its weights for one channel) times the mean of what went in. To test that, with images whose border is 0:

# %% id="last-norm-run"
rng = numpy.random.default_rng(SEED)
x = numpy.zeros((16, 20, 8, 8))
x[:, :, 1:-1, 1:-1] = rng.standard_normal((16, 20, 6, 6))
x = Tensor(x)
weight = rng.standard_normal((6, 20, 3, 3))
nine_taps = F.conv2d(x, Tensor(weight), padding=1)
one_tap = F.conv2d(x, Tensor(weight.sum((2, 3), keepdims=True)))


def difference_in_means(a, b):
    """Between the global averages of two stacks of feature maps, relative to the largest."""
    a, b = F.global_avg_pool2d(a).data, F.global_avg_pool2d(b).data
    return float(abs(a - b).max() / abs(a).max())


norm = BatchNorm2d(6).to(dtype=numpy.float64)
bare = difference_in_means(nine_taps, one_tap)
activated = difference_in_means(norm_relu(norm, nine_taps), norm_relu(norm, one_tap))
claim("nine taps against their sum, directly averaged", bare, 0, 1e-12, seen=(1.69e-16, 4.14e-16))
claim("nine taps against their sum, BN-ReLU before averaging", activated, 0.1, 0.8, seen=(0.309, 0.345))

# %% [markdown] id="differs-3-4"
# **Lecture and paper differ.** The lecture's code averages directly behind block 4. With pre-activation, the
# average could then not tell the newest 3×3 convolutions from 1×1 convolutions; the authors' code has BN-ReLU
# there (`norm5` in torchvision's names and in ours). In the *lecture's* order, to be fair, the last maps are
# activated already.
#
# Behind the 7×7 convolution of the ImageNet network, too, the lecture has nothing, nor has the paper's Table 1;
# the authors' code has BN-ReLU there, before max pooling:

# %% id="stem-run"
with init.undrawn():
    densenet121 = models.densenet_imagenet(blocks=(6, 12, 24, 16))
print(*[name for name, _ in densenet121.features.named_children()], sep=", ")

# %% [markdown] id="bias"
# ## A bias that nobody hears

# %% [markdown] id="predict-bias"
# **Predict.** The lecture's convolutions keep the bias that Keras gives them. We add 5 to all that a convolution
# makes, and send it through batch norm. What comes out
#
# - (a) is larger by 5
# - (b) is larger by 5 divided by the standard deviation
# - (c) is the same

# %% id="bias-run"
# Whole numbers, and 16·8·8 of them: a power of two. Then sums and means are exact, and there is no rounding to hide behind.
made = Tensor(rng.integers(-8, 9, (16, 6, 8, 8)).astype(float))
bias = Tensor(numpy.full((1, 6, 1, 1), 5.0), requires_grad=True)
norm = BatchNorm2d(6).to(dtype=numpy.float64)
without, with_bias = norm(made), norm(made + bias)
dy = rng.standard_normal(made.shape)
(with_bias * Tensor(dy)).sum().backward()

claim("values that the bias changes behind batch norm", int((without.data != with_bias.data).sum()), 0, 0)
claim("largest gradient that reaches the bias", float(abs(bias.grad).max()), 0, 1e-10, seen=(4.44e-15, 7.11e-15))
biases = sum(module.weight.shape[0] for module in densenet121.modules() if isinstance(module, Conv2d))
claim("biases that DenseNet-121 would have", biases, 10_240, 10_240)

# %% [markdown] id="differs-5"
# It is (c), to the last bit. Batch norm subtracts the mean of each channel, and a constant that was added is part
# of that mean. The gradient of the bias is 0 but for rounding: it never learns anything. An average pooling or a
# concatenation in between leaves a constant as it is.
#
# **Lecture and paper differ.** The lecture's `Conv2D` layers leave Keras's `use_bias=True`; the paper's networks
# have no convolution biases. In DenseNet-121 that would be 10,240 parameters that do nothing.

# %% [markdown] id="head"
# ## The head
#
# At the end there are feature maps $(N, C, H, W)$, and a classifier wants one vector an image. Older networks
# **flattened**: all $C \cdot H \cdot W$ numbers go into a linear layer. Network in Network (Lin et al. 2014) took
# the **average** of each map, and so does DenseNet:

# %% id="head-run"
small = with_head("average", seed=SEED)
features = F.relu(small.features(Tensor(digits.test_images[:5])))
print("features", features.shape)
print("averaged ", F.global_avg_pool2d(features).shape)
print("flattened", F.reshape(features, (5, -1)).shape)

# %% id="head-count"
paper_heads = heads_of_the_paper()  # DenseNet-BC (100, 12): 342 maps of 8×8 pixels, ten classes
claim("parameters of the averaging head", paper_heads["average"], 3_430, 3_430)
claim("parameters of a flattening head", paper_heads["flatten"], 218_890, 218_890)
print(f"the rest of the network has {paper_heads['features']:,}")

# %% [markdown] id="predict-head"
# **Predict.** We train a small DenseNet-BC with each head on digits that never move. Then we test it on the test
# images as they are, and moved by one pixel (up, down, left, right). The averaging head is
#
# - (a) better on both
# - (b) about as good, or a little worse, on images as they are, and better on moved ones
# - (c) worse on both: it has fewer weights, and throws the place away

# %% id="head-train"
seeds = range(2 * SEED, 2 * SEED + 2)
trained = {
    head: [
        trained_with_head(head, digits, epochs=8, blocks=(3, 3), growth_rate=6, augment=False, seed=seed)
        for seed in seeds
    ]
    for head in ("average", "flatten")
}
moved = {
    head: [statistics.mean(100 * run["shifted"][i] for run in found) for i in range(len(SHIFTS))]
    for head, found in trained.items()
}
curves(
    SHIFTS,
    moved,
    title="Trained on images that never move",
    xlabel="test images moved by, pixels",
    ylabel="test accuracy, %",
    ylim=(0, 100),
    alt="Accuracy on test images moved by 0, 1 and 2 pixels: "
    + "; ".join(f"{head} {', '.join(f'{value:.0f}' for value in line)} %" for head, line in moved.items()),
)

# %% id="head-claim"
average, flatten = moved["average"], moved["flatten"]
claim("average less flatten, images as they are, %", average[0] - flatten[0], -6, 3, seen=(-1.95, -0.555))
claim("average less flatten, images moved by a pixel, %", average[1] - flatten[1], 2, 28, seen=(11.7, 16.8))
claim("what moving by a pixel costs the flattening head, %", flatten[0] - flatten[1], 18, 48, seen=(31.4, 35.6))

# %% [markdown] id="why-head"
# It is (b). How to read the picture: the steeper a line falls, the more its head depends on the place. On images
# as they are, both heads are good; the flattening one came out a little ahead, which two runs cannot show. Moved
# by one pixel, it loses about a third of the images; the averaging head loses about half as many. It is not blind
# to moving either: zeros at the border and pooling by twos tell the convolutions where they are.
#
# The parameters are no matter of chance: 3,430 against 218,890 for DenseNet-BC (100, 12), whose other parts have
# 765,732.

# %% [markdown] id="differs-7-24"
# **Lecture and paper differ.** The lecture says that global average pooling maps one feature map to one output
# node. That is how **Network in Network** does it: its last convolution makes as many maps as there are classes,
# and their means *are* the logits. DenseNet's 342 means go through a linear layer, with the 3,430 parameters. The
# lecture's code also has `Dense(2)`, "classes = 2", next to a table with 1000 classes: that is ImageNet's number;
# CIFAR has 10 or 100.

# %% [markdown] id="x3"
# ## Exercise 3: the way back through the average
#
# $y_{nc} = \frac{1}{HW} \sum_{ij} x_{ncij}$. Write its backward: from `dy` $= \partial L / \partial y$ of shape
# (N, C) to `dx` of shape (N, C, H, W).


# %% id="x3-stub"
def average_backward(dy, shape):
    """dL/dx of a global average: dy is (N, C), shape is x's (N, C, H, W). NumPy arrays."""
    raise NotImplementedError


# %% [markdown] id="x3-hint"
# <details>
# <summary>Hint</summary>
#
# How fast does $y_{nc}$ move with any one pixel of its map? All pixels are alike in this. `dy[:, :, None, None]`
# has the shape (N, C, 1, 1), and NumPy stretches it.
#
# </details>


# %% id="x3-solution"
def average_backward(dy, shape):
    """dL/dx of a global average: dy is (N, C), shape is x's (N, C, H, W). NumPy arrays."""
    n, c, h, w = shape
    return numpy.ones((n, c, h, w)) * dy[:, :, None, None] / (h * w)


# %% id="x3-check"
@check
def backward_of_the_average():
    rng = numpy.random.default_rng(4)
    for shape in ((2, 3, 4, 5), (3, 3, 1, 7), (5, 1, 6, 2), (4, 4, 4, 4), (1, 2, 1, 1)):
        x, dy = rng.standard_normal(shape), rng.standard_normal(shape[:2])
        given = dy.copy()
        dx = numpy.asarray(average_backward(dy, shape))
        assert (dy == given).all(), "dy must stay as it is: others may still need it"
        assert dx.shape == shape, f"dx should have the shape of x, {shape}; yours has {dx.shape}"
        step = rng.standard_normal(shape)
        moved = float(
            (dy * ((x + step).mean((2, 3)) - x.mean((2, 3)))).sum()
        )  # the average is linear: no small step is needed
        told = float((dx * step).sum())
        assert abs(moved - told) < 1e-9, (
            f"shape {shape}: for a step of x, Σ dy·y moves by {moved:.5f}, and your dx says {told:.5f}"
        )


# %% [markdown] id="break-it"
# ## Break it
#
# - In "shortcut-run", leave out `silence`. How many numbers of the gradient differ now, and is that bad?
# - Train the two orders with twice the epochs, or with `depth = 6`. What becomes of the difference?
# - Pass `augment=True` in "head-train": images then move by up to a pixel in training. What is left of the
#   averaging head's advantage?

# %% [markdown] id="summary"
# ## Three lines to keep
#
# 1. Full pre-activation puts nothing behind the addition: the shortcut's gradient passes unchanged, to the last
#    bit. It needs a last BN-ReLU before the head, and no biases.
# 2. Hold a difference against its standard error, by a rule fixed before looking, from five runs rather than two;
#    near the ceiling, expect to see none.
# 3. Averaging keeps one number of a feature map: 3,430 parameters instead of 218,890, and less trouble when the
#    image moves.

# %% [markdown] id="differs-1-21"
# ## Where lecture and paper differ
#
# - **The order.** The paper defines $H_\ell$ as "three consecutive operations: batch normalization (BN), followed
#   by a rectified linear unit (ReLU) and a 3×3 convolution" (§3, "composite function"). The lecture's text says
#   so too; its Keras code has Conv-BN-ReLU, for the 1×1 and for the 3×3.
# - **How often.** The lecture writes $H$ as BN-ReLU-Conv3×3, and later as pre-activation "repeated twice". Once
#   is DenseNet's; twice are He et al.'s residual units and DenseNet-B's bottleneck layer.

# %% [markdown] id="paper"
# ## What the lecture and the papers say
#
# The ten errors of the five units are He et al.'s (2016b, Table 2, CIFAR-10 with augmentation), and the lecture
# copies every one correctly. Their case for pre-activation is depth: in their Table 3, a ResNet with 1001 layers
# goes from 7.61 % to 4.92 %.
#
# The DenseNet paper takes the order over ("motivated by" He et al., §3) and has no experiment on it. The free
# path of residual units is no argument there: concatenation hands features to every later layer untouched in
# either order. What differs is that each layer weighs what it reads by its own $\gamma$ and $\beta$. Whether that
# helps, our three layers on 1,437 digits cannot tell.
#
# On the head, the lecture says that fully connected layers lose the position of features, and that averaging
# loses less information. It is the other way round: the flattened vector keeps every position. Lin et al. (2014,
# §3.2) name the loss as the *advantage*: averaging "sums out the spatial information, thus it is more robust to
# spatial translations of the input", which is what you saw. Whether it also prevents overfitting, as they claim,
# our two runs a head do not test.

# %% [markdown] id="source"
# ## The real one
#
# The paper's $H$, the forward of exercise 1's unit, and the average with the backward that you have written.

# %% id="source-code"
print(inspect.getsource(DenseLayer))
print(inspect.getsource(FullPreActivation.forward))
print(inspect.getsource(GlobalAvgPool2d))
