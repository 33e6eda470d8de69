"""A dense block on the GPU, in one buffer: every feature map is written once, its statistics are taken once, its gradient settled once.

The algebra is docs/dense-block.md's, as on the CPU; the definitions are models.densenet.dense_block and block_and_transition.
A bottleneck layer takes 4 launches forward and 7 backward, whatever its size; what a pass over memory touches is written at each.
"""

from typing import Any

from ...backend import array_module
from ...models.densenet import BottleneckLayer, block_and_transition, dense_block
from ...ops import Op
from ...ops.norm import refuse_single_value
from ...speed import fast_path
from ...tensor import apply, recording
from ..known import inputs_of, is_known_block, is_known_stage, layers_of, norms_of, pairs_of
from . import examples, norm
from .convolve import WIDEST, Behind, convolution
from .launch import by_fours, images, on_gpu, rows, stored_type
from .track import is_ready, track


class BlockOnGPU(Op):
    """All layers of a dense block as one step: x (N, c₀, H, W) gives (N, c₀ + L·k, H, W), or what a transition makes of that.

    Inputs after x: γ, β, weight of each layer's norm and convolution, of both where there is a bottleneck, then the transition's.
    Kept for backward: the feature maps, what the 1×1 convolutions made, and what the transition pooled.
    ``batch_moments`` lists (mean, var) for every norm in order, for whoever keeps running statistics, where `training`.
    """

    fresh = True

    def __init__(self, layers, transition=None, *, keep):
        self.layers, self.transition, self.keep = layers, transition, keep
        self.training = layers[0].norm1.training
        self.bottleneck = isinstance(layers[0], BottleneckLayer)
        self.stored = stored_type()

    # -- forward --------------------------------------------------------------------------------------------------

    def forward(self, x, *arrays):
        self.xp = array_module(x, *arrays)
        self.shape, (n, self.c0, h, w) = x.shape, x.shape
        weights = [convolution(weight, h, w) for weight in arrays[2::3]]
        self.exit: Any = None if self.transition is None else weights.pop()
        self.convolutions = (
            list(zip(weights[::2], weights[1::2], strict=True)) if self.bottleneck else [(c,) for c in weights]
        )
        self.growth = weights[-1].filters
        self.channels, self.pixels = self.c0 + len(self.layers) * self.growth, n * h * w
        self.features: Any = self.maps(self.channels)
        self.mean, self.var = (self.xp.empty(self.channels, "float32") for _ in range(2))
        self.made: list = []
        self.folds: list = []
        self.batch_moments: list = []

        norm.narrow(rows(x), self.features[: self.c0])
        new = norm.moments_of_rows(self.features[: self.c0]) if self.training else (None, 0)
        made = None
        for i, (layer, convolutions) in enumerate(zip(self.layers, self.convolutions, strict=True)):
            c = self.c0 + i * self.growth
            fold = self.fold(layer.norm1, new, c, known=c - self.growth if i else 0)
            seen, out = self.features[:c], self.features[c : c + self.growth]
            # Does a norm in here read the result?
            read = self.training and (self.exit is not None or i < len(self.layers) - 1)
            if self.bottleneck:
                made = self.maps(convolutions[0].filters) if self.keep or made is None else made
                moments = convolutions[0].forward(seen, fold, made, moments=self.training)  # reads c, writes 4k
                between = self.fold_between(layer.norm2, moments)
                new = convolutions[1].forward(made, between, out, moments=read)  # reads 4k, writes k
                self.keep_for_backward(made, (fold, between))
            else:
                new = convolutions[0].forward(seen, fold, out, moments=read)
                self.keep_for_backward(None, (fold,))
        return self.leave(new)

    def leave(self, new):
        """The result: the feature maps, or what the transition makes of them, pooling first."""
        if self.transition is None:
            return images(norm.widened(self.features), self.shape)
        n, _, h, w = self.shape
        self.exit_fold = self.fold(self.transition.norm, new, self.channels, known=self.channels - self.growth)
        self.pooled = norm.normalise_and_pool(self.features, self.exit_fold, w // 2)
        y = self.xp.empty((self.exit.filters, self.pixels // 4), self.stored)
        self.exit.forward(self.pooled, None, y, moments=False)
        return images(norm.widened(y), (n, 0, h // 2, w // 2))

    def maps(self, channels):
        """Room for feature maps."""
        return self.xp.empty((channels, self.pixels), self.stored)

    def fold(self, norm_, new, c, *, known):
        """The fold of a norm over the first c channels, those from `known` on with new moments; in evaluation its running statistics'."""
        if not self.training:
            return norm.prepare(None, 0, self.pixels, norm_.running_mean.data, norm_.running_var.data, c, norm_)
        moments, width = new
        self.batch_moments.append((self.mean[:c], self.var[:c]))
        return norm.prepare(moments, width, self.pixels, self.mean[:c], self.var[:c], known, norm_)

    def fold_between(self, norm_, new):
        """The fold of a bottleneck's second norm, which shares its statistics with nobody."""
        c = len(norm_.weight)
        if not self.training:
            return norm.prepare(None, 0, self.pixels, norm_.running_mean.data, norm_.running_var.data, c, norm_)
        mean, var = self.xp.empty(c, "float32"), self.xp.empty(c, "float32")
        self.batch_moments.append((mean, var))
        moments, width = new
        return norm.prepare(moments, width, self.pixels, mean, var, 0, norm_)

    def keep_for_backward(self, made, folds):
        if self.keep:
            self.made.append(made)
            self.folds.append(folds)

    # -- backward -------------------------------------------------------------------------------------------------

    def backward(self, dy):
        self.gradients: Any = self.maps(self.channels)
        # What every norm takes away from dx, level + x̂·slope, is the same for all layers but for these two numbers a channel.
        self.debt: Any = self.xp.zeros((self.channels, 2), "float32")
        dparams: list = []
        if self.exit is None:
            norm.narrow(rows(dy), self.gradients)
        else:
            dparams = [*self.back_through_transition(norm.narrowed(rows(dy), self.stored))]
        for i in reversed(range(len(self.layers))):
            c = self.c0 + i * self.growth
            own = self.gradients[c : c + self.growth]
            if i < len(self.layers) - 1 or self.exit is not None:
                self.settle(slice(c, c + self.growth))  # reads 2k, writes k channels
            dparams = [
                *(self.back_through_bottleneck(i, own, c) if self.bottleneck else self.back(i, own, c)),
                *dparams,
            ]
        dx = None
        if self.wants(0):
            self.settle(slice(0, self.c0))
            dx = images(norm.widened(self.gradients[: self.c0]), self.shape)
        return dx, *dparams

    def back_through_transition(self, dy):
        """Into the gradients of all channels; (dγ, dβ, dweight)."""
        dpooled = self.xp.empty(self.pooled.shape, dy.dtype)
        self.exit.input_gradient(dy, None, None, dpooled)
        parts = self.exit.weight_parts(dy, self.pooled, None)
        half = self.shape[3] // 2
        sums = norm.normalise_and_pool_gradient(dpooled, self.features, self.exit_fold, self.gradients, half)
        return self.finish(sums, self.exit_fold, self.debt, parts, first=True)

    def back_through_bottleneck(self, i, dy, c):
        """Through Conv3×3-ReLU-BN, then Conv1×1-ReLU-BN into the gradients of all channels before; both norms' and weights'."""
        (first, last), (fold, between), made = self.convolutions[i], self.folds[i], self.made[i]
        seen = self.features[:c]
        dmade, debt = self.maps(len(made)), self.xp.empty((len(made), 2), "float32")
        sums = last.input_gradient(dy, made, between, dmade)  # reads k + 4k, writes 4k
        parts = last.weight_parts(dy, made, between)  # reads k + 4k
        dlast = self.finish(sums, between, debt, parts, first=True)
        behind = Behind(made, between, debt)
        how = {"scaled": True, "added": True, "behind": behind}
        sums = first.input_gradient(dmade, seen, fold, self.gradients[:c], **how)  # reads 8k + 2c, writes c
        parts = first.weight_parts(dmade, seen, fold, behind=behind)  # reads 8k + c
        return *self.finish(sums, fold, self.debt[:c], parts), *dlast

    def back(self, i, dy, c):
        """Through Conv3×3-ReLU-BN of a layer without bottleneck."""
        (convolution_,), (fold,) = self.convolutions[i], self.folds[i]
        seen = self.features[:c]
        sums = convolution_.input_gradient(dy, seen, fold, self.gradients[:c], scaled=True, added=True)
        parts = convolution_.weight_parts(dy, seen, fold)
        return self.finish(sums, fold, self.debt[:c], parts)

    def finish(self, sums, fold, debt, parts, *, first=False):
        """(dγ, dβ, dweight)"""
        return norm.finish(sums, self.pixels, fold, debt, parts, settles=self.training, first=first)

    def settle(self, own):
        """Take from these channels' gradient what all norms before took."""
        if self.training:
            eps = self.layers[0].norm1.eps
            norm.settle(self.gradients[own], self.features[own], self.mean[own], self.var[own], self.debt[own], eps)


def can(x, layers):
    """Nothing dropped in training, images not too wide, pixels by fours, everything here."""
    return (
        x.shape[3] <= WIDEST
        and by_fours(x)
        and not any(layer.drop.drawing for layer in layers)
        and all(on_gpu(*layer.parameters()) and all(map(is_ready, norms_of(layer))) for layer in layers)
    )


def fits(x, layers):
    """On the GPU, in float32, and known."""
    return on_gpu(x) and is_known_block(x, layers) and can(x, layers)


@fast_path(dense_block, fits=fits, examples=examples.dense_blocks)
def dense_block_on_gpu(x, layers):
    """models.densenet.dense_block as one step."""
    return run(x, layers)


def fits_with_transition(block, transition, x):
    return (
        on_gpu(x, *transition.parameters())
        and is_known_stage(block, transition, x)
        and can(x, layers_of(block))
        and by_fours(x, pooled=True)
        and is_ready(transition.norm)
    )


@fast_path(block_and_transition, fits=fits_with_transition, examples=examples.stages)
def block_and_transition_on_gpu(block, transition, x):
    """models.densenet.block_and_transition as one step: the transition reads the buffer, and knows its statistics."""
    return run(x, layers_of(block), transition)


def run(x, layers, transition=None):
    """The step on Tensors, and what training leaves in the norms."""
    pairs = pairs_of(layers, transition)
    inputs = inputs_of(x, pairs)
    op = BlockOnGPU(layers, transition, keep=recording(*inputs))
    if op.training:
        refuse_single_value(x)
    y = apply(op, *inputs)
    if op.training:
        track([norm_ for norm_, _ in pairs], op.batch_moments, op.pixels)
    return y
