"""Every operation's backward is the derivative of its forward, on every device."""

import inspect

import numpy as np
import pytest
from cases import CASES

import minidense as md
from minidense import functional as F
from minidense import ops
from minidense.backend import to_device
from minidense.testing import check_gradients


@pytest.mark.parametrize("case", CASES, ids=str)
def test_backward_is_the_derivative(case, rng, device):
    check_gradients(case.fn, *case.draw(rng), device=device)


def test_every_op_has_a_case():
    names = {name for name in ops.__all__ if name != "Op"}
    assert names == {case.op for case in CASES}


def test_every_function_has_a_case(rng, monkeypatch):
    public = {
        name for name, f in inspect.getmembers(F, inspect.isfunction) if f.__module__ == F.__name__ and name[0] != "_"
    }
    called = set()
    for name in public:
        original = getattr(F, name)
        monkeypatch.setattr(F, name, lambda *a, name=name, f=original, **k: called.add(name) or f(*a, **k))
    # The table holds some functions themselves: look those up by identity, the others by calling their case.
    held = {case.fn.__name__ for case in CASES if getattr(case.fn, "__module__", "") == F.__name__}
    for case in CASES:
        case.fn(*(md.Tensor(x) for x in case.draw(rng)))
    assert public - held - called == {"getitem"}  # spelt x[...] in the table


@pytest.mark.parametrize("case", [case for case in CASES if case.op != "AsType"], ids=str)
def test_float32_stays_float32(case, rng, device):
    """No silent float64: half the speed and twice the memory, for nothing."""
    xs = [md.Tensor(x.astype(np.float32), device=device, requires_grad=True) for x in case.draw(rng)]
    y = case.fn(*xs)
    assert y.dtype == np.float32
    y.backward(to_device(np.ones(y.shape), device))
    assert all(x.grad.dtype == np.float32 for x in xs)


def test_a_whole_small_densenet_is_differentiated_rightly(rng):
    model = md.models.densenet(depth=10, growth_rate=3, classes=3, dtype=np.float64)
    images, labels = md.Tensor(rng.standard_normal((3, 3, 8, 8)), requires_grad=True), np.array([0, 2, 1])

    def loss():
        return F.cross_entropy(model(images), labels)

    loss().backward()
    for name, x in [("images", images), *model.named_parameters()]:
        v, here, step = rng.standard_normal(x.shape), x.data, 1e-6
        x.data = here + step * v
        ahead = loss().item()
        x.data = here - step * v
        behind = loss().item()
        x.data = here
        # Curvature and rounding stay below 1e-9; one ReLU among thousands that flips within the step costs up to 1e-6.
        np.testing.assert_allclose(
            (ahead - behind) / (2 * step), np.vdot(x.grad, v), rtol=1e-5, atol=1e-6, err_msg=name
        )
