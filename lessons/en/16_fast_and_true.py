# %% [markdown] id="why-fast"
# Until now minidense was slow on purpose: every definition reads like its equation. You have also been using
# something else without noticing. Whenever you trained a DenseNet, most of the definitions never ran. Quick
# **twins** stood in for them, and on another machine, with another array library, a third version would have.
#
# There are two ways to be faster: run the same code on other hardware, or run other code that gives the same
# numbers. Both go wrong in the same quiet manner. A clock shows a wonderful speed that nobody has. A derivation
# with a forgotten term still trains, only a little worse. So this lesson is about speed for one half and about
# **not fooling yourself** for the other.
#
# You need no GPU. Where one is there, the lesson uses it; where none is, you get a pretended one, which shows the
# one thing that matters about it.

# %% id="imports" tags=["setup"]
import functools
import inspect
import queue
import statistics
import threading
import time
import types

import numpy as np

from minidense import Tensor, speed
from minidense import functional as F
from minidense.backend import array_module, library, synchronise
from minidense.errors import DeviceError
from minidense.lessons import SEED, check, claim
from minidense.models import create
from minidense.models.densenet import BottleneckLayer, DenseBlock
from minidense.plots import curves, heat_map
from minidense.speed import fast_path, reference, reference_only
from minidense.summary import summarise
from minidense.tensor import history
from minidense.threads import single_threaded_blas

rng = np.random.default_rng(SEED)

# %% [markdown] id="xp"
# ## One code, two libraries
#
# CuPy is NumPy for NVIDIA's GPUs: the same function names, the same arguments, arrays that lie in the GPU's
# memory. So code need not say which library it means. It asks the array:
#
# ```python
# def forward(self, x):
#     xp = array_module(x)          # numpy or cupy
#     return xp.maximum(x, 0)
# ```
#
# That is all there is to minidense's `device='gpu'`: a model whose parameters are CuPy arrays, and operations
# that ask. `minidense train --device gpu` says so on the command line, `model.to('gpu')` in Python. Two rules
# make it work. **Arrays of both kinds never meet** in one operation: somebody would have to copy, and copying
# between the two memories is slow, so CuPy refuses. And **nothing comes back unasked**: a number that Python
# wants to look at has to be fetched.

# %% [markdown] id="pretended"
# Here is a pretended GPU that has both rules. It is a thread with a queue. Calling one of its functions puts the
# work into the queue, a **launch**, and returns at once, with an array that may not be computed yet. The thread
# does one launch after another. A real GPU does exactly this; that it also computes quickly is another matter.
# You need not read the code now.


# %% id="machine" tags=["setup"]
class Machine:
    """A pretended GPU: functions under NumPy's names, computed by a thread, in the order in which they were launched."""

    def __init__(self):
        self.launches = self.waits = 0
        self.todo = queue.SimpleQueue()
        self.linalg = types.SimpleNamespace(norm=functools.partial(self.launch, np.linalg.norm))
        threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        while True:
            result, function, args, kwargs = self.todo.get()
            try:
                result.value = function(*self.arrived(args), **kwargs)
            except Exception as error:  # noqa: BLE001  it is told to whoever fetches the result
                result.error = error
            result.done_at = time.perf_counter()
            result.done.set()

    def arrived(self, args):
        """The arrays behind the promises, in lists of them too. The queue has kept the order, so they are computed."""
        failed = [a.error for a in args if isinstance(a, Remote) and a.error]
        if failed:
            raise failed[0]
        return [
            a.value if isinstance(a, Remote) else self.arrived(a) if isinstance(a, list | tuple) else a for a in args
        ]

    def launch(self, function, *args, **kwargs):
        if any(isinstance(a, np.ndarray) for a in args):
            raise TypeError("a NumPy array among arrays of the machine: bring it there with asarray")
        self.launches += 1
        result = Remote(self)
        self.todo.put((result, function, args, kwargs))
        return result

    def __getattr__(self, name):
        return functools.partial(self.launch, getattr(np, name))

    def asarray(self, array):
        return self.launch(lambda: np.array(array))

    def synchronise(self):
        """Wait until everything launched so far is done."""
        self.launch(lambda: None).get()


class Remote:
    """An array of the machine: a promise, until ``get()`` fetches it."""

    __array_ufunc__ = None  # NumPy's own functions keep away

    def __init__(self, machine):
        self.machine, self.done, self.error = machine, threading.Event(), None

    def get(self):
        self.machine.waits += 1
        self.done.wait()
        if self.error:
            raise self.error
        return self.value

    def __array__(self, *args, **kwargs):
        raise TypeError("this array lies on the machine: fetch it with get()")

    def __float__(self):
        return float(self.get())

    def __bool__(self):
        return bool(self.get())

    def __getattr__(self, name):
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.machine.launch(lambda x: getattr(x, name)(*args, **kwargs), self)


def operator(name):
    """Such as __add__: a launch of what NumPy does."""
    return lambda self, *other: self.machine.launch(lambda a, *b: getattr(np.asarray(a)[()], name)(*b), self, *other)


for name in [
    "add",
    "radd",
    "sub",
    "rsub",
    "mul",
    "rmul",
    "truediv",
    "rtruediv",
    "pow",
    "neg",
    "lt",
    "gt",
    "le",
    "ge",
    "matmul",
]:
    setattr(Remote, f"__{name}__", operator(f"__{name}__"))


def library_of(x):
    """Whose functions go with this array: the machine it lies on, or what minidense's array_module says."""
    return x.machine if isinstance(x, Remote) else array_module(x)


# %% id="xp-run"
def rectified(x):
    xp = library_of(x)
    return xp.maximum(x, 0)


machine = Machine()
here = rng.standard_normal((4, 5))
there = machine.asarray(here)
claim("largest difference of the two libraries", abs(rectified(here) - rectified(there).get()).max(), 0, 0)
try:
    there + here
except TypeError as error:
    print("TypeError:", error)

# %% [markdown] id="clocks"
# ## What the clock says
#
# Now time twenty matrix products on the machine, as everybody does at first: look at the clock, call, look at the
# clock.

# %% [markdown] id="predict-clock"
# **Predict.** Twenty products of 400×400 matrices, each of which needs the one before. The clock says
#
# - (a) about what twenty products take
# - (b) far less: it has timed how long it takes to hand them over
# - (c) more, because of the queue
#
# Choose before you run the next cell.

# %% id="clock-run"
a = machine.asarray(rng.standard_normal((400, 400)) / 400**0.5)
machine.synchronise()
start = time.perf_counter()
y, handed, results = a, [], []
for _ in range(20):
    y = machine.matmul(a, y)
    handed.append(time.perf_counter() - start)
    results.append(y)
too_early = time.perf_counter() - start
machine.synchronise()
after_waiting = time.perf_counter() - start
done = [result.done_at - start for result in results]
print(f"without waiting {1e3 * too_early:.2f} ms, after waiting {1e3 * after_waiting:.1f} ms")
launches = range(1, 21)
curves(
    launches,
    {"handed over": [1e3 * t for t in handed], "done": [1e3 * t for t in done]},
    title="Twenty launches",
    xlabel="launch",
    ylabel="milliseconds since the first",
    alt=f"All launches are handed over within {1e3 * handed[-1]:.1f} ms; they are done one after another, the last after "
    f"{1e3 * done[-1]:.0f} ms.",
)

# %% id="clock-claim"
claim(
    "what the clock says without waiting, as a share of the truth",
    too_early / after_waiting,
    0,
    0.3,
    seen=(0.000274, 0.00409),
)

# %% [markdown] id="why-clock"
# It is (b). The lower line is Python, which is long gone; the upper one is the machine. Had you stopped the clock
# without waiting, you would have reported a speed that no hardware has. When code for a GPU is suddenly a hundred
# times faster, look for the missing wait first.
#
# So **synchronise before you look at the clock**, at both ends: at the start, or you time somebody else's
# leftovers. minidense's word for it is `synchronise(device)`. It is also why code for a GPU must not look at
# numbers in the middle: `if loss > 10:` makes Python wait until the loss is there, the queue runs dry, and the
# machine stands idle while Python thinks about what to launch next.

# %% id="real-gpu"
try:
    cupy = library("gpu")
except DeviceError as error:
    print(f"No GPU, so it stays pretended: {error}")
else:
    x = cupy.asarray(rng.standard_normal(10_000_000, np.float32))
    cupy.sin(x)  # the first call of a function compiles it
    synchronise("gpu")
    start, y = time.perf_counter(), x
    for _ in range(20):
        y = cupy.sin(y)
    without = time.perf_counter() - start
    synchronise("gpu")
    waited = time.perf_counter() - start
    print("20 sines of ten million numbers on your GPU:")
    print(f"without waiting {1e3 * without:.2f} ms, after waiting {1e3 * waited:.2f} ms")

# %% [markdown] id="x1"
# ## Exercise 1: clip without looking
#
# Recipes for large networks clip gradients: if the norm of all of them together exceeds a limit, all are made
# smaller by the same factor.
#
# $$g_i \leftarrow g_i \cdot \min\left(1, \frac{\text{limit}}{\lVert g \rVert + 10^{-6}}\right), \qquad \lVert g
# \rVert = \sqrt{\textstyle\sum_i \sum g_i^2}$$
#
# Write it once for both libraries, **without a single wait**: no `if`, no `float`, no `get` on what you compute.


# %% id="x1-stub"
def clipped(gradients, limit):
    """A list of new arrays: the gradients, times min(1, limit/(norm + 1e-6)), on whatever library they are."""
    raise NotImplementedError


# %% [markdown] id="x1-hint"
# <details>
# <summary>Hint</summary>
#
# `xp = library_of(gradients[0])`. Take the norm as an array with a single number in it, and leave it where it is.
# The `if` hides in the formula: Python's `min` looks at its arguments, `xp.minimum` does not.
#
# </details>

# %% [markdown] id="x1-hint-2"
# <details>
# <summary>Another hint</summary>
#
# The squares of one array are `(g * g).sum()`, and Python's `sum` adds several such numbers, on either side. Then
# comes `xp.sqrt`.
#
# </details>


# %% id="x1-solution"
def clipped(gradients, limit):
    """A list of new arrays: the gradients, times min(1, limit/(norm + 1e-6)), on whatever library they are."""
    xp = library_of(gradients[0])
    norm = xp.sqrt(sum((g * g).sum() for g in gradients))
    factor = xp.minimum(1, limit / (norm + 1e-6))
    return [g * factor for g in gradients]


# %% id="x1-check"
@check
def clip_without_looking():
    numbers = np.random.default_rng(0)
    for size, limit in ((1.0, 0.5), (0.01, 5.0), (30.0, 1.0), (0.0, 1.0)):
        gradients = [size * numbers.standard_normal(shape) for shape in ((3, 4), (5,), (2, 3, 2))]
        before = [g.copy() for g in gradients]
        norm = np.sqrt(sum((g**2).sum() for g in before))
        wanted = [g * min(1, limit / (norm + 1e-6)) for g in before]
        case = f"gradients of norm {norm:.3g}, limit {limit}"
        found = list(clipped(gradients, limit))
        unchanged = all((g == b).all() for g, b in zip(gradients, before, strict=True))
        assert unchanged, f"{case}: your function has changed the gradients"
        gpu = Machine()
        on_gpu = [gpu.asarray(g) for g in gradients]
        found_there = list(clipped(on_gpu, limit))
        assert gpu.waits == 0, f"on the machine you have waited {gpu.waits} times: something looks at a number"
        for where, results in (("NumPy", found), ("the machine", found_there)):
            assert len(results) == 3, f"{where}: three arrays should come back, there are {len(results)}"
            for mine, right in zip(results, wanted, strict=True):
                if where != "NumPy":
                    kind = type(mine).__name__
                    assert isinstance(mine, Remote), f"what went in on the machine must come out there, not as {kind}"
                    mine = mine.get()
                assert mine.shape == right.shape, f"{where}, {case}: shape {mine.shape} instead of {right.shape}"
                off = abs(mine - right).max() / max(norm, 1e-9)
                assert off < 1e-12, f"{where}, {case}: off by {off:.2g} of the norm"


# %% [markdown] id="launches"
# ## Every call costs
#
# Handing over is not free. A launch on a GPU takes some microseconds of Python and driver, however small the
# array; a call of NumPy is about as bad. How large must an array be before that no longer matters?

# %% [markdown] id="predict-launch"
# **Predict.** `x + 1` for an array of one number, and for one of 10,000. The time **per number** is
#
# - (a) about the same
# - (b) ten times smaller in the large array
# - (c) more than a hundred times smaller in the large array

# %% id="launch-run"
sizes = [10**k for k in range(7)]
nanoseconds = []
for size in sizes:
    x, out, times = np.zeros(size, np.float32), np.zeros(size, np.float32), []
    calls = max(1, 20_000 // size)
    for _ in range(15):
        start = time.perf_counter()
        for _ in range(calls):
            np.add(x, 1, out=out)
        times.append((time.perf_counter() - start) / calls / size)
    nanoseconds.append(1e9 * min(times))
curves(
    sizes,
    {"x + 1": nanoseconds},
    log="xy",
    title="What a number costs, by the size of its array",
    xlabel="numbers in the array",
    ylabel="nanoseconds a number",
    alt=f"From {nanoseconds[0]:.0f} ns a number in an array of one to {nanoseconds[4]:.2f} ns in one of 10,000 and "
    f"{nanoseconds[6]:.2f} ns in one of a million.",
)

# %% id="launch-claim"
claim(
    "how many times cheaper a number is among 10,000", nanoseconds[0] / nanoseconds[4], 100, 1e5, seen=(3130.0, 3490.0)
)

with reference_only():
    model = create("densenet_bc_100_12")
    images = Tensor(rng.standard_normal((2, 3, 32, 32), np.float32))
    steps_of_definitions = len(history(F.cross_entropy(model(images), np.array([0, 1]))))
steps_of_twins = len(history(F.cross_entropy(model(images), np.array([0, 1]))))
claim("operations in a forward pass of DenseNet-BC (100, 12), by the definitions", steps_of_definitions, 353, 353)
claim("the same with minidense's twins", steps_of_twins, 3, 20, seen=(9.0, 9.0))

# %% [markdown] id="why-launch"
# It is (c): one call costs as much as hundreds of additions, often thousands. In the picture, where both axes
# count factors, the line falls for as long as the call is what you pay for, and lies flat where it is the
# additions. So few large steps beat many small ones. A forward pass of DenseNet-BC (L = 100, k = 12) takes 353
# operations as it is written, each of them one or more calls. The twins do whole blocks in one operation. On a
# GPU they make 575 launches for a training step, forward and backward (counted, see `docs/gpu.md`), note them
# down as a graph and hand over all of them with one call.

# %% [markdown] id="x2"
# ## Exercise 2: a fair race
#
# Two programs are to be compared on a machine that you share, say a laptop with a browser open. Three rules:
#
# - wait (`synchronise()`) before each look at the clock, at both ends
# - let them take **turns**: A B A B A B, so that a slow minute meets both. A A A B B B compares two minutes
# - report the **median** of each: one hiccup spoils a mean, one lucky run a minimum


# %% id="x2-stub"
def medians(contenders, rounds, clock, synchronise):
    """{name: median seconds} of the functions in the dictionary contenders, each called `rounds` times, in turns.

    clock() gives the time in seconds, synchronise() waits until all that was launched is done.
    """
    raise NotImplementedError


# %% [markdown] id="x2-hint"
# <details>
# <summary>Hint</summary>
#
# A list of times for each name; rounds outside, contenders inside; `statistics.median` at the end.
#
# </details>


# %% id="x2-solution"
def medians(contenders, rounds, clock, synchronise):
    """{name: median seconds} of the functions in the dictionary contenders, each called `rounds` times, in turns.

    clock() gives the time in seconds, synchronise() waits until all that was launched is done.
    """
    times = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            synchronise()
            start = clock()
            work()
            synchronise()
            times[name].append(clock() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


# %% id="race-track" tags=["setup"]
class PretendedMachine:
    """A machine with a clock of its own: 1 µs to hand work over, then it takes the time that the work takes."""

    def __init__(self, *, leftover=0.0, slow=(9.0, 9.0), lucky=-1):
        self.now, self.todo, self.slow, self.lucky, self.calls = 0.0, leftover, slow, lucky, []

    def clock(self):
        return self.now

    def synchronise(self):
        self.now, self.todo = self.now + self.todo, 0.0

    def work(self, name, seconds):
        def call():
            factor = 3 if self.slow[0] <= self.now < self.slow[1] else 0.1 if len(self.calls) == self.lucky else 1
            self.calls.append(name)
            self.now += 1e-6
            self.todo += factor * seconds

        return call


# %% id="x2-check"
@check
def a_fair_race():
    def race(machine, rounds):
        contenders = {"A": machine.work("A", 0.010), "B": machine.work("B", 0.015)}
        found = medians(contenders, rounds, machine.clock, machine.synchronise)
        assert sorted(found) == ["A", "B"], f"both names should come back, there are {sorted(found)}"
        return found

    def near(value, wanted):
        return abs(value - wanted) < 1e-5

    machine = PretendedMachine(leftover=0.5)
    found = race(machine, 1)
    assert found["A"] > 1e-4, (
        "A takes 10 ms, yours says almost nothing: has the clock been read before the work was done?"
    )
    assert near(found["A"], 0.010), (
        f"somebody has left 0.5 s of work in the queue; A takes 10 ms, yours says {1e3 * found['A']:.1f} ms"
    )
    machine = PretendedMachine()
    race(machine, 5)
    assert sorted(machine.calls) == 5 * ["A"] + 5 * ["B"], (
        f"each should be called 5 times; yours: {''.join(machine.calls)}"
    )
    for slow in ((0.0, 0.2), (0.11, 0.4), (0.2, 9.0)):
        found = race(PretendedMachine(slow=slow, lucky=7), 11)
        for name, wanted in (("A", 0.010), ("B", 0.015)):
            assert near(found[name], wanted), (
                f"with a slow spell and one lucky run {name} should still have {1e3 * wanted:.0f} ms, "
                f"yours says {1e3 * found[name]:.1f} ms"
            )


# %% [markdown] id="once"
# ## The same numbers with less work
#
# Now the other way to be fast. Layer $l$ of a dense block begins with a batch norm over **everything** before it.
# Written as in the paper, each layer concatenates, takes mean and variance of every channel, and normalises. But
# the channels of a block never change once they are written, so neither do their means and variances.

# %% [markdown] id="predict-once"
# **Predict.** The first block of DenseNet-BC (100, 12) gets 24 channels and has 16 layers that add 12 each. The
# definition takes the statistics of how many times as many channels as there are?
#
# - (a) twice
# - (b) about eight times
# - (c) sixteen times

# %% id="once-run"
block = DenseBlock(BottleneckLayer, 16, 24, 12, 0.0)
layers = [layer for _, layer in block.named_children()]
x = Tensor(rng.standard_normal((4, 24, 8, 8), np.float32), requires_grad=True)
with reference_only():
    block(x)
by_definition = sum(len(layer.norm1.weight) for layer in layers)
claim("channels whose statistics the definition takes", by_definition, 16 * 24 + 12 * 120, 16 * 24 + 12 * 120)
claim("channels that there are", 24 + 16 * 12, 216, 216)
means = [layer.norm1.running_mean.data[:24] for layer in layers]
off = max(abs(m - means[0]).max() for m in means)
claim("largest difference between what 16 layers found for the same 24 channels", off, 0, 1e-6, seen=(0.0, 0.0))

depths = [16, 22, 40, 64, 100]
counted = [summarise(create(f"densenet_bc_{depth}_12"), (3, 32, 32)) for depth in depths]
kept = [s.kept / 1e6 for s in counted]
kept_by_twins = [s.kept_by_twins / 1e6 for s in counted]
curves(
    depths,
    {"definitions": kept, "one buffer": kept_by_twins},
    title="Kept for backward by DenseNet-BC (k = 12), 32×32 pixels, float32",
    xlabel="depth L",
    ylabel="megabytes an image",
    alt=f"The definitions keep {kept[0]:.1f} MB an image at L = 16 and {kept[-1]:.0f} MB at L = 100, in a curve that bends upwards; "
    f"the twins with one buffer {kept_by_twins[0]:.1f} and {kept_by_twins[-1]:.1f} MB, in a straight line.",
)

# %% id="once-claim"
claim(
    "from L = 40 to 100 the memory of the definitions grows by a factor of",
    kept[4] / kept[2],
    3.9,
    4.1,
    seen=(4.0, 4.01),
)
claim("and that of the twins by", kept_by_twins[4] / kept_by_twins[2], 2.4, 2.6, seen=(2.5, 2.51))
straight = np.polyval(np.polyfit(depths[:2], kept_by_twins[:2], 1), depths)
claim(
    "largest distance of the twins' memory from a straight line, in megabytes",
    abs(straight - kept_by_twins).max(),
    0,
    0.1,
    seen=(4.44e-15, 4.45e-15),
)

# %% [markdown] id="why-once"
# (How to read the picture: a line that bends upwards grows faster than the depth.) It is (b): $\sum_{l} (24 +
# 12\,l) = 1{,}824$ for 216 channels. With $L$ layers in a block the definition touches $O(L^2)$ channels and
# keeps $O(L^2)$ numbers for the backward pass. (The 1×1 convolutions make $4k$ channels in each layer, once; this
# part is $O(L)$, and at these depths a large one.)
#
# The twin of a dense block keeps all its feature maps in **one buffer**. A layer writes its $k$ channels behind
# those that are there, so concatenating is free, and their statistics are taken once, when they are written. This
# is the idea of Pleiss et al. (2017) taken one step further; `docs/dense-block.md` has the whole algebra.
#
# The prettiest part is the way back. Batch norm's gradient is (lesson 07)
#
# $$dx = \frac{1}{\sigma} \left( \gamma\,dy - \frac{\gamma\,d\beta}{m} - \hat{x}\,\frac{\gamma\,d\gamma}{m}
# \right)$$
#
# with $d\beta = \sum dy$ and $d\gamma = \sum dy\,\hat{x}$ for each channel. A channel that several layers
# normalise has one $\sigma$ and one $\hat{x}$ in all of them. So add up $g = \sum_l \gamma_l\,dy_l$, and on the
# side the two numbers $a = \sum_l \gamma_l\,d\beta_l$ and $b = \sum_l \gamma_l\,d\gamma_l$; then correct
# **once**:
#
# $$dx = \frac{1}{\sigma} \left( g - \frac{a}{m} - \hat{x}\,\frac{b}{m} \right)$$

# %% [markdown] id="truth"
# ## ... and still true
#
# Who says that such a twin is right? It will train. It will even train if it is a little wrong. minidense's
# answer has three parts.
#
# 1. The slow function stays and *is* the definition: `@reference`.
# 2. A twin is registered for it with the cases that it dares to answer: `@fast_path(of, fits=..., examples=...)`.
# 3. One test runs every twin beside its definition and compares **everything that a call leaves behind**:
#    results, all gradients for a random `dy`, and running statistics.
#
# Here is a definition of our own: batch norm over the rows of a matrix, forward and backward in one call.


# %% id="definition" tags=["setup"]
EPS, MOMENTUM = 1e-5, 0.1


def norm(x, gamma, beta, running_mean, running_var, dy):
    """Rows of x (C, M) are channels, all else but dy is (C, 1). Gives y, dx, dγ, dβ and moves the running statistics."""
    m = x.shape[1]
    mean, var = x.mean(1, keepdims=True), x.var(1, keepdims=True)
    inv_std = 1 / np.sqrt(var + EPS)
    x_hat = (x - mean) * inv_std
    y = gamma * x_hat + beta
    dbeta, dgamma = dy.sum(1, keepdims=True), (dy * x_hat).sum(1, keepdims=True)
    dx = gamma * inv_std * (dy - dbeta / m - x_hat * dgamma / m)
    running_mean += MOMENTUM * (mean - running_mean)
    running_var += MOMENTUM * (var * m / (m - 1) - running_var)
    return y, dx, dgamma, dbeta


# %% [markdown] id="twins"
# And four twins that are quicker, or try to be. The first scales and shifts instead of centring, one pass less
# over the data. The second takes the variance as $\overline{x^2} - \bar{x}^2$, which needs one pass instead of
# two. The third saves memory: it forgets what it computed and calls the forward pass again when the gradient is
# wanted. The fourth was derived in a hurry. (They are written to be read here, so the savings are on paper.)


# %% id="twins-code"
def scale_and_shift(x, gamma, beta, running_mean, running_var, dy):
    """y = x·s + (β − mean·s), s = γ/√(var + ε)."""
    _, dx, dgamma, dbeta = norm(x, gamma, beta, running_mean, running_var, dy)
    mean, var = x.mean(1, keepdims=True), x.var(1, keepdims=True)
    scale = gamma / np.sqrt(var + EPS)
    return x * scale + (beta - mean * scale), dx, dgamma, dbeta


def one_pass(x, gamma, beta, running_mean, running_var, dy):
    """Sums of x and of x² in one pass over the data."""
    m = x.shape[1]
    mean = x.mean(1, keepdims=True)
    var = np.maximum((x * x).mean(1, keepdims=True) - mean * mean, 0)
    inv_std = 1 / np.sqrt(var + EPS)
    x_hat = (x - mean) * inv_std
    dbeta, dgamma = dy.sum(1, keepdims=True), (dy * x_hat).sum(1, keepdims=True)
    running_mean += MOMENTUM * (mean - running_mean)
    running_var += MOMENTUM * (var * m / (m - 1) - running_var)
    return gamma * x_hat + beta, gamma * inv_std * (dy - dbeta / m - x_hat * dgamma / m), dgamma, dbeta


def computed_again(x, gamma, beta, running_mean, running_var, dy):
    """Forward without keeping anything, and once more for backward."""
    y, *_ = norm(x, gamma, beta, running_mean, running_var, dy)
    _, dx, dgamma, dbeta = norm(x, gamma, beta, running_mean, running_var, dy)
    return y, dx, dgamma, dbeta


def in_a_hurry(x, gamma, beta, running_mean, running_var, dy):
    """Who needs the second term?"""
    y, _, dgamma, dbeta = norm(x, gamma, beta, running_mean, running_var, dy)
    x_hat, inv_std = (y - beta) / gamma, 1 / np.sqrt(x.var(1, keepdims=True) + EPS)
    return y, gamma * inv_std * (dy - x_hat * dgamma / x.shape[1]), dgamma, dbeta


# %% [markdown] id="predict-notice"
# **Predict.** `computed_again` calls the forward pass twice. Which comparison with the definition will notice?
#
# - (a) that of the results
# - (b) that of the gradients
# - (c) neither; only that of the running statistics


# %% id="notice-run"
def example(mean=0.0, dtype=np.float32):
    """Arguments for norm, with rows around `mean` whose standard deviation is 2."""
    draw = np.random.default_rng(SEED).standard_normal
    x, dy = mean + 2 * draw((8, 500)), 0.2 + draw((8, 500))
    arrays = x, 1 + draw((8, 1)) / 4, draw((8, 1)), np.zeros((8, 1)), np.ones((8, 1)), dy
    return [array.astype(np.float32).astype(dtype) for array in arrays]  # the same numbers in both types


def errors(twin, mean):
    """What a twin leaves behind in float32, against the definition in float64: largest difference over largest value."""
    mine, right = example(mean), example(mean, np.float64)
    found = [*twin(*mine), *mine[3:5]]
    wanted = [*norm(*right), *right[3:5]]
    return [abs(f - w).max() / abs(w).max() for f, w in zip(found, wanted, strict=True)]


columns = ["y", "dx", "dγ", "dβ", "running\nmean", "running\nvar"]
tried = {
    "the definition itself": errors(norm, 0),
    "the definition, rows around 300": errors(norm, 300),
    "scale and shift": errors(scale_and_shift, 0),
    "one pass": errors(one_pass, 0),
    "one pass, rows around 300": errors(one_pass, 300),
    "scale and shift, rows around 300": errors(scale_and_shift, 300),
    "computed again": errors(computed_again, 0),
    "in a hurry": errors(in_a_hurry, 0),
}
heat_map(
    [[round(np.log10(max(error, 1e-8))) for error in row] for row in tried.values()],
    rows=list(tried),
    columns=columns,
    form="{:.0f}",
    low=-8,
    high=0,
    bar="log₁₀ of the error",
    title="Twins in float32 against the definition in float64",
    alt="Largest relative error of each thing that a call leaves behind: "
    + "; ".join(f"{name} {', '.join(f'{error:.0e}' for error in row)}" for name, row in tried.items()),
)

# %% [markdown] id="notice-read"
# How to read it: −7 is an error of about $10^{-7}$ of the largest value, which is float32's rounding; −3 is a
# thousandth; 0 is an error as large as the thing itself. Light is good, dark is wrong.

# %% id="notice-claim"
claim("error of dx, in a hurry", tried["in a hurry"][1], 0.02, 0.2, seen=(0.0679, 0.0901))
claim("error of its results", tried["in a hurry"][0], 0, 1e-6, seen=(7.32e-08, 1.13e-07))
claim(
    "largest error of results and gradients, computed again",
    max(tried["computed again"][:4]),
    0,
    2e-6,
    seen=(1.12e-07, 1.71e-07),
)
claim("error of the running means, computed again", tried["computed again"][4], 0.89, 0.91, seen=(0.899, 0.901))
claim("error of dx of one pass, rows around 0", tried["one pass"][1], 0, 1e-6, seen=(7.61e-08, 1.24e-07))
claim(
    "error of dx of one pass, rows around 300",
    tried["one pass, rows around 300"][1],
    4e-4,
    2e-2,
    seen=(0.00172, 0.0041),
)
claim(
    "error of dx of scale and shift, rows around 300",
    tried["scale and shift, rows around 300"][1],
    0,
    3e-5,
    seen=(3.13e-06, 4.54e-06),
)

# %% [markdown] id="why-notice"
# It is (c). Forward twice gives the same results and the same gradients; only the running statistics have taken
# two steps instead of one, and they are used in evaluation alone. Training looks perfect, while evaluation
# normalises by an average that forgets twice as fast as it should. This is a real bug: whoever saves memory by
# computing again meets it. Somebody asked about it in the best known memory-efficient DenseNet for PyTorch
# (gpleiss/efficient_densenet_pytorch, issue 73); the answer was that the framework's layers ought to be smart
# enough.
#
# Every row of the table teaches one thing.
#
# - `in_a_hurry` has perfect results. **Compare gradients**, with a `dy` that is random and has a mean.
# - `computed_again` has perfect gradients, too. **Compare state.**
# - `one_pass` is fine around 0 and loses its digits around 300, where $\overline{x^2}$ and $\bar{x}^2$ are nearly
#   equal and large. `scale_and_shift` stays close to the definition even there. **The examples decide what a test
#   can see**; minidense's twins bring theirs, nasty ones among them.
# - The definition itself is not exact in float32, least of all for rows far from 0. So the tolerance is not 0.
#   minidense takes $10^{-4}$ for float32, and tries everything once more in float64 with $10^{-10}$, where
#   rounding and a forgotten term are much further apart.


# %% [markdown] id="registry"
# The registry is thirty lines. A call of a `@reference` function goes to the first twin that says `fits`;
# `reference_only()` switches all twins off, which is how the tests, and many cells of this course, get at the
# definitions. Let us register a twin for `norm`. (`REFERENCES` lists all definitions, for whoever wants to test
# them all. Ours is a lesson's, so we take it off the list again.)

# %% id="registry-run"
answered = []
norm_or_twin = reference(norm)
speed.REFERENCES.remove(norm_or_twin)


def fits(x, *others):
    return x.dtype == np.float32


def examples():
    return [lambda rng, dtype: (example(dtype=dtype), {}), lambda rng, dtype: (example(300.0, dtype), {})]


@fast_path(norm_or_twin, fits=fits, examples=examples)
def counted_scale_and_shift(*args):
    answered.append("twin")
    return scale_and_shift(*args)


norm_or_twin(*example())
norm_or_twin(*example(dtype=np.float64))  # the twin does not fit
with reference_only():
    norm_or_twin(*example())
claim("calls that the twin has answered, of three", len(answered), 1, 1)
claim(
    "definitions of minidense that have at least one twin",
    sum(bool(f.fast_paths) for f in speed.REFERENCES),
    5,
    40,
    seen=(17.0, 17.0),
)

# %% [markdown] id="x3"
# ## Exercise 3: a twin for a block
#
# `block_norms` is the definition: all batch norms of a dense block, each for itself. Write its twin: statistics
# and $\hat{x}$ **once**, one correction a channel, by the formula above. The check is an equivalence test as
# minidense has it.


# %% id="block-norms" tags=["setup"]
def block_norms(x, layers, dys):
    """Every layer normalises the first c rows of x (C, M), c its own, and a gradient comes back from each.

    layers  a dictionary each: gamma, beta, running_mean, running_var, all (c, 1)
    dys     dL/dy of each layer, (c, M)

    Gives the list of y, dx (C, M), and the lists of dγ and dβ; moves running statistics.
    """
    ys, dx, dgammas, dbetas = [], np.zeros_like(x), [], []
    for layer, dy in zip(layers, dys, strict=True):
        c = len(layer["gamma"])
        y, dx_layer, dgamma, dbeta = norm(x[:c], **layer, dy=dy)
        dx[:c] += dx_layer
        ys.append(y)
        dgammas.append(dgamma)
        dbetas.append(dbeta)
    return ys, dx, dgammas, dbetas


# %% id="x3-stub"
def block_norms_once(x, layers, dys):
    """The twin of block_norms: the statistics of each row of x are taken once, and its gradient is corrected once."""
    raise NotImplementedError


# %% [markdown] id="x3-hint"
# <details>
# <summary>Hint</summary>
#
# Before the loop: mean, var, `inv_std` and `x_hat` of the whole `x`, and zeros for `g` (C, M), `a` and `b` (C,
# 1). In the loop use their first `c` rows. After the loop comes one line: `dx`.
#
# </details>

# %% [markdown] id="x3-hint-2"
# <details>
# <summary>Another hint</summary>
#
# Each layer still has $\gamma$, $\beta$ and running statistics of its own; `layer["running_mean"] += ...` moves
# them in place. The running variance is that of the population: `var * m / (m - 1)`.
#
# </details>


# %% id="x3-solution"
def block_norms_once(x, layers, dys):
    """The twin of block_norms: the statistics of each row of x are taken once, and its gradient is corrected once."""
    m = x.shape[1]
    mean, var = x.mean(1, keepdims=True), x.var(1, keepdims=True)
    inv_std = 1 / np.sqrt(var + EPS)
    x_hat = (x - mean) * inv_std
    g, a, b = np.zeros_like(x), np.zeros_like(mean), np.zeros_like(mean)
    ys, dgammas, dbetas = [], [], []
    for layer, dy in zip(layers, dys, strict=True):
        gamma, c = layer["gamma"], len(layer["gamma"])
        ys.append(gamma * x_hat[:c] + layer["beta"])
        dgammas.append((dy * x_hat[:c]).sum(1, keepdims=True))
        dbetas.append(dy.sum(1, keepdims=True))
        g[:c] += gamma * dy
        a[:c] += gamma * dbetas[-1]
        b[:c] += gamma * dgammas[-1]
        layer["running_mean"] += MOMENTUM * (mean[:c] - layer["running_mean"])
        layer["running_var"] += MOMENTUM * (var[:c] * m / (m - 1) - layer["running_var"])
    return ys, inv_std * (g - a / m - x_hat * b / m), dgammas, dbetas


# %% id="watched" tags=["setup"]
class Watched(np.ndarray):
    """An array that counts the rows whose mean or variance is taken."""

    rows = 0

    def __array_wrap__(self, array, context=None, return_scalar=False):
        return np.asarray(array)[()] if return_scalar else np.asarray(array)  # what is computed from it is not watched

    def mean(self, *args, **kwargs):
        Watched.rows += len(self)
        return np.asarray(self).mean(*args, **kwargs)

    def var(self, *args, **kwargs):
        Watched.rows += len(self)
        return np.asarray(self).var(*args, **kwargs)


def block_example(c0, growth, count, m, offset, seed):
    """x, layers and dys of a block with so many layers, in float64."""
    draw = np.random.default_rng(seed).standard_normal
    widths = [c0 + growth * i for i in range(count)]
    names = ("gamma", "beta", "running_mean", "running_var")
    layers = [{name: draw((c, 1)) for name in names} for c in widths]
    return offset + 2 * draw((widths[-1] + growth, m)), layers, [0.5 + draw((c, m)) for c in widths]


# %% id="x3-check"
@check
def a_twin_that_is_true():
    for setting in ((3, 2, 1, 20, 0.0, 0), (4, 3, 4, 30, 0.0, 1), (2, 1, 6, 7, 50.0, 2)):
        (x, layers, dys), right = block_example(*setting), block_example(*setting)
        before = x.copy(), [dy.copy() for dy in dys], [layer["gamma"].copy() for layer in layers]
        Watched.rows = 0
        found = block_norms_once(x.view(Watched), layers, dys)
        rows = Watched.rows
        wanted = block_norms(*right)
        case = f"{len(layers)} layers, {len(x)} rows"
        assert (x == before[0]).all(), f"{case}: your twin has changed x"
        assert all((dy == b).all() for dy, b in zip(dys, before[1], strict=True)), f"{case}: your twin has changed dys"
        same = all((layer["gamma"] == b).all() for layer, b in zip(layers, before[2], strict=True))
        assert same, f"{case}: your twin has changed gamma"
        pairs = [("dx", found[1], wanted[1])]
        for name, mine, theirs in zip(("y", "dγ", "dβ"), (found[0], *found[2:]), (wanted[0], *wanted[2:]), strict=True):
            assert len(mine) == len(theirs), (
                f"{case}: {len(theirs)} times {name} should come back, there are {len(mine)}"
            )
            pairs += [
                (f"{name} of layer {i}", a, b) for i, (a, b) in enumerate(zip(mine, theirs, strict=True), start=1)
            ]
        for i, (mine, theirs) in enumerate(zip(layers, right[1], strict=True), start=1):
            pairs += [(f"{name} of layer {i}", mine[name], theirs[name]) for name in ("running_mean", "running_var")]
        for name, mine, theirs in pairs:
            assert np.shape(mine) == theirs.shape, f"{case}: {name} should be {theirs.shape}, yours is {np.shape(mine)}"
            off = abs(np.asarray(mine) - theirs).max() / abs(theirs).max()
            assert off < 1e-9, f"{case}: {name} is off by {off:.1e} of its largest value"
        assert rows <= 2 * len(x), (
            f"{case}: all is right, but you take the mean or variance of {rows} rows, where {2 * len(x)} are enough: take them once"
        )


# %% [markdown] id="yours"
# ## Your machine
#
# Everything so far was counted, or compared; that is the same everywhere. How much faster the twin of a dense
# block is *here* depends on caches, cores and what else is running. So this is measured, in turns, and not
# claimed: on a busy laptop the number is anybody's. What **is** claimed is that both compute the same, down to
# the last running variance.


# %% id="yours-run"
def step(images, size, dtype):
    """Seconds for forward and backward of a dense block of eight layers, and everything that is left behind, by name."""
    draw = np.random.default_rng(SEED).standard_normal
    block = DenseBlock(BottleneckLayer, 8, 24, 12, 0.0).to(dtype=dtype)
    for parameter in block.parameters():  # weights that keep the size of what they multiply; γ and β around 1
        fan_in = parameter.data[0].size
        parameter.data[...] = (
            draw(parameter.shape) / fan_in**0.5 if parameter.ndim > 1 else 1 + draw(parameter.shape) / 4
        )
    x = Tensor(draw((images, 24, size, size)).astype(dtype), requires_grad=True)
    dy = draw((images, 24 + 8 * 12, size, size)).astype(dtype)
    start = time.perf_counter()
    y = block(x)
    y.backward(dy)
    seconds = time.perf_counter() - start
    left = {"result": y.data, "dx": x.grad}
    for name, item in block.named_arrays():
        left[name] = item.data
        if isinstance(item, Tensor):
            left[f"gradient of {name}"] = item.grad
    return seconds, left


with reference_only():
    _, wanted = step(4, 6, np.float64)
_, found = step(4, 6, np.float64)
off = {name: abs(found[name] - right).max() / max(abs(right).max(), 1e-3) for name, right in wanted.items()}
claim("arrays compared: results, gradients, parameters, running statistics", len(off), 146, 146)
claim(
    "largest difference between twin and definition, times 1e12",
    1e12 * max(off.values()),
    0,
    10,
    seen=(0.00197, 0.00462),
)

seconds = {"definition": [], "twin": []}
for _ in range(5):
    with (
        reference_only(),
        single_threaded_blas(),
    ):  # the twin shares its work out itself; products do not, on a busy machine
        seconds["definition"].append(step(4, 32, np.float32)[0])
    seconds["twin"].append(step(4, 32, np.float32)[0])
for name, times in seconds.items():
    print(
        f"{name:10} median {1e3 * statistics.median(times):6.1f} ms, from {1e3 * min(times):.1f} to {1e3 * max(times):.1f}"
    )
ratio = statistics.median(seconds["definition"]) / statistics.median(seconds["twin"])
print(f"the twin is {ratio:.1f} times as fast here")

# %% [markdown] id="why-yours"
# On the machine on which `docs/dense-block.md` was written, two shared cores, the whole training step of
# DenseNet-BC (100, 12) was 2.8 times as fast as its definitions, and its table says what each idea bought. Yours
# will differ, also from one run to the next: this block is small, and the twin wants both cores for itself. That
# is what medians and turns are for, and why no number stands here.
#
# Note what was *not* done: no line of the definitions was changed to make them quicker. They stay as the paper
# has them, and the twins are held against them in every run of the tests.

# %% [markdown] id="break-it"
# ## Break it
#
# - In "clock-run", put `float(y.sum())` into the loop. What happens to the two lines of the picture, and what has
#   become of the queue?
# - In `example`, subtract from `dy` the mean of each row before it goes into `arrays`. Which mistake becomes
#   invisible? And why does dβ suddenly look wrong everywhere?
# - How far from 0 must rows lie before the tolerance of $10^{-4}$ notices `one_pass`? Try `errors(one_pass,
#   mean)`, and then `errors(norm, mean)` at 10,000. What does that say about comparing in float32?


# %% [markdown] id="summary"
# ## Three lines to keep
#
# 1. Ask the array for its library, never fetch a number unasked, and wait before you look at a clock.
# 2. In a dense block every channel is written once, so its statistics can be taken once and its gradient
#    corrected once: $O(L)$ instead of $O(L^2)$.
# 3. Keep the slow definition and hold every fast version against it: results, gradients **and** state.

# %% [markdown] id="paper"
# ## What the lecture and the papers say
#
# The lecture says nothing about how a DenseNet is computed, and the paper one sentence: a naive implementation
# may contain memory inefficiencies, for which it refers to a technical report (§4.2). That report is Pleiss et
# al. 2017, "Memory-Efficient Implementation of DenseNets". Its idea: keep only what the convolutions make; put
# concatenations and batch norms into memory that all layers share; compute them again for the backward pass. The
# README of the PyTorch version prints, for a DenseNet-BC with 100 layers on a GPU, 2.863 GB and 0.165 s a step
# for the naive version and 1.605 GB and 0.207 s for the efficient one: memory is bought with time. minidense's
# twin never makes most of what would have to be computed again.
#
# What we counted here (operations, channels, bytes) holds on any machine. What we measured is yours. And what a
# pretended GPU cannot show is how fast a real one is: it has the queue and the rules, not the arithmetic.
# `docs/gpu.md` says what was checked without one, and `scripts/gpu_check` what remains for a real one to tell.

# %% [markdown] id="source"
# ## The real one
#
# The whole mechanism, as minidense has it. The twin of the dense block is `BlockInOneBuffer` in
# `minidense/fast/cpu/one_buffer.py`; look there for `owe` and `correction`, your $a$ and $b$.

# %% id="source-code"
print(inspect.getsource(speed.reference))
print(inspect.getsource(speed.fast_path))
