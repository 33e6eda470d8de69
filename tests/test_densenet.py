"""DenseNets: exact counts, golden numbers, the shape of the block, and that they learn."""

import numpy as np
import pytest

import minidense as md
from minidense import functional as F
from minidense import speed
from minidense.models import create, densenet

# (name, classes): learned parameters, counted independently; the paper prints 1.0M, 7.0M, 27.2M, 0.8M, 15.3M, 25.6M (its Table 2)
PARAMETERS = {
    ("densenet_40_12", 10): 1_019_722,
    ("densenet_40_12", 100): 1_060_132,
    ("densenet_100_12", 10): 6_979_642,
    ("densenet_100_12", 100): 7_084_852,
    ("densenet_100_24", 10): 27_249_082,
    ("densenet_100_24", 100): 27_457_972,
    ("densenet_bc_100_12", 10): 769_162,
    ("densenet_bc_100_12", 100): 800_032,
    ("densenet_bc_250_24", 10): 15_324_406,
    ("densenet_bc_250_24", 100): 15_480_556,
    ("densenet_bc_190_40", 10): 25_624_430,
    ("densenet_bc_190_40", 100): 25_821_620,
    ("densenet_bc_22_12", 10): 71_686,
    ("densenet_bc_40_12", 10): 176_122,
    ("densenet_bc_40_24", 10): 690_346,
    ("densenet_22_12", 10): 270_706,
    ("densenet_13_8", 10): 39_370,
    ("wide_densenet_bc_40_36", 10): 1_542_682,
    ("wide_densenet_bc_40_48", 10): 2_733_130,
    ("wide_densenet_bc_40_60", 10): 4_261_690,
    ("densenet_c_40_12", 10): 599_050,
    ("densenet_c_100_12", 10): 4_068_490,
    ("densenet_c_100_24", 10): 16_114_138,
}
# The authors' published code starts every net with 2k channels.
PARAMETERS_OF_THE_LUA_CODE = {
    ("densenet_40_12", 10): 1_059_298,
    ("densenet_40_12", 100): 1_100_428,
    ("densenet_100_12", 10): 7_083_538,
    ("densenet_100_12", 100): 7_189_468,
    ("densenet_100_24", 10): 28_071_706,
    ("densenet_100_24", 100): 28_283_476,
}


@pytest.mark.parametrize(("name", "classes"), PARAMETERS)
def test_parameters_are_exactly_the_papers(name, classes):
    assert create(name, classes=classes).parameter_count() == PARAMETERS[name, classes]


@pytest.mark.parametrize(("name", "classes"), PARAMETERS_OF_THE_LUA_CODE)
def test_a_stem_of_2k_channels_gives_the_counts_of_the_authors_code(name, classes):
    model = create(name, classes=classes, stem_channels=2 * int(name.split("_")[-1]))
    assert model.parameter_count() == PARAMETERS_OF_THE_LUA_CODE[name, classes]


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


def test_a_densenet_overfits_sixteen_images(rng):
    model = densenet(depth=16, growth_rate=6, classes=4)
    optimizer = md.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    images = md.Tensor(rng.standard_normal((16, 3, 8, 8)).astype(np.float32))
    labels = np.arange(16) % 4
    for _ in range(60):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    assert np.array_equal(model(images).data.argmax(1), labels)


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
