"""Layers with parameters, and the tree of them that is a model."""

from . import init
from .layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    Tanh,
    norm_relu,
    norm_relu_conv,
    seed_dropout,
)
from .module import Buffer, Module, Parameter, Sequential, watch_gradients

__all__ = [
    "AvgPool2d",
    "BatchNorm2d",
    "Buffer",
    "Conv2d",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "Linear",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "init",
    "norm_relu",
    "norm_relu_conv",
    "seed_dropout",
    "watch_gradients",
]
