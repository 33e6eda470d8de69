"""What the register of networks knows about a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy

from ..errors import ConfigError
from ..nn import init, seed_chance
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


def parts_of_depth(call: str, depth: Any, parts: str, *, fixed: int, step: int) -> int:
    """n of depth = step·n + fixed. Raises ConfigError for other depths, and names the nearest that would do.

    call, parts  for the message: which function, and what there are three equal ones of
    """
    if not isinstance(depth, int | numpy.integer) or depth < 1:
        raise ConfigError(f"{call}: depth must be a whole number of at least 1, got {depth!r}")
    if depth < step + fixed or (depth - fixed) % step:
        below = max((depth - fixed) // step, 1) * step + fixed
        nearest = sorted({below, below + step} if depth > below else {below})
        raise ConfigError(
            f"{call}: depth {depth} does not make three equal {parts}: (depth − {fixed}) must divide by {step}. "
            f"Nearest: {', '.join(map(str, nearest))}"
        )
    return int(depth - fixed) // step


def finished(
    make: Callable[[], Classifier],
    initialise: Callable[[Any, numpy.random.Generator], None],
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
