"""How exactly the GPU's kernels multiply and store. The CPU always computes in the type of its arrays."""

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import ConfigError

PRECISIONS = {
    "float32": "products and storage in float32",
    "tf32": "products of 10-bit numbers on tensor cores, added up and stored in float32; before compute capability 8.0 as float32",
    "mixed": "as tf32, with feature maps of dense blocks stored as bfloat16; weights, statistics and sums in float32",
}
_current = "tf32"


def current_precision() -> str:
    """A key of PRECISIONS."""
    return _current


@contextmanager
def precision(name: str | None) -> Iterator[None]:
    """Compute so inside; None leaves everything as it is. Raises ConfigError for a name that is not in PRECISIONS."""
    global _current
    if name is not None and name not in PRECISIONS:
        raise ConfigError(f"unknown precision {name!r}: choose one of {', '.join(PRECISIONS)}")
    before, _current = _current, name or _current
    try:
        yield
    finally:
        _current = before
