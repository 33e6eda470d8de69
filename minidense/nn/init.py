"""Initial weights: each function draws an array of one distribution, named by the paper it comes from.

For a weight of shape (F, C, K, K) or (F, C):  fan_in m = C·K·K, the values each output adds up;  fan_out n = F·K·K.
Arrays come in float64 and are converted where they are used, so one seed gives the same weights in every float type.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy

from ..errors import ConfigError

_drawing = True


@contextmanager
def undrawn() -> Iterator[None]:
    """Inside, all weights start as zeros and cost nothing: for who wants shapes alone, or draws over them in a moment."""
    global _drawing
    before, _drawing = _drawing, False
    try:
        yield
    finally:
        _drawing = before


def fan_in(shape) -> int:
    """m: how many inputs each output adds up."""
    return math.prod(shape[1:])


def fan_out(shape) -> int:
    """n: how many outputs each input takes part in (at stride 1)."""
    return shape[0] * math.prod(shape[2:])


def he_normal(rng: numpy.random.Generator, shape, *, fan: str = "in") -> numpy.ndarray:
    """N(0, √(2/fan)): keeps the variance through layers of ReLU (He et al. 2015, eq. 10 with fan "in", eq. 14 with "out").

    fan  "in" (Wide ResNet, torchvision's DenseNet) or "out" (fb.resnet.torch, the official DenseNet)
    """
    return normal(rng, shape, std=math.sqrt(2 / _fan(fan, shape)))


def he_uniform(rng: numpy.random.Generator, shape, *, fan: str = "in") -> numpy.ndarray:
    """U(±√(6/fan)): the same variance as he_normal, from a uniform distribution (He et al. 2015)."""
    bound = math.sqrt(6 / _fan(fan, shape))
    return uniform(rng, shape, low=-bound, high=bound)


def xavier_normal(rng: numpy.random.Generator, shape) -> numpy.ndarray:
    """N(0, √(2/(fan_in + fan_out))) (Glorot & Bengio 2010, eq. 12)."""
    return normal(rng, shape, std=math.sqrt(2 / (fan_in(shape) + fan_out(shape))))


def xavier_uniform(rng: numpy.random.Generator, shape) -> numpy.ndarray:
    """U(±√(6/(fan_in + fan_out))), made for tanh and sigmoid (Glorot & Bengio 2010, eq. 16)."""
    bound = math.sqrt(6 / (fan_in(shape) + fan_out(shape)))
    return uniform(rng, shape, low=-bound, high=bound)


def caffe_xavier(rng: numpy.random.Generator, shape) -> numpy.ndarray:
    """U(±√(3/fan_in)): what Caffe calls "xavier" (FractalNet, Highway Networks; caffe/filler.hpp)."""
    bound = math.sqrt(3 / fan_in(shape))
    return uniform(rng, shape, low=-bound, high=bound)


def torch_default(rng: numpy.random.Generator, shape, *, fan_in_of=None) -> numpy.ndarray:
    """U(±1/√fan_in): what Torch gives weights and biases unless told otherwise (LeCun et al. 1998, §4.6).

    fan_in_of  shape whose fan_in counts; a bias takes that of its weight
    """
    bound = 1 / math.sqrt(fan_in(fan_in_of or shape))
    return uniform(rng, shape, low=-bound, high=bound)


def normal(rng: numpy.random.Generator, shape, *, std: float = 0.05) -> numpy.ndarray:
    """N(0, std) whatever the fan; 0.05 in Network in Network and Deeply-Supervised Nets (their Caffe files)."""
    return rng.normal(0, std, shape) if _drawing else numpy.zeros(shape)


def uniform(rng: numpy.random.Generator, shape, *, low: float = 0.0, high: float = 1.0) -> numpy.ndarray:
    """U(low, high): Torch7 starts batch norm's γ as U(0, 1), and Wide ResNet keeps it (nn.BatchNormalization)."""
    return rng.uniform(low, high, shape) if _drawing else numpy.zeros(shape)


def _fan(fan, shape):
    if fan not in ("in", "out"):
        raise ConfigError(f'fan must be "in" or "out", got {fan!r}')
    return fan_in(shape) if fan == "in" else fan_out(shape)
