"""The attic: quick twins of definitions elsewhere. Nothing outside imports from here; without it everything works, slower."""

from . import cpu, gpu

__all__ = ["cpu", "gpu"]
