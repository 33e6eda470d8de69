"""A @reference function is the definition of what it computes. A fast path is a twin that must agree with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

from .errors import ConfigError

_enabled = True
REFERENCES: list[Any] = []  # every @reference function, for whoever wants to see or test them all


@dataclass(frozen=True)
class FastPath:
    """A quick twin of one reference function.

    run       takes the reference's arguments and gives what it gives: result, gradients and running statistics
    fits      takes the same arguments: may this twin answer?
    examples  () -> cases that the equivalence test must try: each a function (rng, dtype) -> ([arguments], {options})
    """

    run: Callable
    fits: Callable[..., bool]
    examples: Callable[[], Iterable[Callable]]


def reference(fn):
    """Mark fn as a definition. Calls go to the first registered twin that fits, and to fn itself where none does.

    ``fn.fast_paths`` lists the twins, ``fn.definition`` is fn as it is written.
    """
    twins: list[FastPath] = []

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _enabled:
            for twin in twins:
                if twin.fits(*args, **kwargs):
                    return twin.run(*args, **kwargs)
        return fn(*args, **kwargs)

    vars(call).update(fast_paths=twins, definition=fn)
    REFERENCES.append(call)
    return call


def fast_path(of, *, fits: Callable[..., bool], examples: Callable[[], Iterable[Callable]]):
    """Register the decorated function as a twin of `of`. Raises ConfigError when `of` is not a @reference function."""
    if not hasattr(of, "fast_paths"):
        raise ConfigError(
            f"fast_path: {getattr(of, '__qualname__', of)!r} is no definition; mark it with @reference first"
        )

    def register(run):
        of.fast_paths.append(FastPath(run, fits, examples))
        return run

    return register


@contextmanager
def reference_only() -> Iterator[None]:
    """Run the definitions, whatever the machine offers: for lessons, for debugging, and to compare the twins with."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before
