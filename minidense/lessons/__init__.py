"""The course: what its notebooks import, and the command that lists, starts and checks them. The lessons themselves lie in lessons/."""

from .claims import SEED, claim
from .command import main
from .exercises import check

__all__ = ["SEED", "check", "claim", "main"]
