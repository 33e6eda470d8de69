"""DenseNet's own experiments: arithmetic, heads, the recipe's parts and its staircase, parameter efficiency, feature reuse."""

import json
import math
import statistics
from argparse import ArgumentParser, Namespace

import numpy as np
import pytest

from minidense import models
from minidense.data import load
from minidense.errors import ConfigError, DivergenceError
from minidense.experiments import Notebook, training
from minidense.experiments.arithmetic import DENSE_ARITHMETIC, break_even, dense_arithmetic
from minidense.experiments.efficiency import PARAMETER_EFFICIENCY, matches, needed, parameter_efficiency
from minidense.experiments.heads import (
    GLOBAL_AVERAGE_POOLING,
    SHIFTS,
    global_average_pooling,
    heads_of_the_paper,
    moved,
    with_head,
)
from minidense.experiments.paper_recipe import PaperRecipe
from minidense.experiments.rate_staircase import STAIRCASE, running_mean, staircase
from minidense.experiments.recipe import PARTS, RECIPE_ABLATION, WHOLE, network_of, recipe_ablation
from minidense.experiments.reuse import (
    FEATURE_REUSE,
    Blinded,
    ablation_maps,
    agreement,
    blinded,
    early,
    feature_reuse,
    flatness,
    readers,
    weight_maps,
)
from minidense.experiments.seeds import apart, chosen, once, over_seeds, written
from minidense.nn import Module
from minidense.speed import reference_only
from minidense.tensor import Tensor

SMALL = {"seeds": (0, 1), "epochs": 1}
FEW = load("digits").first(64, 40)


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    """Every measurement here sees the first digits alone."""
    for module in ("recipe", "heads", "efficiency", "reuse", "rate_staircase"):
        monkeypatch.setattr(f"minidense.experiments.{module}.load", lambda name: FEW)


def without_seconds(numbers):
    """The numbers but for how long they took, which differs from run to run."""
    if isinstance(numbers, dict):
        return {key: without_seconds(value) for key, value in numbers.items() if key != "seconds"}
    return [without_seconds(value) for value in numbers] if isinstance(numbers, list) else numbers


def checked(experiment, measure, capsys):
    """Measured twice with one outcome and nothing printed; JSON holds it; table and picture are made of it. Returns all three."""
    numbers = measure()
    assert without_seconds(measure()) == without_seconds(numbers)
    assert capsys.readouterr().out == ""
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    picture = experiment.picture(numbers)
    assert picture.png().startswith(b"\x89PNG")
    assert len(picture.alt) > 100
    assert all(len(line) <= 160 for line in experiment.reading.splitlines())
    return numbers, experiment.table(numbers), picture


# -- arithmetic -------------------------------------------------------------------------------------------------------


def test_the_four_variants_have_the_papers_parameters():
    numbers = dense_arithmetic(growth_rates=(12,))
    assert {each["family"]: each["parameters"] for each in numbers["networks"]} == {
        "DenseNet": 6_979_642,
        "DenseNet-C": 4_013_370,
        "DenseNet-B": 1_210_066,
        "DenseNet-BC": 769_162,
    }
    assert {each["family"]: each["bottlenecks_that_pay"] for each in numbers["networks"]} == {
        "DenseNet": None,
        "DenseNet-C": None,
        "DenseNet-B": 42,
        "DenseNet-BC": 42,
    }
    assert numbers["networks"][-1]["multiply_adds"] == 287_929_692
    assert numbers["growth"] == {
        "growth_rates": [12],
        **{each["family"]: [each["parameters"]] for each in numbers["networks"]},
    }


@pytest.mark.parametrize("k", [1, 5, 12, 32])
def test_a_bottleneck_pays_from_the_first_whole_c_above_7_2_k(k):
    pays = break_even(k)
    assert pays["by_weights"] == math.floor(36 * k / 5) + 1
    # With batch norm 9ck + 2c > 4ck + 36k² + 2c + 8k, so c > 7.2k + 1.6.
    assert pays["by_parameters"] == math.floor((36 * k + 8) / 5) + 1
    c = pays["channels"]
    assert pays["plain"] == [9 * each * k for each in c]
    assert pays["bottleneck"] == [4 * each * k + 36 * k * k for each in c]


def test_channels_grow_by_k_in_a_block_and_layers_add_up(capsys):
    numbers, table, picture = checked(
        DENSE_ARITHMETIC, lambda: dense_arithmetic(depth=16, growth_rate=4, growth_rates=(2, 4)), capsys
    )
    for each in numbers["networks"]:
        assert sum(row["parameters"] for row in each["layers"]) == each["parameters"]
        dense = [row for row in each["layers"] if "denselayer" in row["layer"]]
        assert {row["channels_after"] - row["channels"] for row in dense} == {4}
        assert len(dense) == each["dense_layers"] == (6 if each["bottleneck"] else 12)
        for row, after in zip(each["layers"], each["layers"][1:], strict=False):
            assert row["channels_after"] == after["channels"]
    assert [row["channels"] for row in numbers["vgg"]] == [3, 64, 64, 128, 128, *3 * [256], *5 * [512]]
    last = numbers["networks"][-1]
    assert f"| DenseNet-BC | yes | 0.5 | 8 | {last['last_channels']} | {last['parameters']:,} |" in table
    assert f"| classifier | {' | '.join(cell(each['layers'][-1]) for each in numbers['networks'])} |" in table
    channels, bottleneck, parameters = picture.figure.axes
    lines = {line.get_label(): list(line.get_ydata()) for line in channels.get_lines()}
    assert lines["VGG-16"] == [row["channels"] for row in numbers["vgg"]]
    assert lines["DenseNet-BC"] == [row["channels"] for row in last["layers"] if row["layer"] != "norm5"]
    assert list(bottleneck.get_lines()[1].get_ydata()) == numbers["bottleneck"]["bottleneck"]
    assert list(parameters.get_lines()[3].get_ydata()) == numbers["growth"]["DenseNet-BC"]


def cell(row):
    return f"{row['channels']:,} ({row['parameters']:,})"


# -- several seeds ----------------------------------------------------------------------------------------------------


def test_mean_and_spread_leave_out_what_is_missing():
    assert over_seeds([1.0, 3.0, None]) == {"values": [1.0, 3.0, None], "mean": 2.0, "spread": math.sqrt(2)}
    assert over_seeds([5.0]) == {"values": [5.0], "mean": 5.0, "spread": None}
    assert over_seeds([None])["mean"] is None
    assert written(over_seeds([0.5, 0.7]), unit=100) == "60.0 ± 14.1"
    assert written(over_seeds([0.5])) == "0.5"
    assert written(over_seeds([None])) == "–"


def test_apart_means_three_standard_errors():
    a = over_seeds([-1.0, 1.0])  # a variance of 2, and so a standard error of 1
    assert apart(a, over_seeds([4.2, 4.3])) is True  # 4.25 apart, and 3·√(1 + 0.0025) is 3.004
    assert apart(a, over_seeds([2.9, 3.0])) is False
    assert apart(a, over_seeds([9.0])) is None


def test_a_run_in_the_notebook_is_not_done_again():
    notebook = Notebook()
    first = once(notebook, {"seed": 1}, lambda: {"y": 2})
    assert first == {"seed": 1, "y": 2}
    assert once(notebook, {"seed": 1}, lambda: pytest.fail("measured again")) == first


@pytest.mark.parametrize(
    "experiment", [RECIPE_ABLATION, STAIRCASE, GLOBAL_AVERAGE_POOLING, PARAMETER_EFFICIENCY, FEATURE_REUSE]
)
def test_seeds_and_epochs_can_be_chosen(experiment):
    parser = ArgumentParser()
    experiment.options(parser)
    assert chosen(parser.parse_args([])) == {}
    assert chosen(parser.parse_args(["--seeds", "2"])) == {"seeds": range(2)}


def test_options_become_arguments():
    assert chosen(Namespace(seeds=None, epochs=None)) == {}
    assert chosen(Namespace(seeds=2, epochs=7)) == {"seeds": range(2), "epochs": 7}
    with pytest.raises(ConfigError, match="--epochs must be at least 1"):
        chosen(Namespace(seeds=2, epochs=0))


# -- the recipe -------------------------------------------------------------------------------------------------------


def test_the_rate_falls_where_the_authors_let_it_fall():
    recipe = PaperRecipe(epochs=12)
    assert [round(recipe.rate(epoch), 6) for epoch in range(12)] == 5 * [0.1] + 3 * [0.01] + 4 * [0.001]
    assert PaperRecipe(falling=False).rate(11) == 0.1
    (group,) = recipe.optimizer(models.densenet(depth=10, growth_rate=2, in_channels=1)).groups
    settings = ("momentum", "nesterov", "weight_decay", "dampening", "lr")
    assert [group[key] for key in settings] == [0.9, True, 1e-4, 0.0, 0.1]


def test_parts_change_what_they_say():
    def weights(name):
        return network_of(PARTS[name], depth=10, growth_rate=2, seed=3).features.conv0.weight.numpy()

    assert abs(weights("start: Torch's default")).max() <= 1 / 3  # one channel and nine taps: U(±1/√9)
    assert not np.array_equal(weights("start: N(0, 0.05)"), weights(WHOLE))
    assert np.array_equal(weights("no momentum"), weights(WHOLE))
    dropping = network_of(PARTS["dropout added"], depth=10, growth_rate=2, seed=0)
    assert dropping.features.denseblock1.denselayer1.drop.p == 0.2


def test_recipe_ablation_compares_with_the_whole_recipe(capsys):
    parts = ("no momentum", "batches of 32")
    numbers, table, picture = checked(
        RECIPE_ABLATION, lambda: recipe_ablation(parts=parts, depth=10, growth_rate=2, seeds=(0, 1), epochs=2), capsys
    )
    assert [each["part"] for each in numbers["parts"]] == [WHOLE, *parts]
    whole, without, _ = numbers["parts"]
    assert whole["difference"] == 0
    assert whole["beyond_chance"] is None
    assert without["difference"] == without["test_accuracy"]["mean"] - whole["test_accuracy"]["mean"]
    assert without["train_loss"]["values"] != whole["train_loss"]["values"]
    values = whole["test_accuracy"]["values"]
    assert len(values) == 2
    assert f"{100 * statistics.fmean(values):.2f} ± {100 * statistics.stdev(values):.2f}" in table
    drawn = [line for line in picture.figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in drawn] == [
        [100 * value for value in each["test_accuracy"]["values"]] for each in numbers["parts"]
    ]


def test_an_unknown_part_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean no momentum"):
        recipe_ablation(parts=("no momentun",), **SMALL)


def test_a_run_that_diverges_counts_as_guessing(monkeypatch):
    part = PARTS["no momentum, rate × 10"]
    monkeypatch.setitem(part.recipe, "learning_rate", 1e30)
    numbers = recipe_ablation(parts=("no momentum, rate × 10",), depth=10, growth_rate=2, seeds=(0,), epochs=2)
    row = numbers["parts"][1]
    assert row["diverged"] == 1
    assert row["test_accuracy"]["values"] == [0.1]
    assert row["train_loss"]["mean"] is None
    assert "(1 diverged)" in RECIPE_ABLATION.table(numbers)
    RECIPE_ABLATION.picture(numbers).png()


# -- the staircase ----------------------------------------------------------------------------------------------------


def test_running_mean_by_hand():
    assert running_mean([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]


def test_both_runs_are_one_until_the_first_drop(capsys):
    numbers, table, picture = checked(
        STAIRCASE, lambda: staircase(epochs=4, depth=10, growth_rate=2, seeds=(1,), batch_size=16), capsys
    )
    run, steps = numbers["runs"][0], numbers["steps_per_epoch"]
    assert steps == 4
    assert [each["epoch"] for each in numbers["drops"]] == [1, 2]
    falling, constant = run["falling"], run["constant"]
    assert len(falling["loss"]) == 16
    # The step of a lower rate changes the loss after it.
    assert falling["loss"][: steps + 1] == constant["loss"][: steps + 1]
    assert falling["loss"][steps + 1] != constant["loss"][steps + 1]
    assert [round(rate, 6) for rate in falling["rate"][::steps]] == [0.1, 0.01, 0.001, 0.001]
    assert constant["rate"] == 16 * [0.1]
    first = numbers["drops"][0]
    assert first["before"][0] == pytest.approx(statistics.fmean(falling["loss"][:4]))
    assert first["after"][0] == pytest.approx(statistics.fmean(falling["loss"][4:8]))
    assert first["ratio"] == [first["after"][0] / first["before"][0]]
    assert falling["smoothed"][7] == pytest.approx(first["after"][0])
    assert numbers["end"]["falling"] == [falling["history"][-1]["train_loss"]]
    assert f"| 1 | 2 | 0.1 → 0.01 | {first['before'][0]:.4f} | {first['after'][0]:.4f} |" in table
    loss = picture.figure.axes[0]
    assert list(loss.get_lines()[1].get_ydata()) == falling["smoothed"]


def test_a_staircase_that_diverges_says_which_rate_was_too_high():
    with pytest.raises(DivergenceError, match=r"learning_rate=10000 .* epoch \d \(seed 3\); try a lower one"):
        staircase(learning_rate=1e4, epochs=4, depth=10, growth_rate=2, seeds=(3,))


# -- the head ---------------------------------------------------------------------------------------------------------


def test_the_papers_heads_have_3430_and_218890_parameters():
    paper = heads_of_the_paper()
    assert (paper["channels"], paper["average"], paper["flatten"]) == (342, 3430, 218_890)
    assert paper["features"] + paper["average"] == 769_162


def test_both_heads_stand_on_the_same_features():
    average, flatten = (with_head(head, blocks=(1, 1), growth_rate=2, seed=3) for head in ("average", "flatten"))
    mine = dict(average.named_parameters())
    for name, theirs in flatten.named_parameters():
        if name.startswith("features."):
            assert np.array_equal(mine[name].numpy(), theirs.numpy())
    channels = average.classifier.weight.shape[1]
    assert flatten.classifier.weight.shape == (10, 16 * channels)
    # Flattened maps whose weights are those of the average, a sixteenth for every pixel, give the average's logits.
    flatten.classifier.weight.data = np.repeat(average.classifier.weight.data / 16, 16, axis=1)
    x = Tensor(np.random.default_rng(0).normal(size=(2, 1, 8, 8)).astype(np.float32))
    np.testing.assert_allclose(average.eval()(x).numpy(), flatten.eval()(x).numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="unknown head 'max'"):
        with_head("max")


def test_moved_images_keep_their_digit_and_get_background():
    down = moved(FEW, 2, 0).test_images
    assert down.dtype == np.uint8
    assert np.array_equal(down[:, :, 2:], FEW.test_images[:, :, :-2])
    assert not down[:, :, :2].any()
    left = moved(FEW, 0, -1).test_images
    assert np.array_equal(left[..., :-1], FEW.test_images[..., 1:])
    assert np.array_equal(moved(FEW, 0, 0).test_images, FEW.test_images)


def test_heads_are_compared_on_moved_images(capsys):
    numbers, table, picture = checked(
        GLOBAL_AVERAGE_POOLING, lambda: global_average_pooling(blocks=(1, 1), growth_rate=2, **SMALL), capsys
    )
    rows = numbers["rows"]
    assert [(each["head"], each["augment"]) for each in rows] == [
        ("average", False),
        ("flatten", False),
        ("average", True),
        ("flatten", True),
    ]
    for each in rows:
        assert each["shifted"][0] == each["test_accuracy"]
        assert each["lost"][0]["values"] == [0.0, 0.0]
        assert each["gap"]["values"] == [
            a - b for a, b in zip(each["train_accuracy"]["values"], each["test_accuracy"]["values"], strict=True)
        ]
    assert rows[1]["parameters"] - rows[0]["parameters"] == 15 * (rows[0]["head_parameters"] - 10)
    assert f"| flatten | moved | {rows[3]['head_parameters']} | {rows[3]['parameters']:,} |" in table
    line = picture.figure.axes[0].get_lines()[1]
    assert list(line.get_xdata()) == list(SHIFTS)
    assert list(line.get_ydata()) == [100 * value["mean"] for value in rows[1]["shifted"]]


# -- parameter efficiency ---------------------------------------------------------------------------------------------


def test_what_a_family_needs_is_read_off_its_line():
    line = [(100, 1.0), (10_000, 0.01)]
    assert needed(line, 0.1) == pytest.approx(1000)
    assert needed(line, 1.0) == pytest.approx(100)
    assert needed(line, 2.0) is None
    assert needed(line, 0.001) is None
    assert needed(line, None) is None


def test_what_matches_a_residual_network_by_hand():
    sizes = {
        "DenseNet": [(100, 1.0), (10_000, 0.01)],
        "DenseNet-BC": [(50, 0.05), (500, 0.02)],
        "pre-activation ResNet": [(4000, 0.1)],
    }
    points = [
        {"family": family, "size": "", "parameters": n, "test_loss": {"mean": loss}}
        for family, line in sizes.items()
        for n, loss in line
    ]
    first, second = matches(points)
    # Half-way between losses of 1 and 0.01 on a logarithmic axis lies 0.1, and half-way between 100 and 10,000 parameters 1,000.
    assert (first["other"], first["needs"], first["share"]) == ("DenseNet", pytest.approx(1000), pytest.approx(0.25))
    assert (second["other"], second["needs"], second["share"]) == ("DenseNet-BC", None, None)


def test_families_of_several_sizes_are_compared(capsys):
    numbers, table, picture = checked(PARAMETER_EFFICIENCY, lambda: parameter_efficiency(sizes=(0, 1), **SMALL), capsys)
    points = numbers["points"]
    assert [each["parameters"] for each in points] == [2878, 10_346, 2365, 8570, 2888, 11_094]
    assert [(each["size"], each["other"]) for each in numbers["matches"]] == [
        (size, other) for size in ("width = 2", "width = 4") for other in ("DenseNet", "DenseNet-BC")
    ]
    assert {"family": "DenseNet-BC", "depth": 40, "parameters": 176_122} in numbers["paper"]
    assert f"| DenseNet-BC | k = 4 | 8,570 | {points[3]['multiply_adds']:,} |" in table
    assert "40: 176,122" in table
    lines = picture.figure.axes[0].get_lines()
    assert list(lines[1].get_xdata()) == [2365, 8570]
    assert list(lines[1].get_ydata()) == [100 * (1 - each["test_accuracy"]["mean"]) for each in points[2:4]]


def test_an_unknown_family_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean DenseNet"):
        parameter_efficiency(families=("Densenet",), **SMALL)


# -- feature reuse ----------------------------------------------------------------------------------------------------


class Seen(Module):
    """Gives back what it gets."""

    def forward(self, x):
        return x


def test_blinded_channels_are_their_mean_and_others_untouched():
    x = np.random.default_rng(0).normal(size=(4, 5, 2, 3)).astype(np.float32)
    y = Blinded(Seen(), slice(1, 3))(Tensor(x)).numpy()
    assert np.array_equal(y[:, [0, 3, 4]], x[:, [0, 3, 4]])
    for image in y:
        np.testing.assert_allclose(image[1:3], x[:, 1:3].mean(axis=0), rtol=1e-5)
    for start, stop in ((0, 2), (3, 5)):  # nothing in front, nothing behind
        assert Blinded(Seen(), slice(start, stop))(Tensor(x)).shape == x.shape


@pytest.mark.parametrize(("depth", "bottleneck"), [(13, False), (22, True)])
def test_a_source_that_a_layer_has_no_weights_for_is_not_missed(depth, bottleneck):
    model = models.densenet(
        depth=depth,
        growth_rate=2,
        bottleneck=bottleneck,
        compression=0.5 if bottleneck else 1.0,
        in_channels=1,
        stem_channels=4,
    )
    before, names = model.state_dict(), [name for name, _ in model.named_modules()]
    # Layer 3 of block 2 forgets layer 1, and the classifier the input of the last block.
    block = readers(model)[1]
    c = block[0][3].shape[1]
    block[2][3].data[:, c : c + 2] = 0
    last = readers(model)[2]
    last[-1][3].data[:, : last[0][3].shape[1]] = 0
    maps = ablation_maps(model, FEW)
    assert maps[1][1][2] == pytest.approx(0, abs=1e-6)
    assert maps[2][0][3] == pytest.approx(0, abs=1e-6)
    rest = [
        value
        for b, rows in enumerate(maps)
        for s, row in enumerate(rows)
        for reader, value in enumerate(row)
        if value is not None and (b, s, reader) not in ((1, 1, 2), (2, 0, 3))
    ]
    assert len(rest) == 3 * 10 - 2
    assert all(abs(value) > 1e-7 for value in rest)
    for rows in maps:
        assert [[value is None for value in row] for row in rows] == [[r < s for r in range(4)] for s in range(4)]
    # The model is as it was.
    assert [name for name, _ in model.named_modules()] == names
    for name, value in model.state_dict().items():
        if "running" in name:
            assert np.array_equal(value, before[name])


def test_ablation_is_what_cutting_by_hand_gives():
    model = models.densenet(depth=10, growth_rate=2, bottleneck=False, compression=1.0, in_channels=1, stem_channels=4)
    with reference_only():
        whole, _ = training.loss_and_accuracy(model, FEW, batch_size=40)
        with blinded(model.features.denseblock2, "denselayer2", slice(8, 10)):
            rise = training.loss_and_accuracy(model, FEW, batch_size=40)[0] - whole
    assert ablation_maps(model, FEW)[1][1][1] == rise != 0


def test_weight_maps_are_means_of_absolute_weights():
    model = models.densenet(depth=10, growth_rate=2, bottleneck=False, compression=1.0, in_channels=1, stem_channels=4)
    maps = weight_maps(model)
    w = model.features.denseblock1.denselayer2.conv1.weight.numpy()  # (2, 4 + 2, 3, 3)
    assert maps[0][0][1] == pytest.approx(abs(w[:, :4]).mean())
    assert maps[0][1][1] == pytest.approx(abs(w[:, 4:]).mean())
    assert maps[2][2][2] == pytest.approx(abs(model.classifier.weight.numpy()[:, -2:]).mean())
    assert maps[0][2][1] is None


def test_flatness_agreement_and_early_by_hand():
    block = [[3.0, 1.0, 8.0], [None, 2.0, 2.0], [None, None, 1.0]]
    assert flatness([block]) == pytest.approx(4.0)  # √(2·8): the column with one source is left out
    assert flatness([[[1.0, 1.0], [None, 1.0]]]) == 1.0
    assert agreement([block], [block]) == pytest.approx(1)
    turned = [[0.0, 0.0, 1.0], [None, 0.0, 2.0], [None, None, 3.0]]
    assert agreement([block], [turned]) == pytest.approx(-1)
    assert agreement([block[:2]], [block[:2]]) is None
    # Reader 2 of source 0, and reader 3 of sources 0 and 1, against the diagonal.
    assert early([block]) == pytest.approx((1 + 8 + 2) / (3 + 1 + 8 + 2 + 2 + 1))
    assert early([[[-1.0]]]) is None


def test_feature_reuse_gives_maps_of_every_block(capsys):
    numbers, table, picture = checked(FEATURE_REUSE, lambda: feature_reuse(depth=10, growth_rate=2, **SMALL), capsys)
    assert [block["readers"] for block in numbers["blocks"]] == 2 * [["1", "2", "transition"]] + [
        ["1", "2", "classifier"]
    ]
    assert numbers["blocks"][0]["sources"] == ["input", "1", "2"]
    assert set(numbers["flatness"]) == {"trained", "untrained"}
    assert len(numbers["early"]["all"]["values"]) == 2
    rise = numbers["blocks"][0]["rise"]
    assert f"| input | {' | '.join(f'{value:z.3f}' for value in rise[0])} |" in table
    drawn = picture.figure.axes[0].images[0].get_array()
    assert drawn.mask.tolist() == [[False] * 3, [True, False, False], [True, True, False]]
    np.testing.assert_allclose(drawn.filled(0)[0], rise[0])
