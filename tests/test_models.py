"""Every network of the lecture: that its gradients are right, that its traps were seen, and that what is drawn at random is drawn right."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
from families import SMALL, TINY

import minidense as md
from minidense import functional as F
from minidense import models, nn
from minidense.models import create
from minidense.models.fractalnet import DropPath, FractalBlock
from minidense.models.residual_units import UNITS, PadShortcut
from minidense.models.stochastic_depth import Gate, GatedUnit
from minidense.optim import parameter_groups
from minidense.step import training_step


def images(rng, n=3, size=16, dtype=np.float64):
    return rng.standard_normal((n, 3, size, size)).astype(dtype)


# -- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
def test_the_gradient_of_a_whole_network_is_that_of_finite_differences(name, rng):
    """Along one random direction through all parameters and the images at once, and along one for each parameter by itself."""
    model = TINY[name](dtype=np.float64)
    for parameter in model.parameters():  # biases and γ off their starts, where many gradients are alike
        parameter.data += 0.1 * rng.standard_normal(parameter.shape)
    labels = np.array([0, 3, 1])
    x = md.Tensor(images(rng), requires_grad=True)
    parameters = [x, *model.parameters()]

    def loss():
        with nn.without_chance(model):
            return model.loss(x, labels)[1]

    loss().backward()
    directions = [rng.standard_normal(p.shape) for p in parameters]
    starts = [p.data for p in parameters]
    exact = [float((p.grad * v).sum()) for p, v in zip(parameters, directions, strict=True)]
    scale = max(abs(value) for value in exact)

    def slope(chosen, step):
        values = []
        for sign in (1, -1):
            for i in chosen:
                parameters[i].data = starts[i] + sign * step * directions[i]
            with md.no_grad():
                values.append(loss().item())
        for i in chosen:
            parameters[i].data = starts[i]
        return (values[0] - values[1]) / (2 * step)

    for chosen in (range(len(parameters)), *([i] for i in range(len(parameters)))):
        # Where a ReLU or a maximum changes its mind within the step, a smaller one stays on this side of it.
        slopes = []
        for step in (1e-6, 1e-7, 1e-8):
            slopes.append(slope(chosen, step))
            # Differences of a loss of about 1 in float64 at these steps are right to 1e-8 to 1e-10; directions that change a loss
            # of many summands hardly at all cancel, so the largest slope is the measure.
            if slopes[-1] == pytest.approx(sum(exact[i] for i in chosen), rel=1e-5, abs=1e-5 * scale):
                break
        else:
            pytest.fail(
                f"parameters {list(chosen)}: backward says {[exact[i] for i in chosen]}, differences say {slopes}"
            )


@pytest.mark.parametrize("name", TINY)
def test_a_training_step_runs_on_the_gpu(name, gpu, rng):
    """Once with the definitions on the stand-in, which refuses to mix its arrays with NumPy's; the loss is the CPU's."""
    x, labels = images(rng, dtype=np.float32), np.array([0, 3, 1])
    losses, stepped = [], []
    for device in ("cpu", gpu):
        model = TINY[name](device=device)
        optimizer = md.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, coast=nn.has_chance(model))
        here = partial(md.backend.to_device, device=device)
        with md.speed.reference_only(), nn.without_chance(model):
            losses.append(training_step(model, optimizer, here(x), here(labels))[1].item())
        stepped.append({key: md.backend.to_numpy(w.data) for key, w in model.named_parameters()})
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)  # float32, sums in another order
    for key, w in stepped[0].items():  # a step is at most some hundredths; its own rounding is a ten-thousandth of that
        np.testing.assert_allclose(stepped[1][key], w, rtol=1e-4, atol=1e-5, err_msg=key)


# -- the register -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.names())
def test_every_name_says_what_it_was_made_for(name):
    entry = models.about(name)
    assert entry.family
    assert (entry.image_shape, entry.classes) in (((3, 32, 32), 10), ((3, 224, 224), 1000))
    with nn.init.undrawn():
        model = create(name)
    assert model.last_layer.weight.shape[0] == entry.classes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create("resnet111"), r"depth 111 does not make three equal stages: \(depth − 2\) must divide by 6. Nearest: 110, 116"),
        (lambda: create("preresnet165"), "must divide by 9. Nearest: 164, 173"),
        (lambda: create("resnet50_imagnet"), "Did you mean resnet50_imagenet"),
        (lambda: create("resnet18"), r"Nearest: 14, 20"),
        (lambda: create("wrn28_10", width=3), "already says width"),
        (lambda: create("wrn27_10"), "Nearest: 22, 28"),
        (lambda: create("wrn28_0"), "width must be a whole number of at least 1"),
        (lambda: create("resnet110", shortcut="B"), "unknown shortcut 'B'; choose one of pad, projection"),
        (lambda: models.resnet(depth=20, unit="full"), "unknown unit 'full'; choose one of original"),
        (lambda: create("resnet110_stochdepth", survival=0), "survival is a probability above 0"),
        (lambda: models.fractalnet(columns=0), "columns must be a whole number from 1 to 6"),
        (lambda: models.fractalnet(widths=(4, 4), dropout=(0.1,)), "dropout must be a rate, or a list of 2"),
        (lambda: create("nin", depth=3), "takes no option depth; it takes classes, device, dropout"),
        (lambda: create("fractalnet_c3_b5", drop_path=1.0), r"must lie in \[0, 1\)"),
        (lambda: create("nin", kernels=(5, 5)), "nin: kernels must be 3 whole numbers of at least 1, got"),
        (lambda: create("nin", widths=3), "nin: widths must be those of three stages"),
        (lambda: create("nin", widths=((8, 8), (8, 8, 8), (8, 8))), r"nin: widths\[0\] must be 3 whole numbers"),
        (lambda: create("dsn", companion_epochs=-1), "companion_epochs must be at least 0"),
        (lambda: create("dsn", image_size=0), "dsn: image_size must be a whole number of at least 1, got 0"),
        (lambda: create("highway_19", widths=(32,)), "kernels must be those of 1 stages"),
        (lambda: models.highway(widths=(8,), kernels=((2,),)), r"kernels\[0\] must be odd"),
        (lambda: create("allcnn_c", widths=(3,)), "all_cnn_c: widths must be 2 whole numbers"),
        (lambda: create("resnet110", widths=()), "resnet: widths must be 3 whole numbers"),
        (lambda: create("resnet110_stochdepth", widths=(1, 2)), "widths must be 3 whole numbers"),
        (lambda: create("vgg16_bn_cifar", groups=(1,)), "vgg_cifar: groups must be 5 whole numbers"),
        (lambda: create("vgg16_bn_cifar", dropout=(0.1, 0.2)), "dropout must be a rate, or a list of 3"),
        (lambda: create("vgg16_imagenet", groups=(1,)), "vgg_imagenet: groups must be 5 whole numbers"),
        (lambda: create("fractalnet_c3_b5", widths=5), "fractalnet: widths must be one or more whole numbers"),
        (lambda: create("fractalnet_c3_b5", project="maybe"), 'project must be False, True or "all"'),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_with_a_way_out(call, message):
    with pytest.raises(md.ConfigError, match=message):
        call()


def test_the_same_seed_gives_the_same_network():
    for name in ("highway_19", "resnet20", "nin"):
        a, b, c = (create(name, seed=seed).state_dict() for seed in (3, 3, 4))
        assert all(np.array_equal(a[k], b[k]) for k in a)
        assert any(not np.array_equal(a[k], c[k]) for k in a)


# -- initial weights --------------------------------------------------------------------------------------------------


def fan_in(w):
    return w[0].size


def fan_out(w):
    return w.shape[0] * w[0, 0].size


@pytest.mark.parametrize(
    ("name", "layer", "std"),
    [
        ("densenet_40_12", "features.denseblock2.denselayer9.conv1", lambda w: np.sqrt(2 / fan_out(w))),
        ("resnet56", "layer3.4.conv1", lambda w: np.sqrt(2 / fan_out(w))),
        ("wrn16_4", "group1.block0.conv0", lambda w: np.sqrt(2 / fan_in(w))),
        ("resnet110_stochdepth", "layer3.0.conv1", lambda w: np.sqrt(2 / fan_in(w))),
        ("highway_19", "conv14.H", lambda w: np.sqrt(1 / fan_in(w))),
        ("highway_19", "conv1", lambda w: 0.05),
        ("highway_19", "ip2", lambda w: 0.05),
        ("fractalnet_c3_b5", "block3.col1.row1.conv", lambda w: np.sqrt(1 / fan_in(w))),
        ("nin", "cccp3", lambda w: 0.05),
        ("dsn", "conv2", lambda w: 0.05),
        ("dsn", "companion3", lambda w: np.sqrt(1 / fan_in(w))),
        ("allcnn_c", "conv4", lambda w: np.sqrt(2 / fan_in(w))),
        ("vgg16_bn_drop_cifar", "conv5", lambda w: np.sqrt(2 / fan_out(w))),
    ],
)
def test_weights_start_as_in_the_authors_code(name, layer, std):
    weight = dict(create(name).named_parameters())[f"{layer}.weight"].data
    spread = 4 / np.sqrt(2 * weight.size)  # four standard errors of a standard deviation
    assert weight.std() == pytest.approx(std(weight), rel=spread)
    assert abs(weight.mean()) < 4 * weight.std() / np.sqrt(weight.size)


def test_gamma_starts_as_torch7_starts_it_where_the_authors_left_it():
    for name, layer in (
        ("wrn16_4", "group2.block1.bn1"),
        ("resnet110_stochdepth", "layer3.5.bn2"),
        ("vgg16_bn_drop_cifar", "bn9"),
    ):
        gamma = dict(create(name).named_parameters())[f"{layer}.weight"].data
        assert 0 <= gamma.min() < 0.15
        assert 0.85 < gamma.max() <= 1
    assert np.all(create("resnet20").bn.weight.data == 1)


def test_biases_start_at_zero_but_for_gates_and_torch_s_last_layers():
    for name in ("nin", "dsn", "allcnn_c", "vgg16_bn_cifar", "resnet110_stochdepth"):
        biases = {k: p.data for k, p in create(name).named_parameters() if k.endswith("bias") and k != "fc.bias"}
        assert not any(bias.any() for bias in biases.values()), name
    assert create("resnet110_stochdepth").fc.bias.data.any()
    gates = [p.data for k, p in create("highway_32").named_parameters() if k.endswith("T.bias")]
    assert len(gates) == 27
    assert all(np.all(bias == -2) for bias in gates)


def test_nin_for_100_classes_starts_with_a_narrow_first_stage():
    parameters = dict(create("nin", classes=100).named_parameters())
    assert parameters["conv1.weight"].data.std() == pytest.approx(0.001, rel=0.05)
    assert parameters["cccp2.weight"].data.std() == pytest.approx(0.01, rel=0.05)
    assert parameters["cccp3.weight"].data.std() == pytest.approx(0.05, rel=0.05)


# -- one family after another: what is easy to get wrong ---------------------------------------------------------------


def test_network_in_network_pools_over_the_edge_and_ends_with_relu(rng):
    model = create("nin").eval()
    with nn.watch_gradients(model) as seen:
        logits = model(md.Tensor(images(rng, n=1, size=32, dtype=np.float32)))
    shapes = {name: y.shape[2:] for name, y in seen.items()}
    assert shapes["conv2"] == (16, 16)  # 15 without ceil
    assert shapes["conv3"] == (8, 8)
    assert logits.data.min() >= 0


def test_a_deeply_supervised_net_adds_the_loss_of_each_companion(rng):
    model = TINY["dsn"](dtype=np.float64)
    x, labels = md.Tensor(images(rng)), np.array([0, 3, 1])
    with nn.without_chance(model):
        scores, loss = model.loss(x, labels)
        _, seen = model.logits_and_convolutions(x)
    assert [y.shape for y in seen] == [(3, 12, 16, 16), (3, 12, 8, 8), (3, 12, 4, 4)]
    by_hand = 0
    for weight, bias, y in [
        (None, None, scores),
        *(
            (getattr(model, f"companion{i}").weight, getattr(model, f"companion{i}").bias, y)
            for i, y in enumerate(seen, 1)
        ),
    ]:
        s = y.data if weight is None else y.data.reshape(3, -1) @ weight.data.T + bias.data
        sign = np.where(np.arange(4) == labels[:, None], 1, -1)
        by_hand += (np.maximum(0, 1 - sign * s) ** 2).sum(1).mean()
    assert loss.item() == pytest.approx(by_hand, rel=1e-12)
    assert scores.data.min() < 0  # no ReLU at its end


def test_companions_leave_when_their_time_is_over(rng):
    model = TINY["dsn"](dtype=np.float64, companion_epochs=2)
    x, labels = md.Tensor(images(rng)), np.array([0, 3, 1])
    losses = []
    with nn.without_chance(model):
        for epoch in (1.99, 2.0):
            model.at_epoch(epoch)
            scores, loss = model.loss(x, labels)
            losses.append(loss.item())
    assert losses[1] == pytest.approx(F.squared_hinge(scores, labels).item())
    assert losses[0] > losses[1]


def test_a_deeply_supervised_net_takes_cross_entropy_for_100_classes_and_svhn():
    assert create("dsn").hinge
    assert not create("dsn", classes=100).hinge
    assert not create("dsn_svhn").hinge


def test_a_highway_layer_mixes_by_its_gate(rng):
    layer = models.highway(widths=(4,), kernels=((3,),), dtype=np.float64).conv2
    x = rng.standard_normal((2, 4, 5, 5))
    h = np.maximum(layer.H(md.Tensor(x)).data, 0)
    t = 1 / (1 + np.exp(-layer.T(md.Tensor(x)).data))
    np.testing.assert_allclose(layer(md.Tensor(x)).data, h * t + x * (1 - t), rtol=1e-12)
    layer.T.bias.data[...] = -1e3
    np.testing.assert_array_equal(layer(md.Tensor(x)).data, x)


def formula(name, unit, x):
    """What each unit of He et al. 2016, Table 2, does, in the letters of the table: c1, b1, r …"""
    c1, b1, c2, b2 = unit.conv1, unit.bn1, unit.conv2, unit.bn2
    r = F.relu
    return {
        "original": lambda: r(b2(c2(r(b1(c1(x))))) + x),
        "bn_after_add": lambda: r(b2(c2(r(b1(c1(x)))) + x)),
        "relu_before_add": lambda: r(b2(c2(r(b1(c1(x)))))) + x,
        "relu_only_preact": lambda: b2(c2(r(b1(c1(r(x)))))) + x,
        "full_preact": lambda: c2(r(b2(c1(r(b1(x)))))) + x,
    }[name]()


@pytest.mark.parametrize("name", UNITS)
def test_the_five_units_are_those_of_the_table(name, rng):
    unit = UNITS[name](4, 4).to(dtype=np.float64).eval()
    for module in unit.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.data[...] = rng.standard_normal(4)
            module.bias.data[...] = rng.standard_normal(4)
    x = md.Tensor(rng.standard_normal((2, 4, 6, 6)))
    np.testing.assert_allclose(unit(x).data, formula(name, unit, x).data, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "activated"), [("relu_only_preact", True), ("full_preact", True), ("original", False)]
)
def test_pre_activation_stands_before_the_split_in_the_first_unit(name, activated, rng):
    """With a branch that adds nothing, the shortcut alone is left."""
    unit = UNITS[name](4, 4, first=True).to(dtype=np.float64).eval()
    unit.conv2.weight.data[...] = 0
    x = rng.standard_normal((1, 4, 6, 6))
    positive = np.maximum(x / np.sqrt(1 + 1e-5) if name == "full_preact" else x, 0)
    expected = positive if activated else np.maximum(x, 0)  # the original ends with its ReLU
    np.testing.assert_allclose(unit(md.Tensor(x)).data, expected, rtol=1e-12)


def test_option_a_leaves_pixels_out_and_appends_zeros(rng):
    x = rng.standard_normal((1, 2, 4, 4))
    y = PadShortcut(2, 5, 2)(md.Tensor(x)).data
    np.testing.assert_array_equal(y[:, :2], x[:, :, ::2, ::2])
    assert y.shape == (1, 5, 2, 2)
    assert not y[:, 2:].any()
    y = PadShortcut(2, 2, 2, average=True)(md.Tensor(x)).data
    np.testing.assert_allclose(y, x.reshape(1, 2, 2, 2, 2, 2).mean((3, 5)), rtol=1e-12)


def test_the_ends_of_the_networks_are_those_of_the_paper():
    for unit, bn, start, end, last in (
        ("original", True, True, False, False),
        ("bn_after_add", True, True, False, False),
        ("relu_before_add", True, True, False, False),
        ("relu_only_preact", True, False, True, False),
        ("full_preact", False, False, False, True),
    ):
        model = create(f"resnet20_unit_{unit}")
        found = (model.bn is not None, model.relu_at_start, model.relu_at_end, model.last_bn is not None)
        assert found == (bn, start, end, last), unit


def test_the_stride_of_a_pre_activation_bottleneck_is_on_its_first_convolution():
    unit = create("preresnet29").layer2
    first = dict(unit.named_children())["0"]
    assert (first.conv1.stride, first.conv2.stride) == (2, 1)
    assert isinstance(first.shortcut, nn.Conv2d)  # no batch norm on it
    block = dict(create("resnet50_imagenet").layer2.named_children())["0"]
    assert (block.conv1.stride, block.conv2.stride) == (1, 2)


# -- stochastic depth -------------------------------------------------------------------------------------------------


def gates(model):
    return [module for module in model.modules() if isinstance(module, Gate)]


def test_stochastic_depth_keeps_40_25_of_54_blocks_open_on_average():
    with nn.init.undrawn():
        found = gates(create("resnet110_stochdepth"))
    assert [gate.p for gate in found] == pytest.approx([0.5 * (i + 1) / 54 for i in range(54)])
    nn.seed_chance(nn.Sequential(*found), 0)
    draws = 4000
    open_blocks = np.array([sum(not gate.is_closed() for gate in found) for _ in range(draws)])
    # Var = Σ p(1 − p) = 8.3, so the mean of 4,000 draws is known to 0.046; four times that.
    assert open_blocks.mean() == pytest.approx(40.25, abs=0.18)
    assert open_blocks.var() == pytest.approx(sum(gate.p * (1 - gate.p) for gate in found), rel=0.1)


def test_a_closed_block_costs_nothing_and_changes_nothing(rng):
    model = models.stochastic_depth_resnet(depth=8, widths=(4, 6, 8), dtype=np.float64)
    layer = dict(model.layer1.named_children())["0"]
    layer.gate.p, layer.gate.rng = 0.5, Always(closed=True)
    before = {k: a.copy() for k, a in layer.state_dict().items()}
    x = md.Tensor(rng.standard_normal((2, 4, 6, 6)), requires_grad=True)
    with nn.watch_gradients(layer) as seen:
        y = layer(x)
    assert set(seen) == {""}  # no module in it ran
    np.testing.assert_array_equal(y.data, np.maximum(x.data, 0))
    y.backward(np.ones(y.shape))
    assert all(p.grad is None for p in layer.parameters())
    after = layer.state_dict()
    assert all(np.array_equal(before[k], after[k]) for k in before)
    layer.gate.rng = Always(closed=False)
    layer(x)
    assert layer.state_dict()["bn2.num_batches_tracked"] == 1


class Always:
    """A generator whose draws are known."""

    def __init__(self, *, closed):
        self.closed = closed

    def random(self):
        return 0.0 if self.closed else 1.0


def test_a_block_is_drawn_once_for_a_whole_mini_batch(rng):
    model = models.stochastic_depth_resnet(depth=8, widths=(4, 6, 8), dtype=np.float64)
    calls = []
    for gate in gates(model):
        gate.rng = Always(closed=False)
        gate.rng.random = lambda: calls.append(1) or 1.0
    model(md.Tensor(images(rng, n=7, size=8)))
    assert len(calls) == 3


def test_testing_weighs_a_branch_by_its_probability(rng):
    unit = GatedUnit(4, 4, death_rate=0.3).to(dtype=np.float64).eval()
    x = md.Tensor(rng.standard_normal((2, 4, 6, 6)))
    np.testing.assert_allclose(unit(x).data, np.maximum(x.data + 0.7 * unit.branch(x).data, 0), rtol=1e-12)
    unit.train()
    unit.gate.rng = Always(closed=False)
    y = unit(x).data  # an open block in training counts in full
    np.testing.assert_allclose(y, np.maximum(x.data + unit.branch(x).data, 0), rtol=1e-12)


# -- drop-path --------------------------------------------------------------------------------------------------------


def test_local_drop_path_drops_each_path_but_never_all():
    paths = DropPath(0.15, rng=np.random.default_rng(0))
    draws = [paths.kept([0, 1, 2]) for _ in range(40_000)]
    kept = np.array([[i in draw for i in range(3)] for draw in draws])
    # 40,000 draws of p = 0.85 have a standard error of 0.0018; four times that, and one path is put back where all were dropped.
    assert kept.mean(0) == pytest.approx(3 * [0.85 + 0.15**3 / 3], abs=0.0072)
    assert kept.sum(1).min() == 1
    assert (kept.sum(1) == 3).mean() == pytest.approx(0.85**3, abs=0.01)


def test_half_of_the_mini_batches_choose_one_column_each_equally_often():
    paths = DropPath(0.15, rng=np.random.default_rng(0))
    chosen = [paths.choose(3) for _ in range(12_000)]
    shares = [np.mean([c == column for c in chosen]) for column in (None, 0, 1, 2)]
    assert shares == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6], abs=0.018)  # four standard errors


def test_a_chosen_column_is_the_network_without_the_others(rng):
    model = TINY["fractalnet"](dtype=np.float64).eval()
    x = md.Tensor(images(rng))
    with nn.watch_gradients(model) as seen:
        deepest = model(x, column=2)
    assert all(not name.startswith(("block1.col0", "block1.col1")) for name in seen)
    by_hand = x
    for block in (model.block1, model.block2):
        by_hand = block.pool(block.col2(by_hand))
    np.testing.assert_array_equal(deepest.data, model.fc(F.global_avg_pool2d(by_hand)).data)
    assert not np.allclose(model(x).data, deepest.data)  # and the next call has all columns again


def test_evaluation_takes_the_plain_mean_of_all_paths(rng):
    block = FractalBlock(3, 4, 3, project=False, dropout=0.0, released=False)
    block.to(dtype=np.float64).eval()
    x = md.Tensor(rng.standard_normal((2, 3, 6, 6)))
    conv = {(c, r): getattr(getattr(block, f"col{c}"), f"row{r}") for c in range(3) for r in block.rows_of(c)}
    assert set(conv) == {(0, 3), (1, 1), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)}
    middle = (conv[1, 1](x) + conv[2, 1](conv[2, 0](x))) * (1 / 2)
    ends = [conv[0, 3](x), conv[1, 3](middle), conv[2, 3](conv[2, 2](middle))]
    expected = sum(block.pool(y).data for y in ends) / 3
    paths = DropPath(0.15).eval()
    np.testing.assert_allclose(block(x, paths).data, expected, rtol=1e-12)


def test_batch_norm_of_the_released_fractalnet_learns_nothing():
    model = models.fractalnet(columns=2, widths=(4,), released=True)
    names = [name for name, _ in model.named_parameters()]
    assert "block1.col1.row0.conv.bias" in names
    assert not [name for name in names if ".bn." in name]
    assert model.block1.col0.row1.bn.momentum == pytest.approx(0.001)


# -- dropout ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("nin", [0.5, 0.5]),
        ("allcnn_c", [0.2, 0.5, 0.5]),
        ("highway_19", [0.2, 0.2, 0.2, 0.2]),
        ("vgg16_bn_drop_cifar", [0.3, *7 * [0.4], 0.5, 0.5]),
        ("fractalnet_c3_b5_drop", [rate for rate in (0.1, 0.2, 0.3, 0.4) for _ in range(7)]),
    ],
)
def test_dropout_stands_where_the_authors_have_it(name, rates, rng, monkeypatch):
    model, found = create(name), []
    if name.startswith("fractalnet"):
        model.paths.p = 0.0  # every column
    monkeypatch.setattr(nn.layers.F, "dropout", lambda x, p, **_: found.append(p) or x)
    model(md.Tensor(images(rng, n=2, size=32, dtype=np.float32)))
    assert [p for p in found if p] == rates


# -- that they learn --------------------------------------------------------------------------------------------------


def photographs():
    """32 real pictures of CIFAR-10, wherever the package finds it."""
    try:
        dataset = md.data.load("cifar10")
    except md.DataError:
        pytest.skip("needs the real CIFAR-10: see datasets/README.md")
    images, mean, std = dataset.train_images[:32].astype(np.float32), *np.float32([dataset.mean, dataset.std])
    return (images - mean.reshape(-1, 1, 1)) / std.reshape(-1, 1, 1), dataset.train_labels[:32]


def digits():
    """32 of the handwritten digits that come with the package, four times as large and in three equal channels."""
    dataset = md.data.load("digits")
    small = (dataset.train_images[:32].astype(np.float32) - np.float32(dataset.mean)) / np.float32(dataset.std)
    return small.repeat(4, axis=2).repeat(4, axis=3).repeat(3, axis=1), dataset.train_labels[:32]


def clip(optimizer, *, norm):
    """Shorten all gradients together to this norm. Without it, whether a network without batch norm dies is a matter of its last bits."""
    found = [w for group in optimizer.groups for w in group["params"] if w.grad is not None]
    longer = np.sqrt(sum(float(np.square(w.grad, dtype=np.float64).sum()) for w in found)) / norm
    for w in found:
        w.grad = w.grad / w.dtype.type(max(1, longer))


@pytest.mark.slow
@pytest.mark.parametrize("pictures", [photographs, digits])
@pytest.mark.parametrize("name", SMALL)
def test_each_family_learns_32_pictures_by_heart(name, pictures):
    images, labels = pictures()
    model, rate = SMALL[name]()
    dropout = any(isinstance(module, nn.Dropout) for module in nn.chances(model))
    normed = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    optimizer = md.optim.SGD(
        parameter_groups(model.named_parameters(), lambda name, w: {"lr_scale": model.rate_of(name)}),
        lr=rate,
        momentum=0.9,
        nesterov=True,
        coast=nn.has_chance(model),
    )
    # Dropout is there to keep a network from learning by heart; closed blocks and dropped paths do not keep it from that.
    with nn.without_chance(model) if dropout else nullcontext():
        for step in range(800):
            optimizer.set_lr(rate * min(1, (step + 1) / 40))
            loss = model.train().loss(md.Tensor(images), labels)[1]
            optimizer.zero_grad()
            loss.backward()
            if not normed:
                clip(optimizer, norm=1)
            optimizer.step()
            if step % 10 == 9:
                with md.no_grad():
                    right = (model.eval()(md.Tensor(images)).data.argmax(1) == labels).mean()
                if right == 1:
                    return
    pytest.fail(f"{name}: {right:.0%} of 32 pictures after {step + 1} steps")
