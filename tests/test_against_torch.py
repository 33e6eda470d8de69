"""The same numbers through minidense and through PyTorch: values, gradients, running statistics, steps of SGD, a whole DenseNet-BC.

PyTorch computes in float64, also where minidense works in float32: it gets exactly the same inputs, so that what differs
is minidense's rounding and not PyTorch's. Differences are measured against the absolute terms behind a number (for a
sum Σ a·b that is Σ |a|·|b|), because that is what rounding is proportional to: a sum that cancels to almost nothing
keeps the rounding of its large terms, in any library. MINIDENSE_EXAMPLES sets how many examples an operation gets.
"""

import os
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import minidense as md
from minidense import functional as F

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not here: pip install torch==2.13.0")
torch.set_num_threads(1)  # the arrays are small: threads that wait for a busy core cost more than they bring
T = torch.nn.functional

TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5}
TOLERANCE_OF_TRAINING = 1e-10  # float64, through 22 layers and 5 steps, or 20 steps: each adds its rounding
LAYOUTS = {
    "contiguous": np.array,
    "backwards": lambda x: np.flip(np.flip(x).copy()),
    "first axis fastest": lambda x: np.array(x, order="F"),
    "every other": lambda x: x.repeat(2).reshape(*x.shape, 2)[..., 0],
}
IMAGE_AXES = (0, 2, 3)

# Derandomised: the same examples in every run. A slow or busy machine is no failure.
examples = settings(
    max_examples=int(os.environ.get("MINIDENSE_EXAMPLES", "200")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@dataclass
class Numbers:
    """Normally distributed arrays of one float type and one layout in memory, read-only: an op that writes into its inputs fails."""

    dtype: type
    layout: str
    seed: int

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)

    def __call__(self, *shape, spread=1, around=0):
        return self.arranged(around + spread * self.rng.standard_normal(shape))

    def whole(self, *shape):
        """Whole numbers from −2 to 2, among which many tie."""
        return self.arranged(self.rng.integers(-2, 3, shape))

    def arranged(self, values):
        array = LAYOUTS[self.layout](np.asarray(values, self.dtype))
        array.setflags(write=False)
        return array


numbers_of_any_kind = st.builds(
    Numbers, st.sampled_from(list(TOLERANCE)), st.sampled_from(list(LAYOUTS)), st.integers(0, 2**32 - 1)
)
sizes = st.integers(1, 4)
strides = st.integers(1, 3)
spares = st.tuples(st.integers(0, 6), st.integers(0, 6))  # pixels an image has beyond what one window needs
logits = st.fixed_dictionaries({"spread": st.sampled_from([1, 30, 1e4]), "around": st.sampled_from([0, 1e4, -1e4])})


@st.composite
def pools(draw):
    """(kernel, stride, padding) that both libraries accept, and the size (h, w) of an image with room for one window."""
    kernel = draw(st.integers(1, 5))
    padding = draw(st.integers(0, kernel // 2))
    return (kernel, draw(st.none() | strides), padding), image_for((kernel, kernel), padding, draw(spares))


def image_for(kernel, padding, spare):
    return [max(1, k - 2 * padding) + more for k, more in zip(kernel, spare, strict=True)]


# -- both sides, and the comparison ---------------------------------------------------------------------------------


def assert_equals_torch(numbers, fn, reference, *xs, terms=None):
    """fn on Tensors and reference on PyTorch's, from the same xs and one random dy, give the same y and the same gradients.

    terms  (xs, dy) -> absolute terms behind y and behind each gradient. Left out, fn is a sum of products of its inputs
           (or of the inputs alone), whose absolute terms are what the reference makes of absolute values
    """
    tensors = [md.Tensor(x, requires_grad=True) for x in xs]
    y = fn(*tensors)
    dy = numbers(*y.shape)
    y.backward(dy)
    names = ["y", *(f"gradient {i}" for i in range(len(xs)))]
    ours = [y.numpy(), *(x.grad for x in tensors)]
    xs, dy = [in_float64(x) for x in xs], in_float64(dy)
    theirs = through_torch(reference, xs, dy)
    magnitudes = terms(xs, dy) if terms else through_torch(reference, map(abs, xs), abs(dy))
    for name, a, b, magnitude in zip(names, ours, theirs, magnitudes, strict=True):
        assert_near(name, a, b, magnitude, numbers.dtype)


def in_float64(x):
    """x without rounding and in C order, which is all that torch.tensor takes."""
    return np.array(x, np.float64, order="C")


def through_torch(reference, xs, dy):
    """[y, gradient of each x] as PyTorch computes them."""
    xs = [torch.tensor(x, requires_grad=True) for x in xs]
    y = reference(*xs)
    return [v.detach().numpy() for v in (y, *torch.autograd.grad(y, xs, torch.tensor(dy)))]


def assert_near(name, ours, theirs, terms, dtype=np.float64, tolerance=None):
    """ours has this type, the shape of theirs, and the same values up to tolerance × terms."""
    assert (ours.dtype, ours.shape) == (dtype, theirs.shape), name
    # Below the smallest normal number a float has no relative precision left.
    allowed = (tolerance or TOLERANCE[dtype]) * np.abs(terms) + np.finfo(dtype).tiny
    worst = np.max(np.abs(ours - theirs) / allowed)
    assert worst <= 1, f"{name} is off by {worst:.3g} × what is allowed: {ours} instead of {theirs}"


# -- layers ---------------------------------------------------------------------------------------------------------


@examples
@given(
    numbers=numbers_of_any_kind,
    n=sizes,
    c=sizes,
    f=sizes,
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    spare=spares,
    stride=strides,
    padding=st.integers(0, 3),
    bias=st.booleans(),
)
def test_conv2d_equals_torch(numbers, n, c, f, kernel, spare, stride, padding, bias):
    x, weight = numbers(n, c, *image_for(kernel, padding, spare)), numbers(f, c, *kernel)
    options = {"stride": stride, "padding": padding}
    assert_equals_torch(
        numbers,
        lambda *xs: F.conv2d(*xs, **options),
        lambda *xs: T.conv2d(*xs, **options),
        x,
        weight,
        *([numbers(f)] if bias else []),
    )


@examples
@given(numbers=numbers_of_any_kind, n=sizes, c=sizes, f=sizes, bias=st.booleans())
def test_linear_equals_torch(numbers, n, c, f, bias):
    assert_equals_torch(numbers, F.linear, T.linear, numbers(n, c), numbers(f, c), *([numbers(f)] if bias else []))


@examples
@given(numbers=numbers_of_any_kind, n=sizes, c=sizes, pool=pools(), ceil_mode=st.booleans(), ties=st.booleans())
def test_max_pool2d_equals_torch(numbers, n, c, pool, ceil_mode, ties):
    (kernel, stride, padding), image = pool

    def reference(x):
        return T.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil_mode)

    assert_equals_torch(
        numbers,
        lambda x: F.max_pool2d(x, kernel, stride=stride, padding=padding, ceil_mode=ceil_mode),
        reference,
        (numbers.whole if ties else numbers)(n, c, *image),
        terms=lambda xs, dy: through_torch(reference, xs, abs(dy)),  # |x| would have other winners
    )


@examples
@given(numbers=numbers_of_any_kind, n=sizes, c=sizes, pool=pools())
def test_avg_pool2d_equals_torch(numbers, n, c, pool):
    (kernel, stride, padding), image = pool
    assert_equals_torch(
        numbers,
        lambda x: F.avg_pool2d(x, kernel, stride=stride, padding=padding),
        lambda x: T.avg_pool2d(x, kernel, stride, padding),
        numbers(n, c, *image),
    )


@examples
@given(numbers=numbers_of_any_kind, shape=st.tuples(sizes, sizes, st.integers(1, 9), st.integers(1, 9)))
def test_global_avg_pool2d_equals_torch(numbers, shape):
    def reference(x):
        return T.adaptive_avg_pool2d(x, 1).flatten(1)

    assert_equals_torch(numbers, F.global_avg_pool2d, reference, numbers(*shape))


@examples
@given(
    numbers=numbers_of_any_kind,
    n=sizes,
    channels=st.lists(sizes, min_size=1, max_size=4),
    rest=st.lists(sizes, max_size=2),
)
def test_concat_equals_torch(numbers, n, channels, rest):
    xs = [numbers(n, c, *rest) for c in channels]
    assert_equals_torch(numbers, lambda *xs: F.concat(xs), lambda *xs: torch.cat(xs, 1), *xs)


@examples
@given(
    numbers=numbers_of_any_kind,
    shape=st.tuples(sizes, sizes, sizes, sizes),
    updates=st.integers(1, 4),
    spread=st.sampled_from([1e-3, 1, 1e2]),
    distance=st.sampled_from([0, 1, 1e3]),  # of the mean from zero, in standard deviations
    momentum=st.sampled_from([0.1, 0.5, 1.0]),
    eps=st.sampled_from([1e-5, 1e-3]),
)
def test_batch_norm_in_training_equals_torch(numbers, shape, updates, spread, distance, momentum, eps):
    n, c, h, w = shape
    assume(n * h * w > 1)
    gamma, beta = numbers(c), numbers(c)
    running = [np.array(numbers(c)), np.array(abs(numbers(c)))]
    expected = [torch.tensor(in_float64(v)) for v in running]
    options = {"training": True, "momentum": momentum, "eps": eps}
    for _ in range(updates):
        x = numbers(*shape, spread=spread, around=spread * distance)
        assert_equals_torch(
            numbers,
            lambda *xs: F.batch_norm(*xs, *running, **options),
            lambda x, gamma, beta: T.batch_norm(x, *expected, gamma, beta, **options),
            x,
            gamma,
            beta,
            terms=lambda xs, dy: batch_norm_terms(*xs, dy, eps),
        )
        mean, var = (v.numpy() for v in expected)
        distances = np.abs(x).mean(IMAGE_AXES, dtype=np.float64)
        assert_near("running mean", running[0], mean, abs(mean) + distances, numbers.dtype)
        # The batch's mean is rounded too, by δ ≈ ulp·|mean|, and a variance around mean + δ is larger by δ².
        terms = var + np.finfo(numbers.dtype).eps * distances**2
        assert_near("running variance", running[1], var, terms, numbers.dtype)


def batch_norm_terms(x, gamma, beta, dy, eps):
    """Absolute terms of Ioffe & Szegedy's equations.

    x̂ = (x − mean)/√(var + ε) is itself a difference, with the terms (|x| + |mean|)/√(var + ε): a mean 1000 deviations
    from zero costs three digits. Where x̂ is multiplied, the terms of one factor go with the value of the other.
    """
    mean, inv_std = x.mean(IMAGE_AXES, keepdims=True), 1 / np.sqrt(x.var(IMAGE_AXES, keepdims=True) + eps)
    gamma, beta, dy = (abs(v) for v in (gamma[:, None, None], beta[:, None, None], dy))
    x_hat, x_hat_terms = abs(x - mean) * inv_std, (abs(x) + abs(mean)) * inv_std

    def average(v):
        return v.mean(IMAGE_AXES, keepdims=True)

    dx = dy + average(dy) + x_hat * average(dy * x_hat_terms) + x_hat_terms * average(dy * x_hat)
    return gamma * x_hat_terms + beta, gamma * inv_std * dx, (dy * x_hat_terms).sum(IMAGE_AXES), dy.sum(IMAGE_AXES)


@examples
@given(
    numbers=numbers_of_any_kind,
    shape=st.tuples(sizes, sizes, sizes, sizes),
    distance=st.sampled_from([0, 1, 1e3]),
    eps=st.sampled_from([1e-5, 1e-3]),
)
def test_batch_norm_in_evaluation_equals_torch(numbers, shape, distance, eps):
    _, c, _, _ = shape
    mean, var = numbers(c, around=distance), abs(numbers(c))
    options = {"training": False, "eps": eps}

    def reference(x, gamma, beta, mean=mean):
        running = torch.tensor(in_float64(mean)), torch.tensor(in_float64(var))
        return T.batch_norm(x, *running, gamma, beta, **options)

    assert_equals_torch(
        numbers,
        lambda *xs: F.batch_norm(*xs, mean, var, **options),
        reference,
        numbers(*shape, around=distance),
        numbers(c),
        numbers(c),
        terms=lambda xs, dy: through_torch(lambda *xs: reference(*xs, mean=-abs(mean)), map(abs, xs), abs(dy)),
    )


# -- exponentials, at ±10⁴ ------------------------------------------------------------------------------------------


@examples
@given(numbers=numbers_of_any_kind, shape=st.tuples(sizes, st.integers(1, 7)), range_of_x=logits)
def test_cross_entropy_equals_torch(numbers, shape, range_of_x):
    n, classes = shape
    labels = numbers.rng.integers(classes, size=n)

    def terms(xs, dy):
        shifted = xs[0] - xs[0].max(1, keepdims=True)
        # + 1: Σ eˣ is at least 1, and its relative rounding is an absolute one in its logarithm.
        return abs(shifted[range(n), labels]).mean() + 1, abs(dy) / n

    assert_equals_torch(
        numbers,
        lambda x: F.cross_entropy(x, labels),
        lambda x: T.cross_entropy(x, torch.from_numpy(labels)),
        numbers(*shape, **range_of_x),
        terms=terms,
    )


@examples
@given(numbers=numbers_of_any_kind, shape=st.tuples(sizes, sizes, sizes), axis=st.integers(-3, 2), range_of_x=logits)
def test_log_softmax_equals_torch(numbers, shape, axis, range_of_x):
    def terms(xs, dy):
        return abs(xs[0] - xs[0].max(axis, keepdims=True)) + 1, abs(dy) + abs(dy).sum(axis, keepdims=True)

    assert_equals_torch(
        numbers,
        lambda x: F.log_softmax(x, axis),
        lambda x: T.log_softmax(x, axis),
        numbers(*shape, **range_of_x),
        terms=terms,
    )


@examples
@given(numbers=numbers_of_any_kind, shape=st.tuples(sizes, sizes, sizes), axis=st.integers(-3, 2), range_of_x=logits)
def test_softmax_equals_torch(numbers, shape, axis, range_of_x):
    def terms(xs, dy):
        return 1, abs(dy) + abs(dy).sum(axis, keepdims=True)  # probabilities: at most 1

    assert_equals_torch(
        numbers,
        lambda x: F.softmax(x, axis),
        lambda x: T.softmax(x, axis),
        numbers(*shape, **range_of_x),
        terms=terms,
    )


@examples
@given(numbers=numbers_of_any_kind, shape=st.tuples(sizes, sizes, sizes), axis=st.integers(-3, 2), range_of_x=logits)
def test_log_sum_exp_equals_torch(numbers, shape, axis, range_of_x):
    def reference(x):  # torch's own gradient is e^(x − y): at 10⁴ float64 keeps only 12 digits of that difference
        largest = x.detach().amax(axis)
        return largest + torch.logsumexp(x - largest.unsqueeze(axis), axis)

    assert_equals_torch(
        numbers,
        lambda x: F.log_sum_exp(x, axis),
        reference,
        numbers(*shape, **range_of_x),
        terms=lambda xs, dy: (abs(xs[0].max(axis)) + 1, np.expand_dims(abs(dy), axis)),
    )


@examples
@given(numbers=numbers_of_any_kind, shape=st.tuples(sizes, sizes), range_of_x=logits)
def test_sigmoid_equals_torch(numbers, shape, range_of_x):
    def terms(xs, dy):
        y = torch.sigmoid(torch.tensor(xs[0])).numpy()  # near zero as precise as anywhere, hence no + 1
        return y, y * dy

    assert_equals_torch(numbers, F.sigmoid, torch.sigmoid, numbers(*shape, **range_of_x), terms=terms)


# -- training -------------------------------------------------------------------------------------------------------


def assert_trained_alike(name, ours, theirs):
    theirs = theirs.detach().numpy()
    assert_near(name, ours, theirs, np.max(np.abs(theirs)), tolerance=TOLERANCE_OF_TRAINING)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ],
    ids=str,
)
def test_sgd_equals_torch(options, rng):
    """A small network in three groups with settings of their own, a rate that falls, and a bias that joins late."""
    x, labels = rng.standard_normal((8, 3)), rng.integers(4, size=8)
    arrays = [rng.standard_normal(shape) for shape in ((5, 3), (5,), (4, 5), (4,))]
    ours = [md.Tensor(w.copy(), requires_grad=True) for w in arrays]
    theirs = [torch.tensor(w, requires_grad=True) for w in arrays]

    def in_groups(w):
        return [
            {"params": w[:1]},
            {"params": w[1:3], "lr": 0.02, "weight_decay": 0.3},
            {"params": w[3:], "momentum": 0.5},
        ]

    def loss(library, x, labels, parameters, step):
        w1, b1, w2, b2 = parameters
        hidden = library.tanh(library.linear(x, w1, b1))
        return library.cross_entropy(library.linear(hidden, w2, b2 if step > 3 else None), labels)

    our_sgd = md.optim.SGD(in_groups(ours), lr=0.1, **options)
    their_sgd = torch.optim.SGD(in_groups(theirs), lr=0.1, **options)
    for step in range(20):
        if step == 10:
            our_sgd.groups[0]["lr"] = their_sgd.param_groups[0]["lr"] = 0.01
        our_sgd.zero_grad()
        loss(F, md.Tensor(x), labels, ours, step).backward()
        our_sgd.step()
        their_sgd.zero_grad()
        loss(T, torch.tensor(x), torch.tensor(labels), theirs, step).backward()
        their_sgd.step()
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert_trained_alike(f"parameter {i}", a.data, b)


def torch_densenet_bc(arrays, x, *, layers, training):
    """DenseNet-BC (Huang et al. 2017, §3) written out in PyTorch, on a dictionary of arrays by name."""

    def norm_relu(x, name):
        names = ("running_mean", "running_var", "weight", "bias")
        return T.relu(T.batch_norm(x, *(arrays[f"features.{name}.{kind}"] for kind in names), training))

    def conv(x, name, padding=0):
        return T.conv2d(x, arrays[f"features.{name}.weight"], padding=padding)

    x = conv(x, "conv0", padding=1)
    for block in (1, 2, 3):
        for i in range(layers):
            layer = f"denseblock{block}.denselayer{i + 1}"
            new = conv(norm_relu(x, f"{layer}.norm1"), f"{layer}.conv1")
            new = conv(norm_relu(new, f"{layer}.norm2"), f"{layer}.conv2", padding=1)
            x = torch.cat([x, new], 1)
        if block < 3:
            x = T.avg_pool2d(conv(norm_relu(x, f"transition{block}.norm"), f"transition{block}.conv"), 2)
    x = norm_relu(x, "norm5").mean((2, 3))
    return T.linear(x, arrays["classifier.weight"], arrays["classifier.bias"])


def test_a_densenet_bc_trains_as_in_torch(rng):
    model = md.models.densenet(depth=22, growth_rate=4, classes=5, dtype=np.float64)
    parameters = dict(model.named_parameters())
    arrays = {name: torch.tensor(array) for name, array in model.state_dict().items()}
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
    our_sgd = md.optim.SGD(parameters.values(), **options)
    their_sgd = torch.optim.SGD([arrays[name].requires_grad_() for name in parameters], **options)
    images, labels = rng.standard_normal((5, 6, 3, 8, 8)), rng.integers(5, size=(5, 6))
    for x, t in zip(images, labels, strict=True):
        our_sgd.zero_grad()
        our_loss = F.cross_entropy(model(md.Tensor(x)), t)
        our_loss.backward()
        their_sgd.zero_grad()
        logits = torch_densenet_bc(arrays, torch.tensor(x), layers=3, training=True)
        their_loss = T.cross_entropy(logits, torch.tensor(t))
        their_loss.backward()
        assert_trained_alike("loss", our_loss.data, their_loss)
        for name, parameter in parameters.items():
            assert_trained_alike(f"gradient of {name}", parameter.grad, arrays[name].grad)
        our_sgd.step()
        their_sgd.step()
        for name, array in model.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                assert_trained_alike(name, array, arrays[name])
    logits = torch_densenet_bc(arrays, torch.tensor(images[0]), layers=3, training=False)
    assert_trained_alike("logits in evaluation", model.eval()(md.Tensor(images[0])).data, logits)
