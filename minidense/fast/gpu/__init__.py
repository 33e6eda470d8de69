"""Twins for the GPU: kernels of our own (kernels/*.cu), and what launches them."""

from . import dense_block

__all__ = ["dense_block"]
