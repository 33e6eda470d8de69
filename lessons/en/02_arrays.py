# %% [markdown] id="why-arrays"
# In lesson 01 every number was an object of its own, which remembered what made it. A batch of 64 CIFAR pictures
# is 196,608 numbers before the first layer has touched them; Python would spend its day making objects. So an
# engine for deep learning gives the step of lesson 01 whole arrays: one object, however many numbers pass
# through.
#
# Arrays raise three questions that plain numbers never ask. What is the derivative of an array? What happens to a
# gradient where NumPy has silently copied a small array to fit a large one? And in which order must the steps be
# walked back, when a result was used in many places? Wrong answers to the last two rarely stop with an error:
# gradients are too large or too small, and the network trains anyway, only badly.
#
# You will answer them with minidense's own parts, from `minidense/ops` and `minidense/tensor.py`.

# %% id="imports" tags=["setup"]
import inspect
import tracemalloc

import numpy as np

from minidense import GraphError, Tensor
from minidense.lessons import SEED, check, claim
from minidense.ops import Add, Mul, Op, Tanh
from minidense.ops.elementwise import sum_to as reference_sum_to
from minidense.plots import BLACK, BLUE, ORANGE, Picture, curves, heat_map, several
from minidense.tensor import apply, history

rng = np.random.default_rng(SEED)

# %% [markdown] id="op"
# ## One step, on arrays
#
# An `Op` is one step. It has two methods: `forward` computes $y$ and keeps on `self` what it will need later;
# `backward` is given $dy$, the gradient of the loss with respect to $y$, and returns one gradient for each input.
# Here is multiplication as the package has it:

# %% id="op-run"
print(inspect.getsource(Mul))
op = Mul()
a, b = np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0])
y = op.forward(a, b)
da, db = op.backward(np.array([1.0, 1.0, 100.0]))
print("y ", y, "\nda", da, "\ndb", db)

# %% [markdown] id="op-words"
# As in `__mul__` of lesson 01, the factor for $a$ is $b$, and the other way round; only that $dy$, what arrives,
# is multiplied in at once. All through minidense $dy$ has the shape of $y$, $da$ the shape of $a$, and "d" means
# "d loss / d this". (`sum_to` comes in the next section.) An Op works on bare arrays: you can try one by itself.

# %% [markdown] id="predict-jacobian"
# **Predict.** The derivative of an array by an array is a table, the *Jacobian* $J$ with $J_{ij} = \partial y_i /
# \partial x_j$. For six numbers in and six out it has 36 entries. How many of them are not zero for $y = \tanh
# x$, and how many for $y = x - \text{mean}(x)$ (the first half of batch normalisation)?
#
# - (a) 36 and 36
# - (b) 6 and 36
# - (c) 6 and 6
#
# Choose before you run the next cell.


# %% id="jacobian-run"
def jacobian(f, x, h=1e-6):
    """The table of all dy_i/dx_j, measured: each x_j is moved a little to either side."""
    columns = []
    for j in range(x.size):
        step = h * (np.arange(x.size) == j)
        columns.append((f(x + step) - f(x - step)) / (2 * h))
    return np.stack(columns, axis=1)


x = rng.uniform(-1.5, 1.5, 6)
tables = {"tanh x": jacobian(np.tanh, x), "x − mean(x)": jacobian(lambda x: x - x.mean(), x)}
figure, axes = several(2, width=9.5, height=3.6)
for (name, J), place in zip(tables.items(), axes[0], strict=True):
    heat_map(
        J.round(6) + 0.0,
        rows=[f"y{i}" for i in range(6)],
        columns=[f"x{j}" for j in range(6)],
        alt=name,
        axes=place,
        title=f"∂y/∂x of y = {name}",
        low=-0.2,
        high=1.0,
    )
nonzero = {name: int((abs(J) > 1e-6).sum()) for name, J in tables.items()}
Picture(figure, "Two 6 × 6 tables. " + "; ".join(f"{name}: {n} entries are not zero" for name, n in nonzero.items()))

# %% [markdown] id="jacobian-words"
# How to read it: row $i$ says on which $x_j$ the result $y_i$ depends, and how much; dark fields are large.

# %% id="jacobian-claim"
claim("entries of the Jacobian of tanh that are not zero", nonzero["tanh x"], 6, 6)
claim("the same for x − mean(x)", nonzero["x − mean(x)"], 36, 36)

dy = rng.standard_normal(6)
op = Tanh()
op.forward(x)
(dx,) = op.backward(dy)
difference = abs(tables["tanh x"].T @ dy - dx).max()
claim(
    "largest difference between Jᵀ·dy and what Tanh.backward returns", difference, 0.0, 1e-8, seen=(1.74e-11, 7.15e-11)
)

conv0 = (24 * 32 * 32) * (3 * 32 * 32)
claim(
    "entries of the Jacobian of DenseNet-BC's first convolution (k = 12), for one picture",
    conv0,
    75_497_472,
    75_497_472,
)

# %% [markdown] id="why-never"
# It is (b). Whatever works element by element has a diagonal Jacobian; the mean ties every result to every input.
#
# The last two claims are the reason why `backward` looks as it does. The chain rule, $dx_j = \sum_i dy_i \,
# \partial y_i / \partial x_j$, multiplies by the transposed Jacobian: $dx = J^\top dy$. But $J$ itself is
# absurdly large (75 million entries for *one* picture in *one* layer: 3 channels of 32 × 32 go in, $2k = 24$ come
# out), and nearly always it has a structure that makes the product cheap. **A backward is a way of multiplying by
# $J^\top$ without having $J$.** For tanh it is $dy \cdot (1 - y^2)$, two multiplications a number.

# %% [markdown] id="broadcast"
# ## Broadcasting
#
# Add a bias to a batch: `x` of shape (4, 3) plus `bias` of shape (3,). NumPy *broadcasts*: it behaves as if the
# three numbers stood there once for each image.

# %% [markdown] id="predict-bias"
# **Predict.** The gradient that arrives at $y = x + \text{bias}$ is an array `dy` of shape (4, 3). The gradient
# of the bias is
#
# - (a) `dy`, since the slope of a sum is 1
# - (b) the mean of `dy` over the images
# - (c) the sum of `dy` over the images

# %% id="bias-run"
x = Tensor(rng.standard_normal((4, 3)))
bias = Tensor(np.zeros(3), requires_grad=True)
dy = rng.integers(-5, 6, (4, 3)).astype(float)
(x + bias).backward(dy)

figure, axes = several(1, 2, width=6.0, height=3.4, height_ratios=(4, 1), sharex=True)
channels = ["channel 0", "channel 1", "channel 2"]
limits = {"low": min(dy.min(), bias.grad.min()), "high": max(dy.max(), bias.grad.max()), "form": "{:g}"}
images = [f"image {n}" for n in range(4)]
heat_map(dy, rows=images, columns=channels, alt="dy", axes=axes[0, 0], title="dy, as it arrives at x + bias", **limits)
heat_map(bias.grad[None], rows=["dbias"], columns=channels, alt="dbias", axes=axes[1, 0], title="bias.grad", **limits)
axes[0, 0].tick_params(labelbottom=False)
Picture(figure, f"dy has four rows; the gradient of the bias, {bias.grad.tolist()}, is the sum of each column.")

# %% id="bias-claim"
claim("largest difference between bias.grad and the sum of dy over the images", abs(bias.grad - dy.sum(0)).max(), 0, 0)

# %% [markdown] id="why-sum"
# It is (c). How to read the picture: below each column of `dy` stands the gradient of that channel's bias. Move
# `bias[0]`, and column 0 moves in *all four* images. Four paths lead to this one number, and paths that meet add
# up, as in lesson 01. (Not the mean: if the loss is a mean over images, the 1/4 is already in `dy`.)
#
# So the rule for arrays is: **where the forward pass copied, the backward pass sums.** NumPy copies in two ways.
# It puts missing axes in front, (3,) → (4, 3), and it stretches axes of length 1, (4, 1) → (4, 3). `sum_to`
# undoes both.

# %% [markdown] id="x1"
# ## Exercise 1: undo broadcasting
#
# Write the function that `Mul` leans on. `dy` has the shape that came out of broadcasting; return it summed so
# that it has the given `shape`.


# %% id="x1-stub"
def sum_to(dy, shape):
    """The gradient of an array of that shape, when dy is the gradient of what it was broadcast to."""
    raise NotImplementedError


# %% [markdown] id="x1-hint"
# <details>
# <summary>Hint</summary>
#
# Two kinds of axes must go: the first `dy.ndim - len(shape)`, which broadcasting put in front, and those where
# `shape` holds a 1. Mind that the second kind is counted in `shape`, and the axes of `dy` are shifted against it.
#
# </details>

# %% [markdown] id="x1-hint-2"
# <details>
# <summary>Second hint</summary>
#
# `dy.sum(axes, keepdims=True)` takes a tuple of axes and leaves ones in their place; then `reshape(shape)` has
# nothing left to do but drop the ones in front.
#
# </details>


# %% id="x1-solution"
def sum_to(dy, shape):
    """The gradient of an array of that shape, when dy is the gradient of what it was broadcast to."""
    added = dy.ndim - len(shape)
    copied = tuple(range(added)) + tuple(added + i for i, n in enumerate(shape) if n == 1)
    return dy.sum(copied, keepdims=True).reshape(shape)


# %% id="x1-check"
@check
def sum_to_undoes_broadcasting():
    numbers = np.random.default_rng(5)
    cases = [
        ((4, 3), (3,)),
        ((3, 3), (3,)),
        ((4, 3), (4, 1)),
        ((3, 3), (1, 3)),
        ((4, 3), ()),
        ((4, 3), (4, 3)),
        ((2, 5, 4, 4), (5, 1, 1)),
        ((2, 1, 4), (1, 1)),
        ((2, 3, 4), (1, 3, 1)),
    ]
    for from_shape, shape in cases:
        dy = numbers.standard_normal(from_shape)
        before = dy.copy()
        mine = sum_to(dy, shape)
        assert isinstance(mine, np.ndarray | np.generic), f"must return an array, it returned {type(mine).__name__}"
        assert mine.shape == shape, f"from {from_shape} to {shape}: yours has shape {mine.shape}"
        assert np.array_equal(dy, before), "sum_to must leave dy as it is: others may hold the same array"
        wanted = reference_sum_to(before, shape)
        assert np.allclose(mine, wanted, rtol=1e-12, atol=1e-12), (
            f"from {from_shape} to {shape}: the right shape, but other numbers. "
            f"The first should be {wanted.flat[0]:.4f}, it is {mine.flat[0]:.4f}"
        )


# %% [markdown] id="x2"
# ## Exercise 2: the layer that is everywhere
#
# $y = x \cdot W^\top + \text{bias}$, with $x$ of shape (N, C), `weight` (F, C) and `bias` (F,), gives $y$ of
# shape (N, F). DenseNet ends with it, and a 3 × 3 convolution is nine of them (lesson 06). Write its backward:
# each gradient is one line, two of them matrix products.


# %% id="x2-stub"
def linear_backward(dy, x, weight):
    """(dx, dweight, dbias) of y = x @ weight.T + bias, shaped like x, weight and bias."""
    raise NotImplementedError


# %% [markdown] id="x2-hint"
# <details>
# <summary>Hint</summary>
#
# Let the shapes lead you: `dweight` must be (F, C), and there are `dy` (N, F) and `x` (N, C). Only one product of
# the two fits, and it sums over the N images. Shapes cannot decide when N, C and F are equal, so think of $y_{nf}
# = \sum_c x_{nc} W_{fc}$ too.
#
# </details>


# %% id="x2-solution"
def linear_backward(dy, x, weight):
    """(dx, dweight, dbias) of y = x @ weight.T + bias, shaped like x, weight and bias."""
    dx = dy @ weight  # (N, F) @ (F, C)
    dweight = dy.T @ x  # (F, N) @ (N, C)
    dbias = dy.sum(0)
    return dx, dweight, dbias


# %% id="x2-check"
@check
def backward_of_the_linear_layer():
    numbers = np.random.default_rng(6)
    for n, c, f in ((5, 4, 3), (4, 4, 4), (1, 2, 3)):
        x, weight, bias, dy = (numbers.standard_normal(shape) for shape in ((n, c), (f, c), (f,), (n, f)))
        before = [array.copy() for array in (dy, x, weight)]
        found = linear_backward(dy, x, weight)
        assert isinstance(found, tuple | list), "return three gradients: dx, dweight, dbias"
        assert len(found) == 3, f"return three gradients, dx, dweight, dbias; yours are {len(found)}"
        assert all(np.array_equal(*pair) for pair in zip((dy, x, weight), before, strict=True)), (
            "dy, x and weight must stay as they are"
        )
        dy, x, weight = before
        for name, array, mine in zip(("dx", "dweight", "dbias"), (x, weight, bias), found, strict=True):
            assert np.shape(mine) == array.shape, (
                f"N, C, F = {n}, {c}, {f}: {name} should be {array.shape}, it is {np.shape(mine)}"
            )
            wanted = np.zeros_like(array)  # by moving one number after the other; y is linear, so any step will do
            for place in np.ndindex(array.shape):
                here = array[place]
                array[place] = here + 0.5
                wanted[place] = (dy * (x @ weight.T + bias)).sum()
                array[place] = here - 0.5
                wanted[place] -= (dy * (x @ weight.T + bias)).sum()
                array[place] = here
            assert np.allclose(mine, wanted, atol=1e-10), (
                f"N, C, F = {n}, {c}, {f}: {name} differs from measured slopes by up to {abs(mine - wanted).max():.3g}"
            )


# %% [markdown] id="tensor"
# ## A Tensor remembers
#
# A `Tensor` is an array that knows its `source`, the Op that made it; the Op knows its `inputs`, which are
# Tensors again. That is the whole graph. `apply(op, *tensors)` runs an Op and notes both, and `a + b` is short
# for `apply(Add(), a, b)`.

# %% id="tensor-run"
a = Tensor([1.0, 2.0], requires_grad=True)
b = a + a
c = b + b
print(c, "| its inputs:", c.source.inputs, "| one object twice:", c.source.inputs[0] is c.source.inputs[1])

# %% [markdown] id="diamond"
# A backward walk takes five lines. Let us keep for each Tensor the gradient that it has gathered, and hand on to
# its inputs what follows from that:


# %% id="naive-code"
def naive(y, arriving, gathered):
    """A recursive walk that hands on what a Tensor has gathered until now."""
    gathered[y] = gathered.get(y, 0) + arriving
    if y.source is not None:
        for x, dx in zip(y.source.inputs, y.source.backward(gathered[y]), strict=True):
            naive(x, dx, gathered)


# %% [markdown] id="predict-diamond"
# **Predict.** For one addition, `b = a + a`, this walk says `db/da = 2`: right. Now the diamond, `b = a + a` and
# `c = b + b`. Take paper and follow it: `dc/da`, which should be 4, comes out as
#
# - (a) 2
# - (b) 4
# - (c) 6


# %% id="diamond-run"
def doubled(n):
    """A number a, and a + a, doubled again and again."""
    a = y = Tensor(np.float64(1.0), requires_grad=True)
    for _ in range(n):
        y = y + y
    return a, y


naively = []
for n in range(1, 11):
    a, y = doubled(n)
    gathered = {}
    naive(y, np.ones(()), gathered)
    naively.append(int(gathered[a]))
right = [2**n for n in range(1, 11)]
curves(
    range(1, 11),
    {"naive walk": naively, "right": right},
    log="y",
    title="dy/da after n doublings",
    xlabel="doublings n",
    ylabel="gradient",
    alt=f"The naive walk agrees at one doubling, gives {naively[1]} for 4 at two, and {naively[-1]:,} for {right[-1]:,} at ten.",
)

# %% id="diamond-claim"
claim("dc/da of the diamond, by the naive walk", naively[1], 6, 6)
claim("dy/da after ten doublings, by the naive walk (right: 1,024)", naively[9], 314_039_061_414, 314_039_061_414)
a, y = doubled(10)
y.backward()
claim("the same by Tensor.backward", float(a.grad), 1024, 1024)

# %% [markdown] id="why-diamond"
# It is (c). The first arrival at $b$ brings 1 and hands 1 on along both arms, so $a$ has 2. The second arrival
# raises $b$ to 2 and hands on **2**, although the first half of that was handed on before: $a$ gets $2 + 4 = 6$.
#
# How to read the picture: on the logarithmic axis the right gradient, $2^n$, is a straight line; the naive one
# bends away from it. In a deep network one would call that an *exploding gradient*, and look for the fault in the
# initial weights.
#
# Lesson 01's recursion escaped by handing on only what had just arrived, at the price of walking every path. The
# cure is to hand on **once**, when all has arrived.

# %% [markdown] id="order"
# ## Once, but in which order?
#
# Take a skip connection as a residual network has it: $u = e^x$, $v = u \cdot u$ and $w = u + v$. The step $v$ is
# the layer, and $u$ goes around it.

# %% [markdown] id="predict-order"
# **Predict.** A walk visits every step once, nearest to the loss first: $w$, then its inputs in the order in
# which they stand, $u$ and $v$, then their inputs. At $x = 0$ we have $u = 1$, so $dw/dx = e^x(1 + 2u)$ should be
# 3. This walk gives
#
# - (a) 3
# - (b) 1: the path through the layer is lost
# - (c) 2: the skip connection is lost


# %% id="order-run"
def nearest_first(y):
    """Every Op behind y, those that are fewest steps away first."""
    order = [y.source]
    for op in order:
        order += [x.source for x in dict.fromkeys(op.inputs) if x.source is not None and x.source not in order]
    return order


def walk(y, order):
    """Visit each Op once, in that order, and hand on what its result has gathered until then. Returns what all have gathered."""
    gathered = {y.source: np.ones(y.shape)}
    for op in order:
        for x, dx in zip(op.inputs, op.backward(gathered[op]), strict=True):
            key = x if x.source is None else x.source
            gathered[key] = gathered[key] + dx if key in gathered else dx
    return gathered


def skip():
    """x = 0, and w of the skip connection."""
    x = Tensor(np.float64(0.0), requires_grad=True)
    u = x.exp()
    v = u * u
    return x, u + v


x, w = skip()
by_distance = float(walk(w, nearest_first(w))[x])
by_age = float(walk(w, history(w)[::-1])[x])
claim("dw/dx, nearest steps first", by_distance, 1, 1)
claim("dw/dx, youngest steps first", by_age, 3, 3)


# %% id="order-plot"
def draw(y, title):
    """The Ops behind y in a row, oldest first, with an arrow from each to those that used its result."""
    ops = history(y)
    figure, axes = several(1, width=9.0, height=3.2)
    place = {op: i for i, op in enumerate(ops)}
    arcs = [(place[x.source], i) for i, op in enumerate(ops) for x in dict.fromkeys(op.inputs) if x.source]
    for start, end in arcs:
        bend = 0.0 if end == start + 1 else -0.35
        how = {"arrowstyle": "-|>", "color": BLUE, "shrinkA": 20, "shrinkB": 20, "connectionstyle": f"arc3,rad={bend}"}
        axes[0, 0].annotate("", (end, 0), (start, 0), arrowprops=how)
    for op, i in place.items():
        axes[0, 0].plot(i, 0, "o", markersize=34, markerfacecolor="white", markeredgecolor=BLACK)
        axes[0, 0].text(i, 0, f"{op!r}", ha="center", va="center", fontsize=9)
        axes[0, 0].text(i, -0.32, f"step {i}", ha="center", fontsize=9)
        axes[0, 0].text(i, -0.47, f"turn {len(ops) - i}", ha="center", fontsize=9, color=ORANGE)
    axes[0, 0].set(title=title, xlim=(-0.6, len(ops) - 0.4), ylim=(-0.6, 0.75))
    axes[0, 0].axis("off")
    forward = sum(end > start for start, end in arcs)
    return Picture(
        figure,
        f"{len(ops)} steps in a row, oldest first; {forward} of {len(arcs)} arrows go from an older step to a younger.",
    )


def two_blocks():
    """A skip connection around a skip connection."""
    x = Tensor(np.float64(0.1), requires_grad=True)
    u = x.exp()
    v = u + u * u
    return u * (v + v * v)


draw(two_blocks(), "Forward, arrows go to the right; backward, turns are taken from the right")

# %% [markdown] id="why-order"
# It is (b). In $w = u + v$ the walk came to $u$ before $v$ had delivered, handed on 1, and what $v$ brought later
# stayed at $u$ for ever. Written as $w = v + u$ the same walk is right, by luck.
#
# What is needed is a *topological order*: nobody's turn comes before that of all who used its result. Lesson 01's
# `ordered` searched for one. There is a shorter way. How to read the picture: each circle is a step, the oldest
# at the left; an arrow leads from a step to one that used its result; "turn" is its place in the walk back. An Op
# can only use results that exist already, so **every arrow points from older to younger**, and a walk from the
# youngest to the oldest is never too early. minidense numbers its steps (`op.step`) and sorts by that number. Let
# us count arrows that go the wrong way in something less tidy:


# %% id="tangle-run"
def tangle(steps):
    """A graph in which every step adds two earlier results, drawn at random among the last ten."""
    made = [Tensor(np.float64(1.0), requires_grad=True)]
    for _ in range(steps):
        i, j = rng.integers(max(0, len(made) - 10), len(made), 2)
        made.append(made[i] + made[j])
    return made[-1]


def against(order):
    """Arrows along which a step would hand on before all has arrived."""
    turn = {op: i for i, op in enumerate(order)}
    return sum(turn[x.source] < turn[op] for op in order for x in op.inputs if x.source in turn)


y = tangle(300)
claim("arrows against the walk, youngest first", against(history(y)[::-1]), 0, 0)
claim("arrows against the walk, nearest first", against(nearest_first(y)), 30, 200, seen=(71, 95))

# %% [markdown] id="real-walk"
# ## The real walk
#
# Run the cell, and read it with these notes:
#
# - `order = history(self)` is every Op behind the result, oldest first; `reversed(order)` is the walk.
# - `pending` is our `gathered`, for inner results. `dy = pending.pop(op)`: its turn has come, so `dy` is
#   complete.
# - `dxs = op.backward(dy)` multiplies by $J^\top$. Gradients that lack their input's shape stop the walk here,
#   which is where a forgotten `sum_to` shows.
# - `place[key] = place[key] + dx` adds up paths. Not `+=`: `Add.backward` hands *the same array* to both inputs,
#   and adding in place would write into the other's gradient.
# - `op.forget()` has a section of its own, after the next exercise.
# - Only at the end do gradients reach `.grad`: if something fails half way, no leaf has half a gradient. (A
#   *leaf* is a Tensor that no Op made, such as a weight.)
# - Skip `watched`, `shared` and `fresh` today: they serve a caller who asks to see an inner gradient, and see to
#   it that no two `.grad` are one array.

# %% id="real-walk-run"
print(inspect.getsource(Tensor.backward))
op = Add()
op.forward(np.ones(3), np.ones(3))
da, db = op.backward(np.ones(3))
claim("Add hands one and the same array to both inputs (1 is yes)", da is db, 1, 1)

# %% [markdown] id="deep"
# It is a loop, so depth is no matter. Twice the chain on which lesson 01's engine broke:

# %% id="deep-run"
x = y = Tensor(np.float64(0.0), requires_grad=True)
for _ in range(20_000):
    y = y + 1.0
claim("steps behind y", len(history(y)), 20_000, 20_000)
y.backward()
claim("dy/dx through 20,000 additions", float(x.grad), 1, 1)

# %% [markdown] id="x3"
# ## Exercise 3: an operation of your own
#
# Swish (Ramachandran, Zoph & Le 2017; PyTorch calls it SiLU) is $y = x \cdot \sigma(x)$ with $\sigma(x) = 1/(1 +
# e^{-x})$, element by element. Derive $dy/dx$, and write the Op. Then `apply(Swish(), x)` works in every network.


# %% id="x3-stub"
class Swish(Op):
    """y = x·σ(x), element by element."""

    def forward(self, x):
        """y, for an array x."""
        raise NotImplementedError

    def backward(self, dy):
        """A tuple with one gradient: (dx,)."""
        raise NotImplementedError


# %% [markdown] id="x3-hint"
# <details>
# <summary>Hint</summary>
#
# The product rule gives two terms, one for each factor; $\sigma' = \sigma(1 - \sigma)$ is from lesson 01. What
# does `backward` need for them? Keep that on `self` in `forward`.
#
# </details>

# %% [markdown] id="x3-hint-2"
# <details>
# <summary>Second hint</summary>
#
# $(x\sigma)' = \sigma + x\,\sigma(1 - \sigma)$ is only the diagonal of $J$, and you return $J^\top dy$: do not
# forget `dy`. Mind the comma in `return (dx,)`: the walk expects one gradient for each input, in a tuple.
#
# </details>


# %% id="x3-solution"
class Swish(Op):
    """y = x·σ(x), element by element."""

    def forward(self, x):
        """y, for an array x."""
        self.x = x
        self.sigma = 1 / (1 + np.exp(-x))
        return x * self.sigma

    def backward(self, dy):
        """A tuple with one gradient: (dx,)."""
        slope = self.sigma + self.x * self.sigma * (1 - self.sigma)
        return (slope * dy,)


# %% id="x3-check"
@check
def swish_as_an_op():
    numbers = np.random.default_rng(7)

    def wanted(x):
        return x / (1 + np.exp(-x))

    for shape in ((5,), (3, 4), (2, 3, 2, 2)):
        x, dy = numbers.standard_normal((2, *shape)) * 2
        before = x.copy(), dy.copy()
        op = Swish()
        y = op.forward(x)
        assert np.shape(y) == shape, f"forward: y should have shape {shape}, it has {np.shape(y)}"
        assert np.allclose(y, wanted(before[0])), (
            f"forward: x = {before[0].flat[0]:.4f} should give {wanted(before[0]).flat[0]:.4f}, got {y.flat[0]:.4f}"
        )
        found = op.backward(dy)
        assert isinstance(found, tuple | list), "backward returns a tuple with one gradient: (dx,)"
        assert len(found) == 1, f"Swish has one input, so backward returns one gradient; yours are {len(found)}"
        assert np.array_equal(x, before[0]), "x must stay as it is"
        assert np.array_equal(dy, before[1]), "dy must stay as it is: others may hold the same array"
        measured = before[1] * (wanted(x + 1e-5) - wanted(x - 1e-5)) / 2e-5
        assert np.shape(found[0]) == shape, f"dx should have shape {shape}, it has {np.shape(found[0])}"
        assert np.allclose(found[0], measured, atol=1e-8), (
            f"backward: at x = {x.flat[0]:.4f}, dy = {dy.flat[0]:.4f} dx should be {measured.flat[0]:.6f}, got {found[0].flat[0]:.6f}"
        )
    x = Tensor(numbers.standard_normal(6), requires_grad=True)
    y = apply(Swish(), x)
    (y * y).sum().backward()
    measured = (wanted(x.data + 1e-5) ** 2 - wanted(x.data - 1e-5) ** 2) / 2e-5
    assert np.allclose(x.grad, measured, atol=1e-8), "in a graph, d(Σ swish(x)²)/dx differs from measured slopes"


# %% [markdown] id="memory"
# ## What forward keeps
#
# `Tanh` keeps its result, because its slope is $1 - y^2$. Most layers keep their input or their result, and until
# the walk comes by, all of it has to be held. How much is that, and when does it go? We stack 30 tanh steps on an
# array of 400 kB, with a probe behind each that notes how much memory Python holds (`tracemalloc` counts it).

# %% [markdown] id="predict-memory"
# **Predict.** When `backward()` has returned, and `loss` is still there, of what forward had kept is still held
#
# - (a) all: it goes when `loss` goes
# - (b) about half: the results, but not what the Ops saved
# - (c) almost nothing


# %% id="memory-run"
class Probe(Op):
    """y = x, and a note of the memory in use, in MB, on the way there and back."""

    there, back = [], []

    def forward(self, x):
        self.there.append(tracemalloc.get_traced_memory()[0] / 1e6)
        return x

    def backward(self, dy):
        self.back.append(tracemalloc.get_traced_memory()[0] / 1e6)
        return (dy,)


x = Tensor(rng.standard_normal((100, 1000)), dtype="float32", requires_grad=True)
tracemalloc.start()
y = x
for _ in range(30):
    y = apply(Probe(), apply(Tanh(), y))
loss = y.sum()
before = tracemalloc.get_traced_memory()[0] / 1e6
del y
loss.backward()
after = tracemalloc.get_traced_memory()[0] / 1e6
tracemalloc.stop()
layers = range(1, 31)
curves(
    layers,
    {"forward, layer 1 to 30": Probe.there, "backward, layer 30 to 1": Probe.back[::-1]},
    title="Memory in use, while the walk goes there and back",
    xlabel="layer",
    ylabel="MB",
    alt=f"Forward climbs from {Probe.there[0]:.1f} to {Probe.there[-1]:.1f} MB; backward comes down to {Probe.back[-1]:.1f} MB.",
)

# %% id="memory-claim"
claim("MB held after forward: 30 results of 0.4 MB", before, 11.9, 12.5, seen=(12.0, 12.1))
claim("MB held when the walk is back at layer 1", Probe.back[-1], 0.7, 1.4, seen=(0.812, 0.813))
claim("MB held after backward: the gradient of x alone", after, 0.35, 0.9, seen=(0.405, 0.406))
refused = False
try:
    loss.backward()
except GraphError as error:
    print(f"a second backward: GraphError: {error}")
    refused = True
claim("a second backward is refused (1 is yes)", refused, 1, 1)

# %% [markdown] id="why-memory"
# It is (c). How to read the picture: blue goes from left to right and rises by 0.4 MB at each layer; orange comes
# back from right to left and falls by as much, since `op.forget()` throws away what an Op kept. (It runs higher
# by the gradients under way.) What remains is the gradient of $x$.
#
# This has a price: a second `backward()` is refused, because what it would need is gone. In lesson 01's engine,
# which allows it, a second walk silently doubled every gradient.
#
# The peak comes between forward and backward, and it grows with the number of layers. A dense block suffers from
# that more than others, because it concatenates all earlier feature maps again and again; Pleiss et al. 2017
# (*Memory-Efficient Implementation of DenseNets*) share that memory.

# %% [markdown] id="break-it"
# ## Break it
#
# - In `naive`, hand on `arriving` instead of `gathered[y]`. The diamond is right again. Now let it double 20
#   times, and look at the clock: over two million arrivals, and each further doubling doubles them.
# - In `walk`, write `gathered[key] += dx` where the key is known already. With a Tensor `x` of shape (1,), walk
#   `b = x.exp()`, `a = x.exp()`, `y = a * a + (a + b)` by age, and look at what has gathered at `b.source`: it
#   should be 1. Whose array did `+=` write into?
# - Let `Swish.backward` return `(dx.sum(0),)`. What does the real walk say, and what does our `walk` say?

# %% [markdown] id="summary"
# ## Three lines to keep
#
# 1. A backward multiplies by $J^\top$ and never writes $J$ down.
# 2. Where forward copied, backward sums: over images for a bias, over paths for a result that was used twice.
# 3. Hand on once, when all has arrived: from the youngest step to the oldest, since nobody can use what does not
#    exist yet.

# %% [markdown] id="paper"
# ## What the lecture and the papers say
#
# The lecture says that DenseNet "receives gradients over various paths, like ResNet", and passes them on over
# larger distances. In a dense block each layer reads all earlier feature maps, $x_\ell = H_\ell([x_0, x_1, \dots,
# x_{\ell-1}])$ (Huang et al. 2017, eq. 2), so the gradient of $x_0$ arrives from *every* layer of the block, and
# all must be there before $x_0$ may hand on. The diamond of this lesson is the smallest such thing.
#
# Backward as a product with a transposed Jacobian is the view of Baydin et al. 2018 (*Automatic Differentiation
# in Machine Learning: a Survey*, §3.2). The linear layer's gradients are those of Rumelhart, Hinton & Williams
# 1986, for a batch.
#
# What this lesson does not show: how long any of it takes. Lesson 16 measures that.

# %% [markdown] id="source"
# ## The real one
#
# The definition that finds the order, and the one that undoes broadcasting:

# %% id="source-code"
print(inspect.getsource(history))
print(inspect.getsource(reference_sum_to))
