"""Twins for the CPU, in NumPy: small pieces that stay in the cache, full-speed matrix products, few passes between them."""

from . import conv, dense_block, norm, per_image, transition

__all__ = ["conv", "dense_block", "norm", "per_image", "transition"]
