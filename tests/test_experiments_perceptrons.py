"""Experiments on fully connected stacks: vanishing gradients, sigmoid against ReLU, batch norm, and updates."""

import argparse
import json
import math

import numpy as np
import pytest

from minidense import functional as F
from minidense.data import load
from minidense.errors import ConfigError, ShapeError
from minidense.experiments import (
    batch_norm,
    exploding,
    perceptrons,
    sigmoid_relu,
    training,
    vanishing,
)
from minidense.experiments.experiment import Notebook, as_json
from minidense.experiments.perceptrons import (
    BatchNorm1d,
    first_to_last,
    gradient_norms,
    perceptron,
    random_examples,
    trained_perceptron,
    weight_gradients,
)
from minidense.experiments.stacks import stack
from minidense.experiments.update_ratios import UpdateRatios
from minidense.nn import Linear, Sequential
from minidense.optim import SGD
from minidense.step import training_step
from minidense.tensor import Tensor, no_grad
from minidense.testing import check_gradients


@pytest.fixture
def few(monkeypatch):
    """A tenth of the digits, for what trains."""
    dataset = load("digits").first(100, 40)
    for module in (sigmoid_relu, batch_norm):
        monkeypatch.setattr(module, "load", lambda name: dataset)
    return dataset


# -- the stacks -------------------------------------------------------------------------------------------------------


def test_a_perceptron_has_as_many_hidden_layers_as_asked_and_a_classifier():
    model = perceptron(depth=3, width=7, inputs=5, activation="tanh", batch_norm=True)
    assert [name for name, _ in model.named_children()] == [
        "flatten", "linear1", "norm1", "tanh1", "linear2", "norm2", "tanh2", "linear3", "norm3", "tanh3", "classifier",
    ]  # fmt: skip
    assert [p.shape for name, p in model.named_parameters() if p.ndim == 2] == [(7, 5), (7, 7), (7, 7), (10, 7)]
    assert all((p.data == 0).all() for name, p in model.named_parameters() if name.endswith("bias"))
    assert model(Tensor(np.zeros((4, 1, 5, 1), "f"))).shape == (4, 10)


@pytest.mark.parametrize(
    ("initialiser", "std"),
    [
        ("xavier_uniform", math.sqrt(2 / 450)),
        ("xavier_normal", math.sqrt(2 / 450)),
        ("he_normal", math.sqrt(2 / 150)),
        ("lecun_normal", math.sqrt(1 / 150)),
    ],
)
def test_initialisers_have_their_deviation(initialiser, std):
    weight = perceptron(depth=1, width=300, inputs=150, initialiser=initialiser).linear1.weight.data
    assert weight.std() == pytest.approx(std, rel=0.02)  # 45,000 normal numbers: 1/√90,000 = 0.3 %


def test_sigmoid_starts_as_xavier_has_it_and_relu_as_he_does():
    for activation, initialiser in (("sigmoid", "xavier_uniform"), ("tanh", "xavier_uniform"), ("relu", "he_normal")):
        usual, named = (
            perceptron(depth=1, activation=activation, initialiser=each, seed=3).linear1.weight.data
            for each in (None, initialiser)
        )
        np.testing.assert_array_equal(usual, named)


def test_the_seed_decides_the_weights():
    first, again, other = (perceptron(depth=2, seed=seed).linear2.weight.data for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"activation": "sigmiod"}, "did you mean sigmoid"),
        ({"initialiser": "he_norml"}, "did you mean he_normal"),
        ({"depth": 0}, "whole number of hidden layers from 1 up, got 0"),
        ({"width": 0}, "must be a whole number of at least 1, got 0"),
    ],
)
def test_what_no_perceptron_can_be_is_refused(asked, says):
    with pytest.raises(ConfigError, match=says):
        perceptron(**{"depth": 2, **asked})


def test_batch_norm_of_features_normalises_over_the_batch(rng):
    norm, x = BatchNorm1d(3), rng.normal(5, 2, (50, 3)).astype("f")
    y = norm(Tensor(x)).data
    np.testing.assert_allclose(y, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.running_mean.data, 0.1 * x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(norm.running_var.data, 0.9 + 0.1 * x.var(0, ddof=1), rtol=1e-5)
    assert norm.num_batches_tracked.data == 1
    norm.eval()
    expected = (x - norm.running_mean.data) / np.sqrt(norm.running_var.data + 1e-5)
    np.testing.assert_allclose(norm(Tensor(x)).data, expected, rtol=1e-5, atol=1e-6)


def test_batch_norm_of_features_has_its_gradient(rng):
    norm = BatchNorm1d(3).to(dtype=np.float64)
    check_gradients(norm, Tensor(rng.normal(size=(5, 3)), requires_grad=True))


def test_a_fully_connected_batch_of_one_is_refused_in_training_mode():
    model = perceptron(depth=2, batch_norm=True)
    with pytest.raises(ShapeError, match="no variance"):
        model(Tensor(np.ones((1, 64), "f")))
    assert model.eval()(Tensor(np.ones((1, 64), "f"))).shape == (1, 10)


# -- gradients --------------------------------------------------------------------------------------------------------


def test_gradients_are_those_of_the_loss():
    """By a difference quotient, in float64, for one weight of each layer."""
    model = perceptron(depth=2, width=6, inputs=4, activation="tanh").to(dtype=np.float64)
    examples = random_examples(8, inputs=4)
    gradients = weight_gradients(model, *examples)
    assert list(gradients) == ["linear1", "linear2", "classifier"]
    for name, gradient in gradients.items():
        weight, step = getattr(model, name).weight.data, 1e-5
        losses = []
        for sign in (1, -1):
            weight[1, 2] += sign * step
            with no_grad():
                losses.append(F.cross_entropy(model(Tensor(examples[0])), examples[1]).item())
            weight[1, 2] -= sign * step
        assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(gradient[1, 2], rel=1e-6)


def test_asking_twice_gives_the_same_and_moves_nothing():
    model, examples = perceptron(depth=3), random_examples(16)
    before = model.state_dict()
    assert gradient_norms(model, *examples) == gradient_norms(model, *examples)
    assert all((before[name] == value).all() for name, value in model.state_dict().items())


def test_a_norm_does_not_underflow_where_its_squares_do():
    assert perceptrons.norm(np.full(4, 1e-30, np.float32)) == pytest.approx(2e-30)


def test_first_to_last_leaves_the_classifier_out():
    assert first_to_last({"linear1": 6.0, "linear2": 9.0, "linear3": 2.0, "classifier": 100.0}) == 3


# -- vanishing gradients ----------------------------------------------------------------------------------------------


def test_sigmoid_vanishes_as_lesson_04_says():
    found = vanishing.vanishing_gradient(stacks=("sigmoid, Xavier",), seeds=range(3))
    for row, said in zip(found["stacks"], (0.235, 4.6e-3, 4.0e-6, 1.5e-12, 3.7e-31), strict=True):
        assert said / 10 < row["ratio"] < said * 10
        assert len(row["norms"]) == row["depth"]
        assert row["norms"][0] == row["first"]
        assert row["norms"][-1] == row["last"]
        assert row["ratio"] == sorted(row["ratios"])[1]
    assert (
        math.exp(math.log(found["stacks"][-1]["ratio"]) / 49) < 0.25
    )  # a factor a layer: never more than sigmoid's slope


def test_relu_and_tanh_do_not_vanish():
    found = vanishing.vanishing_gradient(stacks=("tanh, Xavier", "ReLU, He"), depths=(20,), seeds=range(3))
    assert all(0.1 < row["ratio"] < 10 for row in found["stacks"])


def test_both_ends_shrink_where_relu_lacks_its_factor_of_two():
    """√½ a layer: 20 more layers shrink the gradient by about a thousand, and the ratio does not show it."""
    found = vanishing.vanishing_gradient(stacks=("ReLU, N(0, 1/n)",), depths=(10, 30), seeds=range(3))
    shallow, deep = found["stacks"]
    assert 200 < shallow["last"] / deep["last"] < 5000
    assert 0.1 < deep["ratio"] < 10


def test_both_float_types_agree_until_float32_ends():
    same = [
        vanishing.vanishing_gradient(stacks=("sigmoid, Xavier",), depths=(20,), seeds=(0,), dtype=dtype)["stacks"][0]
        for dtype in ("float32", "float64")
    ]
    assert same[0]["ratio"] == pytest.approx(same[1]["ratio"], rel=1e-3)
    assert same[0]["ratio"] != same[1]["ratio"]
    above, below = vanishing.underflow(depths=(50, 80), seeds=(0,))
    assert above["zeros"] == 0
    assert above["float32"] == pytest.approx(above["float64"], rel=1e-3)
    assert below["zeros"] == 1
    assert below["float32"] == 0 < below["float64"] < 1.4e-45


def test_an_unknown_stack_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean ReLU, He"):
        vanishing.vanishing_gradient(stacks=("ReLU, Hee",))


def test_the_flow_of_one_depth_is_drawn():
    found = vanishing.vanishing_gradient(stacks=("sigmoid, He", "ReLU, He"), depths=(3,), seeds=(0,))
    (axes,) = vanishing.flow_at(found, 3).figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    for row in found["stacks"]:
        assert list(lines[row["stack"]].get_ydata()) == row["norms"]
    with pytest.raises(ConfigError, match="was not measured; there are 3"):
        vanishing.flow_at(found, 4)


# -- batch norm explodes ----------------------------------------------------------------------------------------------


def test_the_factor_of_a_straight_line_is_exact():
    assert exploding.factor_a_layer([8, 4, 2, 1]) == pytest.approx(2, rel=1e-12)
    assert exploding.factor_a_layer([1e-6, 1e-3, 1]) == pytest.approx(1e-3, rel=1e-12)


def test_relu_with_batch_norm_explodes_as_theory_says():
    found = exploding.batch_norm_explodes(depths=(10, 20), seeds=range(3))
    assert found["theory"] == pytest.approx(1.2111, abs=1e-4)
    for row in found["stacks"]:
        assert row["factor"] == pytest.approx(found["theory"], rel=0.02)
        assert row["predicted"] == found["theory"] ** (row["depth"] - 1)
        assert row["predicted"] / 1.5 < row["ratio"] < row["predicted"] * 1.5


def test_there_is_no_theory_of_other_activations():
    found = exploding.batch_norm_explodes(depths=(4,), seeds=(0,), activation="tanh", width=32, batch_size=32)
    assert found["theory"] is None
    assert found["stacks"][0]["predicted"] is None
    assert "| – |" in exploding.table(found)
    assert exploding.picture(found).alt


@pytest.mark.parametrize(("asked", "says"), [({"depths": (1, 5)}, "depth 2 or more"), ({"activation": "rel"}, "relu")])
def test_what_cannot_explode_is_refused(asked, says):
    with pytest.raises(ConfigError, match=says):
        exploding.batch_norm_explodes(**asked)


# -- training ---------------------------------------------------------------------------------------------------------


def test_with_ten_layers_sigmoid_stays_at_chance_and_relu_learns():
    found = sigmoid_relu.sigmoid_against_relu(activations=("sigmoid", "relu"), depths=(10,), seeds=(0,), epochs=5)
    sigmoid, relu = found["stacks"]
    assert sigmoid["test_accuracy"]["mean"] < 0.14  # the commonest digit among the test images is 47 of 360: 13 %
    assert relu["test_accuracy"]["mean"] > 0.8
    assert sigmoid["gradient_ratio"] < 1e-4 < 0.1 < relu["gradient_ratio"]


def test_learning_curves_are_means_of_what_did_not_diverge():
    runs = [
        {"learning_rate": 0.1, "gradient_ratio": ratio, "seconds": 1.0, "diverged": diverged, "train_loss": loss, "test_accuracy": right}
        for ratio, diverged, loss, right in (
            (1.0, False, [2.0, 1.0], [0.2, 0.6]),
            (3.0, True, [9.0], [0.9]),
            (2.0, False, [4.0, 2.0], [0.4, 0.8]),
        )
    ]  # fmt: skip
    row = sigmoid_relu.row("relu", 3, runs)
    assert row["train_losses"] == [3.0, 1.5]
    assert row["test_accuracies"] == pytest.approx([0.3, 0.7])
    assert row["diverged"] == 1
    assert row["gradient_ratio"] == 2
    assert row["test_accuracy"]["values"] == pytest.approx([0.6, 0.1, 0.8])


def test_batch_norm_learns_at_a_rate_that_diverges_without(few):
    found = batch_norm.batch_norm_rates(activations=("relu",), rates=(0.3,), seeds=(0,), epochs=4)
    without, with_it = found["cells"]
    assert (without["batch_norm"], with_it["batch_norm"]) == (False, True)
    assert without["test_accuracy"]["mean"] < 0.25
    assert with_it["diverged"] == 0


def test_what_is_unknown_is_refused_before_training():
    for experiment in (sigmoid_relu.sigmoid_against_relu, batch_norm.batch_norm_rates):
        with pytest.raises(ConfigError, match="did you mean relu"):
            experiment(activations=("rellu",))


def test_testing_in_training_mode_leaves_the_network_as_it_is(few):
    model = stack("plain", depth=2, width=4)
    before = model.state_dict()
    model.eval()
    accuracy = batch_norm.accuracy_in_training_mode(model, few, batch_size=3)
    assert 0 <= accuracy <= 1
    assert not model.training
    assert all((before[name] == value).all() for name, value in model.state_dict().items())


def test_a_batch_of_one_is_near_guessing_in_training_mode():
    found = batch_norm.batch_of_one(batch_sizes=(1, 50), seeds=(0,), epochs=6)
    alone, together = found["training"]
    assert alone["mean"] < 0.3
    assert together["mean"] > 0.8
    assert found["eval"]["mean"] > 0.7


def test_training_mode_judges_by_the_batch_itself(few):
    """All the test images in one batch: what a forward pass in training mode says, counted by hand."""
    model, _ = trained_perceptron(few, learning_rate=0.05, epochs=10, depth=1, batch_norm=True, activation="relu")
    images = (few.test_images.astype("f") - few.mean[0]) / few.std[0]
    expected = (model(Tensor(images)).data.argmax(1) == few.test_labels).mean()
    model.eval()
    model.norm1.running_mean.data += 5  # which training mode does not look at
    assert batch_norm.accuracy_in_training_mode(model, few, batch_size=40) == expected > 0.5
    assert training.loss_and_accuracy(model, few)[1] < expected - 0.2


# -- updates ----------------------------------------------------------------------------------------------------------


def test_update_ratios_of_plain_descent_are_rate_times_gradient_over_weight():
    model, (inputs, labels) = perceptron(depth=2, width=8, activation="tanh").to(dtype=np.float64), random_examples(16)
    optimizer = SGD(model.parameters(), lr=0.1)
    watch = UpdateRatios(model)
    for step in range(3):
        sizes = {
            f"{name}.weight": perceptrons.norm(getattr(model, name).weight.data) for name in ("linear1", "classifier")
        }
        training_step(model, optimizer, inputs, labels)
        watch(model, optimizer)
        for name, w in model.named_parameters():
            if name in sizes:
                assert watch.ratios[name][step] == pytest.approx(0.1 * perceptrons.norm(w.grad) / sizes[name])
    assert watch.steps == [1, 2, 3]
    assert set(watch.ratios) == {"linear1.weight", "linear2.weight", "classifier.weight"}


def test_every_so_many_steps_one_is_noted_down(few):
    ratios = {}
    for every in (1, 3):
        model = perceptron(depth=1, activation="relu")
        optimizer, watch = SGD(model.parameters(), lr=0.01, momentum=0.9), UpdateRatios(model, every=every)
        perceptrons.train(model, optimizer, few, epochs=4, learning_rate=0.01, seed=0, tested=False, after_step=watch)
        ratios[every] = watch
    assert ratios[1].steps == list(range(1, 9))  # 100 images in batches of 50, four times
    assert ratios[3].steps == [3, 6]
    assert ratios[3].ratios["linear1.weight"] == [ratios[1].ratios["linear1.weight"][i] for i in (2, 5)]
    with pytest.raises(ConfigError, match="at least 1"):
        UpdateRatios(model, every=0)


def test_what_was_zero_has_no_ratio():
    model = Sequential(linear=Linear(2, 2))
    model.linear.bias.data[...] = 0
    watch = UpdateRatios(model, biases=True)
    model.linear.weight.data *= 1.5
    watch()
    assert watch.ratios == {"linear.weight": [pytest.approx(0.5)], "linear.bias": [None]}


# -- as experiments ---------------------------------------------------------------------------------------------------


def tiny_vanishing(notebook=None):
    found = vanishing.vanishing_gradient(
        stacks=("sigmoid, Xavier", "ReLU, He, BN"), depths=(2, 12), seeds=(0, 1), width=16
    )
    return {**found, "underflow": vanishing.underflow(depths=(3,), seeds=(0,), width=16)}


def tiny_sigmoid(notebook=None):
    return sigmoid_relu.sigmoid_against_relu(
        activations=("sigmoid", "relu"), depths=(1, 2), seeds=(0, 1), epochs=2, notebook=notebook
    )


def tiny_rates(notebook=None):
    found = batch_norm.batch_norm_rates(rates=(0.01, 1e12), seeds=(0, 1), epochs=2, depth=2, notebook=notebook)
    one = batch_norm.batch_of_one(batch_sizes=(1, 20), seeds=(0,), epochs=1, width=4, notebook=notebook)
    return {**found, "batch_of_one": one}


def tiny_explosion(notebook=None):
    return exploding.batch_norm_explodes(depths=(3, 6), seeds=(0, 1), width=16, batch_size=16)


EACH = {
    "vanishing-gradient": (vanishing.VANISHING_GRADIENT, tiny_vanishing),
    "sigmoid-against-relu": (sigmoid_relu.SIGMOID_AGAINST_RELU, tiny_sigmoid),
    "batch-norm-rates": (batch_norm.BATCH_NORM_RATES, tiny_rates),
    "batch-norm-explodes": (exploding.BATCH_NORM_EXPLODES, tiny_explosion),
}


def noted(called, function, asked):
    called[function] = asked
    return {}


def without_seconds(numbers):
    if isinstance(numbers, dict):
        return {key: without_seconds(value) for key, value in numbers.items() if key != "seconds"}
    return [without_seconds(value) for value in numbers] if isinstance(numbers, list) else numbers


@pytest.mark.parametrize("name", EACH)
def test_the_same_numbers_come_again_silently_and_are_json(few, capsys, name):
    experiment, measure = EACH[name]
    first = measure()
    assert without_seconds(first) == without_seconds(measure())
    assert json.loads(as_json(first)) == first
    assert capsys.readouterr() == ("", "")
    assert experiment.name == name
    assert all(len(line) <= 120 for line in experiment.reading.splitlines())


@pytest.mark.parametrize("name", ["sigmoid-against-relu", "batch-norm-rates"])
def test_an_interrupted_measurement_goes_on(few, tmp_path, name):
    experiment, measure = EACH[name]
    said = []
    whole = measure(Notebook(tmp_path / "runs.json", tell=lambda run: said.append(experiment.line(run))))
    assert len(said) == len(set(said)) > 3
    again = Notebook(tmp_path / "runs.json", tell=lambda run: pytest.fail("done twice"))
    assert measure(again) == whole


def test_the_vanishing_picture_and_table_hold_the_numbers():
    numbers = tiny_vanishing()
    picture, table = vanishing.picture(numbers), vanishing.table(numbers)
    layers, vanishes, stays = picture.figure.axes
    by_name = vanishing.rows_of(numbers)
    for line, row in zip(layers.lines, by_name["sigmoid, Xavier"], strict=True):
        assert list(line.get_ydata()) == row["norms"]
    for axes, name in ((vanishes, "sigmoid, Xavier"), (stays, "ReLU, He, BN")):
        (line,) = axes.lines
        assert line.get_label() == name
        assert list(line.get_xdata()) == [2, 12]
        assert list(line.get_ydata()) == [row["ratio"] for row in by_name[name]]
        assert f"{by_name[name][-1]['ratio']:.2g}" in picture.alt
        assert f"| {name} | {by_name[name][0]['ratio']:.2g} |" in table
    assert f"| 3 | {numbers['underflow'][0]['float32']:.1e} |" in table


def test_a_picture_without_anything_that_vanishes_leaves_that_panel_out():
    found = vanishing.vanishing_gradient(stacks=("tanh, Xavier",), depths=(2, 3), seeds=(0,), width=16)
    assert [axes.get_visible() for axes in vanishing.picture(found).figure.axes] == [True, False, True]


def test_the_learning_picture_and_table_hold_the_numbers(few):
    numbers = tiny_sigmoid()
    picture, table = sigmoid_relu.picture(numbers), sigmoid_relu.table(numbers)
    for axes, depth in zip(picture.figure.axes, (1, 2), strict=True):
        rows = [row for row in numbers["stacks"] if row["depth"] == depth]
        assert [line.get_label() for line in axes.lines] == ["sigmoid", "ReLU"]
        for line, row in zip(axes.lines, rows, strict=True):
            assert list(line.get_ydata()) == [100 * value for value in row["test_accuracies"]]
            assert f"{100 * row['test_accuracy']['mean']:.1f} ±" in table
    assert "with 2 hidden layers: sigmoid" in picture.alt


def test_the_rates_picture_and_table_hold_the_numbers(few):
    numbers = tiny_rates()
    picture, table = batch_norm.picture(numbers), batch_norm.table(numbers)
    heat, one = (axes for axes in picture.figure.axes if axes.images and axes.get_title())
    found = [[100 * cell["test_accuracy"]["mean"] for cell in cells] for cells in batch_norm.cells_of(numbers).values()]
    np.testing.assert_allclose(heat.images[0].get_array(), found)
    assert [label.get_text() for label in heat.get_yticklabels()] == [
        "sigmoid",
        "sigmoid, batch norm",
        "ReLU",
        "ReLU, batch norm",
    ]
    accuracies = [
        numbers["batch_of_one"]["eval"]["mean"],
        *(each["mean"] for each in numbers["batch_of_one"]["training"]),
    ]
    np.testing.assert_allclose(one.images[0].get_array().ravel(), 100 * np.array(accuracies))
    assert "diverged)" in table
    assert "| eval | 1 | 20 |" in table
    assert "evaluation mode; in training mode" in picture.alt
    del numbers["batch_of_one"]
    assert "eval" not in batch_norm.table(numbers) + batch_norm.picture(numbers).alt


def test_the_exploding_picture_and_table_hold_the_numbers():
    numbers = tiny_explosion()
    picture, table = exploding.picture(numbers), exploding.table(numbers)
    (axes,) = picture.figure.axes
    *lines, theory = axes.lines
    for line, row in zip(lines, numbers["stacks"], strict=True):
        assert list(line.get_ydata()) == row["norms"]
        assert f"| {row['depth']} | {row['ratio']:,.3g} |" in table
    assert theory.get_ydata()[0] / theory.get_ydata()[1] == pytest.approx(numbers["theory"])
    assert theory.get_ydata()[-1] == numbers["stacks"][-1]["norms"][-1]
    assert f"{numbers['stacks'][-1]['factor']:.3f} in the deepest against 1.211 by theory" in picture.alt


@pytest.mark.parametrize("name", EACH)
def test_the_command_passes_its_options_on_and_refuses_nonsense(monkeypatch, name):
    experiment, _ = EACH[name]
    parser = argparse.ArgumentParser()
    experiment.options(parser)
    called = {}
    for module in (vanishing, sigmoid_relu, batch_norm, exploding):
        for function in (
            "vanishing_gradient",
            "underflow",
            "sigmoid_against_relu",
            "batch_norm_rates",
            "batch_of_one",
            "batch_norm_explodes",
        ):
            if hasattr(module, function):
                monkeypatch.setattr(module, function, lambda function=function, **asked: noted(called, function, asked))
    experiment.measure(parser.parse_args(["--seeds", "2"]), Notebook())
    assert called
    assert all(list(asked["seeds"]) == [0, 1] for asked in called.values())
    with pytest.raises(ConfigError, match="--seeds must be at least 1 and at most 10,000, got 0"):
        experiment.measure(parser.parse_args(["--seeds", "0"]), Notebook())
