"""How a twin is held against its definition: everything that a call leaves behind, by name."""

import numpy as np

import minidense as md
from minidense.backend import array_module, to_device, to_numpy
from minidense.nn import Module


def run(function, args, options):
    """Result, gradients and state of a call, by name."""
    y = function(*args, **options)
    if isinstance(y, md.Tensor) and y.requires_grad:
        dy = np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)
        y.backward(to_device(dy, y.device))
    found: dict = {}
    collect("result", y.data if isinstance(y, md.Tensor) else y, found)
    collect("argument", [*args, *options.values()], found)
    return found


def collect(name, value, found):
    """Gradients of tensors and the numbers of arrays, as NumPy arrays, from whatever holds them."""
    if isinstance(value, md.Tensor):
        found[f"gradient of {name}"] = None if value.grad is None else to_numpy(value.grad)
    elif isinstance(value, array_module(value).ndarray):
        found[name] = to_numpy(value)
    elif isinstance(value, Module):
        for key, item in value.named_arrays():
            collect(f"{name}.{key}", item if isinstance(item, md.Tensor) else item.data, found)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            collect(f"{name}[{i}]", item, found)


def assert_same(found, expected, tolerance):
    """Everything within `tolerance` of the largest number there; nothing on one side only."""
    assert found.keys() == expected.keys()
    for name, right in expected.items():
        mine = found[name]
        if right is None:
            assert mine is None, f"{name}: nobody asked for it"
            continue
        assert mine is not None, f"{name} is missing"
        assert mine.shape == right.shape, name
        assert np.isfinite(mine).all(), name
        # A bias before a batch norm and the like have gradient 0 but for rounding: those are held against the size of the others.
        scale = max(abs(right).max(initial=0), 1e-3)
        error = abs(mine - right).max(initial=0) / scale
        assert error <= tolerance, f"{name}: off by {error:.1e} of its largest value"
