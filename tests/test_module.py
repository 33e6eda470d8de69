"""Modules: names, order, modes, and weights in and out."""

import numpy as np
import pytest

import minidense as md
from minidense import functional as F
from minidense import nn
from minidense.nn.module import Buffer, Parameter


class Block(nn.Module):
    def __init__(self):
        self.scale = Parameter(np.ones(2))
        self.inner = nn.Sequential(conv0=nn.Conv2d(2, 2, 1, bias=False), norm0=nn.BatchNorm2d(2))
        self.table = Buffer(np.arange(3))
        self.plain = 3

    def forward(self, x):
        return self.inner(x) * self.scale.reshape(2, 1, 1)


NAMES = [
    "scale", "table", "inner.conv0.weight", "inner.norm0.weight", "inner.norm0.bias",
    "inner.norm0.running_mean", "inner.norm0.running_var", "inner.norm0.num_batches_tracked",
]  # fmt: skip


def test_attributes_are_the_model():
    block = Block()
    assert list(block.state_dict()) == NAMES
    assert [name for name, _ in block.named_parameters()] == ["scale", *NAMES[2:5]]
    assert block.parameter_count() == 2 + 4 + 2 + 2


def test_a_module_added_later_is_found():
    block = Block()
    block.head = nn.Linear(3, 1)
    assert {"head.weight", "head.bias"} < set(block.state_dict())


def test_modules_in_a_list_are_refused():
    block = Block()
    block.layers = [nn.ReLU(), nn.ReLU()]
    with pytest.raises(md.ConfigError, match=r"Block.layers is a list of modules .* use nn.Sequential"):
        block.parameters()


def test_a_misspelt_attribute_is_an_error():
    with pytest.raises(AttributeError):
        Block().wieght


def test_modes_reach_the_whole_tree_and_leave_recording_alone():
    block = Block().to(dtype=np.float32).eval()
    assert not any(module.training for module in block.modules())
    assert block(md.Tensor(np.ones((1, 2, 2, 2), np.float32))).requires_grad
    assert all(module.training for module in block.train().modules())


def test_state_dict_is_a_copy_and_loads_back():
    block, other = Block(), Block()
    state = block.state_dict()
    block.scale.data += 1
    assert state["scale"].tolist() == [1, 1]
    other.load_state_dict(block.state_dict())
    assert other.scale.data.tolist() == [2, 2]
    np.testing.assert_array_equal(other.inner.conv0.weight.data, block.inner.conv0.weight.data)


def test_loading_keeps_the_models_type():
    block = Block().to(dtype=np.float32)
    block.load_state_dict({name: array.astype(np.float64) for name, array in block.state_dict().items()})
    assert block.inner.conv0.weight.dtype == np.float32
    assert block.inner.norm0.num_batches_tracked.data.dtype == np.int64


def test_loading_lists_everything_that_does_not_fit_and_changes_nothing():
    block = Block()
    before, state = block.state_dict(), block.state_dict()
    del state["inner.conv0.weight"]
    state["extra"] = np.zeros(1)
    state["scale"] = np.zeros(3)
    state["inner.norm0.bias"] = np.array(["a", "b"])
    state["inner.norm0.weight"] = np.full(2, 9.0)
    with pytest.raises(md.CheckpointError) as caught:
        block.load_state_dict(state)
    message = str(caught.value)
    for line in (
        "missing     inner.conv0.weight",
        "unexpected  extra",
        "shape       scale: the model has (2,), the file (3,)",
        "type        inner.norm0.bias: needs real numbers",
    ):
        assert line in message
    for name, array in block.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_old_files_without_num_batches_tracked_load():
    block = Block()
    block.load_state_dict({name: array for name, array in block.state_dict().items() if "num_batches" not in name})


def test_batch_norm_counts_batches_in_training_only():
    norm = nn.BatchNorm2d(1)
    x = md.Tensor(np.ones((2, 1, 1, 1), np.float32))
    norm(x)
    norm.eval()(x)
    assert norm.num_batches_tracked.data == 1


def test_frozen_parameters_get_no_gradient():
    layer = nn.Linear(2, 1)
    layer.weight.requires_grad = False
    layer(md.Tensor(np.ones((1, 2), np.float32))).backward()
    assert layer.weight.grad is None
    assert layer.bias.grad.tolist() == [1]


def test_layers_do_what_they_are_called(rng):
    x = md.Tensor(rng.standard_normal((2, 3, 4, 4)))
    pairs = [
        (nn.ReLU(), F.relu(x)),
        (nn.Sigmoid(), F.sigmoid(x)),
        (nn.Tanh(), F.tanh(x)),
        (nn.MaxPool2d(3, stride=2, ceil_mode=True), F.max_pool2d(x, 3, stride=2, ceil_mode=True)),
        (nn.AvgPool2d(2), F.avg_pool2d(x, 2)),
        (nn.GlobalAvgPool2d(), F.global_avg_pool2d(x)),
        (nn.Flatten(), F.reshape(x, (2, 48))),
        (nn.Dropout(0.5).eval(), x),
        (nn.Sequential(nn.ReLU(), nn.Flatten()), F.reshape(F.relu(x), (2, 48))),
    ]
    for layer, expected in pairs:
        np.testing.assert_array_equal(layer(x).data, expected.data)


def test_the_same_seed_drops_the_same_values():
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    x = md.Tensor(np.ones((8, 8)))
    nn.seed_chance(model, 1)
    first, second = model(x).data, model(x).data
    nn.seed_chance(model, 1)
    np.testing.assert_array_equal(model(x).data, first)
    assert not np.array_equal(first, second)


def test_watch_gradients_sees_every_module():
    model = md.models.densenet(depth=10, growth_rate=2)
    with nn.watch_gradients(model) as seen:
        loss = F.cross_entropy(model(md.Tensor(np.ones((2, 3, 8, 8)))), [0, 1])
    loss.backward()
    assert set(seen) == {name for name, _ in model.named_modules()}
    assert seen["classifier"].grad.shape == (2, 10)
    assert seen["features.denseblock1.denselayer1.conv1"].grad.shape == (2, 8, 8, 8)
    assert all(y.grad is not None for y in seen.values())
    assert all(module.on_output is None for module in model.modules())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv2d(0, 3, 1), "Conv2d: in_channels must be a whole number of at least 1, got 0"),
        (lambda: nn.Conv2d(3, 3, 1.5), "Conv2d: kernel"),
        (lambda: nn.Linear(3, -1), "Linear: out_features"),
        (lambda: nn.BatchNorm2d(0), "BatchNorm2d: channels"),
        (lambda: nn.Dropout(1.0), "Dropout: p"),
        (lambda: nn.Module()(1), r"Module has no forward\(\)"),
    ],
)
def test_layers_refuse_nonsense(make, message):
    with pytest.raises(md.ConfigError, match=message):
        make()


# -- initialisers: the variance each paper asks for ------------------------------------------------------------------

SHAPE = (64, 32, 3, 3)  # 18,432 draws: their standard deviation is known to about 0.5 %
FAN_IN, FAN_OUT = 32 * 9, 64 * 9


@pytest.mark.parametrize(
    ("draw", "std"),
    [
        (lambda rng: nn.init.he_normal(rng, SHAPE), np.sqrt(2 / FAN_IN)),
        (lambda rng: nn.init.he_normal(rng, SHAPE, fan="out"), np.sqrt(2 / FAN_OUT)),
        (lambda rng: nn.init.he_uniform(rng, SHAPE), np.sqrt(2 / FAN_IN)),
        (lambda rng: nn.init.xavier_normal(rng, SHAPE), np.sqrt(2 / (FAN_IN + FAN_OUT))),
        (lambda rng: nn.init.xavier_uniform(rng, SHAPE), np.sqrt(2 / (FAN_IN + FAN_OUT))),
        (lambda rng: nn.init.caffe_xavier(rng, SHAPE), np.sqrt(1 / FAN_IN)),
        (lambda rng: nn.init.torch_default(rng, SHAPE), np.sqrt(1 / (3 * FAN_IN))),
        (lambda rng: nn.init.torch_default(rng, (20_000,), fan_in_of=SHAPE), np.sqrt(1 / (3 * FAN_IN))),
        (lambda rng: nn.init.normal(rng, SHAPE), 0.05),
        (lambda rng: nn.init.uniform(rng, SHAPE) - 0.5, np.sqrt(1 / 12)),
    ],
)
def test_initialisers_have_their_variance(draw, std, rng):
    weights = draw(rng)
    assert weights.std() == pytest.approx(std, rel=0.03)  # six standard deviations of the estimate
    assert abs(weights.mean()) < 6 * std / np.sqrt(weights.size)


def test_an_unknown_fan_is_refused(rng):
    with pytest.raises(md.ConfigError, match='fan must be "in" or "out"'):
        nn.init.he_normal(rng, SHAPE, fan="avg")
