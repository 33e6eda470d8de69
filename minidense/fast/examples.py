"""What every twin is tried with: functions of (rng, dtype) that give arguments, the same for the same generator.

Numbers are drawn in float32, so that both float types see the same. Of everything that a channel can be there is one: γ positive,
negative, tiny and zero with β on either side, β far larger than γ, a mean a hundred times the deviation.
"""

from functools import partial

import numpy

from ..models.densenet import BottleneckLayer, DenseBlock, DenseLayer, Transition
from ..nn import BatchNorm2d, Conv2d, Module, seed_chance
from ..tensor import Tensor

GAMMAS = (1.0, -0.7, 0.0, 0.0, 1e-30, 0.02, -0.02, 1e-3)
BETAS = (0.2, 0.3, 0.5, -0.5, 0.4, 0.9, -0.1, 0.0)


def tensor(rng, dtype, *shape, offset=0.0, scale=1.0):
    """Normally distributed values with this mean and deviation."""
    values = rng.standard_normal(shape, numpy.float32) * numpy.float32(scale) + numpy.float32(offset)
    return Tensor(values.astype(dtype), requires_grad=True)


def settled(module: Module, rng, dtype, *, training=True, frozen=False, special=False) -> Module:
    """The module as if it had been trained a while; `special` puts the hard cases of γ and β in."""
    for m in module.modules():
        if isinstance(m, BatchNorm2d):
            c = len(m.weight)
            m.weight.data[...] = rng.standard_normal(c, numpy.float32)
            m.bias.data[...] = rng.standard_normal(c, numpy.float32) / 2
            if special:
                m.weight.data[: len(GAMMAS)] = GAMMAS[:c]
                m.bias.data[: len(BETAS)] = BETAS[:c]
            m.running_mean.data[...] = rng.standard_normal(c, numpy.float32)
            m.running_var.data[...] = rng.random(c, numpy.float32) + 0.5
        elif isinstance(m, Conv2d):
            m.weight.data[...] = rng.standard_normal(m.weight.shape, numpy.float32) / numpy.sqrt(m.weight[0].size)
    if frozen:
        for parameter in module.parameters()[::2]:
            parameter.requires_grad = False
    seed_chance(module, 5)
    return module.to(dtype=dtype).train(training)


# -- dense blocks ---------------------------------------------------------------------------------------------------


def dense_block(
    rng, dtype, *, kind, shape, layers=3, growth_rate=4, dropout=0.0, offset=0.0, needs_dx=True, last_kernel=3, **how
):
    """Arguments of models.densenet.dense_block."""
    x = tensor(rng, dtype, *shape, offset=offset)
    x.requires_grad = needs_dx
    made = [kind(shape[1] + i * growth_rate, growth_rate, dropout) for i in range(layers)]
    if last_kernel == 1:
        for layer in made:
            name = "conv2" if kind is BottleneckLayer else "conv1"
            setattr(layer, name, Conv2d(getattr(layer, name).weight.shape[1], growth_rate, 1, bias=False))
    return [x, [settled(layer, rng, dtype, **how) for layer in made]], {}


def dense_blocks():
    for kind in (BottleneckLayer, DenseLayer):
        block = partial(dense_block, kind=kind)
        for training in (True, False):
            for shape in ((5, 10, 6, 6), (1, 5, 4, 7), (70, 9, 3, 3), (3, 8, 32, 32), (2, 4, 1, 2)):
                yield partial(block, shape=shape, training=training)
            yield partial(block, shape=(6, 9, 5, 5), training=training, special=True)
            yield partial(block, shape=(6, 9, 5, 5), training=training, dropout=0.3)
            yield partial(block, shape=(6, 9, 5, 5), training=training, offset=100.0)
            yield partial(block, shape=(6, 9, 5, 5), training=training, frozen=True)
            yield partial(block, shape=(6, 9, 5, 5), training=training, needs_dx=False)
            yield partial(block, shape=(6, 5, 5, 5), training=training, growth_rate=1)
            yield partial(block, shape=(6, 9, 5, 5), training=training, last_kernel=1)
            yield partial(block, shape=(3, 9, 4, 1), training=training)
            yield partial(block, shape=(9, 3, 8, 8), training=training, growth_rate=17, layers=1)
            yield partial(block, shape=(3, 48, 13, 12), training=training, growth_rate=48, layers=2)


def stage(rng, dtype, *, kind, shape, filters=7, dropout=0.0, offset=0.0, needs_dx=True, **how):
    """Arguments of models.densenet.block_and_transition."""
    block = DenseBlock(kind, 3, shape[1], 4, dropout)
    transition = Transition(shape[1] + 12, filters, 0.0)
    x = tensor(rng, dtype, *shape, offset=offset)
    x.requires_grad = needs_dx
    return [settled(block, rng, dtype, **how), settled(transition, rng, dtype, **how), x], {}


def stages():
    for kind in (BottleneckLayer, DenseLayer):
        for training in (True, False):
            for shape in ((5, 10, 6, 6), (1, 5, 4, 8), (70, 9, 4, 4), (3, 8, 32, 32), (2, 4, 2, 2)):
                yield partial(stage, kind=kind, shape=shape, training=training)
            for how in ({"special": True}, {"dropout": 0.3}, {"offset": 100.0}, {"frozen": True}, {"needs_dx": False}):
                yield partial(stage, kind=kind, shape=(6, 9, 4, 6), training=training, **how)


# -- convolutions ---------------------------------------------------------------------------------------------------

CONVOLUTIONS = (  # filters, kernel, stride, padding
    (5, 1, 1, 0),
    (3, 3, 1, 1),
    (20, 3, 1, 1),
    (2, 5, 1, 2),
    (6, 3, 2, 1),
    (6, 1, 2, 0),
    (4, 7, 2, 3),
    (4, 2, 1, 0),
    (4, 3, 1, 2),
    (4, 3, 3, 0),
)


def conv2d(rng, dtype, *, shape, filters, kernel, bias=False, needs_dx=True, **options):
    """Arguments of functional.conv2d."""
    x = tensor(rng, dtype, *shape)
    x.requires_grad = needs_dx
    weight = tensor(rng, dtype, filters, shape[1], *kernel)
    return [x, weight, *([tensor(rng, dtype, filters)] if bias else [])], options


def convolutions():
    for filters, kernel, stride, padding in CONVOLUTIONS:
        for shape in ((5, 7, 9, 8), (1, 3, 7, 7), (40, 9, 3, 4)):
            if min(shape[2:]) + 2 * padding >= kernel:
                yield partial(
                    conv2d, shape=shape, filters=filters, kernel=(kernel, kernel), stride=stride, padding=padding
                )
    yield partial(conv2d, shape=(9, 3, 32, 32), filters=8, kernel=(3, 3), padding=1, bias=True, needs_dx=False)
    yield partial(conv2d, shape=(6, 4, 8, 5), filters=5, kernel=(3, 3), padding=1, bias=True)
    yield partial(conv2d, shape=(4, 3, 6, 9), filters=5, kernel=(2, 3), bias=True)
    # So large that an image is done some lines at a time; and channels enough for Winograd's way.
    yield partial(conv2d, shape=(1, 3, 131, 130), filters=4, kernel=(7, 7), stride=2, padding=3)
    yield partial(conv2d, shape=(1, 3, 131, 130), filters=4, kernel=(7, 5), stride=3, padding=2)
    for shape in ((6, 48, 12, 13), (1, 60, 15, 12), (3, 48, 16, 16)):
        yield partial(conv2d, shape=shape, filters=50, kernel=(3, 3), padding=1, bias=shape[0] == 3)
    yield partial(conv2d, shape=(5, 48, 12, 12), filters=100, kernel=(3, 3), padding=1)
    # Images smaller than the kernel, and so narrow that a step to the next column is one to the next row.
    for shape, k in (
        ((2, 3, 1, 2), 5),
        ((3, 4, 6, 1), 3),
        ((1, 4, 1, 5), 3),
        ((1, 3, 2, 3), 7),
        ((1, 3, 1, 2), 7),
        ((5, 3, 1, 1), 7),
    ):
        for filters in (1, 4, 9):
            yield partial(conv2d, shape=shape, filters=filters, kernel=(k, k), padding=k // 2)


# -- batch norm, alone and with what follows ------------------------------------------------------------------------

SHAPES = ((5, 9, 6, 8), (1, 9, 4, 4), (40, 3, 2, 2), (9, 8, 32, 32))
LARGE = (3, 5, 48, 50)  # a feature map is long enough to be a row of its own


def batch_norm(rng, dtype, *, shape, training, running=True, offset=0.0):
    """Arguments of functional.batch_norm."""
    c = shape[1]
    x = tensor(rng, dtype, *shape, offset=offset)
    statistics = [
        rng.standard_normal(c, numpy.float32).astype(dtype),
        (rng.random(c, numpy.float32) + 0.5).astype(dtype),
    ]
    return [x, tensor(rng, dtype, c), tensor(rng, dtype, c), *(statistics if running else [])], {"training": training}


def batch_norms():
    for shape in (*SHAPES, LARGE):
        yield partial(batch_norm, shape=shape, training=True)
        yield partial(batch_norm, shape=shape, training=False)
    yield partial(batch_norm, shape=SHAPES[0], training=True, running=False)
    yield partial(batch_norm, shape=SHAPES[0], training=True, offset=100.0)


def norm_relu(rng, dtype, *, shape, offset=0.0, **how):
    """Arguments of nn.norm_relu."""
    return [settled(BatchNorm2d(shape[1]), rng, dtype, **how), tensor(rng, dtype, *shape, offset=offset)], {}


def norm_relus():
    for training in (True, False):
        for shape in (*SHAPES, LARGE):
            yield partial(norm_relu, shape=shape, training=training, special=True)
        yield partial(norm_relu, shape=SHAPES[0], training=training, offset=100.0)


def norm_relu_conv(rng, dtype, *, shape, filters, kernel, stride, padding, offset=0.0, **how):
    """Arguments of nn.norm_relu_conv."""
    conv = Conv2d(shape[1], filters, kernel, stride=stride, padding=padding, bias=False)
    [norm, x], _ = norm_relu(rng, dtype, shape=shape, offset=offset, **how)
    return [norm, settled(conv, rng, dtype, **how), x], {}


def norm_relu_convs():
    for training in (True, False):
        for filters, kernel, stride, padding in CONVOLUTIONS:
            sizes = {"filters": filters, "kernel": kernel, "stride": stride, "padding": padding}
            yield partial(norm_relu_conv, shape=(6, 9, 8, 7), training=training, special=True, **sizes)
        sizes = {"filters": 49, "kernel": 3, "stride": 1, "padding": 1}
        yield partial(norm_relu_conv, shape=(5, 48, 12, 13), training=training, special=True, **sizes)
        for shape, k in (((3, 4, 6, 1), 3), ((1, 3, 2, 3), 7)):
            sizes = {"filters": 4, "kernel": k, "stride": 1, "padding": k // 2}
            yield partial(norm_relu_conv, shape=shape, training=training, **sizes)
        for shape in SHAPES:
            sizes = {"filters": 4, "kernel": 1, "stride": 1, "padding": 0}
            yield partial(norm_relu_conv, shape=shape, training=training, **sizes)
            yield partial(norm_relu_conv, shape=shape, training=training, offset=100.0, frozen=True, **sizes)


def transition(rng, dtype, *, shape, filters, dropout=0.0, **how):
    """Arguments of Transition.forward."""
    return [settled(Transition(shape[1], filters, dropout), rng, dtype, **how), tensor(rng, dtype, *shape)], {}


def transitions():
    for training in (True, False):
        for shape in ((5, 9, 6, 8), (1, 9, 4, 2), (40, 3, 2, 2), (5, 8, 32, 32)):
            yield partial(transition, shape=shape, filters=5, training=training)
    yield partial(transition, shape=(5, 9, 6, 8), filters=5, dropout=0.3, training=False)


# -- image by image -------------------------------------------------------------------------------------------------


def image_batch(rng, dtype, **options):
    """A batch of more than per_image.WORTHWHILE values, and options."""
    return [tensor(rng, dtype, 21, 5, 200, 201)], options


def pooling(rng, dtype, *, kernel, **options):
    """The same and a kernel."""
    [x], options = image_batch(rng, dtype, **options)
    return [x, kernel], options


def images_alike(rng, dtype, *, shape):
    """Values of which many are equal, 0 too."""
    return [Tensor(rng.integers(-2, 3, shape).astype(dtype), requires_grad=True)], {}


def max_pooling(rng, dtype, *, shape, kernel, **options):
    """The same and a kernel: in a window of equal values, the first wins."""
    [x], _ = images_alike(rng, dtype, shape=shape)
    return [x, kernel], options


def images():
    yield image_batch


def rectified():
    yield partial(images_alike, shape=(3, 5, 100, 101))
    yield partial(images_alike, shape=(400, 400))


def max_pools():
    for shape in ((5, 7, 62, 71), (1, 3, 211, 210), (2000, 70, 1, 1)):
        how = partial(max_pooling, shape=shape)
        yield partial(how, kernel=3, stride=2, padding=1)
        yield partial(how, kernel=2, padding=1)
        yield partial(how, kernel=3, stride=2, padding=1, ceil_mode=True)
        if shape[2] > 1:
            yield partial(how, kernel=2, ceil_mode=True)
            yield partial(how, kernel=5, stride=1, padding=2)
            yield partial(how, kernel=2, stride=3, ceil_mode=True)


def avg_pools():
    yield partial(pooling, kernel=2)
    yield partial(pooling, kernel=3, stride=1, padding=1)
