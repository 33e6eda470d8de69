"""claim: a number that a lesson states is asserted where it is stated."""

import json
import math
import operator
import os
from pathlib import Path
from typing import Any

from ..command import show
from ..errors import ConfigError

ENVIRONMENT_SEED = "MINIDENSE_LESSON_SEED"
ENVIRONMENT_FILE = "MINIDENSE_CLAIMS"


def seed_of(environment: Any) -> int:
    """The seed that a lesson draws from: 0 unless $MINIDENSE_LESSON_SEED says another. Raises ConfigError for what is no whole number."""
    said = environment.get(ENVIRONMENT_SEED, "0")
    if not said.isdecimal():
        raise ConfigError(f"{ENVIRONMENT_SEED} must be a whole number of at least 0, got {said!r}")
    return int(said)


def __getattr__(name: str) -> int:
    """SEED, read when a lesson asks for it, so that a wrong value stops a lesson and no other command."""
    if name == "SEED":
        return seed_of(os.environ)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def claim(what: str, value: float, low: float, high: float, *, seen: tuple[float, float] | None = None) -> None:
    """State that low ≤ value ≤ high, print it, and stop the lesson if it is not so.

    what       the claim in a few words
    value      a number, just measured or counted
    low, high  the band; the same number twice for what is exact
    seen       smallest and largest value that five seeds gave when the band was set (scripts/measure_lessons writes it)

    With $MINIDENSE_CLAIMS naming a file, a line of JSON is added to it as well.
    Raises AssertionError when the value lies outside, and ConfigError when low > high or the band does not hold what was seen.
    """
    value = operator.index(value) if hasattr(value, "__index__") else float(value)
    if seen is not None and len(seen) != 2:
        raise ConfigError(f"claim {what!r}: seen is a pair, (lowest, highest), got {seen!r}")
    if not low <= high or (seen is not None and not low <= seen[0] <= seen[1] <= high):
        raise ConfigError(f"claim {what!r}: the band {low} to {high} must hold what was seen, {seen}")
    if path := os.environ.get(ENVIRONMENT_FILE):
        finite = value if math.isfinite(value) else str(value)
        record = {"what": what, "value": finite, "low": low, "high": high, "seen": seen, "seed": seed_of(os.environ)}
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    if not low <= value <= high:  # not-a-number lies nowhere
        raise AssertionError(
            f"claim {what!r}: {value!r}, but the lesson says {band(low, high)}. "
            "If you changed something above, that is why; otherwise minidense doctor looks for what is wrong with this machine"
        )
    measured = "" if seen is None else f"; five seeds gave {shown(seen[0])} to {shown(seen[1])}"
    show(f"✓ {what}: {shown(value)} ({'exactly' if low == high else f'claimed: {band(low, high)}'}{measured})")


def band(low: float, high: float) -> str:
    """A band in words."""
    return f"exactly {shown(low)}" if low == high else f"{shown(low)} to {shown(high)}"


def shown(value: float) -> str:
    """A number as a person would write it: whole ones in full, others with four digits."""
    if float(value).is_integer() and abs(value) < 1e12:
        return f"{int(value):,}"
    return f"{value:.4g}"
