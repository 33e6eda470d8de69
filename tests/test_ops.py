"""Values a person can verify by hand, and what bad input is told."""

import numpy as np
import pytest

import minidense as md
from minidense import functional as F
from minidense import ops

X = np.array([[1.0, -2.0], [3.0, 4.0]])


def values(tensor):
    return tensor.numpy().tolist()


def image(rows):
    """One image with one channel."""
    return md.Tensor(np.array(rows, np.float64)[None, None])


def test_an_op_works_on_bare_arrays():
    op = ops.ReLU()
    assert op.forward(X).tolist() == [[1, 0], [3, 4]]
    (dx,) = op.backward(np.array([[5.0, 6.0], [7.0, 8.0]]))
    assert dx.tolist() == [[5, 0], [7, 8]]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (lambda x: x + 1, [[2, -1], [4, 5]]),
        (lambda x: 1 - x, [[0, 3], [-2, -3]]),
        (lambda x: x * x, [[1, 4], [9, 16]]),
        (lambda x: 12 / x, [[12, -6], [4, 3]]),
        (lambda x: -x, [[-1, 2], [-3, -4]]),
        (lambda x: x**2, [[1, 4], [9, 16]]),
        (lambda x: F.sum(x, 0), [4, 2]),
        (lambda x: F.sum(x), 6),
        (lambda x: F.mean(x, 1), [-0.5, 3.5]),
        (lambda x: F.max(x, 1, keepdims=True), [[1], [4]]),
        (lambda x: F.reshape(x, 4), [1, -2, 3, 4]),
        (lambda x: F.transpose(x), [[1, 3], [-2, 4]]),
        (lambda x: x[1], [3, 4]),
        (lambda x: x[:, ::-1], [[-2, 1], [4, 3]]),
        (lambda x: F.pad(x, ((1, 0), (0, 1))), [[0, 0, 0], [1, -2, 0], [3, 4, 0]]),
        (lambda x: F.concat([x, x]), [[1, -2, 1, -2], [3, 4, 3, 4]]),
        (lambda x: x @ x, [[-5, -10], [15, 10]]),
        (lambda x: F.linear(x, md.Tensor([[1.0, 2.0]], dtype=float), md.Tensor([10.0], dtype=float)), [[7], [21]]),
    ],
)
def test_values_by_hand(result, expected):
    assert values(result(md.Tensor(X))) == expected


def test_exp_and_log_undo_each_other():
    np.testing.assert_allclose(F.log(F.exp(md.Tensor(X))).data, X, rtol=1e-15)  # two roundings


def test_sigmoid_and_tanh_by_hand():
    assert values(F.sigmoid(md.Tensor([0.0]))) == [0.5]
    assert F.sigmoid(md.Tensor([np.log(3.0)], dtype=np.float64)).item() == pytest.approx(0.75, rel=1e-15)
    assert values(F.tanh(md.Tensor([0.0]))) == [0.0]


def test_conv2d_by_hand():
    """A kernel that takes the pixel on the right minus the pixel above."""
    x = image([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    weight = image([[0, -1, 0], [0, 0, 1], [0, 0, 0]])
    assert values(F.conv2d(x, weight))[0][0] == [[6 - 2]]
    assert values(F.conv2d(x, weight, padding=1))[0][0] == [[2, 3, 0], [5 - 1, 6 - 2, -3], [8 - 4, 9 - 5, -6]]
    assert values(F.conv2d(x, weight, stride=2, padding=1))[0][0] == [[2, 0], [8 - 4, -6]]


def test_conv2d_adds_channels_and_bias():
    x = md.Tensor(np.arange(8.0).reshape(1, 2, 2, 2))
    weight = md.Tensor(np.array([[1.0, 10.0], [0.0, 1.0]]).reshape(2, 2, 1, 1))
    y = F.conv2d(x, weight, md.Tensor(np.array([0.5, -0.5])))
    assert values(y)[0] == [[[40.5, 51.5], [62.5, 73.5]], [[3.5, 4.5], [5.5, 6.5]]]


def test_pooling_by_hand():
    x = image([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert values(F.max_pool2d(x, 2))[0][0] == [[5]]
    assert values(F.max_pool2d(x, 2, ceil_mode=True))[0][0] == [[5, 6], [8, 9]]
    assert values(F.max_pool2d(-x, 2, padding=1))[0][0] == [[-1, -2], [-4, -5]]  # the border counts as −∞, not as 0
    assert values(F.avg_pool2d(x, 2, stride=1))[0][0] == [[3, 4], [6, 7]]
    assert values(F.avg_pool2d(x, 2, padding=1))[0][0] == [[0.25, 1.25], [2.75, 7]]  # here it counts as 0
    assert values(F.global_avg_pool2d(x)) == [[5]]


def test_max_pool_gives_a_tie_to_the_first_in_reading_order():
    x = md.Tensor(np.ones((1, 1, 2, 2)), requires_grad=True)
    F.max_pool2d(x, 2).backward(np.ones((1, 1, 1, 1)))
    assert x.grad[0, 0].tolist() == [[1, 0], [0, 0]]


def test_max_shares_the_gradient_of_a_tie():
    x = md.Tensor([3.0, 1.0, 3.0], requires_grad=True)
    F.max(x).backward()
    assert x.grad.tolist() == [0.5, 0, 0.5]


def test_relu_has_gradient_zero_at_zero():
    x = md.Tensor([0.0], requires_grad=True)
    F.relu(x).backward()
    assert x.grad.tolist() == [0]


def test_batch_norm_by_hand():
    """Values 1, 3 have mean 2 and deviation 1; ε = 0 to keep the numbers round."""
    x = md.Tensor(np.array([1.0, 3.0]).reshape(2, 1, 1, 1))
    mean, var = np.zeros(1), np.ones(1)
    y = F.batch_norm(x, md.Tensor(np.array([10.0])), md.Tensor(np.array([5.0])), mean, var, eps=0)
    assert values(y) == [[[[-5]]], [[[15]]]]
    assert mean.tolist() == [0.2]  # 0.9·0 + 0.1·2
    assert var.tolist() == [1.1]  # 0.9·1 + 0.1·2: unbiased, divided by m − 1 = 1


def test_eval_mode_uses_running_statistics():
    x = md.Tensor(np.array([1.0, 3.0]).reshape(2, 1, 1, 1))
    mean, var = np.array([1.0]), np.array([4.0])
    y = F.batch_norm(x, md.Tensor(np.array([10.0])), md.Tensor(np.array([5.0])), mean, var, training=False, eps=0)
    assert values(y) == [[[[5]]], [[[15]]]]
    assert (mean.tolist(), var.tolist()) == ([1], [4])


def test_batch_norm_of_a_constant_channel_is_beta():
    x = md.Tensor(np.full((2, 1, 3, 3), 7.0))
    assert np.all(F.batch_norm(x, md.Tensor(np.ones(1)), md.Tensor(np.array([0.5]))).data == 0.5)


def test_cross_entropy_by_hand():
    logits = md.Tensor(np.log([[1.0, 3.0], [1.0, 1.0]]), requires_grad=True)
    loss = F.cross_entropy(logits, [1, 0])
    assert loss.item() == pytest.approx((np.log(4 / 3) + np.log(2)) / 2, rel=1e-15)
    loss.backward()
    np.testing.assert_allclose(logits.grad, [[0.125, -0.125], [-0.25, 0.25]], rtol=1e-15)  # (p − one-hot)/N


def test_squared_hinge_by_hand():
    """Label 0: scores 0.5 (margin 0.5), −2 (none), 0 (margin 1): 0.25 + 0 + 1."""
    assert F.squared_hinge(md.Tensor([[0.5, -2.0, 0.0]]), [0]).item() == 1.25


def test_dropout_keeps_the_mean_and_scales():
    y = F.dropout(md.Tensor(np.ones(10_000)), 0.2, rng=np.random.default_rng(0)).data
    assert set(y.tolist()) == {0, 1 / 0.8}
    assert abs(y.mean() - 1) < 0.02  # four standard deviations of a mean of 10,000 draws
    x = md.Tensor(X)
    assert F.dropout(x, 0.2, rng=np.random.default_rng(0), training=False) is x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_overflows_at_ten_thousand(dtype):
    x = md.Tensor(np.array([[1e4, -1e4, 0.0]], dtype), requires_grad=True)
    results = [
        F.sigmoid(x), F.tanh(x), F.softmax(x), F.log_softmax(x), F.log_sum_exp(x, 1), F.cross_entropy(x, [1]), F.squared_hinge(x, [0])
    ]  # fmt: skip
    for y in results:
        assert np.isfinite(y.data).all()
        x.grad = None
        y.backward(np.ones(y.shape))
        assert np.isfinite(x.grad).all()
    assert values(F.softmax(x)) == [[1, 0, 0]]
    assert values(F.log_softmax(x)) == [[0, -2e4, -1e4]]
    assert F.cross_entropy(x, [1]).item() == 2e4


def t(*shape):
    return md.Tensor(np.zeros(shape, np.float32))


BAD_SHAPES = {
    "add": (lambda: t(2, 3) + t(2, 4), r"add: shapes \(2, 3\) and \(2, 4\) do not broadcast"),
    "mul": (lambda: t(3) * t(4), r"mul: shapes \(3,\) and \(4,\)"),
    "matmul": (lambda: t(2, 3) @ t(2, 3), r"matmul: \(2, 3\) @ \(2, 3\): needs two matrices"),
    "matmul vector": (lambda: t(3) @ t(3, 2), r"matmul: \(3,\) @ \(3, 2\)"),
    "matmul batch": (lambda: t(2, 1, 3) @ t(4, 3, 2), "do not broadcast"),
    "linear": (lambda: F.linear(t(2, 3), t(5, 4)), r"linear: x of shape \(2, 3\) does not fit weight of shape \(5, 4\)"),
    "linear bias": (lambda: F.linear(t(2, 3), t(5, 3), t(4)), r"linear: bias of shape \(4,\)"),
    "conv channels": (
        lambda: F.conv2d(t(1, 24, 4, 4), t(48, 12, 1, 1)),
        r"conv2d: x has 24 channels \(shape \(1, 24, 4, 4\)\) but weight expects 12 \(shape \(48, 12, 1, 1\)\)",
    ),
    "conv axes": (lambda: F.conv2d(t(3, 4, 4), t(2, 3, 1, 1)), r"conv2d: needs x \(N, C, H, W\)"),
    "conv bias": (lambda: F.conv2d(t(1, 3, 4, 4), t(2, 3, 1, 1), t(3)), r"conv2d: bias of shape \(3,\)"),
    "conv too large": (lambda: F.conv2d(t(1, 3, 4, 4), t(2, 3, 5, 5)), r"kernel \(5, 5\) is larger than the image"),
    "conv stride 0": (lambda: F.conv2d(t(1, 3, 4, 4), t(2, 3, 1, 1), stride=0), "stride 0 must be at least 1"),
    "conv padding": (lambda: F.conv2d(t(1, 3, 4, 4), t(2, 3, 1, 1), padding=-1), "padding -1 at least 0"),
    "max_pool2d": (lambda: F.max_pool2d(t(1, 1, 2, 2), 3), "max_pool2d: kernel .* is larger"),
    "max_pool2d padding": (lambda: F.max_pool2d(t(1, 1, 4, 4), 2, padding=2), "more than half the kernel"),
    "avg_pool2d axes": (lambda: F.avg_pool2d(t(4, 4), 2), r"avg_pool2d: needs x \(N, C, H, W\)"),
    "avg_pool2d stride 0": (lambda: F.avg_pool2d(t(1, 1, 4, 4), 2, stride=0), "stride 0"),
    "global_avg_pool2d": (lambda: F.global_avg_pool2d(t(4, 4)), "global_avg_pool2d"),
    "batch_norm": (lambda: F.batch_norm(t(2, 3, 4, 4), t(4), t(3)), r"batch_norm: .*got \(2, 3, 4, 4\) and \(4,\), \(3,\)"),
    "batch_norm single value": (lambda: F.batch_norm(t(1, 3, 1, 1), t(3), t(3)), "1 value a channel .* model.eval()"),
    "cross_entropy batch": (lambda: F.cross_entropy(t(2, 3), [0]), r"cross_entropy: .*got \(2, 3\) and \(1,\)"),
    "cross_entropy range": (lambda: F.cross_entropy(t(2, 3), [0, 3]), r"labels must lie in 0 … 2, got 0 … 3"),
    "cross_entropy negative": (lambda: F.cross_entropy(t(2, 3), [0, -1]), "got -1 … 0"),
    "cross_entropy one-hot": (lambda: F.cross_entropy(t(2, 3), np.eye(3)[:2]), "labels"),
    "cross_entropy empty": (lambda: F.cross_entropy(t(0, 3), np.array([], int)), "N ≥ 1"),
    "squared_hinge": (lambda: F.squared_hinge(t(2, 3), [0]), "squared_hinge"),
    "reshape": (lambda: F.reshape(t(2, 3), (4, 2)), r"reshape: 6 values of shape \(2, 3\) cannot be laid out as \(4, 2\)"),
    "transpose": (lambda: F.transpose(t(2, 3), (0, 0)), r"transpose: axes \(0, 0\) are not a permutation"),
    "getitem": (lambda: t(2, 3)[5], r"getitem: x of shape \(2, 3\): index 5 is out of bounds"),
    "pad": (lambda: F.pad(t(2, 3), ((1, 1),)), "pad: .*needs 2 pairs"),
    "pad negative": (lambda: F.pad(t(2), ((-1, 0),)), "none negative"),
    "concat": (lambda: F.concat([t(2, 3, 4, 4), t(2, 3, 5, 4)]), r"concat: shapes .*\(2, 3, 5, 4\)\] may differ in their channels"),
    "concat nothing": (lambda: F.concat([]), "nothing to lay side by side"),
    "sum": (lambda: F.sum(t(2, 3), 2), r"sum: axis 2 does not fit shape \(2, 3\)"),
    "mean twice": (lambda: F.mean(t(2, 3), (0, -2)), "axis"),
    "max of nothing": (lambda: F.max(t(0, 3), 0), "no values"),
    "batch_norm evaluation": (
        lambda: F.batch_norm(t(2, 3, 1, 1), t(3), t(3), np.zeros(1), np.ones(1), training=False),
        r"batch_norm: .*got \(2, 3, 1, 1\) and \(3,\), \(3,\), \(1,\), \(1,\)",
    ),
    "conv stride pair": (lambda: F.conv2d(t(1, 3, 4, 4), t(2, 3, 1, 1), stride=(2, 2)), "must be whole numbers"),
    "mean of nothing": (lambda: F.mean(t(0, 3), 0), "mean: .* no values"),
    "item": (lambda: t(2).item(), "holds 2 numbers, not one"),
    "len": (lambda: len(t()), "without axes"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SHAPES)
def test_shapes_that_do_not_fit_are_named(name):
    call, message = BAD_SHAPES[name]
    with pytest.raises(md.ShapeError, match=message):
        call()


BAD_TYPES = {
    "cross_entropy floats": (lambda: F.cross_entropy(t(2, 3), np.array([0.0, 1.0])), "must be integers, got float64"),
    "cross_entropy tensor": (lambda: F.cross_entropy(t(2, 3), t(2)), "plain integer array"),
    "no tensor": (
        lambda: F.conv2d(t(1, 1, 2, 2), np.zeros((1, 1, 1, 1), np.float32)),
        r"Conv2d: input 1 is a ndarray, not a Tensor; wrap it",
    ),
    "mixed": (lambda: t(2) + md.Tensor(np.zeros(2)), "Add: inputs of different types .*'float32', 'float64'.*astype"),
    "complex": (lambda: md.Tensor(np.zeros(2, complex)), "needs real numbers, got ndarray of type complex128"),
    "text": (lambda: md.Tensor(["a"]), "needs real numbers"),
    "ragged": (lambda: md.Tensor([[1.0], [1.0, 2.0]]), "not numbers in a regular grid"),
    "integer dtype": (lambda: md.Tensor([1], dtype=np.int64), "computes with float types .*not int64"),
    "astype int": (lambda: t(2).astype(np.int32), "not int32"),
    "power of a tensor": (lambda: t(2) ** t(2), "one plain number"),
}


@pytest.mark.parametrize("name", BAD_TYPES)
def test_types_that_do_not_fit_are_named(name):
    call, message = BAD_TYPES[name]
    with pytest.raises(md.DTypeError, match=message):
        call()


@pytest.mark.parametrize("p", [-0.1, 1.0, 2.0])
def test_dropout_refuses_what_is_no_probability(p):
    with pytest.raises(md.ConfigError, match="dropout: p"):
        F.dropout(t(2), p, rng=np.random.default_rng(0))


def test_evaluation_needs_statistics():
    with pytest.raises(md.ConfigError, match="needs running_mean"):
        F.batch_norm(t(2, 3, 1, 1), t(3), t(3), training=False)
