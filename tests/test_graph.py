"""The graph: walked once, in the right order, however deep, and gone when nobody needs it."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

import minidense as md
from minidense import functional as F
from minidense import ops
from minidense.tensor import Op, apply


def leaf(*values):
    return md.Tensor(np.array(values), requires_grad=True)


@pytest.fixture
def no_gc():
    """Reference counting alone must free a graph: cycles would keep GPU memory until some collection."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_diamond_adds_both_paths():
    a = leaf(3.0)
    b = a + a
    c = b + b
    c.backward()
    assert a.grad.tolist() == [4]


def test_paths_of_different_length_are_walked_in_order():
    """x reaches y directly and through three more operations: the long way must be finished first."""
    x = leaf(2.0)
    square = x * x
    y = square + F.exp(F.log(square * x))  # x² + x³
    y.backward()
    np.testing.assert_allclose(x.grad, [2 * 2 + 3 * 4], rtol=1e-14)  # a few roundings in exp and log


def test_gradients_of_leaves_add_up_over_walks():
    x = leaf(2.0)
    (x * 3).backward()
    (x * 4).backward()
    assert x.grad.tolist() == [7]


def test_gradients_never_share_memory():
    """add hands the same dy to both inputs; changing one gradient in place must not change the other."""
    a, b = leaf(1.0), leaf(2.0)
    dy = np.array([5.0])
    (a + b).backward(dy)
    a.grad += 1
    assert (b.grad.tolist(), dy.tolist()) == ([5], [5])


def test_twenty_thousand_chained_operations(no_gc):
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + 1
    y.backward()
    assert x.grad.tolist() == [1]


def test_twenty_thousand_chained_operations_can_be_dropped(no_gc):
    y = leaf(1.0)
    for _ in range(20_000):
        y = y + 1
    end = weakref.ref(y.source.inputs[0])
    del y
    assert end() is None


def test_second_backward_explains_itself():
    y = F.relu(leaf(1.0))
    y.backward()
    with pytest.raises(md.GraphError, match=r"ReLU was already walked by backward\(\); run the forward pass again"):
        y.backward()


def test_backward_through_a_walked_part_explains_itself():
    h = F.tanh(leaf(1.0))
    (h * 2).backward()
    with pytest.raises(md.GraphError, match="Tanh was already walked"):
        (h * 3).backward()


def test_backward_without_history_explains_itself():
    with pytest.raises(md.GraphError, match=r"nothing was recorded.*no_grad"):
        md.Tensor(1.0).backward()
    with md.no_grad():
        y = leaf(1.0) * 2
    with pytest.raises(md.GraphError, match="nothing was recorded"):
        y.backward()


def test_only_a_single_number_may_leave_dy_out():
    with pytest.raises(md.GraphError, match=r"shape \(2,\) needs dy"):
        (leaf(1.0, 2.0) * 2).backward()
    with pytest.raises(md.GraphError, match=r"dy has shape \(3,\) but the tensor has shape \(2,\)"):
        (leaf(1.0, 2.0) * 2).backward(np.ones(3))


def test_no_grad_keeps_nothing(no_gc):
    x = leaf(1.0)
    with md.no_grad():
        h = F.exp(x)
        kept = weakref.ref(h)
        y = h * 2
    assert y.source is None
    assert not y.requires_grad
    del h
    assert kept() is None


def test_no_grad_ends_with_its_block_even_after_an_error():
    with pytest.raises(ZeroDivisionError), md.no_grad():
        1 / 0
    assert (leaf(1.0) * 2).requires_grad


def test_without_gradients_to_ask_for_nothing_is_recorded():
    assert (md.Tensor([1.0]) * 2).source is None


def test_the_graph_dies_with_the_loss(no_gc):
    x = leaf(*range(5))
    h = F.exp(x)
    op, inner = weakref.ref(h.source), weakref.ref(h)
    loss = (h * h).sum()
    del h
    assert op() is not None
    del loss
    assert (op(), inner()) == (None, None)


def test_backward_frees_what_was_saved_while_the_loss_lives(no_gc):
    x = md.Tensor(np.ones(250_000), requires_grad=True)
    tracemalloc.start()
    loss = F.exp(F.tanh(F.exp(x) * 0.1)).sum()
    recorded, _ = tracemalloc.get_traced_memory()
    loss.backward()
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert recorded > 6_000_000  # at least three results of 2 MB were kept for the walk
    assert left < 2_100_000  # the gradient of x, 2 MB, and small change


def test_the_walk_frees_on_its_way(no_gc):
    """What forward kept for a step that has been walked is gone when the walk comes to the steps before it."""
    held = []

    class Look(Op):
        def forward(self, x):
            return x * 1

        def backward(self, dy):
            held.append(later() is not None)
            return (dy,)

    earlier = apply(Look(), leaf(1.0, 2.0))
    result = F.exp(earlier)
    later = weakref.ref(result)
    loss = F.exp(result).sum()
    del result
    loss.backward()
    assert held == [False]


def test_a_failing_walk_leaves_no_gradient_behind():
    class Broken(Op):
        def forward(self, x):
            return x * 1

        def backward(self, dy):
            raise MemoryError("no room")

    a, b = leaf(1.0), leaf(2.0)
    y = apply(Broken(), a) + b * 2
    with pytest.raises(MemoryError):
        y.backward()
    assert (a.grad, b.grad) == (None, None)


def test_a_gradient_of_the_wrong_shape_names_its_op():
    class Careless(ops.Neg):
        def backward(self, dy):
            return (dy.sum(),)

    with pytest.raises(
        md.GraphError, match=r"Careless.backward made a gradient of shape \(\) for input 0 of shape \(2,\)"
    ):
        apply(Careless(), leaf(1.0, 2.0)).backward(np.ones(2))


def test_a_wrong_number_of_gradients_names_its_op():
    class Generous(ops.Neg):
        def backward(self, dy):
            return dy, dy

    with pytest.raises(md.GraphError, match=r"Generous\.backward made 2 gradients for 1 inputs"):
        apply(Generous(), leaf(1.0)).backward()


def test_an_op_may_say_that_no_gradient_flows():
    class Wall(ops.Neg):
        def backward(self, dy):
            return (None,)

    a, b = leaf(1.0), leaf(2.0)
    (apply(Wall(), F.exp(a)) + b).backward()
    assert (a.grad, b.grad.tolist()) == (None, [1])


def test_a_step_between_forward_and_backward_does_not_change_the_gradient():
    w = leaf(2.0)
    y = w * w
    w.grad = np.ones(1)
    md.optim.SGD([w], lr=1.0).step()
    w.grad = None
    y.backward()
    assert (w.data.tolist(), w.grad.tolist()) == ([1], [4])


def test_retain_grad_shows_gradients_of_inner_results():
    x = leaf(1.0, 2.0)
    h = (x * 3).retain_grad()
    (h * h).sum().backward()
    assert h.grad.tolist() == [6, 12]
    assert x.grad.tolist() == [18, 36]


def test_retain_grad_without_history_explains_itself():
    with pytest.raises(md.GraphError, match="nothing was recorded"):
        md.Tensor(1.0).retain_grad()


def test_watching_costs_no_cycle(no_gc):
    h = F.exp(leaf(1.0)).retain_grad()
    watched = weakref.ref(h)
    del h
    assert watched() is None


def test_inputs_that_want_no_gradient_get_none():
    images = md.Tensor(np.ones((1, 1, 3, 3)))
    weight = md.Tensor(np.ones((1, 1, 3, 3)), requires_grad=True)
    y = F.conv2d(images, weight)
    assert y.source.backward(np.ones(y.shape))[0] is None


def test_numbers_and_arrays_take_the_tensors_type():
    x = md.Tensor(np.float32([1, 2]))
    for y in (
        x * 2.0,
        2.0 * x,
        x + np.float64(1),
        x - np.array([1.0, 2.0]),
        np.array([1.0, 2.0]) * x,
        [1.0, 2.0] + x,  # noqa: RUF005  an addition, not a longer list
        1 / x,
    ):
        assert y.dtype == np.float32
        assert isinstance(y, md.Tensor)


def test_floats_keep_their_type_and_everything_else_becomes_float32():
    assert md.Tensor(np.zeros(2)).dtype == np.float64
    assert md.Tensor(np.zeros(2, np.float16)).dtype == np.float16
    assert md.Tensor(np.float64(1)).dtype == np.float64
    for data in (1, 1.0, [1.0, 2.0], True, np.arange(3), np.zeros(2, np.uint8)):
        assert md.Tensor(data).dtype == np.float32
    assert md.Tensor([1.0], dtype=np.float64).dtype == np.float64


def test_numpy_sees_the_numbers():
    assert np.asarray(md.Tensor([1.0, 3.0])).tolist() == [1, 3]


def test_a_tensor_shares_its_arrays_memory():
    array = np.zeros(2, np.float32)
    assert md.Tensor(array).data is array


def test_indexing_iterates_over_the_first_axis():
    assert [row.data.tolist() for row in md.Tensor([[1.0, 2.0], [3.0, 4.0]])] == [[1, 2], [3, 4]]


def test_repr_says_shape_type_and_source():
    assert repr(md.Tensor([1.0])) == "Tensor(1,) float32"
    assert repr(F.relu(leaf(1.0))) == "Tensor(1,) float64 from ReLU"


def test_an_op_that_is_not_finished_says_so():
    with pytest.raises(md.GraphError, match=r"Op has no forward\(\)"):
        apply(Op(), leaf(1.0))
