"""The networks, one file a family, and the register of their names."""

import difflib
import inspect

import numpy

from ..errors import ConfigError
from ..nn import Module
from .densenet import NAMES as DENSENETS
from .densenet import DenseNet, dense_block, densenet, settings_of

__all__ = ["DenseNet", "create", "dense_block", "densenet", "names"]


def names() -> tuple[str, ...]:
    """The names ``create`` is known to take. Any densenet_DEPTH_K, densenet_b_…, densenet_c_… and densenet_bc_… works too."""
    return DENSENETS


def create(
    name: str, *, classes: int = 10, seed: int = 0, dtype=numpy.float32, device: str = "cpu", **options
) -> Module:
    """A network by its name, with fresh weights: create("densenet_bc_100_12", classes=10).

    name      family, depth and growth rate; see ``names()``. Hyphens count as underscores
    classes   logits an image
    seed      of the initial weights and of dropout
    dtype     float type of the weights
    device    'cpu' or 'gpu'
    options   anything else the family's function takes (``densenet``: dropout, in_channels, stem_channels, ...)

    Raises ConfigError for an unknown name (and suggests the nearest), a depth that does not fit, or an unknown option.
    """
    settings = settings_of(name.replace("-", "_").lower())
    if settings is None:
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known names: {', '.join(names())}"
        raise ConfigError(f"unknown model {name!r}. {hint}")
    known = inspect.signature(densenet).parameters.keys()
    if unknown := sorted(options.keys() - known):
        raise ConfigError(f"model {name!r} takes no option {', '.join(unknown)}; it takes {', '.join(sorted(known))}")
    if said := sorted(options.keys() & settings.keys()):
        raise ConfigError(
            f"the name of the model already says {', '.join(said)}; call densenet(...) to choose {name}'s parts freely"
        )
    return densenet(classes=classes, seed=seed, dtype=dtype, device=device, **settings, **options)
