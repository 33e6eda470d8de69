"""SGD and learning rates. The comparison with PyTorch over many steps stands in test_against_torch.py."""

import numpy as np
import pytest

import minidense as md
from minidense import schedule
from minidense.optim import SGD, parameter_groups


def parameter(value, grad):
    w = md.Tensor(np.array([value]), requires_grad=True)
    w.grad = np.array([grad])
    return w


def test_plain_sgd_by_hand():
    w = parameter(1.0, 0.5)
    SGD([w], lr=0.1).step()
    assert w.data.tolist() == [1 - 0.1 * 0.5]


def test_nesterov_with_weight_decay_by_hand():
    """g = 0.5 + 0.1·1 = 0.6, v = 0.6, step 0.1·(0.6 + 0.9·0.6); then the same gradient again."""
    w = parameter(1.0, 0.5)
    optimizer = SGD([w], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)
    optimizer.step()
    first = 1 - 0.1 * (0.6 + 0.9 * 0.6)
    np.testing.assert_allclose(w.data, first, rtol=1e-15)
    optimizer.step()
    g = 0.5 + 0.1 * first
    v = 0.9 * 0.6 + g
    np.testing.assert_allclose(w.data, first - 0.1 * (g + 0.9 * v), rtol=1e-15)


def test_a_group_has_settings_of_its_own():
    a, b = parameter(1.0, 1.0), parameter(1.0, 1.0)
    SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.1).step()
    assert (a.data.tolist(), b.data.tolist()) == ([0.9], [0.5])


def test_without_a_gradient_a_parameter_stays():
    a, b = parameter(1.0, 1.0), parameter(1.0, 1.0)
    b.grad = None
    SGD([a, b], lr=0.1, momentum=0.9, weight_decay=0.1).step()
    assert b.data.tolist() == [1]


def test_a_coasting_parameter_goes_on_by_momentum_and_decay():
    settings = {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.01, "coast": True}
    a, b, frozen = (md.Tensor(np.array([value]), requires_grad=True) for value in (1.0, 2.0, 3.0))
    frozen.requires_grad = False
    optimizer = SGD([a, b, frozen], **settings)
    for dw in (1.0, None):  # the second step leaves a out
        a.grad, b.grad = None if dw is None else np.array([dw]), np.array([0.0])
        optimizer.step()
    # v = 1.01, a = 1 - 0.101 = 0.899; then v = 0.505 + 0.00899 = 0.51399, a = 0.899 - 0.051399
    np.testing.assert_allclose(a.data, [0.847601], rtol=1e-12)
    assert a.grad is None
    assert frozen.data == 3


def test_a_step_changes_neither_gradient_nor_what_shares_it():
    w = parameter(1.0, 1.0)
    optimizer = SGD([w], lr=0.1, momentum=0.9)
    optimizer.step()
    optimizer.velocity[w] += 1
    assert w.grad.tolist() == [1]


def test_zero_grad_forgets():
    w = parameter(1.0, 1.0)
    SGD([w], lr=0.1).zero_grad()
    assert w.grad is None


def test_a_failed_step_leaves_every_parameter_as_it_was():
    a, b = parameter(1.0, 1.0), parameter(2.0, 1.0)
    b.grad = np.ones(3)
    optimizer = SGD([a, b], lr=0.1, momentum=0.9)
    with pytest.raises(md.ShapeError, match=r"gradient \(3,\) float64 does not fit its parameter \(1,\) float64"):
        optimizer.step()
    assert (a.data.tolist(), b.data.tolist(), optimizer.velocity) == ([1], [2], {})


def test_a_step_without_any_gradient_explains_itself():
    w = parameter(1.0, 1.0)
    w.grad = None
    with pytest.raises(md.GraphError, match=r"call loss.backward\(\) first"):
        SGD([w], lr=0.1).step()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -0.1}, "learning rate must be a number"),
        ({"lr": float("nan")}, "learning rate"),
        ({"lr": 0.1, "momentum": 1.0}, "momentum"),
        ({"lr": 0.1, "weight_decay": -1}, "weight decay"),
        ({"lr": 0.1, "nesterov": True}, "Nesterov needs a momentum above 0 and dampening 0"),
        ({"lr": 0.1, "nesterov": True, "momentum": 0.9, "dampening": 0.1}, "dampening 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(md.ConfigError, match=message):
        SGD([parameter(1.0, 1.0)], **settings)


def test_parameters_that_make_no_sense_are_refused():
    w = parameter(1.0, 1.0)
    for params, message in (
        ([], "no parameters"),
        ([w, w], "appears twice"),
        ([np.ones(2)], "must be tensors"),
        ([{"params": [w], "rate": 1}], "unknown"),
    ):
        with pytest.raises(md.ConfigError, match=message):
            SGD(params, lr=0.1)


def test_the_papers_300_epochs_are_149_75_and_76():
    """Huang et al. 2017, §4.2, by the authors' code: epochs from 1, drops at ≥ 50 % and ≥ 75 %."""
    rates = [schedule.step_decay(epoch, start=0.1, drop_at=schedule.paper_drops(300)) for epoch in range(300)]
    assert [round(rate, 12) for rate in rates] == [0.1] * 149 + [0.01] * 75 + [0.001] * 76


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 40, 90, 300])
def test_the_drops_are_those_of_the_authors_formula(epochs):
    for epoch in range(epochs):
        counted = epoch + 1
        drops = 2 if counted >= 0.75 * epochs else 1 if counted >= 0.5 * epochs else 0
        assert schedule.step_decay(epoch, start=1.0, drop_at=schedule.paper_drops(epochs)) == pytest.approx(0.1**drops)


def test_cosine_by_hand():
    assert [schedule.cosine(e, start=0.2, epochs=4) for e in (0, 2, 4, 9)] == pytest.approx([0.2, 0.1, 0, 0], abs=1e-15)
    assert schedule.cosine(4, start=0.2, epochs=4, end=0.05) == pytest.approx(0.05)


def test_one_cycle_by_hand():
    rates = [schedule.one_cycle(e, peak=1.0, epochs=10, warmup=0.2) for e in (0, 1, 2, 6, 10)]
    assert rates == pytest.approx([0.1, 0.55, 1.0, 0.5, 0.0])
    assert schedule.one_cycle(0, peak=1.0, epochs=10, warmup=0) == 1
    assert schedule.one_cycle(10, peak=1.0, epochs=10, warmup=1) == 1


def test_schedules_refuse_nonsense():
    with pytest.raises(md.ConfigError, match="must not decrease"):
        schedule.step_decay(0, start=0.1, drop_at=(3, 2))
    with pytest.raises(md.ConfigError, match="warmup"):
        schedule.one_cycle(0, peak=1, epochs=2, warmup=1.5)


def test_groups_keep_their_share_of_the_rate_that_is_set():
    w = [md.Tensor(np.ones(2), requires_grad=True) for _ in range(4)]
    names = ("a.weight", "a.bias", "b.weight", "b.bias")
    groups = parameter_groups(
        zip(names, w, strict=True), lambda name, _: {"lr_scale": 2.0 if name.endswith("bias") else 1.0}
    )
    assert [[names[w.index(p)] for p in group["params"]] for group in groups] == [
        ["a.weight", "b.weight"],
        ["a.bias", "b.bias"],
    ]
    optimizer = SGD(groups, lr=0.1)
    assert [group["lr"] for group in optimizer.groups] == [0.1, 0.2]
    optimizer.set_lr(0.01)
    assert [group["lr"] for group in optimizer.groups] == [0.01, 0.02]
    with pytest.raises(md.ConfigError, match="lr_scale must be a number"):
        SGD([{"params": w, "lr_scale": -1.0}], lr=0.1)
