"""Twins for the GPU: kernels of our own (kernels/*.cu), and what launches them. docs/gpu.md is their story."""

from . import classifier, dense_block, graph, norm_relu_conv, pictures, sgd

__all__ = ["classifier", "dense_block", "graph", "norm_relu_conv", "pictures", "sgd"]
