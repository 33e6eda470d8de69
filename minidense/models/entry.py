"""What the register of networks knows about a name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
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

    @property
    def options(self) -> tuple[str, ...]:
        """The arguments that the name leaves free."""
        return tuple(key for key in inspect.signature(self.build).parameters if key not in self.settings)

    def for_images(self, shape: Sequence[int]) -> dict[str, int]:
        """The arguments that make it a network for images of this (C, H, W); most networks take any height and width."""
        channels, height, _ = shape
        return {"in_channels": channels} | ({"image_size": height} if "image_size" in self.options else {})


def several(call: str, name: str, value: Any, count: int | None = None) -> tuple[int, ...]:
    """An argument that is a size for each of several parts. Raises ConfigError when it is not, or not for as many as there are."""
    listed = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
    whole = listed and all(isinstance(n, int | numpy.integer) and not isinstance(n, bool) and n >= 1 for n in value)
    if not whole or count not in (None, len(value)):
        raise ConfigError(f"{call}: {name} must be {count or 'one or more'} whole numbers of at least 1, got {value!r}")
    return tuple(value)


def odd(call: str, name: str, value: Any, count: int | None = None) -> tuple[int, ...]:
    """Sizes of filters that leave an image as large as it is. Raises ConfigError for even ones too."""
    if not all(n % 2 for n in several(call, name, value, count)):
        raise ConfigError(f"{call}: {name} must be odd, got {value!r}")
    return tuple(value)


def dropout_rates(call: str, value: Any, count: int) -> tuple[float, ...]:
    """Dropout rates of several parts; a number is the rate of all. Raises ConfigError for another number of rates."""
    listed = (value,) * count if isinstance(value, int | float) else value
    if not isinstance(listed, Sequence) or isinstance(listed, str) or len(listed) != count:
        raise ConfigError(f"{call}: dropout must be a rate, or a list of {count}, got {value!r}")
    return tuple(listed)


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
