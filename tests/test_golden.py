"""Golden numbers: eleven networks filled by the names of their arrays must give the logits, losses and gradients counted elsewhere."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

import minidense as md
from minidense import nn
from minidense.models import create

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


def fill(name, size):
    """Numbers in [−1, 1) that depend on the name alone: a hash, so that no generator has to agree with another."""
    h = np.arange(size, dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(zlib.crc32(name.encode()))
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return h / 2**31 - 1


def golden_array(name, shape):
    """Weights of about the right size, biases and running statistics near their usual values."""
    u = fill(name, int(np.prod(shape))).reshape(shape)
    kind = name.rpartition(".")[2]
    if kind == "weight" and len(shape) > 1:
        return u * np.sqrt(6 / np.prod(shape[1:]))
    return {"weight": 1 + 0.2 * u, "bias": 0.1 * u, "running_mean": 0.1 * u, "running_var": 1 + 0.5 * u}[kind]


def filled(name, dtype=np.float64):
    """A network with the golden weights."""
    with nn.init.undrawn():
        model = create(name, classes=GOLDEN[name]["classes"], dtype=dtype)
    model.load_state_dict(
        {k: golden_array(k, a.shape) for k, a in model.state_dict().items() if "num_batches" not in k}
    )
    return model


def images_of(name):
    shape = GOLDEN[name]["input"]
    return fill("input", int(np.prod(shape))).reshape(shape)


# The golden numbers were counted in float64 by another library, which sums in another order. 1e-6 is how near they have to be;
# measured on one x86-64 machine are 4e-12 for the logits, of which some are near 0, and 5e-14 for all else.
NEAR = 1e-6


def test_the_fill_is_the_golden_one():
    # The numbers are written with 16 digits.
    np.testing.assert_allclose(
        fill("input", 3), [-0.9120334181934595, -0.787447543349117, -0.8587395022623241], rtol=1e-15
    )


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_arrays_have_the_golden_names_and_shapes(name):
    mine = {k: list(a.shape) for k, a in filled(name).state_dict().items() if "num_batches" not in k}
    assert mine == GOLDEN[name]["tensors"]


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_numbers_in_evaluation(name):
    expected = GOLDEN[name]
    with md.no_grad():
        logits = filled(name).eval()(md.Tensor(images_of(name))).data
    np.testing.assert_allclose(logits[0, : len(expected["eval_logits_row0"])], expected["eval_logits_row0"], rtol=NEAR)
    assert np.linalg.norm(logits) == pytest.approx(expected["eval_logits_norm"], rel=NEAR)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_numbers_in_training(name):
    expected, model = GOLDEN[name], filled(name).train()
    images = md.Tensor(images_of(name), requires_grad=True)
    labels = (7 * np.arange(len(images)) + 3) % expected["classes"]
    with nn.without_chance(model):
        logits, loss = model.loss(images, labels)
    loss.backward()
    np.testing.assert_allclose(
        logits.data[0, : len(expected["train_logits_row0"])], expected["train_logits_row0"], rtol=NEAR
    )
    assert np.linalg.norm(logits.data) == pytest.approx(expected["train_logits_norm"], rel=NEAR)
    assert loss.item() == pytest.approx(expected["train_loss"], rel=NEAR)
    assert np.linalg.norm(images.grad) == pytest.approx(expected["input_grad_norm"], rel=NEAR)
    norms = {k: np.linalg.norm(p.grad) for k, p in model.named_parameters()}
    # Batch norm takes a convolution's bias out again: its gradient is 0 but for rounding, 1e-14 at most as measured; there abs counts.
    assert norms == pytest.approx(expected["grad_norms"], rel=NEAR, abs=1e-11)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_numbers_hold_in_float32(name):
    expected = GOLDEN[name]
    with md.no_grad():
        logits = filled(name, np.float32).eval()(md.Tensor(images_of(name), dtype=np.float32)).data
    row = np.array(expected["eval_logits_row0"])
    # Up to 30 layers of float32, whose rounding is 6e-8, relative to the largest logit; measured are 7e-7 at most.
    np.testing.assert_allclose(logits[0, : len(row)], row, rtol=0, atol=1e-5 * abs(row).max())
