"""The networks, one file a family, and the register of their names."""

import difflib

import numpy

from ..errors import ConfigError
from . import all_cnn as all_cnns
from . import densenet as densenets
from . import dsn as dsns
from . import fractalnet as fractalnets
from . import highway as highways
from . import nin as nins
from . import resnet as resnets
from . import resnet_imagenet as imagenet_resnets
from . import stochastic_depth as stochastic_depths
from . import vgg as vggs
from . import wide_resnet as wide_resnets
from .all_cnn import all_cnn_c
from .classifier import Classifier
from .densenet import DenseNet, dense_block, densenet, densenet_imagenet
from .dsn import dsn
from .entry import Entry
from .fractalnet import fractalnet
from .highway import highway
from .nin import nin
from .resnet import resnet
from .resnet_imagenet import resnet_imagenet
from .stochastic_depth import stochastic_depth_resnet
from .vgg import vgg_cifar, vgg_imagenet
from .wide_resnet import wide_resnet

__all__ = [
    "Classifier",
    "DenseNet",
    "Entry",
    "about",
    "all_cnn_c",
    "create",
    "dense_block",
    "densenet",
    "densenet_imagenet",
    "dsn",
    "fractalnet",
    "highway",
    "names",
    "nin",
    "resnet",
    "resnet_imagenet",
    "stochastic_depth_resnet",
    "vgg_cifar",
    "vgg_imagenet",
    "wide_resnet",
]

# In the order of the DenseNet paper's Table 2; each has NAMES and entry(name).
FAMILIES = (
    nins,
    all_cnns,
    dsns,
    highways,
    fractalnets,
    resnets,
    stochastic_depths,
    wide_resnets,
    densenets,
    imagenet_resnets,
    vggs,
)
# Tables of counts distinguish it, with its companions, from the network that is tested.
ALSO_CALLED = {"dsn_train": "dsn"}


def names() -> tuple[str, ...]:
    """The names ``create`` is known to take, by family. Some families take more: any densenet_DEPTH_K, densenet_bc_DEPTH_K, …"""
    return tuple(name for family in FAMILIES for name in family.NAMES)


def about(name: str) -> Entry:
    """What stands behind a name: family, images and classes it was made for, settings. Hyphens count as underscores.

    Raises ConfigError for an unknown name, and suggests the nearest.
    """
    plain = name.replace("-", "_").lower()
    plain = ALSO_CALLED.get(plain, plain)
    for family in FAMILIES:
        if (found := family.entry(plain)) is not None:
            return found
    near = difflib.get_close_matches(plain, names(), n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(near)}?" if near else "minidense models lists those there are"
    raise ConfigError(f"unknown model {name!r}. {hint}")


def create(
    name: str, *, classes: int | None = None, seed: int = 0, dtype=numpy.float32, device: str = "cpu", **options
) -> Classifier:
    """A network by its name, with fresh weights: create("densenet_bc_100_12", classes=10).

    name      family and size; see ``names()``. Hyphens count as underscores
    classes   logits an image; those of the data set it was made for unless given
    seed      of the initial weights and of dropout
    dtype     float type of the weights
    device    'cpu' or 'gpu'
    options   anything else the family's function takes (``densenet``: dropout, in_channels, stem_channels, ...)

    Raises ConfigError for an unknown name (and suggests the nearest), a depth that does not fit, or an unknown option.
    """
    found = about(name)
    if unknown := sorted(options.keys() - {*found.options, *found.settings}):
        raise ConfigError(
            f"model {name!r} takes no option {', '.join(unknown)}; it takes {', '.join(sorted(found.options))}"
        )
    if said := sorted(options.keys() & found.settings.keys()):
        raise ConfigError(
            f"the name of the model already says {', '.join(said)}; call {found.build.__name__}(...) to choose {name}'s parts freely"
        )
    return found.build(
        classes=found.classes if classes is None else classes,
        seed=seed,
        dtype=dtype,
        device=device,
        **found.settings,
        **options,
    )
