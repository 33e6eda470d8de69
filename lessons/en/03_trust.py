# %% [markdown] id="why-trust"
# A wrong forward shows itself: the picture is upside down, the loss is not a number. A wrong *backward* does not.
# It hands on some array of the right shape, the weights move, the loss falls. The network learns a little worse
# than it could, and nobody knows what it could.
#
# So whoever writes a backward by hand (you, three times in the last lesson) needs a way to know. There is one, it
# takes a dozen lines, and minidense runs it on every operation. You build it, learn how small its errors are, and
# then fool it: written as it often is, it has a blind spot.

# %% id="imports" tags=["setup"]
import inspect
from itertools import pairwise

import numpy as np

from minidense import KinkError, Tensor, data, no_grad, ops
from minidense import functional as F
from minidense.lessons import SEED, check, claim
from minidense.ops import Op, ReLU, Tanh
from minidense.plots import curves, heat_map, several
from minidense.tensor import apply
from minidense.testing import check_gradients

rng = np.random.default_rng(SEED)

# %% [markdown] id="suspect"
# ## The suspect
#
# The heart of batch normalisation: each column of $x$ (one feature, N images) gets mean 0 and variance 1. Its
# backward has two terms that one forgets, since mean and variance depend on $x$ too:
#
# $$\hat x = \frac{x - \text{mean}}{\sqrt{\text{var} + \epsilon}}, \qquad
# dx = \frac{1}{\sqrt{\text{var} + \epsilon}}
# \left( dy - \text{mean}(dy) - \hat x \cdot \text{mean}(dy \cdot \hat x) \right)$$
#
# (Lesson 07 derives it.) Beside the right one, here are two mistakes that are easily made:


# %% id="suspect-code" tags=["setup"]
class Normalise(Op):
    """y = x̂, over axis 0 of x (N, features)."""

    def forward(self, x):
        self.inv_std = 1 / np.sqrt(x.var(0) + 1e-5)
        self.x_hat = (x - x.mean(0)) * self.inv_std
        return self.x_hat

    def backward(self, dy):
        return (self.inv_std * (dy - dy.mean(0) - self.x_hat * (dy * self.x_hat).mean(0)),)


class LastTermForgotten(Normalise):
    """Forgets that the variance depends on x."""

    def backward(self, dy):
        return (self.inv_std * (dy - dy.mean(0)),)


class BothTermsForgotten(Normalise):
    """Takes mean and variance for constants."""

    def backward(self, dy):
        return (self.inv_std * dy,)


# %% [markdown] id="predict-train"
# **Predict.** We train a network on handwritten digits, three hidden layers of 64, each with normalisation and
# ReLU, and forget the last term in every layer. After ten epochs its accuracy on test images is
#
# - (a) about 10 %, as good as guessing
# - (b) far below that of the right one, 50 to 85 %
# - (c) above 90 %
#
# Choose before you run the next cell.


# %% id="train-run"
digits = data.load("digits")
mean, std = digits.train_images.mean(), digits.train_images.std()
images, tests = ((x.reshape(len(x), 64) - mean) / std for x in (digits.train_images, digits.test_images))


def train(norm, epochs=10, rate=0.1, batch_size=50):
    """Plain SGD with that normalisation. Returns the loss of every epoch and the accuracy on the test images."""
    draw = np.random.default_rng(SEED)
    sizes = [64, 64, 64, 64, 10]
    weights = [
        Tensor(draw.standard_normal((f, c)) * (2 / c) ** 0.5, dtype="float32", requires_grad=True)
        for c, f in pairwise(sizes)
    ]

    def logits(x):
        y = Tensor(x, dtype="float32")
        for weight in weights[:-1]:
            y = F.relu(apply(norm(), F.linear(y, weight)))
        return F.linear(y, weights[-1])

    losses = []
    for _ in range(epochs):
        total = 0.0
        for batch in np.array_split(draw.permutation(len(images)), len(images) // batch_size):
            loss = F.cross_entropy(logits(images[batch]), digits.train_labels[batch])
            loss.backward()
            for weight in weights:
                weight.data -= rate * weight.grad
                weight.grad = None
            total += loss.item() * len(batch)
        losses.append(total / len(images))
    with no_grad():  # the test images are normalised by their own mean and variance; lesson 07 does better
        return losses, (logits(tests).data.argmax(1) == digits.test_labels).mean()


names = {"right": Normalise, "last term forgotten": LastTermForgotten, "both forgotten": BothTermsForgotten}
trained = {name: train(norm) for name, norm in names.items()}
curves(
    range(1, 11),
    {name: losses for name, (losses, _) in trained.items()},
    log="y",
    title="Training with a right and two wrong backwards",
    xlabel="epoch",
    ylabel="mean loss of the epoch",
    alt="Loss falls in all three, in one not for long; after ten epochs: "
    + ", ".join(f"{name} {losses[-1]:.2f}" for name, (losses, _) in trained.items()),
)

# %% id="train-claim"
claim("test accuracy with the right backward", trained["right"][1], 0.92, 1.0, seen=(0.958, 0.978))
claim("test accuracy with the last term forgotten", trained["last term forgotten"][1], 0.92, 1.0, seen=(0.949, 0.97))
claim("test accuracy with both forgotten", trained["both forgotten"][1], 0.7, 0.93, seen=(0.811, 0.87))
accuracy = {name: reached for name, (_, reached) in trained.items()}
claim(
    "accuracy lost by forgetting the last term",
    accuracy["right"] - accuracy["last term forgotten"],
    -0.04,
    0.06,
    seen=(0.0, 0.0223),
)
claim(
    "accuracy lost by forgetting both", accuracy["right"] - accuracy["both forgotten"], 0.03, 0.3, seen=(0.0944, 0.159)
)
losses = trained["both forgotten"][0]
claim("both forgotten: last loss over the lowest", losses[-1] / min(losses), 1.03, 2.5, seen=(1.15, 1.39))

# %% [markdown] id="why-train"
# It is (c). How to read the picture: each line is a training, and lower is better. The right one and the one with
# a forgotten term go down side by side; in accuracy they differ by a few percent at most. With both terms
# forgotten the loss falls as well, to turn after some epochs, and accuracy ends roughly a tenth lower. Without
# the blue line beside them, who would suspect a gradient? (One test image is 0.28 %, and this is a single
# training each: a percent of difference means nothing.)
#
# Training is no test of a gradient. We need something that says yes or no.

# %% [markdown] id="two-dots"
# ## Two dot products
#
# Lesson 01 moved one number, looked and divided. With 10,000 numbers that is 20,000 forward passes. But we need
# not move one at a time. Choose a direction $v$, shaped like $x$, and move *all* numbers along it:
#
# $$J v \approx \frac{f(x + h v) - f(x - h v)}{2h}$$
#
# That is an array like $y$. Choose a $dy$, and weigh it: the dot product $\langle dy, J v\rangle$, the sum of all
# $dy_i \, (Jv)_i$, is one number from two forward passes. Now the other side: backward claims to return $dx =
# J^\top dy$. If that is so, then
#
# $$\langle dy,\; J v\rangle = \langle J^\top dy,\; v\rangle = \langle dx,\; v\rangle .$$
#
# The left side knows nothing of the backward, the right side nothing of the experiment. If they agree for random
# $dy$ and $v$, we trust the backward. (`difference` is relative to the sum of the absolute terms, because in a
# sum of large terms that cancel, rounding is as large as the terms make it.)


# %% id="two-dots-code" tags=["setup"]
def terms(op, x, dy, v, h=1e-6):
    """The terms of both dot products, ⟨dy, J·v⟩ measured and ⟨dx, v⟩ from backward, for an Op with one input."""
    slopes = (op.forward(x + h * v) - op.forward(x - h * v)) / (2 * h)
    op.forward(x)  # again at x itself, so that op keeps what belongs to x
    (dx,) = op.backward(dy)
    return dy * slopes, dx * v


def difference(measured, exact):
    """|Σ measured − Σ exact|, relative to the sum of the absolute terms of either side."""
    return abs(measured.sum() - exact.sum()) / max(abs(measured).sum(), abs(exact).sum())


# %% id="two-dots-run"
x, dy, v = rng.standard_normal((3, 32, 20))
found = {name: difference(*terms(norm(), x, dy, v)) for name, norm in names.items()}
claim("relative difference of the two sides, right backward", found["right"], 0.0, 1e-7, seen=(8.19e-13, 7.49e-12))
claim("the same, last term forgotten", found["last term forgotten"], 1e-5, 1.0, seen=(0.00398, 0.0124))
claim("the same, both forgotten", found["both forgotten"], 1e-5, 1.0, seen=(0.00106, 0.0189))

# %% [markdown] id="words-dots"
# Yes or no: the right one and the wrong ones are orders of magnitude apart, however alike two of them trained.

# %% [markdown] id="predict-direction"
# **Predict.** We compare *one* number, for *one* direction. Suppose a gradient of 10,000 entries in which a
# single one, somewhere, is wrong by 10 %. How often does one random direction notice (at a tolerance of
# $10^{-7}$)?
#
# - (a) once in 10,000: when the direction happens to hit that entry
# - (b) every other time
# - (c) nearly always


# %% id="direction-run"
class OneEntryWrong(Tanh):
    """tanh with a backward in which one entry is 10 % too large."""

    def __init__(self, place):
        self.place = place

    def backward(self, dy):
        (dx,) = Tanh.backward(self, dy)
        dx[self.place] *= 1.1
        return (dx,)


trials = 200
noticed = 0
for _ in range(trials):
    x, dy, v = rng.uniform(-1, 1, (3, 10_000))
    noticed += difference(*terms(OneEntryWrong(rng.integers(10_000)), x, dy, v)) > 1e-7
claim("of 200 such mistakes, noticed by one direction", noticed, 180, trials, seen=(194, 198))

# %% [markdown] id="why-direction"
# It is (c). A random direction has a part along *every* entry, so a single fault shifts the sum. It goes unseen
# only if $dy$ or $v$ happens to be very small at the faulty place. So the check costs two forward passes and a
# backward, whatever the size. Do keep arrays small, though: among ten million entries, 10 % of one is a part in
# $10^8$, below the tolerance. Mistakes of a formula show in a hundred numbers.

# %% [markdown] id="precision"
# ## How good can it be?
#
# The tolerance of $10^{-7}$ was not drawn from a hat. The left side is an experiment, with the two errors of
# lesson 01: too large a step, and the formula is off by a multiple of $h^2$; too small, and rounding shows.
# Networks compute in float32, with about 7 digits: let us look at both types.

# %% [markdown] id="predict-step"
# **Predict.** For $y = \tanh x$ on 1,000 numbers, each type at its own best step: by how much is the best check
# in float64 better than the best in float32?
#
# - (a) about twice as good: it has twice the digits
# - (b) a hundred times
# - (c) ten thousand times or more


# %% id="step-run"
steps = 10.0 ** np.arange(-12, 0.1, 0.5)
draws = rng.standard_normal((9, 3, 1000))


def typical_error(dtype, h):
    """Of the measured side, all in that type; the median of nine draws of x, dy and v."""
    found = []
    for x, dy, v in draws:
        exact = dy * v * (1 - np.tanh(x) ** 2)
        measured, _ = terms(Tanh(), x.astype(dtype), dy.astype(dtype), v.astype(dtype), dtype(h))
        found.append(difference(measured.astype(float), exact))
    return np.median(found)


errors = {dtype.__name__: [typical_error(dtype, h) for h in steps] for dtype in (np.float64, np.float32)}
best = {name: min(found) for name, found in errors.items()}
best_step = {name: steps[np.argmin(found)] for name, found in errors.items()}
curves(
    steps,
    errors,
    log="xy",
    title="Error of ⟨dy, J·v⟩ against the step",
    xlabel="step h",
    ylabel="relative error",
    alt="Two valleys. " + "; ".join(f"{name}: lowest {best[name]:.0e} at h = {best_step[name]:.0e}" for name in errors),
)

# %% id="step-claim"
place = {h: int(np.argmin(abs(steps - h))) for h in (1e-1, 1e-2, 1e-6)}
claim("smallest error in float64", best["float64"], 0.0, 1e-10, seen=(4.03e-13, 8.91e-13))
claim(
    "smallest error in float32 over that in float64",
    best["float32"] / best["float64"],
    1e4,
    2e7,
    seen=(224000.0, 1770000.0),
)
claim("error in float32 at h = 1e-6", errors["float32"][place[1e-6]], 5e-5, 1e-2, seen=(0.000377, 0.00128))
claim(
    "error at h = 0.1 over that at h = 0.01, float64",
    errors["float64"][place[1e-1]] / errors["float64"][place[1e-2]],
    80,
    120,
    seen=(93.6, 101.0),
)
m = 64 * 32 * 32  # numbers in a channel of 64 images of 32 × 32
claim("m of batch norm on 64 images of 32 × 32; m/(m − 1) is larger than 1 by about 1/m", m, 65_536, 65_536)

# %% [markdown] id="why-step"
# It is (c). How to read the picture: go from right to left. Both lines fall together, a hundredfold for each
# tenth of a step: that is $h^2$. Then each meets its own rounding and climbs again, since a rounding error of
# fixed size is divided by $h$ (until $h$ is too small to move $x$ at all). The valley lies where the two are
# about equal, near $h = \sqrt[3]{\epsilon}$ for numbers of relative precision $\epsilon$.
#
# So a check in float32 may do at its best step; but that step depends on the function, and at the one that suits
# float64 it is off in the third or fourth digit. Real mistakes hide behind that: divide by $m - 1$ instead of $m$
# in the backward of batch norm, for 64 images of 32 × 32, and the gradient changes in the fifth digit. In float32
# that may pass for rounding. **Train in float32, check in float64.** minidense's check converts whatever you give
# it.

# %% [markdown] id="x1"
# ## Exercise 1: a check for every Op
#
# `terms` handles one input. Write the check for Ops with several, such as multiplication: one relative difference
# for each input, found by moving *that input alone*. `make()` returns a fresh Op; draw `dy` and every `v` from
# `rng`, with `rng.standard_normal(shape)`; take `difference` for the last step.


# %% id="x1-stub"
def differences(make, inputs, rng, h=1e-6):
    """[relative difference of the two dot products, for each input] of the Op that make() returns; computed in float64."""
    raise NotImplementedError


# %% [markdown] id="x1-hint"
# <details>
# <summary>Hint</summary>
#
# First everything that does not depend on the input: convert, run forward to learn the shape of $y$, draw `dy`,
# run backward. Then, for input `i`: draw `v` like it, and run forward on a *list* of inputs in which only the one
# at place `i` is moved. Take a fresh Op for each of these forwards: the first one still needs what it saved.
#
# </details>

# %% [markdown] id="x1-hint-2"
# <details>
# <summary>Second hint</summary>
#
# `[x + h * v if j == i else x for j, x in enumerate(inputs)]` is the list of inputs, moved ahead. New arrays, so
# nobody's inputs are changed.
#
# </details>


# %% id="x1-solution"
def differences(make, inputs, rng, h=1e-6):
    """[relative difference of the two dot products, for each input] of the Op that make() returns; computed in float64."""
    inputs = [np.asarray(x, np.float64) for x in inputs]
    op = make()
    dy = rng.standard_normal(op.forward(*inputs).shape)
    dxs = op.backward(dy)
    found = []
    for i, dx in enumerate(dxs):
        v = rng.standard_normal(inputs[i].shape)
        ahead = [x + h * v if j == i else x for j, x in enumerate(inputs)]
        behind = [x - h * v if j == i else x for j, x in enumerate(inputs)]
        slopes = (make().forward(*ahead) - make().forward(*behind)) / (2 * h)
        found.append(difference(dy * slopes, dx * v))
    return found


# %% id="x1-check"
@check
def check_for_every_op():
    numbers = np.random.default_rng(8)

    def changed(parent, change):
        def backward(self, dy):
            return change(*parent.backward(self, dy))

        return type("Wrong", (parent,), {"backward": backward})

    image, channels = (4, 3, 2, 2), (3,)
    cases = [
        ("Exp", ops.Exp, [(30,)], None),
        ("Mul, which broadcasts", ops.Mul, [(4, 3), (3,)], None),
        ("Linear", ops.Linear, [(6, 4), (3, 4), (3,)], None),
        ("BatchNorm", ops.BatchNorm, [image, channels, channels], None),
        ("Exp, doubled", changed(ops.Exp, lambda dx: (2 * dx,)), [(30,)], 0),
        (
            "Linear with a wrong dbias",
            changed(ops.Linear, lambda dx, dw, db: (dx, dw, db / 6)),
            [(6, 4), (3, 4), (3,)],
            2,
        ),
        (
            "Linear with a wrong dweight",
            changed(ops.Linear, lambda dx, dw, db: (dx, -dw, db)),
            [(6, 4), (3, 4), (3,)],
            1,
        ),
        (
            "BatchNorm, dx = 0",
            changed(ops.BatchNorm, lambda dx, dg, db: (0 * dx, dg, db)),
            [image, channels, channels],
            0,
        ),
    ]
    for name, make, shapes, guilty in cases:
        for dtype in (np.float64, np.float32):
            inputs = [(1 + 0.5 * numbers.standard_normal(shape)).astype(dtype) for shape in shapes]
            before = [x.copy() for x in inputs]
            found = differences(make, inputs, np.random.default_rng(9))
            assert all(np.array_equal(*pair) for pair in zip(inputs, before, strict=True)), (
                f"{name}: your check changed its inputs; move copies"
            )
            assert isinstance(found, list | tuple | np.ndarray), f"return a list, not a {type(found).__name__}"
            assert len(found) == len(inputs), (
                f"{name} has {len(inputs)} inputs, so return as many numbers, not {len(found)}"
            )
            for i, value in enumerate(found):
                assert np.ndim(value) == 0, f"{name}: the difference of input {i} should be a number, it is {value!r}"
                if i == guilty:
                    assert value > 1e-5, (
                        f"{name}: the gradient of input {i} is wrong, but your difference is {value:.1e}"
                    )
                else:
                    assert value < 2e-9, (
                        f"{name} ({np.dtype(dtype)} inputs): the gradient of input {i} is right, but your difference is {value:.1e}"
                    )


# %% [markdown] id="blind"
# ## The check in the wild
#
# Many a check in the wild does not draw $dy$. It calls `y.sum().backward()`, since a loss is a single number, and
# that is the same as $dy = 1$ everywhere. For tanh, a convolution, a linear layer it works.

# %% [markdown] id="predict-blind"
# **Predict.** Softmax turns a row of scores into probabilities $p$. Its backward is $dx_i = p_i \, (dy_i - \sum_k
# p_k \, dy_k)$. Somebody writes `return 0 * dy` instead. The check with $dy = 1$ says
#
# - (a) wrong: a gradient of zero cannot pass
# - (b) right
# - (c) it depends on the scores
#
# And how many of thirteen different mistakes, in normalisation and in softmax, will it let through? Guess a
# number.


# %% id="blind-code" tags=["setup"]
class Softmax(Op):
    """y = p = eˣ / Σ eˣ, along axis 1 of x (N, classes)."""

    def forward(self, x):
        powers = np.exp(x - x.max(1, keepdims=True))
        self.p = powers / powers.sum(1, keepdims=True)
        return self.p

    def backward(self, dy):
        return (self.p * (dy - (self.p * dy).sum(1, keepdims=True)),)


def wrong(parent, backward):
    """The Op with another backward."""
    return type(f"Wrong{parent.__name__}", (parent,), {"backward": lambda self, dy: (backward(self, dy),)})


# %% id="blind-run"
def mean_along(op, dy):
    return (dy * op.x_hat).mean(0)


def inner(op, dy):
    return (op.p * dy).sum(1, keepdims=True)


suspects = {
    "normalise: right": Normalise,
    "normalise: zeros": wrong(Normalise, lambda op, dy: 0 * dy),
    "normalise: doubled": wrong(Normalise, lambda op, dy: 2 * Normalise.backward(op, dy)[0]),
    "normalise: last term forgotten": LastTermForgotten,
    "normalise: 1/std forgotten": wrong(Normalise, lambda op, dy: dy - dy.mean(0) - op.x_hat * mean_along(op, dy)),
    "normalise: mean term forgotten": wrong(
        Normalise, lambda op, dy: op.inv_std * (dy - op.x_hat * mean_along(op, dy))
    ),
    "normalise: both terms forgotten": BothTermsForgotten,
    "normalise: N − 1 instead of N": wrong(
        Normalise,
        lambda op, dy: op.inv_std * (dy - (dy.mean(0) + op.x_hat * mean_along(op, dy)) * (len(dy) / (len(dy) - 1))),
    ),
    "softmax: right": Softmax,
    "softmax: zeros": wrong(Softmax, lambda op, dy: 0 * dy),
    "softmax: sign": wrong(Softmax, lambda op, dy: -op.p * (dy - inner(op, dy))),
    "softmax: doubled": wrong(Softmax, lambda op, dy: 2 * op.p * (dy - inner(op, dy))),
    "softmax: factor p forgotten": wrong(Softmax, lambda op, dy: dy - inner(op, dy)),
    "softmax: sum forgotten": wrong(Softmax, lambda op, dy: op.p * dy),
    "softmax: diagonal only": wrong(Softmax, lambda op, dy: op.p * (1 - op.p) * dy),
}
x, random_dy, v = rng.standard_normal((3, 16, 10))
table = np.array(
    [[difference(*terms(make(), x, dy, v)) for dy in (np.ones_like(x), random_dy)] for make in suspects.values()]
)
let_through = {
    name: sum(table[i, k] < 1e-6 for i, suspect in enumerate(suspects) if "right" not in suspect)
    for k, name in enumerate(("dy = 1", "random dy"))
}
heat_map(
    np.log10(table + 1e-16).round() + 0.0,
    rows=list(suspects),
    columns=["dy = 1", "random dy"],
    form="{:.0f}",
    axes=several(1, width=7.5, height=6.2)[1][0, 0],
    bar="log10 of the relative difference",
    title="Two sides of the check: −6 or less passes",
    alt=f"Of 13 wrong backwards dy = 1 lets {let_through['dy = 1']} pass, and a random dy {let_through['random dy']}.",
)

# %% id="blind-claim"
claim("wrong backwards of 13", len(suspects) - 2, 13, 13)
claim("of them let through with dy = 1", let_through["dy = 1"], 8, 8)
claim("of them let through with a random dy", let_through["random dy"], 0, 0)
op = Softmax()
op.forward(x)
claim(
    "largest entry of softmax's right dx with dy = 1",
    abs(op.backward(np.ones_like(x))[0]).max(),
    0.0,
    1e-15,
    seen=(6.3e-17, 1.01e-16),
)

# %% [markdown] id="why-blind"
# It is (b), and eight of thirteen pass. How to read the picture: light fields are differences that a check calls
# rounding, dark ones are caught. In the right column only the two right backwards are light.
#
# With $dy = 1$ we ask how the *sum* of all outputs moves. But probabilities add up to 1 and normalised columns to
# 0, whatever $x$ is: their sum does not move at all. The right gradient is exactly zero, and every mistake that
# keeps it zero passes: zeros, a wrong factor, a wrong sign, and the forgotten term that you trained with above. A
# random $dy$ costs the same, and finds them all.

# %% [markdown] id="x2"
# ## Exercise 2: fool the check
#
# Write a backward for `Normalise` that is wrong and yet passes with $dy = 1$. Two rules keep it interesting. It
# must be new: not a multiple of the right one, nor one of the four that pass in the picture (zeros, doubled, last
# term forgotten, 1/std forgotten). And it must be linear in `dy` as every backward is (so no peeping whether `dy`
# happens to be all ones).


# %% id="x2-stub"
def fooling_backward(dy, x_hat, inv_std):
    """A wrong dx of y = x̂, for arrays dy and x_hat (N, features) and inv_std (features,), that dy = 1 lets through."""
    raise NotImplementedError


# %% [markdown] id="x2-hint"
# <details>
# <summary>Hint</summary>
#
# What do the three terms of the right one become for $dy = 1$? One of them is zero by itself, because the mean of
# $\hat x$ is zero. The other two cancel. What may you change, then, without disturbing the zero?
#
# </details>


# %% id="x2-solution"
def fooling_backward(dy, x_hat, inv_std):
    """A wrong dx of y = x̂, for arrays dy and x_hat (N, features) and inv_std (features,), that dy = 1 lets through."""
    return inv_std * (dy - dy.mean(0) + x_hat * (dy * x_hat).mean(0))


# %% id="x2-check"
@check
def fooled_and_caught():
    numbers = np.random.default_rng(10)
    fooling = wrong(Normalise, lambda op, dy: fooling_backward(dy, op.x_hat, op.inv_std))
    for n, features in ((16, 10), (6, 6)):
        x, dy, other, v = numbers.standard_normal((4, n, features))
        x *= np.linspace(0.5, 2, features)  # columns of different std
        op = Normalise()
        op.forward(x)
        (right,) = op.backward(dy)
        before = dy.copy(), op.x_hat.copy(), op.inv_std.copy()
        mine = fooling_backward(dy, op.x_hat, op.inv_std)
        assert np.shape(mine) == dy.shape, f"dx must have the shape of dy, {dy.shape}; yours has {np.shape(mine)}"
        unchanged = all(np.array_equal(*pair) for pair in zip((dy, op.x_hat, op.inv_std), before, strict=True))
        assert unchanged, "dy, x_hat and inv_std must stay as they are"
        for factor, addend in ((1.0, other), (-1.5, np.ones_like(dy))):
            both = fooling_backward(factor * dy + addend, op.x_hat, op.inv_std)
            apart = factor * mine + fooling_backward(addend, op.x_hat, op.inv_std)
            assert np.allclose(both, apart, atol=1e-10), "not linear: f(dy₁ + dy₂) should be f(dy₁) + f(dy₂)"
        length = np.linalg.norm(mine)
        assert length > 1e-3 * np.linalg.norm(right), "zeros are too easy: forget something instead"
        for what, known in (
            ("the right gradient", right),
            ("the last term forgotten", op.inv_std * (dy - dy.mean(0))),
            ("1/std forgotten", right / op.inv_std),
        ):
            cosine = abs((mine * known).sum()) / (length * np.linalg.norm(known))
            assert cosine < 0.999, f"this is a multiple of one that the picture has already: {what}"
        with_ones = difference(*terms(fooling(), x, np.ones_like(x), v))
        assert with_ones < 1e-7, f"dy = 1 notices it: the two sides differ by {with_ones:.1e}"
        with_random = difference(*terms(fooling(), x, dy, v))
        assert with_random > 1e-5, f"it seems to be right: with a random dy the sides differ by {with_random:.1e} only"


# %% [markdown] id="x3"
# ## Exercise 3: the gradient that starts them all
#
# Every walk of a training in this course begins at the softmax cross-entropy: for `logits` (N, classes), the
# scores before the softmax, and integer `labels` (N,)
#
# $$L = -\frac1N \sum_n \log p_{n,\,\text{label}_n}, \qquad p = \text{softmax}(\text{logits}).$$
#
# Taken together, softmax and logarithm have a gradient much plainer than either. Derive it and write it; the
# check uses large scores too, for which $e^x$ overflows.


# %% id="x3-stub"
def cross_entropy_backward(logits, labels):
    """dL/dlogits of the softmax cross-entropy, shaped like logits."""
    raise NotImplementedError


# %% [markdown] id="x3-hint"
# <details>
# <summary>Hint</summary>
#
# $\log p_i = x_i - \log \sum_k e^{x_k}$. The slope of the second part with respect to $x_k$ is $p_k$, that of the
# first is 1 for $k = i$ and 0 otherwise.
#
# </details>

# %% [markdown] id="x3-hint-2"
# <details>
# <summary>Second hint</summary>
#
# Mind the minus and the $1/N$ in front of the sum. Softmax does not change when the same number is taken from all
# scores of a row: take the row's maximum. And `p[np.arange(N), labels]` is the probability of each image's own
# label.
#
# </details>


# %% id="x3-solution"
def cross_entropy_backward(logits, labels):
    """dL/dlogits of the softmax cross-entropy, shaped like logits."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    p = powers / powers.sum(1, keepdims=True)
    p[np.arange(len(labels)), labels] -= 1
    return p / len(labels)


# %% id="x3-check"
@check
def gradient_of_cross_entropy():
    numbers = np.random.default_rng(11)

    def loss(logits, labels):
        shifted = logits - logits.max(1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return -log_p[np.arange(len(labels)), labels].mean()

    for n, classes in ((5, 3), (4, 4), (1, 10)):
        logits, v = numbers.standard_normal((2, n, classes))
        labels = numbers.integers(0, classes, n)
        before = logits.copy()
        mine = cross_entropy_backward(logits, labels)
        assert np.shape(mine) == logits.shape, f"must be shaped like logits, {logits.shape}; yours is {np.shape(mine)}"
        assert np.array_equal(logits, before), "logits must stay as they are"
        sums = abs(mine.sum(1)).max()
        assert sums < 1e-12, (
            f"each row must add up to 0 (a common shift of the scores changes nothing), yours to {sums:.3g}"
        )
        for direction in (v, *np.eye(n * classes).reshape(-1, n, classes)):
            measured = (loss(before + 1e-5 * direction, labels) - loss(before - 1e-5 * direction, labels)) / 2e-5
            claimed = (mine * direction).sum()
            assert abs(measured - claimed) < 1e-8, (
                f"N = {n}: in some direction the measured slope of the loss is {measured:.6f}, by your gradient {claimed:.6f}"
            )
    large, wanted = np.array([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4]]), np.array([[1, -1, 0], [1 / 3, -2 / 3, 1 / 3]]) / 2
    with np.errstate(all="ignore"):
        mine = cross_entropy_backward(large, np.array([1, 1]))
    assert np.allclose(mine, wanted), (
        f"for scores of {large.tolist()} and labels 1, 1 dx is {wanted.round(3).tolist()}, yours {mine.round(3).tolist()}"
    )


# %% [markdown] id="kinks"
# ## Where there is nothing to compare
#
# One thing makes a right backward look wrong. ReLU, $\max(x, 0)$, has slope 0 on the left, 1 on the right, and
# none at 0.

# %% [markdown] id="predict-kink"
# **Predict.** At $x = 0$ minidense's ReLU says 0. The experiment, $(f(h) - f(-h))/2h$, says
#
# - (a) 0
# - (b) 0.5
# - (c) 1


# %% id="kink-run"
def measured_slope(f, x, h):
    return (f(x + h) - f(x - h)) / (2 * h)


def relu(x):
    return np.maximum(x, 0)


h = 1e-6
x = np.linspace(-3, 3, 241) * h
op = ReLU()
op.forward(x)
says = op.backward(np.ones_like(x))[0]
measured = measured_slope(relu, x, h)
curves(
    x / h,
    {"measured": measured, "backward": says},
    title="The slope of ReLU close to 0",
    xlabel="x, in steps of h",
    ylabel="slope",
    alt=f"Backward jumps from 0 to 1; the measured slope is a ramp from −h to h, {measured[120]:.1f} at 0.",
)

# %% id="kink-claim"
claim("measured slope of ReLU at 0", measured[120], 0.5, 0.5)
claim("slope of ReLU at 0 as backward has it", says[120], 0, 0)

# %% [markdown] id="why-kink"
# It is (b), and so for every $h$, however small. How to read the picture: where the two lines part, within one
# step of the kink, a check would cry wolf, although the backward does nothing wrong. The maximum of two equal
# numbers has such a kink, and so has max pooling.
#
# Loosening the tolerance until the check passes would hide real mistakes everywhere. Better to recognise a kink
# and say so. The *second* difference, $f(x+h) - 2f(x) + f(x-h)$, tells them apart: on a smooth function it is
# $f'' h^2$, four times as large when $h$ is doubled. Across a kink it is the jump of the slope times $h$, and
# only doubles.


# %% id="bend-run"
def growth(f, x, h=1e-3):
    """How many times larger the second difference becomes when the step is doubled."""
    bend, wide_bend = (f(x + k * h) - 2 * f(x) + f(x - k * h) for k in (1, 2))
    return wide_bend / bend


claim(
    "growth of tanh's second difference at a random point",
    growth(np.tanh, rng.uniform(0.3, 1.0)),
    3.99,
    4.01,
    seen=(3.99, 4.0),
)
claim("growth of ReLU's at 0", growth(relu, 0.0), 2, 2)

refused = 0
for name, fn, at in (
    ("ReLU at 0", F.relu, [0.0, 1.0, -1.0]),
    ("ReLU at 0.0000001", F.relu, [1e-7, 1.0, -1.0]),
    ("max of equals", F.max, [2.0, 2.0, 1.0]),
):
    try:
        check_gradients(fn, np.array(at))
    except KinkError as error:
        refused += 1
        print(f"{name}: {str(error).split(':', 1)[1].strip()}")
claim("kinks at which minidense's check refuses to judge, of 3", refused, 3, 3)

near = {step: int((abs(rng.standard_normal(1_000_000)) < 2 * step).sum()) for step in (1e-3, 1e-6)}
claim(
    "of a million random numbers, so close to 0 that a step of 1e-3 meets the kink",
    near[1e-3],
    1300,
    1900,
    seen=(1550, 1670),
)
claim("the same with a step of 1e-6", near[1e-6], 0, 15, seen=(0, 3))

# %% [markdown] id="words-near"
# (The jumps that the messages name are not 1, because the check moves along a random direction.) The last two
# claims are another reason to check in float64: it allows a step so small that random inputs hardly ever come
# near a kink. When they do, draw others.

# %% [markdown] id="break-it"
# ## Break it
#
# - To the table of the thirteen mistakes, add a third column with `dy = make().forward(x)`: the loss $\frac12
#   \sum y^2$. On normalisation it is nearly as blind as dy = 1, but other mistakes pass. Which sum stands still
#   this time, and which small number keeps it from standing still entirely?
# - In `terms`, leave out the last `op.forward(x)`. The right backward now differs many times more, perhaps enough
#   to stop the lesson. What has `op` kept?
# - In `typical_error`, take `ops.Log()` instead of `Tanh()`, numbers around 1,000 (`x + 1000`), and `exact = dy *
#   v / x`. Where do the valleys go, and why does the docstring of `check_gradients` ask for "arrays of about unit
#   size"?

# %% [markdown] id="summary"
# ## Three lines to keep
#
# 1. A wrong backward may train. Only a check tells: $\langle dy, J v\rangle = \langle dx, v\rangle$ for random
#    $dy$ and $v$.
# 2. In float64, with a random $dy$: float32 hides mistakes behind rounding, $dy = 1$ is blind where a sum stands
#    still.
# 3. At a kink there is nothing to compare. Say so, move the inputs, and leave the tolerance alone.

# %% [markdown] id="paper"
# ## What the lecture and the papers say
#
# The lecture says of batch normalisation that it centres each batch on 0, and that this helps against the
# vanishing gradient. Of the price it says nothing: with batch statistics every output depends on every image of
# the batch, so the backward has two terms more than that of a fixed scale, and the centring that it praises is
# what makes $dy = 1$ blind. The backward is printed in Ioffe & Szegedy 2015, §3, and lesson 07 derives it.
#
# The pair of dot products is older than deep learning, known as the *dot product test* or *adjoint test*; Baydin
# et al. 2018 (§3) describe its two halves, forward mode ($J v$) and reverse mode ($J^\top dy$). The gradient of
# exercise 3 is in Bishop 2006, eq. 4.109 (with respect to the weights in front). For ReLU at 0 any slope from 0
# to 1 would do; minidense takes 0.
#
# All of this lesson's numbers were measured here, on small arrays and one training each of a small network. How
# much a forgotten term costs in a *large* network, they do not say.

# %% [markdown] id="source"
# ## The real one
#
# minidense's own check: your exercise 1, and the watch for kinks. `tests/test_gradcheck.py` runs it on wrong
# backwards, each of which it must catch: a check that cannot fail is none.

# %% id="source-code"
print(inspect.getsource(check_gradients))
