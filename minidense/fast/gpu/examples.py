"""What every twin on the GPU is tried with: what the CPU's are, where the kernels answer, and what they alone stand in for.

Functions of (rng, dtype) that give arguments on the CPU; the test moves them.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy

from ...models import create
from ...optim import SGD
from .. import examples as common

tensor = common.tensor


def those(examples: Iterable[partial], answers: Callable[..., bool] = lambda **options: True) -> Iterator[partial]:
    """The examples that the kernels answer, by their options, with a few images more where pixels come by fours."""
    for example in examples:
        n, c, h, w = example.keywords["shape"]
        if answers(**example.keywords):
            yield partial(example, shape=(n if n * h * w % 16 == 0 else 4 * -(-n // 4), c, h, w))


def drops_nothing(*, training=True, dropout=0.0, **others):
    return not (training and dropout)


def dense_blocks():
    return those(common.dense_blocks(), drops_nothing)


def stages():
    return those(common.stages(), drops_nothing)


def convolutions():
    sizes = {(1, 1): 0, (3, 3): 1}  # kernel and padding

    def answers(*, kernel, stride=1, padding=0, bias=False, **others):
        return stride == 1 and not bias and sizes.get(kernel) == padding

    yield from those(common.convolutions(), answers)
    yield partial(common.conv2d, shape=(2, 3, 32, 32), filters=24, kernel=(3, 3), padding=1, needs_dx=False)
    yield partial(
        common.conv2d, shape=(1, 3, 3, 100), filters=50, kernel=(3, 3), padding=1
    )  # several rows of an image in no tile
    yield partial(common.conv2d, shape=(4, 70, 5, 5), filters=200, kernel=(1, 1))  # more filters than one block has


def norm_relu_convs():
    def answers(*, kernel, stride, padding, **others):
        return (kernel, stride, padding) in ((1, 1, 0), (3, 1, 1))

    return those(common.norm_relu_convs(), answers)


def transitions():
    return those(common.transitions())


def batch_norms():
    return those(common.batch_norms())


def norms():
    return those(common.norm_relus())


# -- image by image ---------------------------------------------------------------------------------------------------


def image_batch(rng, dtype, *, shape=(3, 5, 7, 6), **options):
    """A batch, and options."""
    return [tensor(rng, dtype, *shape)], options


def pooling(rng, dtype, *, kernel, **options):
    """The same and a kernel."""
    [x], options = image_batch(rng, dtype, **options)
    return [x, kernel], options


def images():
    yield image_batch
    yield partial(image_batch, shape=(1, 1, 1, 1))
    yield partial(image_batch, shape=(4, 3, 8, 8))


def max_pools():
    yield partial(pooling, kernel=2)
    yield partial(pooling, kernel=3, stride=2, padding=1)
    yield partial(pooling, kernel=2, ceil_mode=True)
    yield partial(pooling, kernel=3, stride=1, padding=1)


def avg_pools():
    yield partial(pooling, kernel=2)
    yield partial(pooling, kernel=3, stride=1, padding=1)
    yield partial(pooling, kernel=3, stride=4)


def pictures_to_prepare(rng, dtype, *, shape=(6, 3, 5, 4), count=4, **options):
    """Arguments of data.prepared."""
    pictures = rng.integers(0, 256, shape).astype(numpy.uint8)
    chosen = rng.integers(0, shape[0], count)
    return [pictures, chosen, (125.3, 123.0, 113.9)[: shape[1]], (63.0, 62.1, 66.7)[: shape[1]]], options


def pictures():
    yield pictures_to_prepare
    yield partial(pictures_to_prepare, key=(1, 2**64 - 1), padding=2, flip=True)
    yield partial(pictures_to_prepare, key=(2**63, 7), padding=4, flip=False, shape=(9, 1, 3, 3), count=9)


# -- the classifier and the optimiser ---------------------------------------------------------------------------------


def linear(rng, dtype, *, n, c, f, bias=True):
    """Arguments of functional.linear."""
    return [tensor(rng, dtype, n, c), tensor(rng, dtype, f, c), *([tensor(rng, dtype, f)] if bias else [])], {}


def linears():
    yield partial(linear, n=5, c=7, f=3)
    yield partial(linear, n=1, c=1, f=1, bias=False)
    yield partial(linear, n=33, c=20, f=17)


def cross_entropy(rng, dtype, *, n, classes, scale=1.0):
    """Arguments of functional.cross_entropy."""
    return [tensor(rng, dtype, n, classes, scale=scale), rng.integers(0, classes, n)], {}


def cross_entropies():
    yield partial(cross_entropy, n=5, classes=10)
    yield partial(cross_entropy, n=1, classes=1)
    yield partial(cross_entropy, n=20, classes=100, scale=1e3)


def sgd_step(rng, dtype, *, known=True, momentum=0.9, dampening=0.0, nesterov=True, weight_decay=1e-4, **options):
    """Arguments of optim.moved; `known`: there are velocities already."""
    weights, gradients, velocities = (
        [rng.standard_normal(shape, numpy.float32).astype(dtype) for shape in ((3, 4), (5,), (1,), (2, 100, 3, 3))]
        for _ in range(3)
    )
    settings = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov, "weight_decay": weight_decay}
    velocities = velocities if known else [None] * len(weights)
    return [weights, gradients, velocities], {"lr": 0.1, **settings, **options}


def sgd_steps():
    yield sgd_step
    yield partial(sgd_step, in_place=True)
    yield partial(sgd_step, known=False)
    yield partial(sgd_step, known=False, momentum=0.0, nesterov=False)
    yield partial(sgd_step, momentum=0.5, dampening=0.3, nesterov=False, weight_decay=0.0)


def step(rng, dtype, *, name="densenet_bc_10_4", n=4, size=8):
    """Arguments of step.training_step."""
    model = create(name, classes=3, dtype=dtype)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    images = rng.standard_normal((n, 3, size, size), numpy.float32).astype(dtype)
    return [model, optimizer, images, rng.integers(0, 3, n)], {}


def steps():
    yield step
    yield partial(step, name="densenet_13_8")
