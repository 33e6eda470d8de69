"""DenseNets: names and shape of the block. Counts are in test_counts.py, golden numbers in test_golden.py, learning in test_models.py."""

import numpy as np
import pytest

import minidense as md
from minidense import functional as F
from minidense import speed
from minidense.models import create, densenet


def test_the_paper_s_depth_is_the_number_of_convolutions_and_linear_layers():
    for name, depth in (("densenet_40_12", 40), ("densenet_bc_100_12", 100)):
        weights = [a for n, a in create(name).state_dict().items() if n.endswith("weight") and a.ndim > 1]
        assert len(weights) == depth


def test_state_dict_names_are_torchvisions():
    names = list(create("densenet_bc_100_12").state_dict())
    assert len(names) == 596
    assert names[:3] == [
        "features.conv0.weight",
        "features.denseblock1.denselayer1.norm1.weight",
        "features.denseblock1.denselayer1.norm1.bias",
    ]
    assert "features.denseblock3.denselayer16.conv2.weight" in names
    assert "features.transition2.norm.running_var" in names
    assert names[-2:] == ["classifier.weight", "classifier.bias"]
    assert names[-3] == "features.norm5.num_batches_tracked"


def test_a_block_keeps_its_input_in_front_bit_for_bit(rng):
    model = densenet(depth=22, growth_rate=4)
    x = md.Tensor(rng.standard_normal((2, 8, 6, 6)).astype(np.float32))
    y = model.features.denseblock1(x)
    assert y.shape == (2, 8 + 3 * 4, 6, 6)
    np.testing.assert_array_equal(y.data[:, :8], x.data)


def test_a_block_with_zero_weights_adds_nothing(rng):
    block = densenet(depth=22, growth_rate=4).features.denseblock1
    for module in block.modules():
        if isinstance(module, md.nn.Conv2d):
            module.weight.data[...] = 0
    y = block(md.Tensor(rng.standard_normal((2, 8, 6, 6)).astype(np.float32)))
    assert np.all(y.data[:, 8:] == 0)


@pytest.mark.parametrize(("kind", "dropouts"), [("densenet_13_8", 3 * 3 + 2), ("densenet_bc_22_12", 2 * 3 * 3 + 2)])
def test_dropout_stands_after_every_convolution_but_the_first(kind, dropouts, rng, monkeypatch):
    """After each 1×1, each 3×3 and each transition's convolution, as in the authors' code; not after the stem or the classifier."""
    calls = []
    original = F.dropout
    monkeypatch.setattr(F, "dropout", lambda x, p, **k: calls.append(type(x.source).__name__) or original(x, p, **k))
    model = create(kind, dropout=0.2)
    with speed.reference_only():
        model(md.Tensor(rng.standard_normal((1, 3, 8, 8)).astype(np.float32)))
    assert calls == ["Conv2d"] * dropouts


def test_initial_weights_are_the_authors():
    model = create("densenet_100_12", seed=1)
    conv = model.features.denseblock2.denselayer9.conv1.weight.data  # (12, 496, 3, 3): 53,568 draws
    assert conv.std() == pytest.approx(
        np.sqrt(2 / (9 * 12)), rel=0.02
    )  # fan_out; six standard deviations of the estimate
    norm = model.features.norm5
    assert (norm.weight.data.min(), norm.weight.data.max(), abs(norm.bias.data).max()) == (1, 1, 0)
    assert abs(model.classifier.weight.data).max() <= 1 / np.sqrt(1168)
    assert np.all(model.classifier.bias.data == 0)


def test_the_seed_decides_the_weights():
    a, b, c = (create("densenet_bc_10_4", seed=seed).features.conv0.weight.data for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    double = create("densenet_bc_10_4", dtype=np.float64).features.conv0.weight.data
    np.testing.assert_array_equal(double.astype(np.float32), a)


def test_images_of_another_float_type_are_converted(rng):
    images = rng.standard_normal((2, 3, 8, 8))
    assert create("densenet_bc_10_4")(md.Tensor(images)).dtype == np.float32
    assert create("densenet_bc_10_4", dtype=np.float64)(md.Tensor(images, dtype=np.float32)).dtype == np.float64


def test_names_may_have_hyphens():
    assert create("densenet-bc-10-4").parameter_count() == create("densenet_bc_10_4").parameter_count()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: densenet(depth=101), r"depth 101 does not make three equal blocks: \(depth − 4\) must divide by 6. Nearest: 100, 106"),
        (lambda: densenet(depth=39, bottleneck=False), r"must divide by 3. Nearest: 37, 40"),
        (lambda: densenet(depth=4), "Nearest: 10"),
        (lambda: densenet(depth=-3), "depth must be a whole number of at least 1"),
        (lambda: densenet(depth=22, compression=0), "compression"),
        (lambda: densenet(depth=22, compression=1.5), "compression"),
        (lambda: densenet(depth=22, dropout=1.0), "Dropout: p"),
        (lambda: densenet(depth=22, growth_rate=0), "growth rate must be a whole number of at least 1, got 0"),
        (lambda: densenet(depth=22, classes=0), "out_features must be"),
        (lambda: create("densnet_bc_100_12"), "unknown model 'densnet_bc_100_12'. Did you mean densenet_bc_100_12"),
        (lambda: create("xyzzy"), "minidense models lists those there are"),
        (lambda: create(f"densenet_bc_{'9' * 5000}_12"), "unknown model"),
        (lambda: create("densenet_bc_22_12", drop=0.2), "takes no option drop; it takes .*dropout"),
        (lambda: create("densenet_bc_23_12"), "Nearest: 22, 28"),
        (lambda: create("densenet_bc_22_12", depth=40), "name of the model already says depth"),
        (lambda: densenet(depth="22"), "depth must be a whole number"),
        (lambda: densenet(depth=22, seed=-1), "seed must be a whole number"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_with_a_way_out(call, message):
    with pytest.raises(md.ConfigError, match=message):
        call()
