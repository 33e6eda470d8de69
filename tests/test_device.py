"""The GPU path, proven without a GPU: a stand-in for CuPy that is as strict as CuPy (strict_cupy.py)."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import strict_cupy
from conftest import gpu_is_here

import minidense as md
from minidense import functional as F
from minidense.backend import device_of, library, to_device, to_numpy


def trained(device, steps=3):
    """A few steps of a DenseNet-BC with dropout: everything a training step touches."""
    model = md.models.densenet(depth=16, growth_rate=4, dropout=0.2, classes=3, dtype=np.float64, device=device)
    optimizer = md.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        images, labels = rng.standard_normal((4, 3, 8, 8)), rng.integers(0, 3, 4)
        loss = F.cross_entropy(model(md.Tensor(images, device=device)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with md.no_grad():
        logits = model(md.Tensor(images, device=device))
    return model, logits


def test_a_training_step_on_the_other_device_is_the_same_step(device):
    model, logits = trained(device)
    here, expected = trained("cpu")
    assert model.device == device
    assert logits.device == device
    np.testing.assert_allclose(
        to_numpy(logits.data), expected.data, rtol=1e-10, atol=1e-10
    )  # the same operations, other kernels
    for name, array in here.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[name], array, rtol=1e-10, atol=1e-10, err_msg=name)


def test_there_and_back(strict_gpu):
    x = md.Tensor([1.0, 2.0], device=strict_gpu, requires_grad=True)
    assert (x.device, device_of(x.data)) == ("gpu", "gpu")
    assert repr(x) == "Tensor(2,) float32 on the gpu"
    assert x.to("cpu").data.tolist() == [1, 2]
    assert x.to("cpu").requires_grad
    assert x.numpy().tolist() == [1, 2]
    (x * x).sum().backward()
    assert to_numpy(x.grad).tolist() == [2, 4]


def test_a_model_moves_as_a_whole(strict_gpu):
    model = md.models.densenet(depth=10, growth_rate=2)
    state = model.state_dict()
    model.to("gpu")
    assert all(isinstance(item.data, strict_cupy.ndarray) for _, item in model.named_arrays())
    model.load_state_dict(state)
    model.to("cpu", dtype=np.float64)
    assert all(isinstance(item.data, np.ndarray) for _, item in model.named_arrays())
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, state[name])


def test_devices_are_never_mixed_silently(strict_gpu):
    here, there = md.Tensor(np.ones((2, 3))), md.Tensor(np.ones((2, 3)), device=strict_gpu)
    for call in (lambda: F.concat([here, there]), lambda: F.linear(here, there), lambda: here + there):
        with pytest.raises(
            md.DeviceError,
            match=r"(Concat|Linear|Add): .*two devices at once: \(2, 3\) on the cpu, \(2, 3\) on the gpu",
        ):
            call()


def test_the_stand_in_is_strict():
    """The checks on it can fail: it refuses what CuPy refuses."""
    x = strict_cupy.asarray(np.ones(3))
    with pytest.raises(TypeError):
        np.exp(x)
    with pytest.raises(TypeError):
        np.asarray(x)
    with pytest.raises(TypeError):
        x + np.ones(3)
    with pytest.raises(TypeError):
        strict_cupy.exp(np.ones(3))
    with pytest.raises(TypeError):
        x[np.array([0])]
    with pytest.raises(AttributeError):
        strict_cupy.vecdot


def test_an_unknown_device_is_named():
    with pytest.raises(md.DeviceError, match=r"unknown device 'tpu': choose one of cpu, gpu"):
        library("tpu")
    with pytest.raises(md.DeviceError, match="unknown device 'cuda'"):
        md.Tensor([1.0], device="cuda")


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed here")
def test_a_missing_cupy_says_what_to_install():
    with pytest.raises(
        md.DeviceError, match=r"needs CuPy, which is not installed.*pip install \"minidense\[cuda12\]\""
    ):
        md.models.create("densenet_bc_22_12", device="gpu")


def test_a_missing_driver_is_named(strict_gpu, monkeypatch):
    monkeypatch.setattr(strict_cupy.cuda, "is_available", lambda: False)
    with pytest.raises(md.DeviceError, match="no usable GPU or driver"):
        to_device(np.ones(1), "gpu")


def test_cupy_is_not_imported_where_it_is_not_wanted():
    code = (
        "import sys, minidense as md; md.models.create('densenet_bc_10_4', device='cpu'); "
        "assert not {'cupy', 'matplotlib', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not gpu_is_here, reason="needs CuPy and a GPU")
def test_the_real_gpu_takes_part():
    """Where there is one, the fixture `device` sends every test of this kind through it as well."""
    assert library("gpu").cuda.runtime.getDeviceCount() > 0
