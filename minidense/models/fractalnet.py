"""FractalNet: Larsson, Maire & Shakhnarovich, ICLR 2017 (arXiv 1605.07648), as in the authors' Caffe generator.

Ultra-deep without residuals: f_1(z) = conv(z), f_{C+1}(z) = join(f_C(f_C(z)), conv(z)), where a join is the mean of what arrives.
Unrolled, a block of C columns has 2^{C−1} rows; column c, counted from 0, has a convolution in every 2^{C−1−c}-th of them, and all
columns with a convolution in the same row meet there in a join.
"""

from collections.abc import Sequence
from typing import Any

import numpy

from .. import functional as F
from ..errors import ConfigError
from ..nn import (
    BatchNorm2d,
    Chance,
    Conv2d,
    Dropout,
    Linear,
    MaxPool2d,
    Module,
    PlainBatchNorm2d,
    Sequential,
    norm_relu,
)
from ..tensor import Tensor
from .classifier import Classifier
from .entry import Entry, dropout_rates, finished, several
from .initialise import like_caffe_xavier

WIDTHS = (64, 128, 256, 512, 512)
DROPOUT = (0.0, 0.1, 0.2, 0.3, 0.4)
DROP_PATH = 0.15


class FractalConv(Module):
    """Conv-dropout-BN-ReLU, in the order of the released generator.

    released  biases in the convolution, and batch norm that learns nothing, as Caffe's without a Scale layer
    """

    def __init__(
        self, channels: int, out_channels: int, *, kernel: int = 3, dropout: float = 0.0, released: bool = False
    ):
        self.conv = Conv2d(channels, out_channels, kernel, padding=kernel // 2, bias=released)
        self.drop = Dropout(dropout)
        # Caffe keeps 0.999 of the running statistics at each step.
        self.bn = PlainBatchNorm2d(out_channels, momentum=0.001) if released else BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return norm_relu(self.bn, self.drop(self.conv(x)))


class DropPath(Chance):
    """Which paths into a join are kept (§3): all in evaluation; in training some, drawn for a whole mini-batch.

    Half of the mini-batches drop locally: each path into each join with probability p, but never all. The other half globally:
    one column is chosen for the whole network, and every join lets only that one through. Some ports draw for each image instead,
    and the released layer knows only the local kind.
    """

    column: int | None = None  # while a column is chosen

    def choose(self, columns: int) -> int | None:
        """Begin a mini-batch: the column chosen for it, or None when it drops locally or not at all."""
        chosen = self.drawing and self.rng.random() < 0.5
        self.column = int(self.rng.integers(columns)) if chosen else None
        return self.column

    def kept(self, paths: list[Any]) -> list[Any]:
        """The paths that a join takes the mean of."""
        if not self.drawing or self.column is not None or len(paths) == 1:
            return paths
        dropped = self.rng.random(len(paths)) < self.p
        if dropped.all():
            dropped[self.rng.integers(len(paths))] = False
        return [path for path, drop in zip(paths, dropped, strict=True) if not drop]


class FractalBlock(Module):
    """f_C and a pooling: (N, c, H, W) gives (N, c_out, H/2, W/2). Its convolutions are col0.row3, col1.row1 and so on.

    paths  decides what joins take, common to all blocks of a network; not a part of this one, so it is handed in with x
    """

    def __init__(
        self, channels: int, out_channels: int, columns: int, *, project: bool, dropout: float, released: bool
    ):
        self.project = (
            FractalConv(channels, out_channels, kernel=1, dropout=dropout, released=released) if project else None
        )
        before = out_channels if project else channels
        self.rows, self.columns = 2 ** (columns - 1), columns
        for column in range(columns):
            members, channels = dict[str, Module](), before
            for row in self.rows_of(column):
                members[f"row{row}"] = FractalConv(channels, out_channels, dropout=dropout, released=released)
                channels = out_channels
            setattr(self, f"col{column}", Sequential(**members))
        self.pool = MaxPool2d(2)

    def rows_of(self, column: int) -> range:
        """The rows in which a column has a convolution."""
        every = 2 ** (self.columns - 1 - column)
        return range(every - 1, self.rows, every)

    def forward(self, x: Tensor, paths: DropPath) -> Tensor:  # type: ignore[override]
        x = x if self.project is None else self.project(x)
        # With one column chosen for the whole network, the others would be computed for nothing.
        columns = range(self.columns) if paths.column is None else [paths.column]
        heads = dict.fromkeys(columns, x)  # what each column has come to
        for row in range(self.rows):
            meeting = [column for column in columns if row in self.rows_of(column)]
            arrived = [getattr(getattr(self, f"col{column}"), f"row{row}")(heads[column]) for column in meeting]
            if row == self.rows - 1:
                arrived = [self.pool(y) for y in arrived]  # each column before the block's last join
            heads |= dict.fromkeys(meeting, join(paths.kept(arrived))) if meeting else {}
        return heads[columns[-1]]


def join(xs: Sequence[Tensor]) -> Tensor:
    """Mean of what arrives, element by element."""
    total = xs[0]
    for x in xs[1:]:
        total = total + x
    return total * (1 / len(xs)) if len(xs) > 1 else total


class FractalNet(Classifier):
    """block1, block2, … and fc. See ``fractalnet`` for the arguments."""

    def __init__(
        self,
        *,
        columns: int,
        widths: Sequence[int],
        project: bool | str,
        dropout: Sequence[float],
        drop_path: float,
        released: bool,
        classes: int,
        in_channels: int,
    ):
        self.columns, self.paths = columns, DropPath(drop_path)
        self.blocks, channels = len(widths), in_channels
        for i, (width, share) in enumerate(zip(widths, dropout, strict=True), start=1):
            widen = project == "all" or (bool(project) and width != channels)
            block = FractalBlock(channels, width, columns, project=widen, dropout=share, released=released)
            setattr(self, f"block{i}", block)
            channels = width
        self.fc = Linear(channels, classes)

    def forward(self, x: Tensor, column: int | None = None) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes).

        column  compute this one alone, from 0: the deepest, columns − 1, is a plain network by itself (§4.2)
        """
        x = x.astype(self.dtype)
        chosen = self.paths.choose(self.columns)
        self.paths.column = chosen if column is None else column
        for i in range(1, self.blocks + 1):
            x = getattr(self, f"block{i}")(x, self.paths)
        return self.fc(F.global_avg_pool2d(x))  # of 32×32 pixels five poolings have left one


def fractalnet(
    *,
    columns: int = 3,
    widths: Sequence[int] = WIDTHS,
    project: bool | str = False,
    dropout: Sequence[float] | float | None = None,
    drop_path: float = 0.0,
    released: bool = False,
    classes: int = 10,
    in_channels: int = 3,
    seed: int = 0,
    dtype=numpy.float32,
    device: str = "cpu",
) -> FractalNet:
    """A FractalNet for small images; by default of 3 columns and 5 blocks, 20 convolutions on the longest path.

    columns    C; column c has 2^c convolutions in each block
    widths     channels of each block
    project    a 1×1 convolution before each block whose width changes (True) or before every block ("all")
    dropout    probability of dropping a value in each block, or in all; the paper's runs with dropout have 0, 0.1, 0.2, 0.3, 0.4
    drop_path  probability of dropping a path into a join; the paper has 0.15
    released   the layout of the authors' generator: biases in convolutions, and nothing to learn in batch norm

    Table 2 of the DenseNet paper prints 38.6 M parameters; the released generator builds 33.7 M. With project=True it would be 38.6 M:
    our reading, which no source states.

    Raises ConfigError for a number of columns or dropout rates that do not fit.
    """
    if not isinstance(columns, int) or not 1 <= columns <= 6:
        raise ConfigError(f"fractalnet: columns must be a whole number from 1 to 6, got {columns!r}")
    blocks = len(several("fractalnet", "widths", widths))
    dropout = dropout_rates("fractalnet", 0.0 if dropout is None else dropout, blocks)
    if project not in (False, True, "all"):
        raise ConfigError(f'fractalnet: project must be False, True or "all", got {project!r}')

    def make():
        return FractalNet(
            columns=columns,
            widths=widths,
            project=project,
            dropout=dropout,
            drop_path=drop_path,
            released=released,
            classes=classes,
            in_channels=in_channels,
        )

    return finished(make, like_caffe_xavier, seed=seed, dtype=dtype, device=device)


ENTRIES = {
    "fractalnet_c3_b5": Entry(fractalnet, "FractalNet"),
    "fractalnet_c3_b5_drop": Entry(fractalnet, "FractalNet", {"dropout": DROPOUT, "drop_path": DROP_PATH}),
    "fractalnet_c3_b5_38m": Entry(fractalnet, "FractalNet", {"project": True}),
    "fractalnet_c3_b5_doubling": Entry(fractalnet, "FractalNet", {"project": "all"}),
}
NAMES = tuple(ENTRIES)


def entry(name: str) -> Entry | None:
    """fractalnet_c3_b5 plain, _drop with dropout and drop-path, _38m and _doubling with 1×1 convolutions before blocks."""
    return ENTRIES.get(name)
