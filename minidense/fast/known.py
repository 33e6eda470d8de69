"""What the twins of dense blocks and transitions know how to do, on either device: layers as they were built that nobody watches."""

from collections.abc import Sequence
from typing import Any

from ..models.densenet import BottleneckLayer, DenseBlock, DenseLayer, Transition
from ..nn import AvgPool2d, BatchNorm2d, Conv2d, Dropout, Module
from ..tensor import Tensor


def is_known_block(x: Tensor, layers: Sequence[Any]) -> bool:
    """Layers of one known kind in one mode, for x (N, C, H, W); what does not go together is the definition's to refuse."""
    if not layers or x.ndim != 4 or x.size == 0 or type(layers[0]) not in (DenseLayer, BottleneckLayer):
        return False
    first, channels = layers[0].norm1, x.shape[1]
    for layer in layers:
        if type(layer) is not type(layers[0]) or any(module.on_output is not None for module in layer.modules()):
            return False
        convs = convs_of(layer)
        if type(layer.drop) is not Dropout or not all(map(keeps_size, convs)):
            return False
        for norm in norms_of(layer):
            if type(norm) is not BatchNorm2d or norm.training != first.training or norm.eps != first.eps:
                return False
        widths = [channels, *(conv.weight.shape[0] for conv in convs[:-1])]
        pairs = zip(widths, norms_of(layer), convs, strict=True)
        if any(not c == len(norm.weight) == conv.weight.shape[1] for c, norm, conv in pairs):
            return False
        channels += convs[-1].weight.shape[0]
    return len({convs_of(layer)[-1].weight.shape[0] for layer in layers}) == 1


def is_known_pair(norm: Any, conv: Any, shape: tuple[int, ...]) -> bool:
    """A batch norm and a convolution without bias that go together, for x of this shape."""
    return (
        type(norm) is BatchNorm2d
        and type(conv) is Conv2d
        and conv.bias is None
        and norm.on_output is None
        and conv.on_output is None
        and len(shape) == 4
        and 0 not in shape
        and shape[1] == len(norm.weight) == conv.weight.shape[1]
    )


def is_known_transition(transition: Any, shape: tuple[int, ...]) -> bool:
    """A transition as it was built, for x of this shape, with nothing to drop."""
    if type(transition) is not Transition:
        return False
    drop, conv, pool = transition.drop, transition.conv, transition.pool
    return (
        is_known_pair(transition.norm, conv, shape)
        and conv.weight.shape[2:] == (1, 1)
        and (conv.stride, conv.padding) == (1, 0)
        and type(pool) is AvgPool2d
        and (pool.kernel, pool.stride or 2, pool.padding) == (2, 2, 0)
        and type(drop) is Dropout
        and shape[2] % 2 == shape[3] % 2 == 0
        and not drop.drawing
        and drop.on_output is None
        and pool.on_output is None
    )


def is_known_stage(block: Any, transition: Any, x: Tensor) -> bool:
    """Both, in one mode, and nobody watches between the two."""
    if type(block) is not DenseBlock or block.on_output is not None or transition.on_output is not None:
        return False
    layers = layers_of(block)
    if not is_known_block(x, layers):
        return False
    c = x.shape[1] + len(layers) * convs_of(layers[0])[-1].weight.shape[0]
    if not is_known_transition(transition, (x.shape[0], c, *x.shape[2:])):
        return False
    first, norm = layers[0].norm1, transition.norm
    return norm.training == first.training and norm.eps == first.eps


def keeps_size(conv: Any) -> bool:
    """A convolution without bias whose result is as large as its input."""
    if type(conv) is not Conv2d or conv.bias is not None or conv.stride != 1:
        return False
    return conv.padding in (0, 1) and conv.weight.shape[2:] == (2 * conv.padding + 1,) * 2


def layers_of(block: Module) -> list[Any]:
    return [layer for _, layer in block.named_children()]


def norms_of(layer: Any) -> tuple[BatchNorm2d, ...]:
    return (layer.norm1, layer.norm2) if isinstance(layer, BottleneckLayer) else (layer.norm1,)


def convs_of(layer: Any) -> tuple[Conv2d, ...]:
    return (layer.conv1, layer.conv2) if isinstance(layer, BottleneckLayer) else (layer.conv1,)


def pairs_of(layers: Sequence[Any], transition: Any = None) -> list[tuple[BatchNorm2d, Conv2d]]:
    """Every norm with its convolution, in the order of computing."""
    pairs = [pair for layer in layers for pair in zip(norms_of(layer), convs_of(layer), strict=True)]
    return pairs if transition is None else [*pairs, (transition.norm, transition.conv)]


def inputs_of(x: Tensor, pairs: Sequence[tuple[BatchNorm2d, Conv2d]]) -> list[Tensor]:
    """x and γ, β, weight of every pair: what a block's Op is applied to."""
    return [x, *(t for norm, conv in pairs for t in (norm.weight, norm.bias, conv.weight))]
