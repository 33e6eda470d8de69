# %% [markdown] id="why-walk"
# Twelve lessons went into getting a gradient from the last layer to the first. Now every weight has a number that
# says in which direction the loss falls. What do you do with it?
#
# "Walk downhill" leaves open what decides whether a network learns. How far is a step? Does the walk remember
# where it came from? When does it slow down? The DenseNet paper answers in one paragraph of its section 4.2. You
# write that paragraph in code, and take parts of it away to see what they were for.

# %% id="imports" tags=["setup"]
import inspect
from dataclasses import replace

import numpy

from minidense import Tensor, data, models, schedule
from minidense import functional as F
from minidense.experiments.paper_recipe import PaperRecipe
from minidense.experiments.rate_staircase import picture, staircase
from minidense.experiments.recipe import recipe_ablation, table
from minidense.experiments.training import loss_and_accuracy, train
from minidense.experiments.update_ratios import UpdateRatios
from minidense.lessons import SEED, check, claim
from minidense.optim import SGD, _update
from minidense.plots import Picture, curves, plain, several, update_ratios

rng = numpy.random.default_rng(SEED)

# %% [markdown] id="valley"
# ## A long narrow valley
#
# Two weights are enough to meet the difficulty:
#
# $$L(x, y) = \tfrac12\,(x^2 + 50\,y^2), \qquad \text{with the gradient}\quad dx = x, \quad dy = 50\,y .$$
#
# A valley: its floor is the line $y = 0$, flat along $x$, and its walls are steep. We put the package's own
# optimiser into it, at $(-10, 1)$.


# %% id="valley-code" tags=["setup"]
curvature = numpy.array([1.0, 50.0])


def walk(steps, **settings):
    """The places (steps + 1, 2) that SGD visits in the valley, the start among them."""
    w = Tensor(numpy.array([-10.0, 1.0]), requires_grad=True)
    optimizer = SGD([w], **settings)
    places = [w.data]
    for _ in range(steps):
        loss = F.sum(w * w * Tensor(curvature)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        places.append(w.data)
    return numpy.array(places)


def height(places):
    """L at each place."""
    return places**2 @ curvature / 2


# %% [markdown] id="predict-rate"
# **Predict.** Plain steps, $w \leftarrow w - \text{lr}\cdot dw$, with the learning rate lr. At lr = 0.039 a
# hundred steps end near the floor. At lr = 0.041, a twentieth more,
#
# - (a) they end a little nearer still
# - (b) they end about as near
# - (c) they leave the valley
#
# Choose before you run the next cell.

# %% id="rate-run"
rates = (0.01, 0.039, 0.04, 0.041)
walls = {f"lr = {lr}": abs(walk(100, lr=lr)[:, 1]) for lr in rates}
curves(
    range(101),
    {name: numpy.maximum(y, 1e-8) for name, y in walls.items()},
    log="y",
    title="Distance from the floor, in the steep direction",
    xlabel="step",
    ylabel="|y|",
    alt="Distance from the valley's floor by step: "
    + ", ".join(f"{name} ends at {y[-1]:.2g}" for name, y in walls.items())
    + ".",
)

# %% [markdown] id="rate-words"
# How to read it: a straight line on this logarithmic axis is a distance multiplied by the same number in every
# step. (We cut off at 1e-8.)

# %% id="rate-claim"
claim("|y| after 100 steps at rate 0.039", walls["lr = 0.039"][-1], 0.0058, 0.0060, seen=(0.00592, 0.00593))
claim("|y| after 100 steps at rate 0.041", walls["lr = 0.041"][-1], 130, 133, seen=(131, 132))

# %% [markdown] id="why-rate"
# It is (c). One step makes $y$ into $(1 - 50\,\text{lr})\,y$. At lr = 0.04 that factor is $-1$: the walker jumps
# from wall to wall for ever. A little more, and every jump lands higher. **The steepest direction decides how
# large a rate may be**: $\text{lr} < 2/\lambda$ for a curvature (second derivative) of $\lambda$, here 50. The
# flat direction pays for it: at lr = 0.01, $x$ shrinks by one per cent a step.

# %% [markdown] id="momentum"
# ## Remembering
#
# Give the walker a velocity $v$. The gradient $g$ changes the velocity, and the velocity moves the weights:
#
# $$v \leftarrow \mu\,v + g, \qquad w \leftarrow w - \text{lr}\cdot v .$$
#
# Along the valley all gradients point the same way and add up, to $1 + \mu + \mu^2 + \dots = 1/(1 - \mu)$ of one:
# ten for $\mu = 0.9$. **Nesterov's** variant, as Torch and PyTorch have it, moves by what the velocity is *about
# to* become if the gradient stays:
#
# $$w \leftarrow w - \text{lr}\cdot(g + \mu\,v) .$$

# %% [markdown] id="predict-paths"
# **Predict.** Sixty steps of lr = 0.01 from the same start. Which is true?
#
# - (a) momentum gets farther than plain steps, and more smoothly too
# - (b) momentum gets farther, but swings from wall to wall; Nesterov gets as far and hardly swings
# - (c) Nesterov and momentum are hard to tell apart

# %% id="paths-run"
paths = {
    "plain": walk(60, lr=0.01),
    "momentum 0.9": walk(60, lr=0.01, momentum=0.9),
    "Nesterov 0.9": walk(60, lr=0.01, momentum=0.9, nesterov=True),
}
figure, panels = several(1, 3, width=9, height=6, sharex=True, sharey=True)
grid = numpy.meshgrid(numpy.linspace(-11, 4, 150), numpy.linspace(-1.2, 1.2, 80))
for axes, (name, way) in zip(panels[:, 0], paths.items(), strict=True):
    axes.contour(*grid, height(numpy.stack(grid, axis=-1)), levels=numpy.geomspace(0.1, 60, 9), colors="#BBBBBB")
    axes.plot(*way.T, ".-", color="#0072B2", linewidth=1)
    axes.plot(0, 0, "*", color="#D55E00", markersize=12)
    plain(axes, title=f"{name}: loss {height(way)[-1]:.2g} after 60 steps", ylabel="y")
panels[-1, 0].set_xlabel("x")
Picture(
    figure,
    "Paths of 60 steps through the valley, on its contour lines, to a star at the bottom: "
    + ", ".join(f"{name} ends at a loss of {height(way)[-1]:.2g}" for name, way in paths.items())
    + ". Momentum swings from wall to wall, Nesterov only at first.",
)

# %% [markdown] id="paths-words"
# How to read it: a dot is a step, a grey line is of equal loss, the star is the bottom. The y axis is stretched:
# the valley is narrower than it looks.

# %% id="paths-claim"
swing = {name: abs(way[10:, 1]).max() for name, way in paths.items()}
claim("loss of plain steps after 60", height(paths["plain"])[-1], 14.9, 15.0, seen=(14.9, 15))
claim("widest swing of momentum after step 10", swing["momentum 0.9"], 0.3, 0.8, seen=(0.541, 0.542))
claim("widest swing of Nesterov after step 10", swing["Nesterov 0.9"], 0.0, 0.05, seen=(0.0165, 0.0166))

# %% [markdown] id="why-paths"
# It is (b). Momentum overshoots: the velocity gained on one wall carries it up the other, and a swing shrinks
# only by $\sqrt\mu \approx 0.95$ a step. With Nesterov, say Sutskever, Martens, Dahl & Hinton (2013, theorem 2.1)
# of valleys like this, a direction of curvature $\lambda$ has $\mu\,(1 - \text{lr}\cdot\lambda)$ in the place of
# $\mu$. Along the floor that is $0.9 \cdot 0.99$, nearly all of it; across, $0.9 \cdot 0.5 = 0.45$. The memory is
# short exactly where it hurts.

# %% [markdown] id="x1"
# ## Exercise 1: one step of SGD
#
# Weight decay joins the gradient first, $g = dw + \text{decay}\cdot w$; then the velocity, then the step,
# ordinary or Nesterov's, as above ($\mu$ is `momentum`). Return the new weights and velocity; leave the arrays
# that you were given as they are.


# %% id="x1-stub"
def sgd_step(w, dw, v, *, lr, momentum, weight_decay, nesterov):
    """One step of SGD on arrays: the new (w, v). Before the first step v is zeros."""
    raise NotImplementedError


# %% [markdown] id="x1-hint"
# <details>
# <summary>Hint</summary>
#
# `g`, then `v`, then what `w` moves by. The rate stays out of the velocity. Nesterov uses the *new* velocity. `v
# *= momentum` would write into the caller's array.
#
# </details>


# %% id="x1-solution"
def sgd_step(w, dw, v, *, lr, momentum, weight_decay, nesterov):
    """One step of SGD on arrays: the new (w, v). Before the first step v is zeros."""
    g = dw + weight_decay * w
    v = momentum * v + g
    move = g + momentum * v if nesterov else v
    return w - lr * move, v


# %% id="x1-check"
@check
def one_step_of_sgd():
    chance = numpy.random.default_rng(7)
    cases = [(0.0, 0.0, False), (0.9, 0.0, False), (0.0, 0.3, False), (0.8, 0.0, True), (0.9, 0.2, True)]
    for momentum, decay, nesterov in cases:
        where = f"momentum {momentum}, weight decay {decay}, {'Nesterov' if nesterov else 'ordinary'}"
        w, v = chance.standard_normal((3, 2)), numpy.zeros((3, 2))
        real = Tensor(w.copy(), requires_grad=True)
        optimizer = SGD([real], lr=1.0, momentum=momentum, weight_decay=decay, nesterov=nesterov)
        for number in range(1, 11):
            lr, dw = 0.5 / number, chance.standard_normal((3, 2))
            given = w.copy(), dw.copy(), v.copy()
            answer = sgd_step(w, dw, v, lr=lr, momentum=momentum, weight_decay=decay, nesterov=nesterov)
            assert isinstance(answer, tuple | list), "return a pair: the new w and the new v"
            assert len(answer) == 2, "return two arrays: the new w and the new v"
            for name, before, after in zip(("w", "dw", "v"), given, (w, dw, v), strict=True):
                assert numpy.array_equal(before, after), f"{where}: your step writes into the array {name} it was given"
            w, v = answer
            optimizer.set_lr(lr)
            real.grad = dw
            optimizer.step()
            off = abs(w - real.data).max()
            assert off < 1e-12, f"{where}: after step {number} (rate {lr:.3g}) the weights are off by {off:.3g}"


# %% [markdown] id="x2"
# ## Exercise 2: looking ahead
#
# Sutskever et al. wrote Nesterov's momentum differently (equations 3 and 4): walk ahead along the velocity, ask
# for the gradient *there*, and correct.
#
# $$v \leftarrow \mu\,v - \text{lr}\cdot\nabla L(\theta + \mu\,v), \qquad \theta \leftarrow \theta + v$$
#
# Write that, and return the **places where the gradient was asked for**. The check compares them with the weights
# of `SGD(nesterov=True)`.


# %% id="x2-stub"
def look_ahead(gradient, theta, *, lr, momentum, steps):
    """The places θ + μv at which gradient(place) is asked for, one for each step, as a list of arrays; v begins at 0."""
    raise NotImplementedError


# %% [markdown] id="x2-hint"
# <details>
# <summary>Hint</summary>
#
# In each step: work out the place ahead and keep it, then the two updates. At first $v = 0$, so the first place
# is θ itself.
#
# </details>


# %% id="x2-solution"
def look_ahead(gradient, theta, *, lr, momentum, steps):
    """The places θ + μv at which gradient(place) is asked for, one for each step, as a list of arrays; v begins at 0."""
    v, places = numpy.zeros_like(theta), []
    for _ in range(steps):
        ahead = theta + momentum * v
        places.append(ahead)
        v = momentum * v - lr * gradient(ahead)
        theta = theta + v
    return places


# %% id="x2-check"
@check
def two_forms_of_nesterov():
    for momentum, lr in ((0.9, 0.01), (0.5, 0.02)):
        w = Tensor(numpy.array([-10.0, 1.0]), requires_grad=True)
        optimizer = SGD([w], lr=lr, momentum=momentum, nesterov=True)
        start = w.data.copy()
        places = look_ahead(lambda at: curvature * at, start, lr=lr, momentum=momentum, steps=10)
        assert isinstance(places, list | tuple | numpy.ndarray), (
            f"return a list of places, not a {type(places).__name__}"
        )
        assert len(places) == 10, "ten steps ask for ten gradients: return a list of 10 places"
        assert numpy.array_equal(start, [-10.0, 1.0]), "your function writes into the start that it was given"
        for number, place in enumerate(places, start=1):
            off = abs(place - w.data).max()
            assert off < 1e-12, (
                f"momentum {momentum}: gradient {number} should be asked for at {w.data.round(4)}, not at {numpy.round(place, 4)}"
            )
            w.grad = curvature * w.data
            optimizer.step()


# %% [markdown] id="why-two-forms"
# One method, two book-keepings: PyTorch's weights *are* the place ahead. (As long as the rate stays: Sutskever's
# velocity has the old rate inside it.)

# %% [markdown] id="ablation"
# ## Taking momentum away
#
# Does it matter for a network? `recipe_ablation` trains a small DenseNet-BC on digits by the paper's recipe,
# shortened to six epochs, and again with parts taken away.

# %% [markdown] id="predict-ablation"
# **Predict.** Without momentum, at the same rate of 0.1, the training loss ends higher. Is that for want of
# memory? Without momentum but at *ten times the rate*, it will be
#
# - (a) as bad: memory cannot be bought
# - (b) about that of the whole recipe
# - (c) not a number

# %% id="ablation-run"
numbers = recipe_ablation(
    parts=("no momentum", "no momentum, rate × 10"),
    seeds=(2 * SEED, 2 * SEED + 1),
    epochs=6,
    depth=10,
    growth_rate=4,
)
print(table(numbers))

# %% id="ablation-claim"
whole, without, faster = (part["train_loss"]["mean"] for part in numbers["parts"])
claim("training loss without momentum / whole recipe", without / whole, 1.3, 2.6, seen=(1.73, 2.02))
claim(
    "training loss without momentum at ten times the rate / whole recipe", faster / whole, 0.6, 1.35, seen=(0.861, 0.93)
)

# %% [markdown] id="why-ablation"
# It is (b); read the last column, with two seeds good for large differences only. In the first epochs of a small
# network, momentum is mostly a longer step: each gradient moves the weights ten times as far in the end. Where
# some direction is too steep for a rate of 1, momentum still lengthens the steps in the others. But whoever
# switches it off and leaves the rate alone changes two things at once.

# %% [markdown] id="decay"
# ## Weight decay: a slow leak
#
# Adding $\text{decay}\cdot w$ to the gradient, that of $\tfrac12\,\text{decay}\cdot\|w\|^2$, pulls every weight
# towards zero by a share of itself in each step. The authors apply it to everything, also to γ and β of batch
# norm.

# %% [markdown] id="predict-decay"
# **Predict.** The paper's recipe: rate 0.1, Nesterov momentum 0.9, decay 10⁻⁴. An epoch of CIFAR-10 has 782
# steps. A weight whose gradient from the data is always zero loses, in its first epoch,
#
# - (a) about 0.8 % of its size
# - (b) about 8 %
# - (c) more than half

# %% id="decay-run"
w = Tensor(numpy.ones(1), requires_grad=True)
optimizer = SGD([w], lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
for _ in range(782):
    w.grad = numpy.zeros(1)
    optimizer.step()
claim("share of a weight that is left after an epoch without gradients", w.data[0], 0.924, 0.927, seen=(0.925, 0.926))

w = Tensor(numpy.ones(1), requires_grad=True)
optimizer = SGD([w], lr=0.1, weight_decay=1e4)
w.grad = numpy.zeros(1)
optimizer.step()
claim("a weight of 1 after one step with weight decay 10⁴", w.data[0], -999, -999)

# %% [markdown] id="why-decay"
# It is (b): 10⁻⁴ · 0.1 a step, ten times as much by momentum, times 782. Over 150 such epochs the data has to
# hold a weight up. The last line is what you get if you copy the lecture's "10~4" as 10⁴.

# %% [markdown] id="staircase"
# ## The staircase
#
# Training follows the gradient of 64 images, and each batch pulls elsewhere. So, walk in fog: one weight, $L =
# \tfrac12 w^2$, and each gradient is $w$ plus noise. Five hundred walkers at once show the mean. The rate is 0.1,
# and is divided by 10 after 600 steps of 1,200 and again after 900.

# %% [markdown] id="predict-fog"
# **Predict.** When the rate falls to 0.01, the steps become ten times shorter. The loss
#
# - (a) falls on, more slowly than before
# - (b) is at its lowest value already, and stays
# - (c) has been hovering at a height, and falls to about a tenth of it

# %% id="fog-run"
walkers, fog = rng.standard_normal(500), []
for step in range(1200):
    lr = schedule.step_decay(step, start=0.1, drop_at=(600, 900))
    fog.append(float((walkers**2).mean() / 2))
    walkers = walkers - lr * (walkers + rng.standard_normal(500))
fog = numpy.array(fog)
curves(
    range(len(fog)),
    {"mean loss of 500 walkers": fog},
    log="y",
    title="Walking in fog: the rate is divided by 10 at steps 600 and 900",
    xlabel="step",
    ylabel="loss",
    alt=f"The mean loss falls to about {fog[500:600].mean():.2g} and hovers there, falls to {fog[800:900].mean():.2g} behind "
    f"step 600, and slowly on to {fog[1100:].mean():.2g} behind step 900.",
)

# %% [markdown] id="fog-words"
# How to read it: at a level stretch noise and gradient balance; a slope leads from one such height to the next.

# %% id="fog-claim"
hovering = [fog[begin:end].mean() for begin, end in ((500, 600), (800, 900), (1100, 1200))]
claim("hovering loss at rate 0.1 / at rate 0.01", hovering[0] / hovering[1], 8, 13, seen=(9.64, 10.7))
claim("loss at the end, at rate 0.001 / at rate 0.01", hovering[2] / hovering[1], 0.4, 0.9, seen=(0.572, 0.687))

# %% [markdown] id="why-fog"
# It is (c). Noise pushes the walker out, the gradient pulls it back; they balance at a mean loss of
# $\text{lr}\,\sigma^2 / (4 - 2\,\text{lr})$ (curvature 1, noise of deviation σ). **The height at which it hovers
# is nearly proportional to the rate.** A high rate is fast and stays high; a low one comes low and takes for
# ever. The staircase takes the first and then the second.
#
# The second drop does not bring another tenth here: to settle takes about $1/\text{lr}$ steps, a thousand at rate
# 0.001, and we gave it three hundred.

# %% [markdown] id="real-staircase"
# Now the DenseNet-BC of the table above, twelve epochs by the paper's recipe, beside a run whose rate stays at
# 0.1. Batches are of 16 images, so that there is enough fog.

# %% id="staircase-run"
steps = staircase(epochs=12, seeds=(SEED,))
picture(steps)

# %% [markdown] id="staircase-words"
# How to read it: pale is the loss of every step, the thick lines are means over the last epoch, dotted lines mark
# the drops. (The authors count epochs from 1 and drop when the count *reaches* 50 and 75 %: behind the 5th and
# 8th of 12.)

# %% id="staircase-claim"
first, second = steps["drops"]
print(f"epoch before the first drop: loss {first['before'][0]:.3f}; the epoch behind it: {first['after'][0]:.3f}")
print(f"epoch before the second drop: loss {second['before'][0]:.3f}; the epoch behind it: {second['after'][0]:.3f}")
claim("loss behind the first drop / before it", first["ratio"][0], 0.45, 0.92, seen=(0.615, 0.732))
claim(
    "the same, as a share of what a rate that stays has",
    first["ratio"][0] / first["constant_ratio"][0],
    0.6,
    0.97,
    seen=(0.741, 0.807),
)
claim(
    "loss of the last epoch, staircase / rate that stays",
    steps["end"]["falling"][0] / steps["end"]["constant"][0],
    0.58,
    0.92,
    seen=(0.725, 0.79),
)

# %% [markdown] id="why-staircase"
# The first drop takes about a third off the loss within an epoch, more than the rate that stays gains in the same
# time. But that run goes on falling: twelve epochs are few for hovering, and the second drop shows little. In the
# paper's 300 epochs the first drop is a cliff (right panel of its figure 4).

# %% [markdown] id="x3"
# ## Exercise 3: the staircase
#
# Write the schedule: from each epoch in `drop_at` on, the rate is `factor` times what it was. Epochs count from 0
# and may be fractional, as the rate is asked for in each step.


# %% id="x3-stub"
def rate_at(epoch, *, start, drop_at, factor=0.1):
    """The learning rate at an epoch; drop_at are the epochs from which a lower rate holds."""
    raise NotImplementedError


# %% [markdown] id="x3-hint"
# <details>
# <summary>Hint</summary>
#
# How many drops lie behind us? So many factors. In a `sum`, `True` counts as 1.
#
# </details>


# %% id="x3-solution"
def rate_at(epoch, *, start, drop_at, factor=0.1):
    """The learning rate at an epoch; drop_at are the epochs from which a lower rate holds."""
    drops = sum(epoch >= drop for drop in drop_at)
    return start * factor**drops


# %% id="x3-check"
@check
def staircase_of_rates():
    asked = [
        (300, (150, 225), 0.1, 0.1),  # CIFAR: 50 and 75 % of 300 epochs
        (40, (20, 30), 0.1, 0.1),  # SVHN: the same shares of 40
        (200, (60, 120, 160), 0.3, 0.2),
        (10, (), 0.05, 0.1),
    ]
    for epochs, drop_at, start, factor in asked:
        for epoch in sorted(
            {0, 0.5, *drop_at, *(at - 0.25 for at in drop_at), *(at + 1 for at in drop_at), epochs - 1}
        ):
            wanted = schedule.step_decay(epoch, start=start, drop_at=drop_at, factor=factor)
            got = rate_at(epoch, start=start, drop_at=drop_at, factor=factor)
            assert isinstance(got, int | float), f"return a number, got {got!r}"
            assert abs(got - wanted) < 1e-9 * wanted, (
                f"epoch {epoch} with drops at {drop_at}, start {start}, factor {factor}: {wanted:.3g}, yours is {got:.3g}"
            )
    assert abs(rate_at(151, start=0.1, drop_at=(150, 225)) - 0.01) < 1e-12, "without factor=..., a drop divides by ten"


# %% [markdown] id="ratio"
# ## Is my rate sensible?
#
# You rarely know the curvature. But you can look at how far each step moves a weight array, as a share of its own
# size: $\|\Delta w\| / \|w\|$. Andrej Karpathy's rule of thumb says: around $10^{-3}$. Here is a larger
# DenseNet-BC with the paper's recipe in eight epochs; the rate falls behind the third and the fifth.

# %% [markdown] id="predict-ratio"
# **Predict.** During the first three epochs, at the paper's rate of 0.1, the typical ratio is
#
# - (a) close to 10⁻³: that is why they chose 0.1
# - (b) about 10⁻²
# - (c) about 10⁻⁴

# %% id="ratio-run"
digits = data.load("digits")
recipe = PaperRecipe(epochs=8, batch_size=32)
model = models.densenet(depth=16, growth_rate=6, in_channels=1, seed=SEED)
watch = UpdateRatios(model, every=5)
history = train(
    model,
    recipe.optimizer(model),
    digits,
    epochs=8,
    learning_rate=recipe.rate,
    seed=SEED,
    batch_size=32,
    tested=False,
    after_step=watch,
)
shown = [name for name in watch.ratios if "denselayer2" not in name]
update_ratios(
    {name.removeprefix("features.").removesuffix(".weight"): watch.ratios[name] for name in shown},
    steps=watch.steps,
    title="Every fifth step of eight epochs",
)

# %% [markdown] id="ratio-words"
# How to read it: a line is a weight array (of each block the first layer only); the dashed line is the rule of
# thumb. All go down the staircase together.

# %% id="ratio-claim"
behind = schedule.paper_drops(8)[0] * 45, schedule.paper_drops(8)[1] * 45  # 45 steps an epoch


def typical(begin, end):
    """Median ratio of all weight arrays in the steps from begin to end."""
    rows = [i for i, step in enumerate(watch.steps) if begin < step <= end]
    return float(numpy.median([line[i] for line in watch.ratios.values() for i in rows]))


claim("median ratio at rate 0.1", typical(0, behind[0]), 0.007, 0.016, seen=(0.0105, 0.0115))
claim("median ratio at rate 0.01", typical(*behind), 4e-4, 1.4e-3, seen=(0.00072, 0.00087))
claim("median ratio at rate 0.001", typical(behind[1], 360), 4e-5, 1.2e-4, seen=(6.08e-05, 7.57e-05))

# %% [markdown] id="why-ratio"
# It is (b): in this network the paper's rate begins ten times *above* the rule, passes it on the second step of
# the staircase and ends below. Batch norm makes that bearable: the layer behind it does not see how large a
# weight array is, only its direction. So the rule is a thermometer, no law. Compare layers: one line far from the
# others is a layer that is thrown about, or one that stands still.

# %% [markdown] id="dropout"
# ## Dropout
#
# In training, each value is set to zero with probability $p$, and the others are divided by $1 - p$, so that the
# mean stays; in evaluation nothing happens (Srivastava et al. 2014).

# %% id="dropout-run"
ones = Tensor(numpy.ones(100_000))
dropped = F.dropout(ones, 0.2, rng=rng).data
print("training:  ", dropped[:12])
print("evaluation:", F.dropout(ones, 0.2, rng=rng, training=False).data[:12])
claim("share of zeros with p = 0.2", float((dropped == 0).mean()), 0.19, 0.21, seen=(0.198, 0.201))
claim("mean of what dropout leaves of ones", float(dropped.mean()), 0.988, 1.012, seen=(0.998, 1.01))

# %% [markdown] id="augmentation"
# ## More pictures than there are
#
# Against learning by heart one can also show no picture twice in the same way. For CIFAR: mirror it, or not,
# surround it with 4 pixels of zeros and cut out a piece of the old size. That makes $2 \cdot 9^2 = 162$ views of
# each photograph. The "+" in C10+ is this and nothing else. Here it is done to a digit of 8×8 pixels, with 1
# pixel of zeros.

# %% id="views-run"
seven = digits.test_images[digits.test_labels == 7][:1]
views = {"as it is": seven}
views |= {
    f"cut at row {top}, column {left}": data.crop(seven, numpy.array([top]), numpy.array([left]), padding=1)
    for top, left in ((0, 1), (2, 1), (1, 2))
}
views["mirrored"] = data.mirror(seven, numpy.array([True]))
figure, panels = several(len(views), width=10, height=2.4)
for axes, (name, view) in zip(panels[0], views.items(), strict=True):
    axes.imshow(view[0, 0], cmap="gray", vmin=0, vmax=16)
    axes.set_title(name, fontsize="medium")
    axes.set_xticks([])
    axes.set_yticks([])
Picture(
    figure, "A seven of 8×8 pixels: as it is, moved down, moved up, moved left, and mirrored, which makes it no seven."
)

# %% [markdown] id="predict-mirror"
# How to read it: a cut from row 0 of the padded picture has a row of zeros at its top, so the digit has moved
# *down*; row 1, column 1 would give it back as it is.
#
# **Predict.** The network that you have just trained names more than nine in ten test digits correctly. Of the
# same digits *mirrored*, it gets right
#
# - (a) nearly as many
# - (b) about three in ten
# - (c) one in ten, as by guessing

# %% id="mirror-run"
everybody = numpy.ones(len(digits.test_images), bool)
mirrored = replace(digits, test_images=data.mirror(digits.test_images, everybody))
claim("accuracy on test digits", loss_and_accuracy(model, digits)[1], 0.9, 1.0, seen=(0.958, 0.975))
claim("accuracy on the same digits mirrored", loss_and_accuracy(model, mirrored)[1], 0.2, 0.45, seen=(0.297, 0.35))

# %% [markdown] id="why-mirror"
# It is (b). A mirrored cat is a cat; a mirrored 2 is not a 2. So digits and house numbers are never mirrored:
# **augmentation is a statement about the world**, and a false one teaches something false. In the package a data
# set knows it about itself (`Dataset.flip`).

# %% [markdown] id="x4"
# ## Exercise 4: pad and crop
#
# Surround an image with `padding` zeros on each side, and cut out a piece of the old size that begins at row
# `top` and column `left` of the padded image.


# %% id="x4-stub"
def padded_crop(image, top, left, *, padding):
    """The piece (C, H, W) of the padded image (C, H + 2·padding, W + 2·padding) from (top, left) on; image is (C, H, W)."""
    raise NotImplementedError


# %% [markdown] id="x4-hint"
# <details>
# <summary>Hint</summary>
#
# Make zeros of the padded size, with the image's `dtype`; put the image into their middle with a slice on the
# left of `=`, and return another slice. The channels are not padded.
#
# </details>


# %% id="x4-solution"
def padded_crop(image, top, left, *, padding):
    """The piece (C, H, W) of the padded image (C, H + 2·padding, W + 2·padding) from (top, left) on; image is (C, H, W)."""
    c, h, w = image.shape
    padded = numpy.zeros((c, h + 2 * padding, w + 2 * padding), image.dtype)
    padded[:, padding : padding + h, padding : padding + w] = image
    return padded[:, top : top + h, left : left + w]


# %% id="x4-check"
@check
def pad_and_crop():
    chance = numpy.random.default_rng(11)
    for padding, shape in ((1, (1, 8, 8)), (4, (3, 6, 9)), (2, (2, 5, 3))):
        image = chance.integers(1, 255, shape).astype(numpy.uint8)
        before = image.copy()
        places = [(padding, padding), (0, 0), (2 * padding, 2 * padding), (0, 2 * padding), (padding, 0)]
        for top, left in places:
            got = padded_crop(image, top, left, padding=padding)
            wanted = data.crop(image[None], numpy.array([top]), numpy.array([left]), padding=padding)[0]
            what = f"image {shape}, padding {padding}, top {top}, left {left}"
            assert getattr(got, "shape", None) == shape, (
                f"{what}: the piece should be {shape}, got {getattr(got, 'shape', got)}"
            )
            assert got.dtype == image.dtype, f"{what}: the pixels should stay {image.dtype}, got {got.dtype}"
            wrong = int((got != wanted).sum())
            assert wrong == 0, (
                f"{what}: {wrong} of {got.size} pixels are wrong; top and left count from the corner of the padded image"
            )
        assert numpy.array_equal(image, before), "your function writes into the image that it was given"


# %% [markdown] id="differs-8-9-10-11-12"
# ## Where lecture and paper differ
#
# - **CIFAR, the rate.** Lecture: times 0.1 at 50 %. Paper: at 50 % *and at 75 %* of the 300 epochs.
# - **SVHN, the rate.** Lecture: times 0.1 at 75 %. Paper: at *50 % and* 75 %, of 40 epochs.
# - **Dropout.** Lecture: rate 0.2, without a condition. Paper: behind each convolution but the first, and only
#   where there is *no augmentation* (C10, C100, SVHN).
# - **Slips of typing.** "10~4 weight decay" is $10^{-4}$, "0,9 Nesteroy" is Nesterov momentum 0.9, and "Ir" is
#   lr.
# - **Left out.** Initial weights (He et al.'s, lesson 05), augmentation, normalisation and validation (both in
#   lesson 14). Without these nobody can repeat the numbers.

# %% [markdown] id="break-it"
# ## Break it
#
# - In "paths-run", give Nesterov lr = 0.03: it explodes, while ordinary momentum does not. The theorem says why:
#   what is $\mu\,(1 - \text{lr}\cdot\lambda)$ across the valley then?
# - In "fog-run", begin with a rate of 0.001, never change it (`drop_at=()`), and walk on. How many steps until it
#   is as low as the staircase?
# - In "ratio-run", set `PaperRecipe(epochs=8, batch_size=32, learning_rate=10.0)`. Do the ratios warn you? Which
#   claim does?

# %% [markdown] id="summary"
# ## Three lines to keep
#
# 1. The steepest direction limits the rate, $\text{lr} < 2/\lambda$; momentum makes steps longer where gradients
#    agree.
# 2. With noisy gradients the loss hovers at a height that grows with the rate: first be fast, then come low.
# 3. Weight decay, dropout and augmentation act against learning by heart, and an augmentation must be true.

# %% [markdown] id="paper"
# ## What the lecture and the papers say
#
# Section 4.2 of Huang et al. (2017): SGD; CIFAR 300 epochs and SVHN 40, in batches of 64; ImageNet 90 epochs of
# 256, the rate divided by 10 at epochs 30 and 60; rate 0.1 at first; weight decay $10^{-4}$; Nesterov momentum
# 0.9 without dampening. DenseNet-BC (L = 100, k = 12) has printed errors of 4.51 % on C10+ and 5.92 % on C10 with
# dropout (Table 2): what augmentation is worth there.
#
# What weight decay, dropout and augmentation do for the *test* error, 1,437 digits in a few epochs cannot show;
# overfitting takes longer. `minidense experiment recipe-ablation` takes away or changes eleven parts of the
# recipe, with five seeds, and says which differences are more than chance; one test image of 360 is 0.28 %.

# %% [markdown] id="source"
# ## The real one
#
# The step of every training run by `SGD` in this package: `_update` is called for each parameter.

# %% id="source-code"
print(inspect.getsource(_update))
