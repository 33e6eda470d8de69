"""Network in Network: Lin, Chen & Yan, ICLR 2014 (arXiv 1312.4400). Widths and kernels from the authors' cuda-convnet files.

Each convolution is followed by two 1×1 convolutions, "cccp" for cascaded cross-channel parametric pooling: a small network that
slides over the image. No batch norm, no linear layer: the last 1×1 convolution makes a map for each class, and its mean is the logit.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy

from .. import functional as F
from ..errors import ConfigError
from ..nn import Conv2d, Dropout, MaxPool2d, Module, init
from ..tensor import Tensor
from .classifier import Classifier
from .entry import Entry, finished, odd, several
from .initialise import gaussian

CIFAR_WIDTHS = ((192, 160, 96), (192, 192, 192), (192, 192))
SVHN_WIDTHS = ((128, 96, 64), (320, 256, 128), (384, 256))


class NetworkInNetwork(Classifier):
    """Three stages of one convolution and two cccp layers. See ``nin`` for the arguments.

    relu_at_end  a ReLU after the last cccp layer too, as the released network has it
    """

    conv1: Conv2d
    cccp6: Conv2d

    def __init__(
        self,
        *,
        widths: Sequence[Sequence[int]],
        kernels: Sequence[int],
        dropout: float,
        classes: int,
        in_channels: int,
        relu_at_end: bool = True,
    ):
        channels = in_channels
        for stage, (outputs, kernel) in enumerate(zip(widths, kernels, strict=True)):
            # The last width is the number of classes, which the name of the network does not know.
            convolution, first, second = (*outputs, classes)[:3]
            setattr(self, f"conv{stage + 1}", Conv2d(channels, convolution, kernel, padding=kernel // 2))
            setattr(self, f"cccp{2 * stage + 1}", Conv2d(convolution, first, 1))
            setattr(self, f"cccp{2 * stage + 2}", Conv2d(first, second, 1))
            channels = second
        # Windows may hang over the edge (ceil), as in cuda-convnet: 32 pixels become 16, not 15.
        self.pool = MaxPool2d(3, stride=2, ceil_mode=True)
        self.drop = Dropout(dropout)
        self.relu_at_end = relu_at_end

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        return self.logits_and_convolutions(x)[0]

    def logits_and_convolutions(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits, and what each of the three convolutions made, before its ReLU."""
        x, convolutions = x.astype(self.dtype), []
        for stage in (1, 2, 3):
            convolutions.append(getattr(self, f"conv{stage}")(x))
            x = F.relu(convolutions[-1])
            x = F.relu(getattr(self, f"cccp{2 * stage - 1}")(x))
            x = getattr(self, f"cccp{2 * stage}")(x)
            if stage < 3:
                x = self.drop(self.pool(F.relu(x)))
        return F.global_avg_pool2d(F.relu(x) if self.relu_at_end else x), convolutions

    @property
    def last_layer(self) -> Module:
        return self.cccp6


def nin(
    *,
    widths: Sequence[Sequence[int]] = CIFAR_WIDTHS,
    kernels: Sequence[int] = (5, 5, 3),
    dropout: float = 0.5,
    classes: int = 10,
    in_channels: int = 3,
    seed: int = 0,
    dtype=numpy.float32,
    device: str = "cpu",
) -> NetworkInNetwork:
    """Network in Network for small images.

    widths   channels of convolution, cccp and cccp in each stage; those of the last cccp are the classes
    kernels  sizes of the three convolutions
    dropout  probability of dropping a value after either pooling

    Raises ConfigError for sizes that make no sense.
    """

    check("nin", widths, kernels)

    def make():
        return NetworkInNetwork(
            widths=widths, kernels=kernels, dropout=dropout, classes=classes, in_channels=in_channels
        )

    return finished(make, partial(initialise, narrow_first=classes == 100), seed=seed, dtype=dtype, device=device)


def check(call: str, widths: Any, kernels: Any) -> None:
    """Raises ConfigError for widths and kernels that are not of three stages."""
    odd(call, "kernels", kernels, 3)
    if not isinstance(widths, Sequence) or len(widths) != 3:
        raise ConfigError(f"{call}: widths must be those of three stages, as in {CIFAR_WIDTHS}, got {widths!r}")
    for stage, count in enumerate((3, 3, 2)):
        several(call, f"widths[{stage}]", widths[stage], count)


def initialise(model: NetworkInNetwork, rng: numpy.random.Generator, *, narrow_first: bool) -> None:
    """N(0, 0.05); the file for CIFAR-100 has 0.001 for conv1 and 0.01 for the two layers behind it."""
    gaussian(model, rng)
    if narrow_first:
        for name, std in (("conv1", 0.001), ("cccp1", 0.01), ("cccp2", 0.01)):
            weight = getattr(model, name).weight
            weight.data[...] = init.normal(rng, weight.shape, std=std)


NAMES = ("nin", "nin_svhn")


def entry(name: str) -> Entry | None:
    """nin, or nin_svhn, whose file has other widths and 5×5 throughout."""
    if name == "nin":
        return Entry(nin, "Network in Network")
    if name == "nin_svhn":
        return Entry(nin, "Network in Network", {"widths": SVHN_WIDTHS, "kernels": (5, 5, 5)})
    return None
