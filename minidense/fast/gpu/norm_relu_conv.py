"""BN, BN-ReLU, BN-ReLU-Conv and plain convolutions on the GPU, each one step; the transition is one that pools first.

The definitions are functional.batch_norm and conv2d, nn.norm_relu and norm_relu_conv, models.densenet.Transition.forward.
"""

from functools import partial
from types import SimpleNamespace
from typing import Any

from ... import functional as F
from ...backend import array_module
from ...errors import ConfigError
from ...models.densenet import Transition
from ...nn import BatchNorm2d, norm_relu, norm_relu_conv
from ...ops import Op
from ...ops.conv import check_shapes as check_conv
from ...ops.norm import check_shapes, refuse_single_value
from ...speed import fast_path
from ...tensor import apply
from ..known import is_known_pair, is_known_transition
from . import examples, norm
from .convolve import convolution, keeps_size, total
from .launch import by_fours, images, is_plain, on_gpu, rows
from .track import is_ready, track, track_arrays


class Normed(Op):
    """What has a batch norm in front: y = after(BN(x)) for x (N, C, H, W), γ, β (C,), and the weight of a convolution if there is one.

    given  (mean, var) to normalise by; None for the batch's own, which ``moments`` then holds after forward

    Subclasses write after(*weight) -> the result, from x and the fold; and before(dy) -> (dx but for its debt, and what norm.finish
    takes: the sums, and the parts of dweight or None).
    """

    fresh = True
    after: Any
    before: Any

    def __init__(self, eps: float, given: tuple[Any, Any] | None):
        self.eps, self.given = eps, given

    def forward(self, x, gamma, beta, *weight):
        xp = array_module(x, gamma, beta)
        self.shape, self.x, self.pixels = x.shape, rows(x), x.size // x.shape[1]
        layer = SimpleNamespace(weight=SimpleNamespace(data=gamma), bias=SimpleNamespace(data=beta), eps=self.eps)
        c = x.shape[1]
        if self.given is None:
            self.moments = xp.empty(c, "float32"), xp.empty(c, "float32")
            self.fold = norm.prepare(*norm.moments_of_rows(self.x), self.pixels, *self.moments, 0, layer)
        else:
            self.moments = self.given
            self.fold = norm.prepare(None, 0, self.pixels, *self.moments, c, layer)
        return self.after(*weight)

    def backward(self, dy):
        self.debt = array_module(dy).empty((len(self.x), 2), "float32")
        dx, sums, parts = self.before(rows(dy))
        how = {"settles": self.given is None, "first": True}
        dgamma, dbeta, dweight = norm.finish(sums, self.pixels, self.fold, self.debt, parts, **how)
        if self.given is None and self.wants(0):
            norm.settle(dx, self.x, *self.moments, self.debt, self.eps)
        dparams = (dgamma, dbeta) if dweight is None else (dgamma, dbeta, dweight)
        return images(dx, self.shape), *dparams


class Norm(Normed):
    """BN, or relu of it."""

    def __init__(self, eps, given, *, rectify):
        super().__init__(eps, given)
        self.rectify = rectify

    def after(self, *weight):
        return images(norm.normalise(self.x, self.fold, rectify=self.rectify), self.shape)

    def before(self, dy):
        return *norm.normalise_gradient(dy, self.x, self.fold, rectify=self.rectify), None


class NormReLUConv(Normed):
    """conv(relu(BN(x))), keeping x alone."""

    def after(self, *weights):
        (weight,), (n, _, h, w) = weights, self.shape
        xp = array_module(weight)
        self.convolution = convolution(weight, h, w)
        y = xp.empty((len(weight), self.pixels), "float32")
        self.convolution.forward(self.x, self.fold, y, moments=False)
        return images(y, (n, 0, h, w))

    def before(self, dy):
        dx = array_module(dy).empty(self.x.shape, "float32")
        sums = self.convolution.input_gradient(dy, self.x, self.fold, dx, scaled=True)
        return dx, sums, self.convolution.weight_parts(dy, self.x, self.fold)


class PooledConv(Normed):
    """avg_pool2d(conv(relu(BN(x))), 2) of a 1×1 convolution, pooling first: the two commute, and a quarter of the products is left."""

    def after(self, *weights):
        (weight,), (n, _, h, w) = weights, self.shape
        xp = array_module(weight)
        self.convolution = convolution(weight, h // 2, w // 2)
        self.pooled = norm.normalise_and_pool(self.x, self.fold, w // 2)
        y = xp.empty((len(weight), self.pixels // 4), "float32")
        self.convolution.forward(self.pooled, None, y, moments=False)
        return images(y, (n, 0, h // 2, w // 2))

    def before(self, dy):
        xp = array_module(dy)
        dpooled, dx = xp.empty(self.pooled.shape, "float32"), xp.empty(self.x.shape, "float32")
        self.convolution.input_gradient(dy, None, None, dpooled)
        parts = self.convolution.weight_parts(dy, self.pooled, None)
        sums = norm.normalise_and_pool_gradient(dpooled, self.x, self.fold, dx, self.shape[3] // 2)
        return dx, sums, parts


class Conv(Op):
    """A convolution that keeps the size: x (N, C, H, W), weight (F, C, K, K), K 1 or 3."""

    fresh = True

    def forward(self, x, weight):
        self.shape, (n, _, h, w) = x.shape, x.shape
        self.x, self.convolution = rows(x), convolution(weight, h, w)
        y = array_module(x, weight).empty((len(weight), n * h * w), "float32")
        self.convolution.forward(self.x, None, y, moments=False)
        return images(y, (n, 0, h, w))

    def backward(self, dy):
        dy, dx = rows(dy), None
        if self.wants(0):
            dx = array_module(dy).empty(self.x.shape, "float32")
            self.convolution.input_gradient(dy, None, None, dx)
            dx = images(dx, self.shape)
        return dx, total(self.convolution.weight_parts(dy, self.x, None))


def normed(make: Any, norm_: BatchNorm2d, x: Any, *weight: Any) -> Any:
    """The step that make(eps, given) makes, on Tensors, and what training leaves in `norm_`."""
    given = None if norm_.training else (norm_.running_mean.data, norm_.running_var.data)
    op = make(norm_.eps, given)
    if norm_.training:
        refuse_single_value(x)
    y = apply(op, x, norm_.weight, norm_.bias, *weight)
    if norm_.training:
        track([norm_], [op.moments], op.pixels)
    return y


def fits_batch_norm(x, gamma, beta, running_mean=None, running_var=None, *, training=True, momentum=0.1, eps=1e-5):
    running = [v for v in (running_mean, running_var) if v is not None]
    return on_gpu(x, gamma, beta) and by_fours(x) and is_plain(*running)


@fast_path(F.batch_norm, fits=fits_batch_norm, examples=examples.batch_norms)
def batch_norm_on_gpu(x, gamma, beta, running_mean=None, running_var=None, *, training=True, momentum=0.1, eps=1e-5):
    """functional.batch_norm, keeping only x."""
    check_shapes(x, gamma, beta, *(v for v in (running_mean, running_var) if v is not None))
    running = running_mean is not None and running_var is not None
    if not training and not running:
        raise ConfigError("batch_norm: evaluation (training=False) needs running_mean and running_var")
    op = Norm(eps, None if training else (running_mean, running_var), rectify=False)
    if training:
        refuse_single_value(x)
    y = apply(op, x, gamma, beta)
    if training and running:
        track_arrays([(running_mean, running_var, None, *op.moments, momentum)], op.pixels)
    return y


def fits_layer(norm_, x):
    return type(norm_) is BatchNorm2d and is_ready(norm_) and on_gpu(x) and by_fours(x)


@fast_path(BatchNorm2d.forward, fits=fits_layer, examples=examples.norms)
def batch_norm_layer_on_gpu(norm_, x):
    """nn.BatchNorm2d.forward, with what it counts."""
    check_shapes(x, norm_.weight, norm_.bias)
    return normed(partial(Norm, rectify=False), norm_, x)


def fits_norm_relu(norm_, x):
    return fits_layer(norm_, x) and norm_.on_output is None


@fast_path(norm_relu, fits=fits_norm_relu, examples=examples.norms)
def norm_relu_on_gpu(norm_, x):
    """nn.norm_relu in one step."""
    check_shapes(x, norm_.weight, norm_.bias)
    return normed(partial(Norm, rectify=True), norm_, x)


def fits_norm_relu_conv(norm_, conv, x):
    return (
        on_gpu(x, *conv.parameters())
        and by_fours(x)
        and is_known_pair(norm_, conv, x.shape)
        and is_ready(norm_)
        and keeps_size(conv.weight, conv.stride, conv.padding, x.shape[3])
    )


@fast_path(norm_relu_conv, fits=fits_norm_relu_conv, examples=examples.norm_relu_convs)
def norm_relu_conv_on_gpu(norm_, conv, x):
    """nn.norm_relu_conv without writing down what lies between."""
    return normed(NormReLUConv, norm_, x, conv.weight)


def fits_transition(transition, x):
    here = on_gpu(x, *transition.parameters()) and by_fours(x, pooled=True)
    return here and is_known_transition(transition, x.shape) and is_ready(transition.norm)


@fast_path(Transition.forward, fits=fits_transition, examples=examples.transitions)
def transition_on_gpu(transition, x):
    """Transition.forward as one step."""
    return normed(PooledConv, transition.norm, x, transition.conv.weight)


def fits_conv(x, weight, bias=None, *, stride=1, padding=0):
    return (
        bias is None
        and on_gpu(x, weight)
        and weight.ndim == 4
        and by_fours(x)
        and keeps_size(weight, stride, padding, x.shape[3])
    )


@fast_path(F.conv2d, fits=fits_conv, examples=examples.convolutions)
def conv2d_on_gpu(x, weight, bias=None, *, stride=1, padding=0):
    """functional.conv2d of those that keep the size of an image; others are the definition's, in CuPy."""
    check_conv(x, weight, bias, stride, padding)
    return apply(Conv(), x, weight)
