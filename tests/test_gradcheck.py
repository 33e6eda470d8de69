"""The gradient check itself: it must catch wrong backwards, accept right ones, and refuse to judge at kinks."""

import numpy as np
import pytest

import minidense as md
from minidense import functional as F
from minidense import ops
from minidense.ops.elementwise import sum_to
from minidense.ops.norm import channel_sum, per_channel
from minidense.tensor import apply
from minidense.testing import check_gradients

LABELS = np.array([1, 0, 2, 1])


def mutant(parent, backward):
    """The Op `parent` with another backward."""
    return type(f"Mutant{parent.__name__}", (parent,), {"backward": backward})


def conv_without(**changes):
    """Conv2d whose backward returns changed gradients: dx and dweight go through the given functions."""

    def backward(self, dy):
        dx, dweight = ops.Conv2d.backward(self, dy)
        return changes.get("dx", lambda g: g)(dx), changes.get("dweight", lambda g: g)(dweight)

    return mutant(ops.Conv2d, backward)(1, 1)


def wrong_batch_norm(dx):
    """BatchNorm whose dx comes from the given function of the op, dy, dgamma and dbeta."""

    def backward(self, dy):
        dbeta, dgamma = channel_sum(dy), channel_sum(dy * self.x_hat)
        return dx(self, dy, dgamma, dbeta), dgamma, dbeta

    return mutant(ops.BatchNorm, backward)()


def scale(op):
    return per_channel(op.gamma * op.inv_std)


IMAGE, WEIGHT = (2, 3, 5, 5), (3, 3, 3, 3)
CHANNELS = ((4, 3, 3, 2), (3,), (3,))

# name: (the wrong op, shapes of its inputs)
MUTANTS = {
    "batch norm: dx = 0": (lambda: wrong_batch_norm(lambda op, dy, dgamma, dbeta: 0 * dy), CHANNELS),
    "batch norm: dx doubled": (
        lambda: mutant(ops.BatchNorm, lambda op, dy: (2 * (g := ops.BatchNorm.backward(op, dy))[0], *g[1:]))(),
        CHANNELS,
    ),
    "batch norm: statistics taken as constants": (lambda: wrong_batch_norm(lambda op, dy, dgamma, dbeta: scale(op) * dy), CHANNELS),
    "batch norm: mean term forgotten": (
        lambda: wrong_batch_norm(lambda op, dy, dgamma, dbeta: scale(op) * (dy - op.x_hat * per_channel(dgamma / op.m))),
        CHANNELS,
    ),
    "batch norm: x̂ term forgotten": (
        lambda: wrong_batch_norm(lambda op, dy, dgamma, dbeta: scale(op) * (dy - per_channel(dbeta / op.m))),
        CHANNELS,
    ),
    "batch norm: divided by m − 1": (
        lambda: wrong_batch_norm(
            lambda op, dy, dgamma, dbeta: scale(op) * (dy - (op.x_hat * per_channel(dgamma) + per_channel(dbeta)) / (op.m - 1))
        ),
        CHANNELS,
    ),
    "batch norm: γ forgotten in dx": (
        lambda: mutant(ops.BatchNorm, lambda op, dy: ((g := ops.BatchNorm.backward(op, dy))[0] / per_channel(op.gamma), *g[1:]))(),
        CHANNELS,
    ),
    "batch norm: dgamma and dbeta swapped": (
        lambda: mutant(ops.BatchNorm, lambda op, dy: ((g := ops.BatchNorm.backward(op, dy))[0], g[2], g[1]))(),
        CHANNELS,
    ),
    "conv: filters transposed in dweight": (lambda: conv_without(dweight=lambda g: g.swapaxes(0, 1)), (IMAGE, WEIGHT)),
    "conv: kernel mirrored in dweight": (lambda: conv_without(dweight=lambda g: g[:, :, ::-1, ::-1]), (IMAGE, WEIGHT)),
    "conv: rows and columns of the kernel swapped": (lambda: conv_without(dweight=lambda g: g.swapaxes(2, 3)), (IMAGE, WEIGHT)),
    "conv: dweight averaged over images": (lambda: conv_without(dweight=lambda g: g / 2), (IMAGE, WEIGHT)),
    "conv: dx shifted by one pixel": (lambda: conv_without(dx=lambda g: np.roll(g, 1, axis=3)), (IMAGE, WEIGHT)),
    "conv: dx of the wrong channels": (lambda: conv_without(dx=lambda g: g[:, ::-1]), (IMAGE, WEIGHT)),
    "relu: gradient everywhere": (lambda: mutant(ops.ReLU, lambda op, dy: (dy,))(), ((4, 5),)),
    "relu: gradient where it is off": (lambda: mutant(ops.ReLU, lambda op, dy: (dy * ~op.alive,))(), ((4, 5),)),
    "sigmoid: the factor 1 − y forgotten": (lambda: mutant(ops.Sigmoid, lambda op, dy: (op.y * dy,))(), ((4, 5),)),
    "tanh: 1 − y instead of 1 − y²": (lambda: mutant(ops.Tanh, lambda op, dy: ((1 - op.y) * dy,))(), ((4, 5),)),
    "mul: factors swapped": (
        lambda: mutant(ops.Mul, lambda op, dy: (sum_to(dy * op.a, op.a.shape), sum_to(dy * op.b, op.b.shape)))(),
        ((4, 5), (4, 5)),
    ),
    "div: sign of db": (lambda: mutant(ops.Div, lambda op, dy: ((g := ops.Div.backward(op, dy))[0], -g[1]))(), ((4, 5), (4, 5))),
    "sub: sign of db": (lambda: mutant(ops.Sub, lambda op, dy: (dy, dy))(), ((4, 5), (4, 5))),
    "mean: not divided": (
        lambda: mutant(ops.Mean, lambda op, dy: (ops.Mean.backward(op, dy)[0] * op.count,))(0),
        ((4, 5),),
    ),
    "max: everybody gets the gradient": (
        lambda: mutant(ops.Max, lambda op, dy: (np.broadcast_to(op.spread(dy), op.x_shape),))(0),
        ((4, 5),),
    ),
    "log-sum-exp: softmax forgotten": (
        lambda: mutant(ops.LogSumExp, lambda op, dy: (np.broadcast_to(op.spread(dy), op.x_shape),))(1),
        ((4, 5),),
    ),
    "cross-entropy: one-hot forgotten": (
        lambda: mutant(ops.SoftmaxCrossEntropy, lambda op, dy: (np.exp(op.log_p) * dy / len(op.log_p),))(LABELS),
        ((4, 5),),
    ),
    "cross-entropy: not divided by N": (
        lambda: mutant(ops.SoftmaxCrossEntropy, lambda op, dy: (ops.SoftmaxCrossEntropy.backward(op, dy)[0] * 4,))(LABELS),
        ((4, 5),),
    ),
    "max pool: gradient to the neighbour": (
        lambda: mutant(ops.MaxPool2d, lambda op, dy: (np.roll(ops.MaxPool2d.backward(op, dy)[0], 1, axis=3),))(2),
        ((2, 1, 4, 4),),
    ),
    "average pool: sum instead of mean": (
        lambda: mutant(ops.AvgPool2d, lambda op, dy: (ops.AvgPool2d.backward(op, dy)[0] * 4,))(2),
        ((2, 1, 4, 4),),
    ),
    "concat: slices in the wrong order": (
        lambda: mutant(ops.Concat, lambda op, dy: ops.Concat.backward(op, dy)[::-1])(),
        ((2, 3, 2), (2, 3, 2)),
    ),
    "transpose: applied again instead of undone": (
        lambda: mutant(ops.Transpose, lambda op, dy: (dy.transpose(op.axes),))((1, 2, 0)),
        ((3, 3, 3),),
    ),
    "getitem: repeated places do not add up": (
        lambda: mutant(ops.GetItem, lambda op, dy: (_put(np.zeros(op.x_shape), op.index, dy),))(np.array([0, 0, 1])),
        ((3, 2),),
    ),
    "matmul: dy on the wrong side": (lambda: mutant(ops.MatMul, lambda op, dy: (op.b @ dy.T, dy.T @ op.a))(), ((4, 4), (4, 4))),
    "linear: bias counted once": (
        lambda: mutant(ops.Linear, lambda op, dy: (*ops.Linear.backward(op, dy)[:2], dy[0]))(),
        ((4, 3), (5, 3), (5,)),
    ),
    "dropout: a scale of its own": (lambda: mutant(ops.Dropout, lambda op, dy: (dy * (op.mask > 0),))(np.array([0, 2.0, 2.0])), ((4, 3),)),
}  # fmt: skip


def _put(array, index, values):
    array[index] = values
    return array


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_backwards_are_caught(name, rng):
    make, shapes = MUTANTS[name]
    with pytest.raises(AssertionError, match="backward says"):
        check_gradients(lambda *xs: apply(make(), *xs), *(rng.standard_normal(shape) for shape in shapes))


@pytest.mark.parametrize("name", MUTANTS)
def test_the_same_ops_unchanged_pass(name, rng):
    """Otherwise a mutant might be caught for its inputs and not for its mistake."""
    make, shapes = MUTANTS[name]

    def unchanged(*xs):
        op = make()
        op.__class__ = type(op).__mro__[1]
        return apply(op, *xs)

    check_gradients(unchanged, *(rng.standard_normal(shape) for shape in shapes))


def test_a_small_error_is_caught(rng):
    """1e-5 too much, in a gradient that no plot would show."""
    wrong = mutant(ops.Exp, lambda op, dy: (op.y * dy * (1 + 1e-5),))
    with pytest.raises(AssertionError, match="backward says"):
        check_gradients(lambda x: apply(wrong(), x), rng.standard_normal((4, 5)))


def test_a_missing_gradient_is_caught(rng):
    with pytest.raises(AssertionError, match=r"input 1 .* backward gave none"):
        check_gradients(lambda a, b: a * b.detach(), rng.standard_normal(3), rng.standard_normal(3))


@pytest.mark.parametrize(
    ("fn", "x"),
    [
        (F.relu, [0.0, 1.0, -1.0]),
        (F.relu, [1e-7, 1.0, -1.0]),
        (F.max, [2.0, 2.0, 1.0]),
        (lambda x: F.max_pool2d(F.reshape(x, (1, 1, 2, 2)), 2), [3.0, 1.0, 3.0, 1.0]),
    ],
    ids=["relu at 0", "relu near 0", "a tie in max", "a tie in max pooling"],
)
def test_it_refuses_to_judge_at_kinks(fn, x):
    with pytest.raises(md.KinkError, match="kink"):
        check_gradients(fn, np.array(x))


def test_strongly_curved_functions_are_no_kinks():
    check_gradients(lambda x: F.exp(3 * x) / (x * x + 1e-2), np.array([0.01, 0.5, -0.3]))
