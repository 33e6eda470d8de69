"""What the notebooks of the course import: claim, check, SEED. The command is in command.py; the lessons themselves lie in lessons/."""

from typing import Any

from . import claims
from .claims import claim
from .exercises import check

__all__ = ["SEED", "check", "claim"]


def __getattr__(name: str) -> Any:
    if name == "SEED":
        return claims.SEED
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
