"""What the register of networks knows about a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy

from ..errors import ConfigError
from ..nn import Module, init, seed_chance
from .classifier import Classifier

CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)  # channels, height and width of the images that a network was made for


@dataclass(frozen=True)
class Entry:
    """A name's network.

    build        the family's function
    settings     arguments of it that the name stands for
    family       what its paper calls it
    image_shape  (C, H, W) of the images it was made for
    classes      of the data set it was made for; any other number can be asked for
    """

    build: Callable[..., Classifier]
    family: str
    settings: dict[str, Any] = field(default_factory=dict)
    image_shape: tuple[int, int, int] = CIFAR
    classes: int = 10


def finished(
    make: Callable[[], Classifier],
    initialise: Callable[[Module, numpy.random.Generator], None],
    *,
    seed: int,
    dtype: Any,
    device: str,
) -> Any:
    """The network that `make` makes, with the initial weights of its paper: the same seed, the same bits.

    Raises ConfigError for a seed that is none.
    """
    if not isinstance(seed, int | numpy.integer) or seed < 0:
        raise ConfigError(f"seed must be a whole number of at least 0, got {seed!r}")
    with init.undrawn():  # what layers would draw by themselves is drawn over
        model = make()
    initialise(model, numpy.random.default_rng(seed))
    seed_chance(model, (3, seed))  # another stream than the weights'
    return model.to(device, dtype=dtype)
