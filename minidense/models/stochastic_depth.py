"""Deep Networks with Stochastic Depth: Huang, Sun, Liu, Sedra & Weinberger, ECCV 2016 (arXiv 1603.09382), as in the authors' code.

A residual network whose units are left out at random while it trains: short to train, deep to test.
"""

import re
from collections.abc import Sequence

import numpy

from .. import functional as F
from ..errors import ConfigError
from ..nn import Chance
from ..tensor import Tensor
from .entry import Entry, finished, parts_of_depth, several
from .initialise import like_stochastic_depth
from .residual_units import Original
from .resnet import WIDTHS, ResNet


class Gate(Chance):
    """Whether a unit's branch takes part: drawn once for a whole mini-batch, closed with probability p."""

    def is_closed(self) -> bool:
        return self.drawing and self.rng.random() < self.p


class GatedUnit(Original):
    """x_{l+1} = ReLU(b·branch(x) + shortcut(x)), b ∈ {0, 1} with P(b = 1) = p_l in training, b = p_l in testing (eq. 2 and 5).

    A closed branch is not computed: it costs nothing, its batch norms see nothing and its weights get no gradient.
    """

    def __init__(self, *shape: int, death_rate: float, **how):
        super().__init__(*shape, **how)
        self.gate = Gate(death_rate)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate.is_closed():
            return F.relu(self.across(x))
        branch = self.branch(x)
        if not self.training and self.gate.p:
            branch = branch * (1 - self.gate.p)
        return F.relu(branch + self.across(x))


def stochastic_depth_resnet(
    *,
    depth: int,
    survival: float = 0.5,
    conv_bias: bool = True,
    widths: Sequence[int] = WIDTHS,
    classes: int = 10,
    in_channels: int = 3,
    seed: int = 0,
    dtype=numpy.float32,
    device: str = "cpu",
) -> ResNet:
    """A residual network of original units whose l-th of L survives a mini-batch with probability p_l = 1 − l/L·(1 − p_L) (eq. 4).

    depth      6n + 2, n units a stage
    survival   p_L of the last unit; 1 is constant depth
    conv_bias  convolutions have biases, which the authors' code keeps although batch norm follows
    The others as for ``resnet``. Shortcuts take the mean of 2×2 pixels where the size halves, then zeros for new channels.
    """
    if not isinstance(survival, int | float) or not 0 < survival <= 1:
        raise ConfigError(f"stochastic_depth_resnet: survival is a probability above 0 and at most 1, got {survival!r}")
    several("stochastic_depth_resnet", "widths", widths, 3)
    units = parts_of_depth("stochastic_depth_resnet", depth, "stages", fixed=2, step=6)
    total = len(widths) * units

    def gated(number, channels, out_channels, stride):
        return GatedUnit(
            channels,
            out_channels,
            stride,
            shortcut="pad_average",
            conv_bias=conv_bias,
            death_rate=(number + 1) / total * (1 - survival),
        )

    def make():
        return ResNet(
            unit=gated,
            kind=GatedUnit,
            units=units,
            stem=widths[0],
            widths=widths,
            classes=classes,
            in_channels=in_channels,
            conv_bias=conv_bias,
        )

    return finished(make, like_stochastic_depth, seed=seed, dtype=dtype, device=device)


NAMES = ("resnet110_stochdepth", "resnet152_stochdepth_svhn", "resnet1202_stochdepth")


def entry(name: str) -> Entry | None:
    """resnetDEPTH_stochdepth, and resnet152_stochdepth_svhn: the paper's numbers for SVHN come from 152 layers.

    Tables print them beside 110 layers. Where the 152 are counted, 2.4 M, it is without biases, so this name builds them without.
    """
    if name == "resnet152_stochdepth_svhn":
        return Entry(stochastic_depth_resnet, "Stochastic depth", {"depth": 152, "conv_bias": False})
    if match := re.fullmatch(r"resnet(\d{1,5})_stochdepth", name):
        return Entry(stochastic_depth_resnet, "Stochastic depth", {"depth": int(match[1])})
    return None
