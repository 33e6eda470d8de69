"""A small network of every family in the DenseNet paper's Table 2, all of about the same work, and how each is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy

from .. import models
from ..models import Classifier
from ..models.entry import CIFAR, finished
from ..models.highway import GATE_BIAS, HighwayLayer
from ..models.initialise import he, like_wide_resnet
from ..models.wide_resnet import WideResNet
from ..optim import SGD, parameter_groups
from ..summary import summarise
from ..tensor import Tensor

MULTIPLY_ADDS = 4_000_000  # an image, of a convolution's or linear layer's; about a tenth of ResNet-20's
TOLERANCE = 0.15  # how far from it a network may be
TRUNK = ((20, 16, 12), (20, 20, 20), (20, 20))  # widths of the Network in Network


@dataclass(frozen=True)
class Family:
    """One row of the table.

    build          (seed) -> network with fresh weights
    rate           highest learning rate, chosen on training images that were held out
    tried          the rates it was chosen from
    size           what distinguishes it, in short
    slower         {beginning of a parameter's name: what its learning rate is multiplied by}, besides the model's own ``rates``
    training_only  beginning of the names of parts that do not take part in testing
    """

    build: Callable[[int], Classifier]
    rate: float
    size: str
    tried: tuple[float, float, float] = (0.1, 0.3, 1.0)
    slower: dict[str, float] = field(default_factory=dict)
    training_only: str | None = None

    def optimizer(self, model: Classifier, **how: Any) -> SGD:
        """SGD at ``rate``, or a share of it for some of the parameters."""

        def settings(name: str, w: Tensor) -> dict[str, Any]:
            share = next((share for start, share in self.slower.items() if name.startswith(start)), 1.0)
            return {"lr_scale": share * model.rate_of(name)}

        # What is left out by chance still decays and coasts, as in the authors' frameworks.
        return SGD(parameter_groups(model.named_parameters(), settings), lr=self.rate, coast=True, **how)

    def costs(self) -> dict[str, int]:
        """Parameters and multiply-adds an image of the network that is tested, counted exactly."""
        model = self.build(0)
        model.at_epoch(float("inf"))  # companions have left
        left = 0
        if self.training_only is not None:
            left = sum(w.size for name, w in model.named_parameters() if name.startswith(self.training_only))
        counted = summarise(model, CIFAR)
        return {"parameters": counted.parameters - left, "multiply_adds": counted.multiply_adds}


def narrow(model: Classifier, seed: int) -> Classifier:
    """A network without batch norm started as in He et al. 2015: its authors' N(0, 0.05) fits their widths and not these.

    The gates of a Highway Network keep their bias of −2.
    """
    he(model, numpy.random.default_rng(seed))
    for module in model.modules():
        if isinstance(module, HighwayLayer) and module.T.bias is not None:
            module.T.bias.data[...] = GATE_BIAS
    return model


def wide(seed: int) -> Classifier:
    """A Wide ResNet, one unit in each of three groups, 1.5 times as wide as the ResNet here."""

    def make():
        return WideResNet(units=1, stem=6, widths=(9, 18, 36), dropout=0.0, classes=10, in_channels=3)

    return finished(make, like_wide_resnet, seed=seed, dtype=numpy.float32, device="cpu")


def deeply_supervised(seed: int) -> Classifier:
    """A Deeply Supervised Net whose companions start as the authors', which fits any width."""
    model = models.dsn(widths=TRUNK, dropout=0, seed=seed)
    companions = [(w, w.data.copy()) for name, w in model.named_parameters() if name.startswith("companion")]
    narrow(model, seed)
    for w, start in companions:
        w.data[...] = start
    return model


THREE = (6, 12, 24)  # widths of the ResNets' stages
# Rates to try for networks without batch norm.
LOW = (0.01, 0.03, 0.1)
# The same where the loss is a sum of squares.
LOWER = (0.001, 0.003, 0.01)

# Nowhere dropout: it is for large networks and long training, and here keeps all of them from learning. Stochastic depth and
# drop-path, which make their families what they are, stay as in the papers.
FAMILIES = {
    "Network in Network": Family(
        lambda seed: narrow(models.nin(widths=TRUNK, dropout=0, seed=seed), seed),
        rate=0.01,
        tried=LOW,
        size="9 convolutions",
        slower={"cccp6": 0.1},  # as in the authors' file
    ),
    "All-CNN-C": Family(
        lambda seed: narrow(models.all_cnn_c(widths=(12, 22), input_dropout=0, dropout=0, seed=seed), seed),
        rate=0.03,
        tried=LOW,
        size="9 convolutions",
        slower={"conv9": 0.1},  # a ReLU stands behind the logits here too
    ),
    "Deeply Supervised Net": Family(
        deeply_supervised,
        rate=0.001,
        tried=LOWER,
        size="9 convolutions, 3 companions",
        training_only="companion",
    ),
    "Highway Network": Family(
        lambda seed: narrow(
            models.highway(widths=(6, 12, 20), kernels=3 * ((3, 3),), head=20, dropout=0, seed=seed), seed
        ),
        rate=0.1,
        tried=LOW,
        size="11 layers",
    ),
    "FractalNet": Family(
        lambda seed: models.fractalnet(columns=3, widths=(6, 10, 16), drop_path=0.15, seed=seed),
        rate=0.3,
        size="3 columns, 3 blocks, drop-path 0.15",
    ),
    "ResNet": Family(
        lambda seed: models.resnet(depth=14, widths=THREE, seed=seed),
        rate=0.3,
        size="14 layers",
    ),
    "Stochastic depth": Family(
        lambda seed: models.stochastic_depth_resnet(depth=14, widths=THREE, seed=seed),
        rate=0.3,
        size="14 layers, the last unit survives half the time",
    ),
    "Pre-activation ResNet": Family(
        lambda seed: models.resnet(depth=14, unit="full_preact", widths=THREE, seed=seed),
        rate=1.0,
        size="14 layers",
    ),
    "Wide ResNet": Family(
        wide,
        rate=0.3,
        size="8 layers, 1.5 times as wide",
    ),
    "VGG": Family(
        lambda seed: models.vgg_cifar(groups=(2, 2, 2), widths=(10, 20, 40), average=True, seed=seed),
        rate=0.1,
        size="7 layers, with batch norm",
    ),
    "DenseNet": Family(
        lambda seed: models.densenet(
            depth=13, growth_rate=4, bottleneck=False, compression=1, stem_channels=12, seed=seed
        ),
        rate=1.0,
        size="13 layers, k = 4",
    ),
    "DenseNet-BC": Family(
        lambda seed: models.densenet(depth=22, growth_rate=4, seed=seed),
        rate=1.0,
        size="22 layers, k = 4",
    ),
}
