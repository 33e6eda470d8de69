"""One table: for every operation, inputs that exercise it. The gradient checks and the device checks both walk it.

A case is a function of Tensors and the arrays to call it with, drawn from a generator. Odd sizes, stride 2, padding,
one channel, one image and views that are not contiguous are all in here; inputs stay off kinks by being random.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minidense import functional as F
from minidense.backend import to_device

Draw = Callable[[np.random.Generator], tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Case:
    name: str
    op: str  # the Op class it exercises
    fn: Callable
    draw: Draw

    def __str__(self):
        return self.name


def normal(*shapes) -> Draw:
    """Arrays of these shapes with normally distributed values."""
    return lambda rng: tuple(rng.standard_normal(shape) for shape in shapes)


def positive(*shapes) -> Draw:
    """Arrays of values between 0.5 and 2.5: away from the poles of log, division and powers."""
    return lambda rng: tuple(rng.uniform(0.5, 2.5, shape) for shape in shapes)


def strided(*shapes) -> Draw:
    """Views that are not contiguous: every second element of a larger array, the axes in reverse order in memory."""

    def draw(rng):
        return tuple(
            rng.standard_normal([2 * n for n in shape][::-1]).T[tuple(slice(None, None, -2) for _ in shape)]
            for shape in shapes
        )

    return draw


def distinct(*shapes) -> Draw:
    """Arrays in which no two values tie."""
    return lambda rng: tuple(rng.permutation(int(np.prod(shape))).reshape(shape) / 7.0 for shape in shapes)


def dropout(x):
    return F.dropout(x, 0.4, rng=np.random.default_rng(5))  # the same mask at every call


def evaluation(x, gamma, beta):
    mean, var = (v.astype(x.dtype) for v in (np.linspace(-1, 1, x.shape[1]), np.linspace(0.5, 2, x.shape[1])))
    return F.batch_norm(x, gamma, beta, to_device(mean, x.device), to_device(var, x.device), training=False)


def shared(x):
    """A diamond: x is used by several operations, and their results by one."""
    a = F.tanh(x)
    return a * x + a / (x * x + 1)


LABELS = [2, 0, 4, 2]

CASES = [
    Case("add", "Add", F.add, normal((3, 4), (3, 4))),
    Case("add broadcast", "Add", F.add, normal((3, 1, 5), (4, 1))),
    Case("add a number", "Add", lambda x: 2.5 + x, normal((3, 4))),
    Case("sub", "Sub", F.sub, normal((2, 3), (3,))),
    Case("number minus x", "Sub", lambda x: 1.0 - x, normal((2, 3))),
    Case("mul", "Mul", F.mul, normal((3, 4), (3, 4))),
    Case("mul broadcast", "Mul", F.mul, normal((2, 1, 3), (5, 1))),
    Case("mul by itself", "Mul", lambda x: x * x, normal((7,))),
    Case("div", "Div", F.div, positive((3, 4), (4,))),
    Case("number over x", "Div", lambda x: 3.0 / x, positive((3, 4))),
    Case("neg", "Neg", F.neg, normal((3,))),
    Case("power 3", "Power", lambda x: x**3, normal((4,))),
    Case("power 0", "Power", lambda x: x**0, normal((4,))),
    Case("power -0.5", "Power", lambda x: F.power(x, -0.5), positive((4, 2))),
    Case("exp", "Exp", F.exp, normal((3, 2))),
    Case("log", "Log", F.log, positive((3, 2))),
    Case("relu", "ReLU", F.relu, normal((5, 7))),
    Case("relu of a view", "ReLU", F.relu, strided((5, 7))),
    Case("sigmoid", "Sigmoid", F.sigmoid, normal((5, 2))),
    Case("tanh", "Tanh", F.tanh, normal((5, 2))),
    Case("dropout", "Dropout", dropout, normal((6, 5))),
    Case("astype", "AsType", lambda x: x.astype(np.longdouble).astype(np.float64) * x, normal((3,))),
    Case("diamond", "Tanh", shared, normal((3, 2))),
    Case("sum", "Sum", F.sum, normal((3, 4))),
    Case("sum axis", "Sum", lambda x: F.sum(x, (0, 2)), strided((3, 4, 2))),
    Case("sum keepdims", "Sum", lambda x: F.sum(x, -1, keepdims=True), normal((3, 4))),
    Case("mean", "Mean", F.mean, normal((3, 5))),
    Case("mean axis", "Mean", lambda x: F.mean(x, 1), normal((3, 5, 2))),
    Case("max", "Max", F.max, distinct((3, 5))),
    Case("max axis", "Max", lambda x: F.max(x, (0, -1)), distinct((3, 4, 5))),
    Case("log_sum_exp", "LogSumExp", lambda x: F.log_sum_exp(x, 1), normal((3, 5))),
    Case("log_sum_exp all", "LogSumExp", lambda x: F.log_sum_exp(x, keepdims=True), strided((3, 5))),
    Case("softmax", "LogSumExp", F.softmax, normal((4, 6))),
    Case("softmax axis 0", "LogSumExp", lambda x: F.softmax(x, 0), normal((4, 6))),
    Case("log_softmax", "LogSumExp", F.log_softmax, normal((4, 6))),
    Case("reshape", "Reshape", lambda x: F.reshape(x, (2, -1)), normal((4, 3))),
    Case("reshape of a view", "Reshape", lambda x: F.reshape(x, (12,)), strided((4, 3))),
    Case("transpose", "Transpose", lambda x: F.transpose(x, (2, 0, 1)), normal((2, 3, 4))),
    Case("transpose negative axes", "Transpose", lambda x: F.transpose(x, (-1, 0, -2)), normal((2, 3, 4))),
    Case("transpose all", "Transpose", F.transpose, normal((2, 3, 4))),
    Case("getitem slices", "GetItem", lambda x: x[1:, None, ..., ::-2], normal((3, 2, 5))),
    Case("getitem integers", "GetItem", lambda x: x[[0, 2, 0], 1], normal((3, 2))),
    Case("getitem mask", "GetItem", lambda x: x[[True, False, True]], normal((3, 2))),
    Case("pad", "Pad", lambda x: F.pad(x, ((0, 0), (2, 1))), normal((2, 3))),
    Case("concat", "Concat", lambda *xs: F.concat(xs), normal((2, 3, 4, 5), (2, 1, 4, 5), (2, 2, 4, 5))),
    Case("concat with itself", "Concat", lambda x: F.concat([x, x]), strided((2, 3))),
    Case("matmul", "MatMul", F.matmul, normal((3, 4), (4, 2))),
    Case("matmul batch", "MatMul", F.matmul, normal((5, 1, 3, 4), (2, 4, 2))),
    Case("matmul of views", "MatMul", F.matmul, strided((3, 4), (4, 2))),
    Case("linear", "Linear", F.linear, normal((4, 3), (5, 3), (5,))),
    Case("linear without bias, one image", "Linear", F.linear, normal((1, 3), (2, 3))),
    Case("conv 3x3", "Conv2d", lambda x, w: F.conv2d(x, w, padding=1), normal((2, 3, 5, 4), (4, 3, 3, 3))),
    Case("conv 1x1", "Conv2d", F.conv2d, normal((2, 3, 5, 4), (4, 3, 1, 1))),
    Case("conv bias", "Conv2d", lambda x, w, b: F.conv2d(x, w, b, padding=1), normal((2, 3, 5, 4), (2, 3, 3, 3), (2,))),
    Case(
        "conv stride 2", "Conv2d", lambda x, w: F.conv2d(x, w, stride=2, padding=1), normal((2, 2, 7, 6), (3, 2, 3, 3))
    ),
    Case("conv 1x1 stride 2", "Conv2d", lambda x, w: F.conv2d(x, w, stride=2), normal((2, 2, 7, 6), (3, 2, 1, 1))),
    Case(
        "conv 7x7 stride 2",
        "Conv2d",
        lambda x, w: F.conv2d(x, w, stride=2, padding=3),
        normal((1, 1, 9, 8), (2, 1, 7, 7)),
    ),
    Case(
        "conv stride 3 leaves pixels unseen",
        "Conv2d",
        lambda x, w: F.conv2d(x, w, stride=3),
        normal((1, 2, 6, 8), (1, 2, 2, 2)),
    ),
    Case("conv kernel 2x3", "Conv2d", lambda x, w: F.conv2d(x, w, padding=1), normal((1, 2, 3, 4), (2, 2, 2, 3))),
    Case("conv whole image", "Conv2d", F.conv2d, normal((2, 2, 3, 4), (3, 2, 3, 4))),
    Case("conv one pixel", "Conv2d", lambda x, w: F.conv2d(x, w, padding=1), normal((1, 1, 1, 1), (1, 1, 3, 3))),
    Case("conv of views", "Conv2d", lambda x, w: F.conv2d(x, w, padding=1), strided((2, 3, 4, 5), (2, 3, 3, 3))),
    Case("max_pool", "MaxPool2d", lambda x: F.max_pool2d(x, 2), distinct((2, 3, 4, 6))),
    Case(
        "max_pool 3 stride 2 padding 1",
        "MaxPool2d",
        lambda x: F.max_pool2d(x, 3, stride=2, padding=1),
        distinct((2, 1, 7, 5)),
    ),
    Case("max_pool ceil", "MaxPool2d", lambda x: F.max_pool2d(x, 3, stride=2, ceil_mode=True), distinct((1, 2, 6, 8))),
    Case("max_pool of a view", "MaxPool2d", lambda x: F.max_pool2d(x, 2, stride=1), strided((2, 1, 4, 3))),
    Case("avg_pool", "AvgPool2d", lambda x: F.avg_pool2d(x, 2), normal((2, 3, 4, 7))),
    Case(
        "avg_pool 3 stride 2 padding 1",
        "AvgPool2d",
        lambda x: F.avg_pool2d(x, 3, stride=2, padding=1),
        strided((1, 2, 7, 5)),
    ),
    Case("global_avg_pool", "GlobalAvgPool2d", F.global_avg_pool2d, normal((2, 3, 5, 4))),
    Case("global_avg_pool of a view", "GlobalAvgPool2d", F.global_avg_pool2d, strided((1, 1, 3, 3))),
    Case("batch_norm", "BatchNorm", F.batch_norm, normal((4, 3, 5, 2), (3,), (3,))),
    Case("batch_norm one channel, one image", "BatchNorm", F.batch_norm, normal((1, 1, 3, 2), (1,), (1,))),
    Case("batch_norm of a view", "BatchNorm", F.batch_norm, strided((2, 3, 3, 2), (3,), (3,))),
    Case("batch_norm evaluation", "Mul", evaluation, normal((2, 3, 4, 2), (3,), (3,))),
    Case("cross_entropy", "SoftmaxCrossEntropy", lambda x: F.cross_entropy(x, LABELS), normal((4, 5))),
    Case("cross_entropy of a view", "SoftmaxCrossEntropy", lambda x: F.cross_entropy(x, LABELS), strided((4, 5))),
    Case("squared_hinge", "SquaredHinge", lambda x: F.squared_hinge(x, LABELS), normal((4, 5))),
]
