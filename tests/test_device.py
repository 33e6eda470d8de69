"""The GPU path, proven without a GPU: a stand-in for CuPy that is as strict as CuPy (strict_cupy.py)."""

import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import strict_cupy
from conftest import gpu_is_here

import minidense as md
from minidense import functional as F
from minidense import train
from minidense.backend import device_of, library, to_device, to_numpy
from minidense.config import TrainConfig
from minidense.data import load
from minidense.speed import reference_only


def trained(device, steps=3):
    """A few steps of a DenseNet-BC with dropout: everything a training step touches."""
    model = md.models.densenet(depth=16, growth_rate=4, dropout=0.2, classes=3, dtype=np.float64, device=device)
    optimizer = md.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        images, labels = rng.standard_normal((4, 3, 8, 8)), rng.integers(0, 3, 4)
        loss = F.cross_entropy(model(md.Tensor(images, device=device)), to_device(labels, device))
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


def test_a_whole_run_on_the_other_device_is_the_same_run(device, tmp_path, monkeypatch):
    """Two epochs with dropout and augmentation and their tests, from images that are kept on the device as bytes."""
    seen, makers, training_batches = [], set(), train.training_batches

    def noted_batches(dataset, **options):
        seen.append(dataset)
        for batch in training_batches(dataset, **options):
            makers.add((dataset.device, threading.current_thread() is threading.main_thread()))
            yield batch

    monkeypatch.setattr(train, "training_batches", noted_batches)
    settings = {"model": "densenet_bc_10_4", "data": "digits", "limit_train": 100, "limit_test": 40}
    settings |= {"batch_size": 32, "epochs": 2, "learning_rate": 0.05, "dropout": 0.1, "threads": 1}
    with reference_only():
        here, there = (
            train.fit(TrainConfig(**settings, device=where, out=str(tmp_path / f"{i}")), say=lambda line: None)
            for i, where in enumerate(["cpu", device])
        )
    assert len(seen) == 2 * 3  # for the forecast and for each epoch
    # The forecast makes its one batch itself; for the epochs a thread makes them beside the CPU, and none beside the GPU.
    assert makers == {("cpu", True), ("cpu", False), (device, True)}
    for dataset in seen[3:]:
        assert dataset.device == device_of(dataset.train_labels) == device_of(dataset.test_images) == device
        assert dataset.train_images.dtype == dataset.test_images.dtype == np.uint8
    for name in ("train_loss", "test_loss"):
        losses = [[epoch[name] for epoch in history] for history in (here, there)]
        np.testing.assert_allclose(*losses, rtol=1e-3)  # float32: eight steps enlarge what other kernels round
    assert there[0]["train_accuracy"] == pytest.approx(here[0]["train_accuracy"], abs=0.02)  # two images on the edge


@pytest.mark.parametrize("start", [0, 2])
def test_an_epoch_may_be_left_and_taken_up_again_on_the_other_device(start, device, monkeypatch):
    """The steps of an epoch in two halves are those of the whole."""
    config = TrainConfig(
        model="densenet_bc_10_4", data="digits", batch_size=16, device=device, dropout=0.2, learning_rate=0.01
    )
    dataset = load("digits").first(70, 20).to(device)
    bar = SimpleNamespace(update=lambda: None, set_postfix_str=lambda text: None)
    model, optimizer = train.build(config, dataset)
    whole, stopping = train.Progress(), train.Stopping()
    train.train_epoch(model, optimizer, dataset, config, whole, stopping, bar)

    twin, its_optimizer = train.build(config, dataset)
    parts = train.Progress()
    monkeypatch.setattr(bar, "update", lambda: setattr(stopping, "asked", parts.step == start + 1))
    with pytest.raises(train.Stopped):
        train.train_epoch(twin, its_optimizer, dataset, config, parts, stopping, bar)
    assert parts.step == start + 1
    train.train_epoch(twin, its_optimizer, dataset, config, parts, train.Stopping(), bar)
    assert (parts.step, parts.images) == (whole.step, whole.images) == (5, 70)
    for name, array in model.state_dict().items():
        np.testing.assert_allclose(twin.state_dict()[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


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


def test_arrays_stay_where_they_were_put(strict_gpu):
    here, there = md.Tensor(np.ones((2, 3))), md.Tensor(np.ones((2, 3)), device=strict_gpu)
    for call in (lambda: here + there.data, lambda: there * here.data, lambda: here.data - there):
        with pytest.raises(
            md.DeviceError, match=r"an array \(2, 3\) on the (cpu|gpu) meets a tensor \(2, 3\) on the (gpu|cpu)"
        ):
            call()
    assert (there + 1).device == (there * [[1], [2]]).device == "gpu"
    y = md.Tensor(np.ones(2), requires_grad=True) * 2
    with pytest.raises(md.DeviceError, match=r"dy \(2,\) on the gpu meets a tensor \(2,\) on the cpu"):
        y.backward(there.data[0, :2])
    for scores, labels in ((there, np.array([0, 1])), (here, to_device(np.array([0, 1]), "gpu"))):
        with pytest.raises(md.DeviceError, match=r"labels \(2,\) on the (cpu|gpu), scores \(2, 3\) on the (gpu|cpu)"):
            F.cross_entropy(scores, labels)
        with pytest.raises(md.DeviceError, match="squared_hinge"):
            F.squared_hinge(scores, labels)
    assert F.cross_entropy(there, [0, 1]).device == "gpu"


def test_a_model_that_moves_leaves_its_velocities_behind_and_is_told(strict_gpu):
    model = md.models.create("densenet_bc_10_4", device=strict_gpu)
    optimizer = md.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for device in ("gpu", "cpu"):
        model.to(device)
        for w in model.parameters():
            w.grad = w.data * 0
        if device == "gpu":
            optimizer.step()
    with pytest.raises(md.DeviceError, match="is on the cpu, its velocity on the gpu: the model has moved") as told:
        optimizer.step()
    assert len(str(told.value)) < 300


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
