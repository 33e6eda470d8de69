"""Dense blocks, alone and with the transition behind them: which of them one_buffer.py can do, and the step on Tensors.

The definitions are models.densenet.dense_block and block_and_transition.
"""

from ...models.densenet import BottleneckLayer, DenseBlock, DenseLayer, block_and_transition, dense_block
from ...nn import BatchNorm2d, Conv2d, Dropout
from ...ops.norm import refuse_single_value
from ...speed import fast_path
from ...tensor import apply, recording
from . import examples
from .norm_relu_conv import pools_pairs
from .one_buffer import BlockInOneBuffer, norms_of
from .pieces import on_cpu


def fits(x, layers):
    """On the CPU, layers of one known kind as they were built, in one mode, and nobody watches inside them."""
    if (
        not layers
        or not on_cpu(x)
        or x.ndim != 4
        or x.size == 0
        or type(layers[0]) not in (DenseLayer, BottleneckLayer)
    ):
        return False
    first, channels = layers[0].norm1, x.shape[1]
    for layer in layers:
        convs = convs_of(layer)
        if type(layer) is not type(layers[0]) or any(module.on_output is not None for module in layer.modules()):
            return False
        if type(layer.drop) is not Dropout or not all(map(keeps_size, convs)):
            return False
        for norm in norms_of(layer):
            if type(norm) is not BatchNorm2d or norm.training != first.training or norm.eps != first.eps:
                return False
        widths = [channels, *(conv.weight.shape[0] for conv in convs[:-1])]
        pairs = zip(widths, norms_of(layer), convs, strict=True)
        if any(not c == len(norm.weight) == conv.weight.shape[1] for c, norm, conv in pairs):
            return False  # the definition says what does not go together
        channels += convs[-1].weight.shape[0]
    return len({convs_of(layer)[-1].weight.shape[0] for layer in layers}) == 1


@fast_path(dense_block, fits=fits, examples=examples.dense_blocks)
def dense_block_in_one_buffer(x, layers):
    """models.densenet.dense_block as one step."""
    return run(x, layers)


def fits_with_transition(block, transition, x):
    """The same, for the transition as well, and nobody watches between the two."""
    if type(block) is not DenseBlock or block.on_output is not None:
        return False
    layers = layers_of(block)
    if not fits(x, layers) or transition.on_output is not None:
        return False
    c = x.shape[1] + len(layers) * convs_of(layers[0])[-1].weight.shape[0]
    if not pools_pairs(transition, (x.shape[0], c, *x.shape[2:]), x.dtype):
        return False
    first, norm = layers[0].norm1, transition.norm
    return norm.training == first.training and norm.eps == first.eps


@fast_path(block_and_transition, fits=fits_with_transition, examples=examples.stages)
def block_and_transition_in_one_buffer(block, transition, x):
    """models.densenet.block_and_transition as one step: the transition reads the buffer, and knows its statistics."""
    return run(x, layers_of(block), transition)


def layers_of(block):
    return [layer for _, layer in block.named_children()]


def run(x, layers, transition=None):
    """The step on Tensors, and what training leaves in the norms."""
    pairs = [pair for layer in layers for pair in zip(norms_of(layer), convs_of(layer), strict=True)]
    if transition is not None:
        pairs.append((transition.norm, transition.conv))
    inputs = [x, *(t for norm, conv in pairs for t in (norm.weight, norm.bias, conv.weight))]
    op = BlockInOneBuffer(layers, transition, keep=recording(*inputs))
    if op.training:
        refuse_single_value(x)
    y = apply(op, *inputs)
    if op.training:
        for (norm, _), (mean, var) in zip(pairs, op.batch_moments, strict=True):
            norm.track(mean, var, op.m)
    return y


def keeps_size(conv):
    """A convolution without bias whose result is as large as its input."""
    if type(conv) is not Conv2d or conv.bias is not None or conv.stride != 1:
        return False
    return conv.padding in (0, 1) and conv.weight.shape[2:] == (2 * conv.padding + 1,) * 2


def convs_of(layer):
    return (layer.conv1, layer.conv2) if isinstance(layer, BottleneckLayer) else (layer.conv1,)
