"""Twins for the CPU, in NumPy: small pieces that stay in the cache, full-speed matrix products, few passes between them."""

from . import conv2d, dense_block, max_pool, norm, norm_relu_conv, per_image, rectify

__all__ = ["conv2d", "dense_block", "max_pool", "norm", "norm_relu_conv", "per_image", "rectify"]
