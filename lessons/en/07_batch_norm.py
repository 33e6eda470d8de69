# %% [markdown] id="why-care"
# In lesson 05 ten layers of sigmoid learned nothing, and ten layers of ReLU learned well as long as the learning
# rate was small. Both answers depend on numbers that you have to get right before training begins: the scale of
# the weights, the rate. Get them wrong by a factor of ten and the network sits at chance, without telling you
# why.
#
# Batch normalisation takes a layer's values, subtracts their mean and divides by their standard deviation, and
# hands the result on. That is all, and a DenseNet does it before nearly all of its convolutions. In this lesson
# you write it, forwards and backwards; you see what it does to ten layers of sigmoid, and what it costs, because
# from here on an image's result depends on **which other images are in the batch**.

# %% id="imports" tags=["setup"]
import inspect

import numpy

from minidense import Tensor, ops
from minidense import functional as F
from minidense.errors import ShapeError
from minidense.experiments.batch_norm import batch_norm_rates, batch_of_one, picture
from minidense.experiments.perceptrons import BatchNorm1d, first_to_last, gradient_norms, perceptron, random_examples
from minidense.lessons import SEED, check, claim
from minidense.plots import curves
from minidense.tensor import apply
from minidense.testing import check_gradients

rng = numpy.random.default_rng(SEED)

# %% [markdown] id="forward"
# ## Four lines
#
# Take one feature of a layer and its values $x_1, \dots, x_m$ for the $m$ examples of a batch. Batch norm is
# (Ioffe & Szegedy 2015, Algorithm 1)
#
# $$\mu = \frac1m \sum_i x_i, \qquad \sigma^2 = \frac1m \sum_i (x_i - \mu)^2, \qquad
# \hat x_i = \frac{x_i - \mu}{\sqrt{\sigma^2 + \varepsilon}}, \qquad y_i = \gamma\,\hat x_i + \beta .$$
#
# Each feature has its own $\mu$ and $\sigma^2$, which are *measured* in this batch, and its own $\gamma$ and
# $\beta$, which are *learned*; they begin at 1 and 0. The small $\varepsilon$ (10⁻⁵) is there for the feature
# that happens to be constant.


# %% id="forward-code" tags=["setup"]
def batch_norm(x, gamma=1.0, beta=0.0, eps=1e-5):
    """Normalise each column of x, (m examples, C features)."""
    mean, var = x.mean(axis=0), x.var(axis=0)
    x_hat = (x - mean) / numpy.sqrt(var + eps)
    return gamma * x_hat + beta


# %% id="forward-run"
x = rng.normal(size=(64, 3)) * (0.1, 1, 50) + (7, 0, -200)
y = batch_norm(x)
with numpy.printoptions(suppress=True):
    print("mean before", x.mean(0).round(2), "after", abs(y.mean(0)).round(6))
    print("std  before", x.std(0).round(2), "after", y.std(0).round(3))

# %% [markdown] id="predict-shape"
# **Predict.** A feature has only positive values: many small ones, a few large ones, a long tail to the right.
# What does its distribution look like after batch norm?
#
# - (a) a bell curve, the standard normal distribution
# - (b) the same lopsided shape, moved and scaled
# - (c) evenly spread between −1 and 1
#
# Choose before you run the next cell.

# %% id="shape-run"
lopsided = rng.exponential(size=(20_000, 1)) * 3 + 1
after = batch_norm(lopsided)
edges = numpy.linspace(-3, 10, 66)
middle = (edges[1:] + edges[:-1]) / 2
curves(
    middle,
    {
        "before": numpy.histogram(lopsided, edges, density=True)[0],
        "after batch norm": numpy.histogram(after, edges, density=True)[0],
        "standard normal": numpy.exp(-(middle**2) / 2) / numpy.sqrt(2 * numpy.pi),
    },
    title="A lopsided feature before and after batch norm",
    xlabel="value",
    ylabel="density",
    alt=(
        f"Densities of a feature: before batch norm its values lie between {lopsided.min():.2f} and {lopsided.max():.1f}, half of "
        f"them below {numpy.median(lopsided):.2f}; after it between {after.min():.2f} and {after.max():.1f}, half of them below "
        f"{numpy.median(after):.2f}. For comparison the bell of the standard normal."
    ),
)


# %% id="shape-claim"
def skewness(values):
    """0 for what is symmetric, positive for a tail to the right."""
    return float((((values - values.mean()) / values.std()) ** 3).mean())


claim("skewness after batch norm (0 would be symmetric)", skewness(after), 1.7, 2.4, seen=(1.95, 2.03))
claim("change of the skewness by batch norm", abs(skewness(after) - skewness(lopsided)), 0, 1e-9, seen=(0, 8.89e-16))

# %% [markdown] id="why-shape"
# It is (b). How to read the picture: the height says how common a value is. The cliff on the left and the tail on
# the right are still there, only closer together and around 0. Subtracting a number and dividing by a number
# cannot bend anything: mean and width are now those of the standard normal distribution, the shape is not.
# Remember it when you read that batch norm "makes the values Gaussian".

# %% [markdown] id="channels"
# ## Images: one mean a channel
#
# A convolution uses the same weights at every place of the image, so batch norm treats all places alike too (§3.2
# of the paper): the values of channel $c$ are those of **all images at all places**, $m = N \cdot H \cdot W$. A
# layer with 24 channels has 24 means, whatever the size of its images.

# %% [markdown] id="x1"
# ## Exercise 1: forward, for images
#
# `batch_norm` above is for a table of examples. Write it for images.


# %% id="x1-stub"
def batch_norm_images(x, gamma, beta, eps=1e-5):
    """Batch norm of images x (N, C, H, W); gamma and beta are (C,). Returns a new array of x's shape and leaves x as it is."""
    raise NotImplementedError


# %% [markdown] id="x1-hint"
# <details>
# <summary>Hint</summary>
#
# Which axes does one channel's mean run over? All but one of the four. `keepdims=True` leaves the mean in shape
# (1, C, 1, 1), which broadcasts.
#
# </details>

# %% [markdown] id="x1-hint-2"
# <details>
# <summary>Second hint</summary>
#
# `gamma` is (C,), and broadcasting lines shapes up from the right: `gamma * x_hat` would multiply along the
# width. Give it the shape (C, 1, 1) with `gamma[:, None, None]`.
#
# </details>


# %% id="x1-solution"
def batch_norm_images(x, gamma, beta, eps=1e-5):
    """Batch norm of images x (N, C, H, W); gamma and beta are (C,). Returns a new array of x's shape and leaves x as it is."""
    mean = x.mean(axis=(0, 2, 3), keepdims=True)
    var = x.var(axis=(0, 2, 3), keepdims=True)
    x_hat = (x - mean) / numpy.sqrt(var + eps)
    return gamma[:, None, None] * x_hat + beta[:, None, None]


# %% id="x1-check"
@check
def batch_norm_of_images():
    draw = numpy.random.default_rng(7)
    x = draw.normal(size=(5, 3, 4, 4)) * draw.uniform(0.01, 3, (1, 3, 1, 1)) + draw.normal(size=(5, 3, 1, 1))
    gamma, beta, before = draw.uniform(0.5, 2, 3), draw.normal(size=3), x.copy()
    y = batch_norm_images(x, gamma, beta)
    assert (x == before).all(), "x itself was changed: compute new arrays instead of x -= …"
    assert getattr(y, "shape", None) == x.shape, f"the result should have the shape {x.shape}, got {numpy.shape(y)}"
    mean, std = y.mean(axis=(0, 2, 3)), y.std(axis=(0, 2, 3))
    assert abs(mean - beta).max() < 1e-9, (
        f"each channel's mean over images and places should be β, {beta.round(3)}; got {mean.round(3)}"
    )
    assert abs(std / gamma - 1).max() < 0.1, (
        f"each channel's standard deviation should be about γ, {gamma.round(3)}; got {std.round(3)}"
    )
    for eps in (1e-5, 0.5):  # with a large ε it shows where it stands
        y = batch_norm_images(x, gamma, beta, eps)
        wanted = F.batch_norm(Tensor(x), Tensor(gamma), Tensor(beta), eps=eps).data
        assert abs(y - wanted).max() < 1e-9, (
            f"with ε = {eps} a value is off by {abs(y - wanted).max():.2g}: divide by √(σ² + ε), σ² with 1/m, one σ² a channel"
        )


# %% [markdown] id="scale"
# ## What normalising makes irrelevant
#
# Put batch norm behind a linear layer, as in $\mathrm{BN}(W x)$, and ask what the scale of $W$ still means.

# %% [markdown] id="predict-scale"
# **Predict.** All weights of the layer are multiplied by 10. Its output, and the gradient of its weights, become
#
# - (a) output ten times as large, gradient as before
# - (b) output as before, gradient as before
# - (c) output as before, gradient a tenth

# %% id="scale-run"
examples, weight = rng.normal(size=(64, 20)), rng.normal(size=(8, 20))
pull = rng.normal(size=(64, 8))  # dL/dy, any will do
norm = BatchNorm1d(8).to(dtype="float64")


def output_and_gradient(scale):
    """BN(scale·W x), and dL/d(scale·W)."""
    scaled = Tensor(scale * weight, requires_grad=True)
    y = norm(F.linear(Tensor(examples), scaled))
    y.backward(pull)
    return y.data, scaled.grad


(y1, dw1), (y10, dw10) = output_and_gradient(1), output_and_gradient(10)

# %% id="scale-claim"
claim(
    "largest change of the output when the weights are multiplied by 10",
    abs(y10 - y1).max(),
    0,
    1e-05,
    seen=(8.79e-07, 1.56e-06),
)
claim(
    "size of the gradient with ten times the weights, relative to before",
    numpy.linalg.norm(dw10) / numpy.linalg.norm(dw1),
    0.0999,
    0.1001,
    seen=(0.1, 0.1001),
)

right_angle = abs((dw1 * weight).sum(axis=1)) / numpy.linalg.norm(dw1, axis=1) / numpy.linalg.norm(weight, axis=1)
claim(
    "largest cosine between a unit's weights and their gradient", right_angle.max(), 0, 1e-05, seen=(1.52e-07, 4.67e-07)
)

# %% [markdown] id="why-scale"
# It is (c). The factor 10 is in $x - \mu$ and in $\sigma$, and cancels (all but a trace of $\varepsilon$). If $y$
# does not change when $W$ becomes $aW$, then a step of a given size matters $a$ times less, and the gradient with
# respect to $aW$ is $1/a$ of what it was. The paper has both equations in §3.3.
#
# The third claim says the same in another way: along $W$ itself nothing changes, so the gradient stands at a
# right angle to it. Together this is a brake. A step at a right angle always makes the weights *longer*; a rate
# that is too high makes them much longer; longer weights get smaller gradients, and the steps shrink by
# themselves. And it is why a bias in front of batch norm is useless (it is in $x$ and in $\mu$): DenseNet's
# convolutions have none, $\beta$ does the job.

# %% [markdown] id="backward"
# ## Backwards, in three lines
#
# Given $dy_i = \partial L/\partial y_i$. The first line is easy, because $y_i = \gamma \hat x_i + \beta$:
#
# $$d\beta = \sum_i dy_i, \qquad d\gamma = \sum_i dy_i\,\hat x_i, \qquad d\hat x_i = \gamma\,dy_i .$$
#
# The second line is where people go wrong. $\hat x_j$ depends on $x_i$ in **three** ways: directly, if $i = j$;
# through the mean, which every $x_i$ moves by $1/m$; and through $\sigma$, which $x_i$ moves by $\hat x_i/m$:
#
# $$\frac{\partial \hat x_j}{\partial x_i} = \frac1\sigma \Big( [i = j] - \frac1m - \frac{\hat x_i \hat x_j}{m} \Big) .$$
#
# (Here $\sigma$ stands for $\sqrt{\sigma^2 + \varepsilon}$.) Third line, the chain rule, $dx_i = \sum_j d\hat
# x_j\, \partial \hat x_j/\partial x_i$:
#
# $$dx_i = \frac{\gamma}{\sigma} \Big( dy_i - \underbrace{\frac1m \sum_j dy_j}_{\text{mean term}} - \hat x_i
# \underbrace{\frac1m \sum_j dy_j\,\hat x_j}_{\text{variance term}} \Big) .$$
#
# There is a way to see that it must be so. Adding a constant to all $x_i$ changes nothing, nor does scaling them.
# So the gradient may have no part in these two directions, and the two terms take them out.

# %% [markdown] id="predict-sum"
# **Predict.** The loss is the plain sum of all outputs, so $dy_i = 1$ everywhere, with $\gamma = 1$. What is
# $dx$?
#
# - (a) $1/\sigma$ for every example
# - (b) zero for every example
# - (c) large where $x_i$ is far from the mean


# %% id="sum-run"
class Forgetful(ops.BatchNorm):
    """Batch norm whose backward leaves terms out."""

    def __init__(self, mean_term, variance_term):
        super().__init__()
        self.mean_term, self.variance_term = mean_term, variance_term

    def backward(self, dy):
        def per_channel(values):
            return values.mean(axis=(0, 2, 3), keepdims=True)

        dx = dy - self.mean_term * per_channel(dy) - self.variance_term * self.x_hat * per_channel(dy * self.x_hat)
        scale = (self.gamma * self.inv_std)[:, None, None]
        return scale * dx, (dy * self.x_hat).sum(axis=(0, 2, 3)), dy.sum(axis=(0, 2, 3))


def dx_of(op, x, dy):
    """What the op's backward makes of dy, with γ = 1 and β = 0."""
    op.forward(x, numpy.ones(x.shape[1]), numpy.zeros(x.shape[1]))
    return op.backward(dy)[0]


x = rng.normal(size=(6, 3, 2, 2))
sum_gradient = abs(dx_of(Forgetful(1, 1), x, numpy.ones_like(x))).max()
variants = {"nothing forgotten": (1, 1), "no variance term": (1, 0), "no mean term": (0, 1), "neither": (0, 0)}
print("largest |dx| of the sum, by backwards that forget:")
for name, terms in variants.items():
    print(f"  {name:18} {abs(dx_of(Forgetful(*terms), x, numpy.ones_like(x))).max():.2g}")

# %% id="sum-claim"
claim("largest dx of the sum of all outputs", sum_gradient, 0, 1e-12, seen=(1e-16, 2.32e-16))

# %% [markdown] id="why-sum"
# It is (b). The mean of $y$ is $\beta$, whatever $x$ is: the sum cannot be moved, so nothing has a gradient. And
# look at the second row: a backward *without the variance term* gives zero too. If you had tested yours with
# "loss = sum", as is often done, the mistake would have passed. That is the trap of lesson 03, and the reason why
# `check_gradients` draws a random $dy$. Does it catch all three?

# %% id="caught-run"
gamma, beta = rng.uniform(0.5, 2, 3), rng.normal(size=3)
caught = 0
for name, terms in variants.items():
    try:
        check_gradients(lambda x, gamma, beta, terms=terms: apply(Forgetful(*terms), x, gamma, beta), x, gamma, beta)
        print(f"{name:18} passes")
    except AssertionError as error:
        caught += 1
        print(f"{name:18} {error}")
claim("wrong backwards that check_gradients catches, of three", caught, 3, 3)

# %% [markdown] id="predict-large"
# **Predict.** So why does anybody get away with forgetting? Take a channel with 10,000 values (40 images of 16 ×
# 16) and a random $dy$. Leaving the mean term out changes $dx$ by
#
# - (a) half of its size
# - (b) about one per cent
# - (c) less than one part in ten thousand

# %% id="large-run"
sizes = [4, 16, 100, 1000, 10_000]
errors = {"no mean term": [], "no variance term": []}
for m in sizes:
    found = {name: [] for name in errors}
    for _ in range(20):
        x, dy = rng.normal(size=(m, 8, 1, 1)), rng.normal(size=(m, 8, 1, 1))
        right = dx_of(Forgetful(1, 1), x, dy)
        for name, wrong in found.items():
            difference = dx_of(Forgetful(*variants[name]), x, dy) - right
            wrong.append(numpy.linalg.norm(difference) / numpy.linalg.norm(right))
    for name, wrong in found.items():
        errors[name].append(float(numpy.median(wrong)))
curves(
    sizes,
    errors,
    log="xy",
    title="What a forgotten term changes, with a random dy",
    xlabel="values a channel, m",
    ylabel="relative error of dx",
    alt=(
        "Relative error of dx on logarithmic axes: two lines on top of each other fall straight, from "
        f"{errors['no mean term'][0]:.2f} at m = 4 to {errors['no mean term'][-1]:.3f} at m = 10,000."
    ),
)

# %% id="large-claim"
claim(
    "relative error without the mean term, 10,000 values a channel",
    errors["no mean term"][-1],
    0.006,
    0.014,
    seen=(0.00938, 0.0108),
)
claim(
    "relative error without the mean term, 4 values a channel", errors["no mean term"][0], 0.4, 0.9, seen=(0.621, 0.681)
)

# %% [markdown] id="why-large"
# It is (b): the mean of $m$ random numbers is about $1/\sqrt m$, a straight line in this picture, where both axes
# count factors. With large batches a comparison "to two digits" lets the mistake through. It is small for
# *random* $dy$, but it always points the same way, along the two directions in which the loss cannot change. The
# paper tells what happens then (§2): if the gradient ignores that the mean moves along, a bias in front of the
# normalisation grows step after step, and neither the output nor the loss takes notice.

# %% [markdown] id="x2"
# ## Exercise 2: backward
#
# Write it for a table, (m, C), as in `batch_norm` above. Half of the work is knowing over which axis each sum
# runs.


# %% id="x2-stub"
def batch_norm_backward(dy, x, gamma, eps=1e-5):
    """(dx, dgamma, dbeta) of y = γ·x̂ + β for dy and x of shape (m, C), gamma (C,); dgamma and dbeta are (C,)."""
    raise NotImplementedError


# %% [markdown] id="x2-hint"
# <details>
# <summary>Hint</summary>
#
# Compute $\hat x$ again, as in the forward pass, and keep $1/\sigma$. Everything else is in the first and the
# third line of the derivation. The mean term is `dy.mean(axis=0)`; the variance term is `x_hat` times another
# mean.
#
# </details>


# %% id="x2-solution"
def batch_norm_backward(dy, x, gamma, eps=1e-5):
    """(dx, dgamma, dbeta) of y = γ·x̂ + β for dy and x of shape (m, C), gamma (C,); dgamma and dbeta are (C,)."""
    inv_std = 1 / numpy.sqrt(x.var(axis=0) + eps)
    x_hat = (x - x.mean(axis=0)) * inv_std
    dbeta = dy.sum(axis=0)
    dgamma = (dy * x_hat).sum(axis=0)
    lost = dbeta / len(x) + x_hat * (dgamma / len(x))
    return gamma * inv_std * (dy - lost), dgamma, dbeta


# %% id="x2-check"
@check
def backward_of_batch_norm():
    draw = numpy.random.default_rng(11)
    x, gamma, beta = draw.normal(size=(7, 4)) * (0.3, 1, 2, 5) + 3, draw.uniform(0.5, 2, 4), draw.normal(size=4)
    dy = draw.normal(size=(7, 4)) + 0.5
    kept = dy.copy(), x.copy()
    answer = dx, *_ = batch_norm_backward(dy, x, gamma)
    assert (dy == kept[0]).all(), "dy was changed: compute a new array"
    assert (x == kept[1]).all(), "x was changed: compute a new array"
    shapes = tuple(numpy.shape(each) for each in answer)
    assert shapes == ((7, 4), (4,), (4,)), f"the shapes should be (7, 4), (4,) and (4,), got {shapes}"
    along_mean, along_x_hat = abs(dx.sum(0)).max(), abs((dx * batch_norm(x)).sum(0)).max()
    assert along_mean < 1e-9, (
        f"each column of dx should add up to 0 (a shift of x changes nothing), got {along_mean:.3g}: the mean term"
    )
    assert along_x_hat < 1e-2, (
        f"dx should have no part along x̂ (scaling x changes nothing), got {along_x_hat:.3g}: the variance term"
    )
    h = 1e-6
    for eps in (1e-5, 0.5):
        gradients = batch_norm_backward(dy, x, gamma, eps)
        for i, name in enumerate(("dx", "dgamma", "dbeta")):
            values = [x, gamma, beta]
            v = draw.normal(size=values[i].shape)
            ends = [
                batch_norm(*(a + sign * h * v if k == i else a for k, a in enumerate(values)), eps) for sign in (1, -1)
            ]
            measured, said = (dy * (ends[0] - ends[1])).sum() / (2 * h), (gradients[i] * v).sum()
            assert abs(measured - said) < 1e-5 * (1 + abs(measured)), (
                f"{name} along a random direction, ε = {eps}: finite differences say {measured:.6f}, yours {said:.6f}"
            )


# %% [markdown] id="rates"
# ## What it buys
#
# A perceptron of ten hidden layers, once with batch norm between each linear layer and its activation. First the
# question of lesson 04, before any training: how much of the last layer's gradient is left at the first?

# %% id="before-run"
ratios = {}
for with_it in (False, True):
    model = perceptron(depth=10, activation="sigmoid", batch_norm=with_it, seed=SEED)
    ratios[with_it] = first_to_last(gradient_norms(model, *random_examples(256, seed=SEED)))
print([name for name, _ in model.named_children()][:7], "…")

# %% id="before-claim"
claim(
    "first/last gradient, ten layers of sigmoid without batch norm",
    ratios[False],
    2e-07,
    1e-05,
    seen=(9.59e-07, 1.74e-06),
)
claim("first/last gradient, ten layers of sigmoid with batch norm", ratios[True], 0.5, 2.5, seen=(0.96, 1.35))

# %% [markdown] id="predict-rates"
# **Predict.** Now we train them on digits, sigmoid and ReLU, at learning rates from 0.001 to 1. With batch norm,
# ten layers of *sigmoid*
#
# - (a) stay at chance; sigmoid is the wrong activation
# - (b) learn at one rate, which has to be found
# - (c) get above 85 % at more than one of these rates
#
# And ReLU without it, which was fine in lesson 05: what happens at rate 0.1?

# %% id="rates-run"
numbers = batch_norm_rates(rates=(0.001, 0.01, 0.1, 1.0), seeds=[SEED], epochs=8)
picture(numbers)

# %% id="rates-claim"
accuracy = {
    (cell["activation"], cell["batch_norm"], cell["learning_rate"]): 100 * cell["test_accuracy"]["mean"]
    for cell in numbers["cells"]
}
rates = numbers["rates"]
claim(
    "best accuracy of sigmoid without batch norm, %",
    max(accuracy["sigmoid", False, rate] for rate in rates),
    4,
    20,
    seen=(7.77, 10.9),
)
claim("accuracy of sigmoid with batch norm at rate 0.01, %", accuracy["sigmoid", True, 0.01], 90, 100, seen=(95.8, 97))
claim("accuracy of sigmoid with batch norm at rate 0.1, %", accuracy["sigmoid", True, 0.1], 85, 100, seen=(91.6, 95))
claim("accuracy of ReLU without batch norm at rate 0.1, %", accuracy["relu", False, 0.1], 4, 75, seen=(8.33, 39.2))
claim("accuracy of ReLU with batch norm at rate 0.1, %", accuracy["relu", True, 0.1], 90, 100, seen=(95.8, 97.3))
claim(
    "ReLU with batch norm: accuracy at rate 0.1 minus that at rate 1, %",
    accuracy["relu", True, 0.1] - accuracy["relu", True, 1.0],
    5,
    95,
    seen=(42.2, 81.7),
)
claim(
    "ReLU at rate 0.001: accuracy without batch norm minus with, %",
    accuracy["relu", False, 0.001] - accuracy["relu", True, 0.001],
    4,
    35,
    seen=(14.1, 20.9),
)

# %% [markdown] id="why-rates"
# It is (c). How to read the map: a row is a network, a column a learning rate, the number the accuracy on test
# images; dark is good, and one of the 360 test images is 0.28 %, so ignore differences of a per cent or two.
# Without batch norm the first row is at chance everywhere. ReLU has a good range, and at 0.1 it ends: the loss
# becomes infinite, or the network hardly learns. With batch norm that column is good for both.
#
# Two of the causes you have seen. At the start, sigmoid sees values around 0 with width 1, where its slope is
# largest, in every layer; that is the ratio above. During training, the brake of the scale works.
#
# And two things the map shows if you look for them, both in the last row. At rate 1 nothing diverges any more,
# but for ReLU that does not make the rate a good one. And at 0.001 ReLU is *worse* with batch norm than without,
# after eight epochs: one may read it so, that where the rate is small anyway, a brake only costs. Batch norm lets
# you choose a higher rate; a ReLU network for which nobody does gains little.


# %% [markdown] id="eval"
# ## What it costs: training and evaluation
#
# After training you want to classify *one* image. Its batch has a mean and a width of its own, or none. So batch
# norm keeps **running statistics** while it trains, an average over the batches it has seen, and after
# `model.eval()` it normalises with those: then it is a fixed scale and shift, and an image's result no longer
# depends on its neighbours.

# %% [markdown] id="predict-one"
# **Predict.** A small convolutional network is trained in batches of 50 and tests well. Now somebody forgets
# `model.eval()` and shows it the test images one at a time. The accuracy is
#
# - (a) the same: the weights have not changed
# - (b) some per cent lower
# - (c) near chance

# %% id="one-run"
one = batch_of_one(seeds=[SEED], epochs=10, batch_sizes=(1, 2, 5, 10, 50))
by_size = [100 * each["mean"] for each in one["training"]]
in_eval = 100 * one["eval"]["mean"]
curves(
    one["batch_sizes"],
    {"training mode": by_size, "eval mode": [in_eval] * len(by_size)},
    log="x",
    ylim=(0, 102),
    title="The same network, tested in both modes",
    xlabel="images in a batch",
    ylabel="test accuracy, %",
    alt=(
        "Test accuracy in training mode: "
        + ", ".join(f"{a:.0f} % in batches of {size}" for size, a in zip(one["batch_sizes"], by_size, strict=True))
        + f". In eval mode it is {in_eval:.0f} % for any."
    ),
)

# %% id="one-claim"
claim("accuracy in eval mode, %", in_eval, 82, 100, seen=(94.4, 97.8))
claim("accuracy in training mode, one image at a time, %", by_size[0], 4, 35, seen=(11.3, 15.6))
claim("accuracy in training mode, batches of 50, %", by_size[-1], 88, 100, seen=(95.8, 98.4))

# %% [markdown] id="why-one"
# It is (c). How to read it: the flat line is what `eval()` gives; the other is the same network with the same
# weights, each image judged by the statistics of its own batch. In a batch of one, *every* channel of *every*
# image has mean 0 and width 1: whether a feature was strong in this image, compared to others, is exactly what
# has been divided out. And nothing stops, nothing warns. If a model is good in training and useless in use, look
# here first.
#
# In a fully connected layer there is nothing to divide: one value has no variance. minidense refuses.

# %% id="refused-run"
try:
    BatchNorm1d(8)(Tensor(numpy.zeros((1, 8), numpy.float32)))
    refused = 0
except ShapeError as error:
    refused = 1
    print(error)
claim("a batch of one is refused in a fully connected layer", refused, 1, 1)

# %% [markdown] id="unbiased"
# ### Which variance to remember
#
# Small batches have one more trap. Within the batch, $\sigma^2$ is divided by $m$. That is what makes the batch's
# width exactly 1. But the mean was fitted to the same $m$ values, so they lie closer to it than to the true mean,
# and on average $\sigma^2$ comes out too small. How much does it matter?

# %% [markdown] id="predict-unbiased"
# **Predict.** Batches of 4 values, true variance 1. If we remember an average of the batches' $\sigma^2$ (divided
# by $m$), it settles at
#
# - (a) 0.5
# - (b) 0.75
# - (c) 0.94

# %% id="unbiased-run"
m, momentum = 4, 0.01
running = {"divided by m": [1.0], "divided by m − 1": [1.0]}
for _ in range(3000):
    batch = rng.normal(size=(m, 50)).var(axis=0).mean()  # of 50 features, so that the line is calm
    for (_, values), factor in zip(running.items(), (1, m / (m - 1)), strict=True):
        values.append((1 - momentum) * values[-1] + momentum * factor * batch)
settled = {name: float(numpy.mean(values[1000:])) for name, values in running.items()}
curves(
    range(0, 3001, 50),
    {name: values[::50] for name, values in running.items()},
    ylim=(0, 1.2),
    title="Running variance, batches of 4 from a distribution with variance 1",
    xlabel="batches",
    ylabel="running variance",
    alt=(
        f"Two running variances that start at 1: divided by m it settles at {settled['divided by m']:.2f}, "
        f"divided by m − 1 at {settled['divided by m − 1']:.2f}."
    ),
)

# %% id="unbiased-claim"
claim("running variance of batches of 4, divided by m", settled["divided by m"], 0.73, 0.77, seen=(0.747, 0.756))
claim("running variance of batches of 4, divided by m − 1", settled["divided by m − 1"], 0.97, 1.03, seen=(0.996, 1.01))

# %% [markdown] id="why-unbiased"
# It is (b), $(m - 1)/m$: the lower line, which began at the true 1. So batch norm uses **two** variances: divided
# by $m$ to normalise the batch, and multiplied by $m/(m-1)$ to remember it (the paper's Algorithm 2, line 10, and
# PyTorch). With the 50 · 64 values a channel of our digits the factor is 1.0003, and nobody would notice. It
# matters where batches are small and images have shrunk to a few pixels.

# %% [markdown] id="x3"
# ## Exercise 3: running statistics
#
# One step: the share `momentum` of this batch, the rest of what was remembered.


# %% id="x3-stub"
def tracked(running_mean, running_var, x, momentum=0.1):
    """The new (running_mean, running_var), each (C,), after a batch x (m, C). Changes none of its arguments."""
    raise NotImplementedError


# %% [markdown] id="x3-hint"
# <details>
# <summary>Hint</summary>
#
# `x.var(axis=0)` divides by $m$; `x.var(axis=0, ddof=1)` divides by $m - 1$. In PyTorch and here, momentum 0.1
# means: a tenth is new. (TensorFlow's momentum of 0.9 says the same thing from the other side.)
#
# </details>


# %% id="x3-solution"
def tracked(running_mean, running_var, x, momentum=0.1):
    """The new (running_mean, running_var), each (C,), after a batch x (m, C). Changes none of its arguments."""
    mean = (1 - momentum) * running_mean + momentum * x.mean(axis=0)
    var = (1 - momentum) * running_var + momentum * x.var(axis=0, ddof=1)
    return mean, var


# %% id="x3-check"
@check
def running_statistics():
    draw = numpy.random.default_rng(13)
    mean, var = draw.normal(size=3), draw.uniform(0.5, 2, 3)
    x = draw.normal(size=(5, 3)) * (1, 3, 0.2) + (2, 0, -1)
    kept = mean.copy(), var.copy(), x.copy()
    _, _ = tracked(mean, var, x)
    for name, now, before in zip(("running_mean", "running_var", "x"), (mean, var, x), kept, strict=True):
        assert (now == before).all(), f"{name} itself was changed: compute a new array instead of {name} += …"
    for momentum in (0.1, 0.3):
        new_mean, new_var = tracked(mean, var, x, momentum)
        wanted = 0.1 * x.mean(0) + 0.9 * mean if momentum == 0.1 else 0.3 * x.mean(0) + 0.7 * mean
        assert numpy.shape(new_mean) == (3,), f"the running mean should stay (3,), got {numpy.shape(new_mean)}"
        assert abs(new_mean - wanted).max() < 1e-12, (
            f"with momentum {momentum} the mean should be {wanted.round(3)}, got {new_mean.round(3)}"
        )
        wanted = (1 - momentum) * var + momentum * x.var(0) * 5 / 4
        assert numpy.shape(new_var) == (3,), f"the running variance should stay (3,), got {numpy.shape(new_var)}"
        assert abs(new_var - wanted).max() < 1e-12, (
            f"with momentum {momentum} the variance should be {wanted.round(3)}, got {new_var.round(3)}"
        )


# %% [markdown] id="x4"
# ## Exercise 4: make it disappear
#
# After training, in eval mode, batch norm is a fixed scale and shift of each feature, and so it can be folded
# into the linear layer before it: the same results, and one step less. (It works for a convolution just so. Only
# some of DenseNet's batch norms have a convolution directly in front of them; the others normalise concatenated
# feature maps and have to stay.)


# %% id="x4-stub"
def folded(weight, bias, gamma, beta, running_mean, running_var, eps=1e-5):
    """(weight, bias) of one linear layer that equals x @ weight.T + bias, then batch norm in eval mode; weight (F, C), all else (F,)."""
    raise NotImplementedError


# %% [markdown] id="x4-hint"
# <details>
# <summary>Hint</summary>
#
# Write $s = \gamma/\sqrt{\text{running var} + \varepsilon}$ and multiply out $s\,(Wx + b - \text{running mean}) +
# \beta$. Row $f$ of the weight belongs to output $f$: `s[:, None] * weight`.
#
# </details>


# %% id="x4-solution"
def folded(weight, bias, gamma, beta, running_mean, running_var, eps=1e-5):
    """(weight, bias) of one linear layer that equals x @ weight.T + bias, then batch norm in eval mode; weight (F, C), all else (F,)."""
    scale = gamma / numpy.sqrt(running_var + eps)
    return scale[:, None] * weight, scale * (bias - running_mean) + beta


# %% id="x4-check"
@check
def batch_norm_folded_into_a_linear_layer():
    draw = numpy.random.default_rng(17)
    for f, c in ((4, 4), (3, 6)):  # a square weight alone would not show a transposed one
        weight, bias, gamma, beta, mean = draw.normal(size=(f, c)), *draw.normal(size=(4, f))
        var, x = draw.uniform(0.1, 4, f), draw.normal(size=(9, c))
        kept = weight.copy(), bias.copy()
        for eps in (1e-5, 0.3):
            new_weight, new_bias = folded(weight, bias, gamma, beta, mean, var, eps)
            assert (weight == kept[0]).all(), "the weight that came in was changed: make a new one"
            assert (bias == kept[1]).all(), "the bias that came in was changed: make a new one"
            shapes = numpy.shape(new_weight), numpy.shape(new_bias)
            assert shapes == ((f, c), (f,)), (
                f"weight and bias should be {(f, c)} and {(f,)}, got {shapes[0]} and {shapes[1]}"
            )
            wanted = (x @ weight.T + bias - mean) / numpy.sqrt(var + eps) * gamma + beta
            worst = abs(x @ new_weight.T + new_bias - wanted).max()
            assert worst < 1e-9, f"weight (F, C) = {(f, c)}, ε = {eps}: the folded layer's output is off by {worst:.3g}"


# %% [markdown] id="differs-13-14-15"
# ## Where lecture and paper differ
#
# - **The name** (13). The lecture writes "Internal Covarian*t* Shift". It is *covariate*: a covariate is an input
#   of a statistical model. (Covariant is a word of geometry.)
# - **Cats and dogs** (14). As an extreme example the lecture trains on cats and tests on dogs. That is *covariate
#   shift*, and batch norm does nothing against it: the running statistics will be the cats'. The *internal* kind
#   is defined in the paper's §2 as the change in the distribution of a layer's inputs **during training**,
#   because the layers before it learn too. No data set has to change for that.
# - **"Divide the feature maps into mini-batches and normalise them to Gaussian form"** (15). Nothing is divided:
#   the mini-batch is the one that training uses anyway, and each channel gets one mean and one variance over it.
#   The result has mean 0 and variance 1, not a Gaussian shape, as the first picture shows. Then follow $\gamma$
#   and $\beta$, which the lecture leaves out, and with which the layer may undo it all; and at test time the
#   running statistics take the batch's place.

# %% [markdown] id="break-it"
# ## Break it
#
# - In `batch_norm`, divide by $\sigma^2 + \varepsilon$ instead of its root. What prints differently in
#   "forward-run"? Which claims still hold, and which check notices?
# - In "shape-run", let `lopsided` be `numpy.maximum(rng.normal(size=(20_000, 1)), 0)`, the output of a ReLU. Half
#   of the values lie in one place. Where is it before, and where after batch norm? (Lesson 08 begins with that
#   mean.)
# - In "one-run", train for 2 epochs instead of 10. How far apart are the two modes now, for batches of 50? Which
#   statistics belong to the weights of now, and which to weights of some steps ago?

# %% [markdown] id="summary"
# ## Three lines to keep
#
# 1. Per channel, over the batch: subtract the mean, divide by the width, then $\gamma$ and $\beta$. The shape
#    stays; the scale of the weights before it stops to matter.
# 2. Backward loses two parts, along 1 and along $\hat x$. They are small for large batches, which is why they get
#    forgotten.
# 3. Training uses the batch's statistics (divided by $m$), evaluation the running ones ($m/(m-1)$). Forgetting
#    `eval()` ruins a good network without a word.

# %% [markdown] id="paper"
# ## What the lecture and the papers say
#
# Ioffe & Szegedy measured on ImageNet what we measured on 1,437 digits. Printed there (Figure 3): Inception needs
# 31.0 million steps to reach 72.2 %; with batch norm and five times the learning rate 2.1 million; with thirty
# times the rate it ends at 74.8 %. With five times the rate and *without* batch norm it diverged (§4.2), like our
# ReLU row. And Inception with sigmoid stayed at chance without batch norm and reached 69.8 % with it.
#
# **Why** it works is another matter. The paper's explanation is in its title, "by reducing internal covariate
# shift". Santurkar et al. (2018, "How Does Batch Normalization Help Optimization?") put that to the test: they
# added changing noise *behind* batch norm, so that the distributions shift more than ever, and the network
# trained as well as before. Their own explanation is that batch norm makes the loss smoother, so that a gradient
# holds good for a longer step. Our brake of the scale points the same way. The question is not closed.
#
# What this lesson cannot show: anything about accuracy at full size. Eight epochs on digits of 8 × 8 tell apart
# what learns from what does not; they say nothing about differences of a per cent. And the lecture's claim that
# batch norm solves the vanishing of gradients is true for the stack we looked at, sigmoid with ten layers. Lesson
# 08 looks at ReLU with fifty, and gets a surprise.

# %% [markdown] id="source"
# ## The real one
#
# minidense's batch norm, forward and backward. `channel_sum` and `channel_dot` are sums over N, H and W. Compare
# its `lost` with yours.

# %% id="source-code"
print(inspect.getsource(ops.BatchNorm))
