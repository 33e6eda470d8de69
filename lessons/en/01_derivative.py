# %% [markdown] id="why-care"
# A network learns by asking one question about each of its weights: *if I turn you up a little, does the loss
# rise or fall, and how fast?* The answer is a derivative. A DenseNet asks it 769,162 times for every batch of
# pictures, and this course is about what happens to the answers on their way from the last layer to the first.
#
# So we begin with the question itself. In this lesson you build a machine that answers it for any formula of
# plain numbers. It has about twenty lines, it is complete, and at the end you break it in the way in which the
# first version of many a real engine broke.

# %% id="imports" tags=["setup"]
import inspect
import math
import random

from minidense import Tensor
from minidense.lessons import SEED, check, claim
from minidense.plots import curves

rng = random.Random(SEED)

# %% [markdown] id="slope"
# ## A derivative is an experiment
#
# Take $f(x) = x^2 + 3x$ and stand at $x = 2$. Move $x$ by a tiny step $h$ and look at how much $f$ moved, per
# unit of step:
#
# $$f'(x) \approx \frac{f(x + h) - f(x - h)}{2h}$$
#
# We look to both sides, because then the curvature of $f$ cancels out and the error shrinks with $h^2$ instead of
# $h$.


# %% id="slope-code" tags=["setup"]
def slope(f, x, h=1e-5):
    """df/dx at x, by moving x a little to either side."""
    return (f(x + h) - f(x - h)) / (2 * h)


# %% id="slope-run"
def f(x):
    return x * x + 3 * x


claim("error of the slope of x² + 3x at 2", abs(slope(f, 2.0) - 7), 0, 1e-6, seen=(9.02e-11, 9.03e-11))

# %% [markdown] id="predict-h"
# **Predict.** A smaller step gives a better slope, so why not $h = 10^{-15}$? With such a step, the slope of $f$
# at 2 will come out
#
# - (a) closer to 7 than with $h = 10^{-5}$
# - (b) about as close
# - (c) wrong in its second digit
#
# Choose before you run the next cell.

# %% id="steps-run"
steps = [10.0**-k for k in range(1, 16)]
errors = [abs(slope(f, 2.0, h) - 7) + 1e-16 for h in steps]
curves(
    steps,
    {"|slope − 7|": errors},
    log="xy",
    title="Error of the measured slope of x² + 3x at 2",
    xlabel="step h",
    ylabel="error",
    alt=f"The error grows as the step shrinks: {errors[4]:.0e} at h = 1e-5, {errors[-1]:.2f} at h = 1e-15.",
)

# %% id="steps-claim"
claim("error of the slope with h = 1e-15", errors[-1], 0.05, 1.0, seen=(0.105, 0.106))

# %% [markdown] id="why-h"
# It is (c). How to read the picture: both axes are logarithmic, and steps get smaller to the left. The error does
# not shrink with the step, it grows. Numbers in a computer carry about 16 digits. With $h = 10^{-15}$, $f(x + h)$
# and $f(x - h)$ agree in all but the last of them, so their difference is largely rounding, and we divide it by a
# tiny number. (For this $f$, a parabola, the formula has no other error. For other functions the error of $h^2$
# lifts the line again on the right, and $h \approx 10^{-5}$ is a good compromise.)
#
# Two things follow that matter all through this course. Measured slopes are **good enough to check** a derivative
# to seven digits or so, and lesson 03 makes a tool of it. And they are **too slow to train with**: one weight
# costs two runs of the network, 769,162 weights a million and a half. We want all derivatives at once.

# %% [markdown] id="chain"
# ## The chain rule, one step at a time
#
# Any formula is a chain of small steps. $L = (a \cdot b + c)^2$ is
#
# $$d = a \cdot b, \qquad e = d + c, \qquad L = e \cdot e .$$
#
# Each small step knows its own slopes: turn $a$ up by a little, and $d = a \cdot b$ rises $b$ times as much. The
# chain rule says that along a path these factors **multiply**, and where several paths lead to the same place,
# the results **add up**.
#
# So let each number remember which numbers made it, and how fast it moves with each of them. That is the whole
# machine:


# %% id="engine" tags=["setup"]
class Number:
    """A number that remembers what made it: pairs of (an earlier number, how fast I move with it)."""

    def __init__(self, value, made_of=()):
        self.value, self.made_of, self.grad = value, made_of, 0.0

    def __add__(self, other):
        return Number(self.value + other.value, ((self, 1.0), (other, 1.0)))

    def __mul__(self, other):
        return Number(self.value * other.value, ((self, other.value), (other, self.value)))

    def __repr__(self):
        return f"Number({self.value:g}, grad={self.grad:g})"


def backward(number, arriving=1.0):
    """Bring dL/d(number) = arriving to everything that number was made of."""
    number.grad += arriving
    for earlier, factor in number.made_of:
        backward(earlier, arriving * factor)


# %% [markdown] id="predict-paths"
# **Predict.** Let $a = 2$, $b = -3$ and $c = 10$, so that $e = 4$. It is used twice in `e * e`, and its gradient
# should be $2e = 8$. What does `backward`, which knows nothing about squares, make of it?
#
# - (a) 4: it sees a product with one factor, `e`
# - (b) 8: it arrives at `e` twice, and each time adds 4
# - (c) 16: the two factors of 4 multiply

# %% id="engine-run"
a, b, c = Number(2.0), Number(-3.0), Number(10.0)
e = a * b + c
loss = e * e
backward(loss)
print(f"{a = }", f"{b = }", f"{c = }", f"{e = }", f"{loss = }", sep="\n")

# %% id="engine-claim"
claim("dL/de of L = e·e at e = 4", e.grad, 8, 8)
claim("dL/da of L = (a·b + c)²", a.grad, 2 * 4 * -3, 2 * 4 * -3)

# %% [markdown] id="why-paths"
# It is (b): two paths lead from `loss` to `e`, and `+=` adds up what they bring. Replace it by `=` and the answer
# is 4: a mistake that you will meet again as "the gradient is too small by a factor of two, only where a skip
# connection is". A DenseNet has such forks everywhere.
#
# Now against the experiment, for a formula with many forks and for random numbers:


# %% id="compare-run"
def tangle(x, y):
    """A formula in which everything is used again and again."""
    u = x * y + x
    v = u * u + y * u
    return v * x + u * v


x, y = rng.uniform(-1, 1), rng.uniform(-1, 1)
numbers = Number(x), Number(y)
backward(tangle(*numbers))
measured = slope(lambda x: tangle(x, y), x), slope(lambda y: tangle(x, y), y)
worst = max(abs(n.grad - m) / (abs(m) + 1e-3) for n, m in zip(numbers, measured, strict=True))
claim("largest relative difference between engine and experiment", worst, 0.0, 1e-6, seen=(2.8e-11, 1.48e-10))

# %% [markdown] id="x1"
# ## Exercise 1: the sigmoid
#
# The engine can add and multiply. Teach it $\sigma(x) = 1 / (1 + e^{-x})$, whose slope is $\sigma'(x) =
# \sigma(x)\,(1 - \sigma(x))$. This slope, which never exceeds a quarter, is where lesson 04 begins.


# %% id="x1-stub"
def sigmoid(x):
    """The Number σ(x) of a Number x, made of x."""
    raise NotImplementedError


# %% [markdown] id="x1-hint"
# <details>
# <summary>Hint</summary>
#
# Look at `__mul__`: it returns a `Number` with the value and, for each number that it was made of, a pair. Here
# is only one: `((x, slope),)`. Mind the comma: a tuple with one element needs it.
#
# </details>


# %% id="x1-solution"
def sigmoid(x):
    """The Number σ(x) of a Number x, made of x."""
    y = 1 / (1 + math.exp(-x.value))
    return Number(y, ((x, y * (1 - y)),))


# %% id="x1-check"
@check
def sigmoid_of_a_number():
    for at in (-2.0, 0.0, 0.7):
        x = Number(at)
        y = sigmoid(x)
        assert isinstance(y, Number), f"sigmoid must return a Number, it returned {type(y).__name__}"
        assert math.isclose(y.value, 1 / (1 + math.exp(-at))), (
            f"σ({at}) should be {1 / (1 + math.exp(-at)):.4f}, got {y.value:.4f}"
        )
        backward(y)
        measured = slope(lambda v: 1 / (1 + math.exp(-v)), at)
        assert abs(x.grad - measured) < 1e-6, f"the slope at {at} should be {measured:.6f}, backward gives {x.grad:.6f}"
    z = Number(0.3)
    backward(sigmoid(sigmoid(z) * sigmoid(z)))
    inner = 1 / (1 + math.exp(-0.3))
    outer = 1 / (1 + math.exp(-inner * inner))
    wanted = outer * (1 - outer) * 2 * inner * inner * (1 - inner)
    assert abs(z.grad - wanted) < 1e-9, f"in σ(σ(z)·σ(z)) at 0.3 dz should be {wanted:.6f}, got {z.grad:.6f}"


# %% [markdown] id="deep"
# ## A long chain
#
# Our `backward` calls itself once for every step back. Networks are long chains of steps; let us add 1 to a
# number again and again.

# %% [markdown] id="predict-deep"
# **Predict.** For a chain of 10,000 additions, `backward` will
#
# - (a) work, only slower
# - (b) give a gradient that has vanished
# - (c) stop with an error


# %% id="deep-run"
def chain(length):
    """A number, and the result of adding 1 to it so many times."""
    start = end = Number(0.0)
    for _ in range(length):
        end = end + Number(1.0)
    return start, end


def survives(length):
    """Does the recursive walk get through a chain of this length?"""
    try:
        backward(chain(length)[1])
    except RecursionError:
        return False
    return True


for length in (10, 100, 500, 10_000):
    print(f"{length:6,} additions: {'fine' if survives(length) else 'RecursionError'}")
claim(
    "chains of 500 and of 10,000 additions that the recursive walk gets through", survives(500) + survives(10_000), 1, 1
)

# %% [markdown] id="why-deep"
# It is (c). Python lets functions call each other about a thousand deep (some notebooks allow three thousand),
# and a walk that follows the chain by calling itself needs a call for each step. That is the visible fault. There
# is one that is worse, because nothing stops: our walk follows every **path**, and in a formula where each step
# is used twice, the number of paths doubles with each step.


# %% id="paths-run"
def visits(doublings):
    """How many times the recursive walk arrives somewhere, for x → x + x again and again."""
    count, waiting = 0, [Number(1.0)]
    for _ in range(doublings):
        waiting[0] = waiting[0] + waiting[0]
    while waiting:
        number = waiting.pop()
        count += 1
        waiting += [earlier for earlier, _ in number.made_of]
    return count


doublings = range(1, 16)
counted = [visits(n) for n in doublings]
curves(
    doublings,
    {"walk along every path": counted, "every number once": [n + 1 for n in doublings]},
    log="y",
    title="Steps of a backward walk through x → x + x → …",
    xlabel="additions",
    ylabel="steps",
    alt=f"The walk along every path doubles with each addition, to {counted[-1]:,} at 15; visiting every number once needs 16.",
)

# %% id="paths-claim"
claim("steps of the recursive walk for 15 doublings", visits(15), 2**16 - 1, 2**16 - 1)

# %% [markdown] id="why-order"
# How to read the picture: the axis of steps is logarithmic, so the straight line doubles with each addition,
# while the lower one grows by one.
#
# The cure for both is to visit every number **once**, when everything that will arrive there has arrived. For
# that the numbers must be visited in an order in which each comes after all that were made of it: a *topological
# order*, from the loss backwards. One way to get it: list a number only after everything that it was made of,
# then turn the list round.

# %% [markdown] id="x2"
# ## Exercise 2: every number once
#
# Write a walk without recursion. `ordered(number)` is given: it lists `number` and everything behind it, each
# once, so that a number comes before all that it was made of.


# %% id="ordered" tags=["setup"]
def ordered(number):
    """number and everything behind it, each once and before all that it was made of."""
    found, waiting = [], [(number, False)]
    seen = set()
    while waiting:
        here, done = waiting.pop()
        if done:
            found.append(here)
        elif id(here) not in seen:
            seen.add(id(here))
            waiting.append((here, True))
            waiting += [(earlier, False) for earlier, _ in here.made_of]
    return found[::-1]


# %% id="x2-stub"
def walk(loss):
    """Set .grad of everything behind loss to dL/d(it), visiting each number once."""
    raise NotImplementedError


# %% [markdown] id="x2-hint"
# <details>
# <summary>Hint</summary>
#
# Begin with `.grad = 0.0` everywhere and `loss.grad = 1.0`. Go through `ordered(loss)`. When it is a number's
# turn, its `.grad` is complete: hand `grad * factor` on to each number that it was made of, and *add* it there.
#
# </details>


# %% id="x2-solution"
def walk(loss):
    """Set .grad of everything behind loss to dL/d(it), visiting each number once."""
    numbers = ordered(loss)
    for number in numbers:
        number.grad = 0.0
    loss.grad = 1.0
    for number in numbers:
        for earlier, factor in number.made_of:
            earlier.grad += number.grad * factor


# %% id="x2-check"
@check
def walk_through_every_number_once():
    class Pairs(tuple):
        """What a number was made of; may be gone through a few times only, so that nobody walks 2^200 paths."""

        reads = 0

        def __iter__(self):
            self.reads += 1
            assert self.reads <= 10, "your walk comes to the same number again and again: it follows every path"
            return super().__iter__()

    start = end = Number(0.0)
    for _ in range(20_000):
        end = end + Number(1.0)
    walk(end)
    assert start.grad == 1.0, f"through 20,000 additions the gradient should be 1, got {start.grad}"
    x, y = Number(0.3), Number(-0.8)
    u = x * y + x
    walk(u * u + y * u)
    also = Number(0.3), Number(-0.8)
    v = also[0] * also[1] + also[0]
    backward(v * v + also[1] * v)
    for mine, wanted in zip((x, y), also, strict=True):
        assert abs(mine.grad - wanted.grad) < 1e-12, (
            f"walk gives {mine.grad:.6f} where the recursive walk gives {wanted.grad:.6f}"
        )
    start = end = Number(1.0)
    for _ in range(200):
        end = Number(end.value + end.value, Pairs(((end, 1.0), (end, 1.0))))
    walk(end)
    assert start.grad == 2.0**200, (
        f"after 200 doublings the gradient should be 2^200 = {2.0**200:.3g}, got {start.grad:.3g}"
    )
    again = Number(3.0)
    square = again * again
    walk(square)
    walk(square)
    assert again.grad == 6.0, f"a second walk should set the gradient anew, to 6; got {again.grad}. Begin with zeros"


# %% [markdown] id="x3"
# ## Exercise 3: learn something
#
# With derivatives one can walk downhill: move every number a little against its gradient. Find the minimum of a
# function of two numbers, and return the place. Use `backward` (recursion is fine here) or your `walk`.


# %% id="x3-stub"
def downhill(loss_of, x, y, rate=0.1, steps=200):
    """From the floats (x, y) take `steps` steps of −rate·gradient; loss_of takes two Numbers and returns one. Returns the floats (x, y)."""
    raise NotImplementedError


# %% [markdown] id="x3-hint"
# <details>
# <summary>Hint</summary>
#
# Make two fresh `Number`s in every step: their gradients begin at zero, and the old formula is forgotten.
#
# </details>


# %% id="x3-solution"
def downhill(loss_of, x, y, rate=0.1, steps=200):
    """From the floats (x, y) take `steps` steps of −rate·gradient; loss_of takes two Numbers and returns one. Returns the floats (x, y)."""
    for _ in range(steps):
        a, b = Number(x), Number(y)
        backward(loss_of(a, b))
        x, y = x - rate * a.grad, y - rate * b.grad
    return x, y


# %% id="x3-check"
@check
def downhill_to_a_minimum():
    def bowl(a, b):  # (a − 3)² + 2·(b + 1)²
        left, right = a + Number(-3.0), b + Number(1.0)
        return left * left + Number(2.0) * right * right

    x, y = downhill(bowl, 0.0, 0.0)
    assert abs(x - 3) < 1e-6, f"from (0, 0) a should reach 3, it reached {x:.4f}"
    assert abs(y + 1) < 1e-6, f"from (0, 0) b should reach −1, it reached {y:.4f}"
    x, y = downhill(bowl, 0.0, 0.0, rate=0.1, steps=1)
    assert (round(x, 9), round(y, 9)) == (0.6, -0.4), (
        f"one step of rate 0.1 leads to (0.6, −0.4), yours to ({x:.3f}, {y:.3f})"
    )
    x, y = downhill(bowl, 5.0, 5.0, steps=0)
    assert (x, y) == (5.0, 5.0), f"with steps=0 you should stay at (5, 5), you came to ({x}, {y})"


# %% [markdown] id="break-it"
# ## Break it
#
# - In `backward`, replace `+=` by `=` and run the lesson again. Which claim is the first to stop you, and by what
#   factor is it wrong?
# - Let `__mul__` of the engine hand on its own value instead of the other's: `(self, self.value)`. Which claim
#   notices, and why is $dL/de$ still right?
# - Call `backward(loss)` twice where $L = (a \cdot b + c)^2$ is computed. The gradients double. Every framework
#   has this trap (`zero_grad` is its name); minidense's engine refuses the second walk instead.

# %% [markdown] id="summary"
# ## Three lines to keep
#
# 1. A derivative is an experiment: move, look, divide. Along a path factors multiply; paths that meet add up.
# 2. If each step knows its own slopes, one walk backwards gives all derivatives at once.
# 3. The walk must visit everything once, latest first, without recursion: networks are deep.

# %% [markdown] id="paper"
# ## What the lecture and the papers say
#
# The lecture takes all this for granted with one clause: "in backpropagation, the derivative of this function is
# multiplied again and again". The clause is the chain rule along one path, and it is what makes gradients vanish
# (lesson 04). The other half, that *paths add up*, is what DenseNet is about: the paper speaks of "improved flow
# of information and gradients throughout the network" (Huang et al. 2017, §1), because its layers are joined by
# many paths, and short ones. The 769,162 weights are those of DenseNet-BC (L = 100, k = 12), which the paper
# rounds to 0.8 M (Table 2).
#
# The idea is older than deep learning: reverse accumulation was described by Seppo Linnainmaa in 1970, and
# brought to neural networks by Rumelhart, Hinton & Williams in 1986.

# %% [markdown] id="source"
# ## The real one
#
# minidense's engine does for arrays what yours does for numbers. Look for three things: its walk is a loop; each
# step has its turn once; paths are added up. The rest can wait for lesson 02, which explains it.

# %% id="source-code"
print(inspect.getsource(Tensor.backward))
