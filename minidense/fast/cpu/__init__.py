"""Twins for the CPU, in NumPy: small pieces that stay in the cache, full-speed matrix products, few passes between them."""

from . import dense_block, transition

__all__ = ["dense_block", "transition"]
