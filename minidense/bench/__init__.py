"""How fast, in how much memory: minidense bench. PyTorch can do the same work beside it, in the same call."""

from .command import main

__all__ = ["main"]
