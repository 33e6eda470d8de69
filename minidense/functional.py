"""Every operation on Tensors, in one table of contents. The equations and the arrays are in ops/.

Shapes: N images, C channels, H×W pixels, F filters, K×K kernels. Options after the tensors are keyword-only.
All of them raise ShapeError when shapes do not fit, DTypeError when float types are mixed, DeviceError when devices are.
"""

from collections.abc import Iterable

import numpy

from . import ops
from .backend import array_module, to_device
from .errors import ConfigError, DTypeError
from .ops.loss import check_labels
from .ops.norm import check_shapes, track
from .speed import reference
from .tensor import Tensor, apply

# -- element by element ---------------------------------------------------------------------------------------------


def add(a: Tensor, b) -> Tensor:
    """a + b; shapes broadcast as in NumPy, b may be a number or an array."""
    return a + b


def sub(a: Tensor, b) -> Tensor:
    """a − b, broadcasting."""
    return a - b


def mul(a: Tensor, b) -> Tensor:
    """a·b element by element, broadcasting."""
    return a * b


def div(a: Tensor, b) -> Tensor:
    """a/b element by element, broadcasting."""
    return a / b


def neg(x: Tensor) -> Tensor:
    """−x"""
    return apply(ops.Neg(), x)


def power(x: Tensor, exponent: float) -> Tensor:
    """x to the power of one plain number."""
    return x**exponent


def exp(x: Tensor) -> Tensor:
    """eˣ"""
    return apply(ops.Exp(), x)


def log(x: Tensor) -> Tensor:
    """Natural logarithm; of 0 it is −∞, of negative numbers NaN, as in NumPy."""
    return apply(ops.Log(), x)


@reference
def relu(x: Tensor) -> Tensor:
    """max(x, 0); the gradient at exactly 0 is taken as 0 (Nair & Hinton 2010)."""
    return apply(ops.ReLU(), x)


def sigmoid(x: Tensor) -> Tensor:
    """1/(1 + e⁻ˣ), safe for any x."""
    return apply(ops.Sigmoid(), x)


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return apply(ops.Tanh(), x)


def dropout(x: Tensor, p: float = 0.5, *, rng: numpy.random.Generator, training: bool = True) -> Tensor:
    """Set each value to 0 with probability p and scale the others by 1/(1 − p); x itself when not training (Srivastava et al. 2014).

    rng  a NumPy generator. The mask is drawn on the CPU, so that both devices drop the same values

    Raises ConfigError unless 0 ≤ p < 1.
    """
    if not 0 <= p < 1:
        raise ConfigError(f"dropout: p is the probability of dropping a value and must lie in [0, 1), got {p}")
    if not training or p == 0:
        return x
    kept = rng.random(x.shape, numpy.float32) >= p
    return apply(ops.Dropout(to_device(kept.astype(x.dtype) / (1 - p), x.device)), x)


# -- reductions -----------------------------------------------------------------------------------------------------


def sum(x: Tensor, axis=None, *, keepdims: bool = False) -> Tensor:  # noqa: A001  the field's name for it
    """Σ x over `axis` (None: all, an int, or a tuple of ints)."""
    return apply(ops.Sum(axis, keepdims), x)


def mean(x: Tensor, axis=None, *, keepdims: bool = False) -> Tensor:
    """Arithmetic mean over `axis`."""
    return apply(ops.Mean(axis, keepdims), x)


def max(x: Tensor, axis=None, *, keepdims: bool = False) -> Tensor:  # noqa: A001  the field's name for it
    """Largest value over `axis`; values that tie share the gradient equally."""
    return apply(ops.Max(axis, keepdims), x)


def log_sum_exp(x: Tensor, axis=None, *, keepdims: bool = False) -> Tensor:
    """ln Σ eˣ over `axis`, safe at ±10⁴."""
    return apply(ops.LogSumExp(axis, keepdims), x)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """x − ln Σ eˣ: the logarithms of softmax, without its underflow."""
    # An offset changes nothing, but one near 10⁴ would cost float32 its digits.
    shifted = x - x.max(axis, keepdims=True).detach()
    return shifted - log_sum_exp(shifted, axis, keepdims=True)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """eˣ / Σ eˣ along `axis`: positive, and adds up to 1."""
    return log_softmax(x, axis).exp()


# -- arrangement ----------------------------------------------------------------------------------------------------


def reshape(x: Tensor, shape) -> Tensor:
    """The same values in C order, in another shape; one size may be −1."""
    return x.reshape(shape)


def transpose(x: Tensor, axes=None) -> Tensor:
    """Axis i of the result is axis axes[i] of x; without axes, all reversed."""
    return x.transpose() if axes is None else x.transpose(axes)


def getitem(x: Tensor, index) -> Tensor:
    """x[index] with slices, integers, None, ..., masks and integer arrays."""
    return x[index]


def pad(x: Tensor, widths) -> Tensor:
    """Zeros around x: one (before, after) pair an axis."""
    return apply(ops.Pad(tuple(tuple(pair) for pair in widths)), x)


def concat(xs: Iterable[Tensor]) -> Tensor:
    """Feature maps side by side: shapes (N, C_i, ...) give (N, ΣC_i, ...) (Huang et al. 2017, eq. 2)."""
    return apply(ops.Concat(), *xs)


# -- layers ---------------------------------------------------------------------------------------------------------


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product: (…, m, k) and (…, k, n) give (…, m, n); the axes before broadcast."""
    return a @ b


@reference
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x·weightᵀ + bias: (N, C), (F, C), (F,) give (N, F)."""
    return apply(ops.Linear(), *_given(x, weight, bias))


@reference
def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Correlate images with filters: (N, C, H, W), (F, C, K, K), (F,) give (N, F, H', W'), H' = ⌊(H + 2·padding − K)/stride⌋ + 1."""
    return apply(ops.Conv2d(stride, padding), *_given(x, weight, bias))


@reference
def max_pool2d(
    x: Tensor, kernel: int, *, stride: int | None = None, padding: int = 0, ceil_mode: bool = False
) -> Tensor:
    """Largest value of each K×K window, windows `stride` apart (default: K), the border counting as −∞.

    ceil_mode  let a last window hang over the edge instead of leaving pixels unseen
    """
    return apply(ops.MaxPool2d(kernel, stride, padding, ceil_mode), x)


@reference
def avg_pool2d(x: Tensor, kernel: int, *, stride: int | None = None, padding: int = 0) -> Tensor:
    """Mean of each K×K window, windows `stride` apart (default: K), the border counting as zeros."""
    return apply(ops.AvgPool2d(kernel, stride, padding), x)


@reference
def global_avg_pool2d(x: Tensor) -> Tensor:
    """Mean of each feature map: (N, C, H, W) gives (N, C) (Lin et al. 2014)."""
    return apply(ops.GlobalAvgPool2d(), x)


@reference
def batch_norm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    running_mean=None,
    running_var=None,
    *,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """y = γ·(x − mean)/√(var + ε) + β for each channel of (N, C, H, W) (Ioffe & Szegedy 2015).

    γ, β and the running statistics are (C,).

    training      True: by the moments of this batch; running arrays, where given, move towards them in place.
                  False: by the running statistics, which are plain arrays and stay as they are
    momentum      share of this batch in the running statistics: running = (1 − momentum)·running + momentum·batch

    Raises ShapeError when a channel holds a single value in training or an array is not (C,), ConfigError when evaluation lacks
    statistics; nothing has changed then.
    """
    check_shapes(x, gamma, beta, *(v for v in (running_mean, running_var) if v is not None))
    if not training:
        if running_mean is None or running_var is None:
            raise ConfigError("batch_norm: evaluation (training=False) needs running_mean and running_var")
        per_channel = (-1, 1, 1)
        scale = gamma * (1 / array_module(running_var).sqrt(running_var + eps))
        return (x - running_mean.reshape(per_channel)) * scale.reshape(per_channel) + beta.reshape(per_channel)
    op = ops.BatchNorm(eps)
    y = apply(op, x, gamma, beta)
    if running_mean is not None and running_var is not None:
        track(running_mean, running_var, op.mean, op.var, m=op.m, momentum=momentum)
    return y


# -- losses ---------------------------------------------------------------------------------------------------------


@reference
def cross_entropy(logits: Tensor, labels) -> Tensor:
    """−mean log softmax(logits)[label]: logits (N, classes), labels (N,) integers in 0 … classes − 1; one number, in nats."""
    return apply(ops.SoftmaxCrossEntropy(_labels("cross_entropy", labels, logits)), logits)


def squared_hinge(scores: Tensor, labels) -> Tensor:
    """Mean over images of Σ_k max(0, 1 ∓ score)², one class against all others (Lee et al. 2015): scores (N, classes), labels (N,)."""
    return apply(ops.SquaredHinge(_labels("squared_hinge", labels, scores)), scores)


def _labels(name, labels, scores):
    """Labels as an array on the scores' device. Their range is looked at on the CPU alone: on the GPU, looking would mean waiting."""
    if isinstance(labels, Tensor):
        raise DTypeError(f"{name}: labels are class numbers: pass a plain integer array, not a Tensor")
    labels = labels if hasattr(labels, "dtype") else to_device(numpy.asarray(labels), scores.device)
    check_labels(name, scores, labels)
    return labels


def _given(*tensors: Tensor | None) -> list[Tensor]:
    return [t for t in tensors if t is not None]
