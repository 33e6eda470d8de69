"""Experiments on deep stacks of convolutions: what they are built of, exact facts about their paths, and tiny runs of each."""

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest

from minidense import functional as F
from minidense.data import load
from minidense.errors import ConfigError
from minidense.experiments import Notebook, by_parameters, paths, shortcuts, stacks, unit_orders
from minidense.experiments.paths import (
    bernoulli_sum,
    connections,
    dense_ways,
    described,
    drawn_open_units,
    fractal_ways,
    plain_ways,
    residual_ways,
    survival_chances,
)
from minidense.experiments.shortcuts import accuracy_of_stacks, flow_of_stacks, gradient_flow
from minidense.experiments.stacks import STACKS, longest_path, stack, width_for
from minidense.experiments.unit_orders import published_errors, shortcut_gradients
from minidense.models.residual_units import UNITS
from minidense.nn import Conv2d
from minidense.tensor import Tensor

TINY = load("digits").first(60, 40)
RUN = {"seeds": (0, 1), "epochs": 1, "dataset": TINY}


def images(count=4, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 1, 8, 8)).astype(np.float32)


def as_json(numbers):
    return json.loads(json.dumps(numbers, allow_nan=False))


# -- the stacks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STACKS)
def test_a_stack_is_as_deep_as_it_says_and_keeps_the_size(kind):
    model = stack(kind, depth=4, width=3)
    path = longest_path(model)
    assert len(path) == 4
    sizes = {}
    for name, conv in path.items():
        conv.on_output = lambda y, name=name: sizes.update({name: y.shape[2:]})
    model.train()
    for module in model.modules():
        module.takes_chances = False
    assert model(Tensor(images())).shape == (4, 10)
    assert set(sizes.values()) == {(8, 8)}
    assert len(sizes) == 4
    assert all(conv.weight.shape[2:] == (3, 3) for conv in path.values())


def test_plain_and_residual_start_with_the_same_weights_and_differ_by_the_additions():
    plain, residual = stack("plain", depth=6, width=4, seed=3), stack("residual", depth=6, width=4, seed=3)
    assert plain.parameter_count() == residual.parameter_count()
    for a, b in zip(longest_path(plain).values(), longest_path(residual).values(), strict=True):
        np.testing.assert_array_equal(a.weight.data, b.weight.data)
    for unit in residual.modules():
        if hasattr(unit, "across"):
            unit.across = lambda x: x * 0  # what is left is the plain stack
    x = Tensor(images())
    np.testing.assert_allclose(plain(x).data, residual(x).data, rtol=1e-5, atol=1e-6)  # float32, another fast path


def test_a_plain_stack_without_batch_norm_is_convolutions_and_activations():
    model = stack("plain", depth=2, width=3, norm=False, activation="tanh", seed=1)
    x = Tensor(images())
    y = x
    for conv in (module for module in model.modules() if isinstance(module, Conv2d)):
        y = F.tanh(conv(y))
    np.testing.assert_array_equal(model(x).data, model.fc(F.global_avg_pool2d(y)).data)


def test_the_two_orders_inside_h():
    before, after = (stack("dense", depth=1, width=2, order=order) for order in stacks.ORDERS)
    x = images(seed=1)
    stem = before.features.conv0(Tensor(x))
    layer = before.features.denseblock1.denselayer1
    np.testing.assert_allclose(
        layer(stem).data, layer.conv1(F.relu(layer.norm1(stem))).data, rtol=1e-5, atol=1e-6
    )  # float32
    layer = after.features.denseblock1.denselayer1
    np.testing.assert_allclose(
        layer(stem).data, F.relu(layer.norm1(layer.conv1(stem))).data, rtol=1e-5, atol=1e-6
    )  # float32
    assert after.features.denseblock1(stem).shape == (4, 4, 8, 8)


def test_the_same_seed_gives_the_same_stack_and_another_another():
    first, again, other = (stack("fractal", depth=4, width=3, seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_width_for_comes_as_near_as_it_can():
    assert width_for("residual", 39_862, depth=30) == 12
    assert stack("residual", depth=30, width=12).parameter_count() == 39_862
    counts = [stack("dense", depth=6, width=k).parameter_count() for k in (1, 2, 3)]
    assert [width_for("dense", count, depth=6) for count in counts] == [1, 2, 3]
    assert width_for("dense", counts[1] + 1, depth=6) == 2


def test_the_six_stacks_are_within_seven_per_cent_of_the_same_number_of_parameters():
    for depth in (shortcuts.DEPTH, shortcuts.FLOW_DEPTH):
        counts = [
            stack(kind, depth=depth, width=width_for(kind, 42_000, depth=depth)).parameter_count() for kind in STACKS
        ]
        middle = (max(counts) + min(counts)) / 2
        assert all(abs(count - middle) <= 0.07 * middle for count in counts), counts


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("plian",), "unknown kind 'plian'; choose one of plain"),
        (("plain", "depth", 0), "depth must be a whole number of at least 1, got 0"),
        (("plain", "width", 2.5), "width must be a whole number of at least 1, got 2.5"),
        (("plain", "activation", "step"), "unknown activation 'step'"),
        (("residual", "depth", 5), "depth must be even.*nearest: 4, 6"),
        (("residual", "unit", "new"), "unknown unit 'new'"),
        (("dense", "order", "any"), "unknown order 'any'"),
        (("fractal", "columns", 3), "4 deep, which must divide 30"),
    ],
)
def test_what_makes_no_stack_is_refused_in_words(arguments, says):
    kind, *option = arguments
    with pytest.raises(ConfigError, match=says):
        stack(kind, **dict([option] if option else []))


# -- paths ------------------------------------------------------------------------------------------------------------


def ways(edges, start, end):
    """How many ways of each length lead from start to end, one after another: edges (from, to, layers between)."""
    if start == end:
        return Counter({0: 1})
    found = Counter()
    for source, to, length in edges:
        if source == start:
            for k, count in ways(edges, to, end).items():
                found[k + length] += count
    return found


def as_counter(coefficients):
    return Counter({k: count for k, count in enumerate(coefficients) if count})


def test_residual_paths_are_those_of_the_graph_and_binomial():
    edges = [(i, i + 1, length) for i in range(6) for length in (0, 1)]
    assert as_counter(residual_ways(6)) == ways(edges, 0, 6)
    assert residual_ways(54) == [math.comb(54, k) for k in range(55)]
    of = described(residual_ways(54))
    assert of["mean"] == pytest.approx(27)
    assert of["deviation"] == pytest.approx(math.sqrt(54) / 2)


def test_dense_paths_are_those_of_the_graph():
    layers = 6
    edges = [(i, m, 1) for i in range(layers) for m in range(i + 1, layers + 1)]
    edges += [(m, "out", 0) for m in range(layers + 1)]  # all side by side
    assert as_counter(dense_ways(layers)) == ways(edges, 0, "out")
    last = [edge for edge in edges if edge[1] != "out"]
    assert ways(last, 0, layers) == Counter({k: math.comb(layers - 1, k - 1) for k in range(1, layers + 1)})
    assert dense_ways(12) == [math.comb(12, k) for k in range(13)]


def test_a_dense_block_has_a_connection_from_everything_to_everything_behind_it():
    for layers in (1, 5, 40):
        assert connections(layers) == len(list(itertools.combinations(range(layers + 1), 2)))
    assert connections(5) == 15  # the paper's figure 1 shows five layers


def test_fractal_paths_follow_the_rule_that_builds_them():
    assert fractal_ways(1) == [0, 1]
    assert fractal_ways(2) == [0, 1, 1]
    assert fractal_ways(3) == [0, 1, 1, 2, 1]
    for columns in range(1, 6):
        of = described(fractal_ways(columns))
        assert (of["shortest"], of["longest"]) == (1, 2 ** (columns - 1))
    assert described(fractal_ways(3, blocks=5))["longest"] == 20
    assert described(plain_ways(7))["lengths"] == [7]


def test_expected_open_units_are_those_of_the_paper():
    chances = survival_chances(54)
    assert chances[-1] == 0.5
    assert sum(chances) == pytest.approx(40.25)
    of = described(bernoulli_sum(chances))
    assert of["mean"] == pytest.approx(40.25)
    assert of["deviation"] == pytest.approx(math.sqrt(sum(p * (1 - p) for p in chances)))
    outcomes = Counter()  # of three units, all that can happen
    for which in itertools.product((0, 1), repeat=3):
        outcomes[sum(which)] += math.prod(p if b else 1 - p for b, p in zip(which, (0.9, 0.6, 0.5), strict=True))
    np.testing.assert_allclose(bernoulli_sum((0.9, 0.6, 0.5)), [outcomes[k] for k in range(4)])


def test_the_stochastic_depth_network_draws_what_is_calculated():
    drawn = drawn_open_units(54, mini_batches=3000, seed=1)
    of = described(bernoulli_sum(survival_chances(54)))
    assert abs(drawn.mean() - 40.25) < 4 * of["deviation"] / math.sqrt(3000)  # 4 standard errors
    assert drawn.std() == pytest.approx(of["deviation"], rel=0.06)  # 4 of the deviation's: 4/√6000 = 5.2 %
    drawn = drawn_open_units(9, 0.2, mini_batches=3000, seed=1)
    shares = [(drawn == k).mean() for k in range(10)]
    np.testing.assert_allclose(shares, bernoulli_sum(survival_chances(9, 0.2)), atol=4 * math.sqrt(0.25 / 3000))
    assert set(drawn_open_units(6, 1.0, mini_batches=20)) == {6}


def test_path_lengths_table_and_picture(capsys):
    numbers = as_json(paths.path_lengths(units=12, mini_batches=50))
    assert numbers == as_json(paths.path_lengths(units=12, mini_batches=50))
    other = paths.path_lengths(units=12, mini_batches=50, seed=1)
    assert numbers["open_units"]["drawn"]["mean"] != other["open_units"]["drawn"]["mean"]
    by_name = {each["name"]: each for each in numbers["stacks"]}
    assert by_name["residual"]["paths"] == by_name["dense"]["paths"] == 2**12
    assert by_name["fractal"]["paths"] == 2**6
    assert numbers["connections"] == {"plain": 12, "dense": 78}
    said = paths.table(numbers)
    assert "| residual | 4,096 | 0 | 12 | 6.00 | 1.73 |" in said
    assert "78 in the dense block" in said
    drawn = paths.picture(numbers)
    left, right = drawn.figure.axes
    by_label = {line.get_label(): line for line in left.lines}
    np.testing.assert_allclose(by_label["residual and dense"].get_ydata(), by_name["residual"]["shares"])
    np.testing.assert_allclose(right.lines[0].get_ydata(), numbers["open_units"]["shares"])
    heights = [bar.get_height() for bar in right.patches]
    np.testing.assert_allclose(heights, numbers["open_units"]["drawn"]["shares"])
    assert "around 6" in drawn.alt
    assert capsys.readouterr() == ("", "")
    for wrong in ({"units": 10}, {"units": 0}, {"survival": 0}, {"survival": 1.5}):
        with pytest.raises(ConfigError, match="path_lengths"):
            paths.path_lengths(**wrong)


# -- gradient flow ----------------------------------------------------------------------------------------------------


def test_where_float32_ends_a_sigmoid_stack_has_no_gradient_at_all():
    x, labels = images(8), np.arange(8)
    flow, first = {}, {}
    for depth in (42, 72):
        model = stack("plain", depth=depth, width=6, norm=False, activation="sigmoid")
        flow[depth] = gradient_flow(model, x, labels)["weights"]
        first[depth] = next(iter(longest_path(model).values())).weight
    assert 0 < flow[42][0] < 1e-24
    assert flow[72][0] == 0
    for w in first.values():  # in either a step leaves every weight as it is, to the last bit
        np.testing.assert_array_equal(w.data - np.float32(0.1) * w.grad, w.data)


@pytest.mark.parametrize("kind", STACKS)
def test_gradient_flow_is_the_gradient(kind):
    model = stack(kind, depth=4, width=3, seed=2)
    x, labels = images(8), np.arange(8)
    flow = gradient_flow(model, x, labels)
    assert [len(values) for values in flow.values()] == [4, 4]
    # A small step against a layer's gradient lowers the loss by the square of its norm.
    for module in model.modules():
        module.takes_chances = False
    model = model.to(dtype=np.float64)
    loss = F.cross_entropy(model(Tensor(x.astype(np.float64))), labels)
    for w in model.parameters():
        w.grad = None
    loss.backward()
    conv = list(longest_path(model).values())[1]
    gradient, step = conv.weight.grad, 1e-5
    conv.weight.data -= step * gradient
    after = F.cross_entropy(model(Tensor(x.astype(np.float64))), labels)
    lowered = (loss.item() - after.item()) / step
    assert math.sqrt(lowered) == pytest.approx(flow["weights"][1], rel=1e-2)  # a step of finite size, ReLUs that switch


def test_the_order_of_the_stacks_by_gradient_flow():
    """At 42 convolutions, two seeds: plain ≫ residual > dense; a sigmoid stack without batch norm loses everything."""
    names = ("plain", "residual", "dense", shortcuts.SIGMOID)
    numbers = flow_of_stacks(stacks=names, seeds=(0, 1), batch_size=32)
    ratio = {each["name"]: each["ratio"] for each in numbers["stacks"]}
    assert ratio["plain"] > 100
    assert 2 < ratio["residual"] < 30
    assert 0.3 < ratio["dense"] < 5
    assert ratio[shortcuts.SIGMOID] < 1e-20


def test_short_paths_numbers_table_and_picture(capsys, tmp_path):
    settings = {"flow_depth": 4, "depth": 2, "parameters": 600, **RUN}
    notebook = Notebook(tmp_path / "notes.json")
    numbers = as_json(shortcuts.short_paths(**settings, notebook=notebook))
    again = as_json(shortcuts.short_paths(**settings, notebook=Notebook(tmp_path / "notes.json")))
    assert again == numbers  # from the notebook, seconds and all
    fresh = as_json(accuracy_of_stacks(stacks=["dense"], depth=2, parameters=600, **RUN))
    rows = {row["name"]: row for row in numbers["accuracy"]["stacks"]}
    assert fresh["stacks"][0]["test_accuracy"] == rows["dense"]["test_accuracy"]
    assert rows["plain"]["parameters"] == rows["residual"]["parameters"]
    assert len(notebook.runs) == 14
    said = shortcuts.table(numbers)
    for row in [*numbers["accuracy"]["stacks"], *numbers["flow"]["stacks"]]:
        assert f"{row['name']} | " in said
        assert f"{row['parameters']:,}" in said
    drawn = shortcuts.picture(numbers)
    left, right = drawn.figure.axes
    flow = numbers["flow"]["stacks"]
    for line, row in zip(left.lines, flow, strict=False):
        np.testing.assert_allclose(line.get_ydata(), row["weights"])
        assert line.get_label() == row["name"]
    values = right.lines[1].get_xdata()
    np.testing.assert_allclose(values, [100 * value for value in rows["plain"]["test_accuracy"]["values"]])
    assert shortcuts.SIGMOID in drawn.alt
    with pytest.raises(ConfigError, match=r"unknown stack 'dens'; did you mean dense\?"):
        flow_of_stacks(stacks=["dens"])
    assert "seed 0: accuracy" in shortcuts.SHORT_PATHS.line(notebook.runs[0])
    assert capsys.readouterr() == ("", "")


def test_another_seed_trains_another_stack():
    row = accuracy_of_stacks(stacks=["residual"], depth=2, parameters=600, **RUN)["stacks"][0]
    assert len(set(row["test_loss"]["values"])) == 2


# -- composite function -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
def test_only_batch_norm_and_relu_behind_the_addition_touch_the_shortcut(unit):
    of = shortcut_gradients(unit, depth=8, width=4)
    clean = unit not in ("original", "bn_after_add")
    assert of["unchanged"] == clean
    assert len(of["norms"]) == 4
    if clean:
        assert of["factors"] == [1.0, 1.0, 1.0]
    if unit == "original":  # ReLU takes away what belongs to sums that are not positive, once
        assert of["factors"][-1] < 0.95
        np.testing.assert_allclose(of["factors"][:-1], 1, rtol=1e-6)
    if unit == "bn_after_add":
        assert all(abs(factor - 1) > 0.02 for factor in of["factors"])


def test_published_errors_are_those_of_the_paper():
    errors = {row["unit"]: (row["110"], row["164"]) for row in published_errors()}
    assert errors == {
        "original": (6.61, 5.93),
        "bn_after_add": (8.17, 6.50),
        "relu_before_add": (7.84, 6.14),
        "relu_only_preact": (6.71, 5.91),
        "full_preact": (6.37, 5.46),
    }
    assert all("Table 2" in row["source"] for row in published_errors())


def test_composite_function_numbers_table_and_picture(capsys, monkeypatch):
    small = {"depth": 2, "width": 2}
    monkeypatch.delattr(unit_orders, "load")  # nothing but the images that it is given
    numbers = as_json(unit_orders.composite_function(dense=small, residual=small, flow_depth=4, **RUN))
    assert [row["name"] for row in numbers["orders"]] == ["BN-ReLU-Conv", "Conv-BN-ReLU"]
    assert [row["name"] for row in numbers["units_trained"]] == list(UNITS)
    assert numbers["beyond_chance"] in (True, False)
    said = unit_orders.table(numbers)
    assert "after 1 epoch; mean" in said
    assert "| full_preact | b r c b r c + | 1.00 | yes |" in said
    assert "| 6.37 % | 5.46 % |" in said
    drawn = unit_orders.picture(numbers)
    left, right = drawn.figure.axes
    np.testing.assert_allclose(
        left.lines[1].get_xdata(), [100 * value for value in numbers["orders"][0]["test_accuracy"]["values"]]
    )
    by_label = {line.get_label(): line.get_ydata() for line in right.lines}
    assert len(by_label) == 3  # three units are the same straight line
    for each in numbers["units"]:
        norms = np.array(each["shortcut"]["norms"])
        (drawn_as,) = (label for label in by_label if each["unit"] in label.split("\n"))
        np.testing.assert_allclose(by_label[drawn_as], norms / norms[-1])
    assert "full_preact 1.00" in drawn.alt
    assert capsys.readouterr() == ("", "")


# -- equal parameters -------------------------------------------------------------------------------------------------


def test_equal_parameters_numbers_table_and_picture(capsys):
    settings = {"kinds": ("plain", "dense"), "sizes": (300, 900), "depth": 2, **RUN}
    numbers = as_json(by_parameters.equal_parameters(**settings))
    assert [(row["kind"], row["size"]) for row in numbers["stacks"]] == [
        ("plain", 300),
        ("dense", 300),
        ("plain", 900),
        ("dense", 900),
    ]
    for row in numbers["stacks"]:
        assert abs(row["parameters"] - row["size"]) < 0.5 * row["size"]
    assert f"{numbers['stacks'][0]['parameters']:,}" in by_parameters.table(numbers)
    drawn = by_parameters.picture(numbers)
    (axes,) = drawn.figure.axes
    for line, kind in zip(axes.lines, ("plain", "dense"), strict=True):
        rows = [row for row in numbers["stacks"] if row["kind"] == kind]
        np.testing.assert_allclose(line.get_xdata(), [row["parameters"] for row in rows])
        np.testing.assert_allclose(line.get_ydata(), [100 * row["test_accuracy"]["mean"] for row in rows])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "experiment",
    [
        shortcuts.SHORT_PATHS,
        paths.PATH_LENGTHS,
        unit_orders.COMPOSITE_FUNCTION,
        by_parameters.EQUAL_PARAMETERS,
    ],
    ids=lambda experiment: experiment.name,
)
def test_the_reading_fits_on_a_screen(experiment):
    assert max(map(len, experiment.reading.splitlines())) <= 120
