"""The calculus: every operation as a small class that knows its forward and its backward, on arrays. Nothing here has heard of Tensor."""

from .base import Op
from .conv import Conv2d
from .elementwise import Add, AsType, Div, Dropout, Exp, Log, Mul, Neg, Power, ReLU, Sigmoid, Sub, Tanh
from .linear import Linear, MatMul
from .loss import SoftmaxCrossEntropy, SquaredHinge
from .norm import BatchNorm
from .pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from .reduce import LogSumExp, Max, Mean, Sum
from .shape import Concat, GetItem, Pad, Reshape, Transpose

__all__ = [
    "Add",
    "AsType",
    "AvgPool2d",
    "BatchNorm",
    "Concat",
    "Conv2d",
    "Div",
    "Dropout",
    "Exp",
    "GetItem",
    "GlobalAvgPool2d",
    "Linear",
    "Log",
    "LogSumExp",
    "MatMul",
    "Max",
    "MaxPool2d",
    "Mean",
    "Mul",
    "Neg",
    "Op",
    "Pad",
    "Power",
    "ReLU",
    "Reshape",
    "Sigmoid",
    "SoftmaxCrossEntropy",
    "SquaredHinge",
    "Sub",
    "Sum",
    "Tanh",
    "Transpose",
]
