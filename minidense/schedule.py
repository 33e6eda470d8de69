"""Learning rates: pure functions of how far training has come. Epochs are 0-based and may be fractional."""

import math
from collections.abc import Sequence
from itertools import pairwise

from .errors import ConfigError


def step_decay(epoch: float, *, start: float, drop_at: Sequence[float], factor: float = 0.1) -> float:
    """Learning rate that is multiplied by `factor` at each epoch in `drop_at` (Huang et al. 2017, §4.2, with ``paper_drops``).

    epoch      0-based
    start      rate before the first drop
    drop_at    epochs, whole or not, in increasing order: from each of them on, the lower rate holds

    Raises ConfigError when drop_at decreases.
    """
    if any(a > b for a, b in pairwise(drop_at)):
        raise ConfigError(f"step_decay: the epochs in drop_at must not decrease, got {tuple(drop_at)}")
    return start * factor ** sum(epoch >= drop for drop in drop_at)


def paper_drops(epochs: int, fractions: Sequence[float] = (0.5, 0.75)) -> tuple[int, ...]:
    """The 0-based epochs at which the DenseNet authors divide the rate by 10, at 50 % and 75 % (Huang et al. 2017, §4.2).

    Their code counts epochs from 1 and drops where ``epoch >= 0.5·epochs`` and ``epoch >= 0.75·epochs``, so 300 epochs are
    149 at the first rate, 75 at the second and 76 at the third: the drops lie at 149 and 224.
    """
    return tuple(max(math.ceil(fraction * epochs) - 1, 0) for fraction in fractions)


def drops(drop_at: Sequence[float], epochs: int) -> tuple[float, ...]:
    """0-based epochs from which lower rates hold: numbers below 1 are shares of all `epochs`, see ``paper_drops``; others are epochs."""
    return tuple(paper_drops(epochs, (at,))[0] if at < 1 else at for at in drop_at)


def cosine(epoch: float, *, start: float, epochs: float, end: float = 0.0) -> float:
    """Half a cosine from `start` at epoch 0 down to `end` at epoch `epochs` (Loshchilov & Hutter 2017, eq. 5)."""
    done = min(max(epoch / epochs, 0), 1) if epochs > 0 else 1
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def one_cycle(
    epoch: float, *, peak: float, epochs: float, warmup: float = 0.3, start: float | None = None, end: float = 0.0
) -> float:
    """Straight up from `start` to `peak` in the first `warmup` share of training, then straight down to `end` (Smith & Topin 2018).

    peak    highest rate
    warmup  share of the epochs that goes up, 0 to 1
    start   rate at epoch 0; peak/10 unless given
    """
    if not 0 <= warmup <= 1:
        raise ConfigError(f"one_cycle: warmup is a share of training and must lie in [0, 1], got {warmup}")
    start = peak / 10 if start is None else start
    done = min(max(epoch / epochs, 0), 1)
    if done < warmup:
        return start + (peak - start) * done / warmup
    return peak + (end - peak) * ((done - warmup) / (1 - warmup) if warmup < 1 else 0)
