"""Presets are the papers' runs: one for each number of the DenseNet paper's Table 2, with the figures of its recipe."""

import pytest

from minidense import models
from minidense.config import TrainConfig
from minidense.recipes import COLUMNS, NOTES, PRESETS

# Rows of Table 2 (Huang et al. 2017) with the columns that have a number.
ALL, PLUS = "c10 c10+ c100 c100+ svhn", "c10+ c100+"
TABLE_2 = {
    "nin": "c10 c10+ c100 svhn",
    "allcnn_c": "c10 c10+ c100+",
    "dsn": "c10 c10+ c100+ svhn",
    "highway_19": PLUS,
    "fractalnet_c3_b5": ALL,
    "fractalnet_c3_b5_drop": ALL,
    "resnet110": "c10+",
    "resnet110_constdepth": ALL,
    "resnet110_stochdepth": ALL,
    "resnet1202_stochdepth": "c10+",
    "wrn16_8": PLUS,
    "wrn28_10": PLUS,
    "wrn16_4": "svhn",
    "preresnet164": "c10 c10+ c100 c100+",
    "preresnet1001": "c10 c10+ c100 c100+",
    "densenet_40_12": ALL,
    "densenet_100_12": ALL,
    "densenet_100_24": ALL,
    "densenet_bc_100_12": ALL,
    "densenet_bc_250_24": ALL,
    "densenet_bc_190_40": PLUS,
}
CELLS = [(row, column) for row, columns in TABLE_2.items() for column in columns.split()]


def config(preset: str) -> TrainConfig:
    return TrainConfig(**PRESETS[preset])


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_run_of_a_network_that_exists(preset):
    made = config(preset)
    assert models.about(made.model)


@pytest.mark.parametrize(("row", "column"), CELLS)
def test_every_number_of_table_2_has_a_preset_on_its_data(row, column):
    made = config(f"{row}-{column}")
    assert made.data == {"c10": "cifar10", "c100": "cifar100", "svhn": "svhn"}[column.rstrip("+")]
    assert made.augment == column.endswith("+")


def test_table_2_has_75_numbers():
    assert len(CELLS) == 75


def test_a_dropout_that_a_preset_asks_for_is_one_its_network_takes():
    asked = {config(preset).model for preset in PRESETS if "dropout" in PRESETS[preset]}
    assert asked == {*(m for m in TABLE_2 if m.startswith("densenet") and m != "densenet_bc_190_40"), "wrn16_4"}
    assert models.create("wrn16_4", dropout=0.4)
    assert models.create("densenet_bc_10_4", dropout=0.2)


def test_every_note_belongs_to_a_preset_and_is_a_sentence():
    assert NOTES.keys() <= PRESETS.keys()
    for note in NOTES.values():
        assert note[0].isupper() or note.startswith("7.72")
        assert note.endswith(".")
        assert "  " not in note
        assert "\n" not in note


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("nin-", "by hand"),
        ("nin-", "before momentum"),
        ("allcnn_c-", "0.25, 0.1, 0.05 and 0.01"),
        ("allcnn_c-", "batch size"),
        ("dsn-", "Companions"),
        ("highway_19-", "before momentum"),
        ("fractalnet_c3_b5", "33.7 M"),
        ("wrn28_10-", "ZCA"),
        ("wrn28_10-", "4.00"),
        ("wrn16_8-", "ZCA"),
        ("resnet110_constdepth-", "shortcuts"),
        ("resnet110_stochdepth-svhn", "152"),
        ("preresnet1001-", "4.92"),
    ],
)
def test_what_is_open_or_different_is_noted(prefix, words):
    presets = [preset for preset in PRESETS if preset.startswith(prefix)]
    assert presets
    for preset in presets:
        assert words in NOTES[preset], preset


# Epochs and rates as the papers and the authors' code have them: {epoch, counted from 0: learning rate from there on}.
RATES = {
    "densenet_bc_100_12-c10+": (300, {0: 0.1, 148.9: 0.1, 149: 0.01, 223.9: 0.01, 224: 0.001, 299: 0.001}),
    "densenet_40_12-svhn": (40, {0: 0.1, 18.9: 0.1, 19: 0.01, 28.9: 0.01, 29: 0.001}),  # 20 and 30, counted from 1
    "densenet121-imagenet": (90, {0: 0.1, 29.9: 0.1, 30: 0.01, 59.9: 0.01, 60: 0.001, 89: 0.001}),
    "resnet50-imagenet": (90, {29.9: 0.1, 30: 0.01, 60: 0.001}),
    "wrn28_10-c10+": (
        200,
        {0: 0.1, 58.9: 0.1, 59: 0.02, 119: 0.004, 158.9: 0.004, 159: 0.0008},
    ),  # counted from 1: 60, …
    "wrn16_4-svhn": (160, {0: 0.01, 78.9: 0.01, 79: 0.001, 119: 0.0001}),
    "resnet110_stochdepth-c10+": (500, {0: 0.1, 248.9: 0.1, 249: 0.01, 374: 0.001}),  # 250 and 375, counted from 1
    "resnet110_stochdepth-svhn": (50, {28.9: 0.1, 29: 0.01, 33.9: 0.01, 34: 0.001}),
    "resnet1202_stochdepth-c10+": (300, {0: 0.01, 9.9: 0.01, 10: 0.1, 149: 0.01, 224: 0.001}),
    "preresnet1001-c10+": (200, {0: 0.1, 79.9: 0.1, 80: 0.01, 120.9: 0.01, 121: 0.001}),  # 81 and 122, counted from 1
    "highway_19-c10+": (400, {0: 0.025, 199.9: 0.025, 200: 0.0025, 300: 0.00025, 350: 0.000025}),
    "fractalnet_c3_b5-c10": (400, {0: 0.02, 200: 2e-3, 300: 2e-4, 350: 2e-5, 375: 2e-6}),
    "fractalnet_c3_b5_drop-svhn": (20, {0: 0.02, 9.9: 0.02, 10: 2e-3, 15: 2e-4, 17.5: 2e-5}),
    "allcnn_c-c10": (350, {0: 0.05, 199.9: 0.05, 200: 5e-3, 250: 5e-4, 300: 5e-5}),
    "dsn-c10": (400, {0: 0.025, 100: 0.025, 339.9: 0.025, 340: 1e-4, 399: 1e-4}),
    "nin-c100": (200, {0: 0.02}),
    "vgg16_bn_drop_cifar-c10+": (300, {0: 1.0, 23.9: 1.0, 24: 0.5, 49: 0.25, 298.9: 0.5**11, 299: 0.5**12}),
}


@pytest.mark.parametrize("preset", RATES)
def test_the_rate_at_an_epoch_is_the_authors(preset):
    epochs, rates = RATES[preset]
    made = config(preset)
    assert made.epochs == epochs
    for epoch, rate in rates.items():
        assert made.learning_rate_at(epoch) == pytest.approx(rate), epoch


@pytest.mark.parametrize("preset", ["resnet110-c10+", "preresnet164-c10+", "preresnet164-c100"])
def test_residual_networks_change_rates_after_400_and_32000_and_48000_steps(preset):
    """He et al. 2016: 64,000 steps of 128 images, of which 391 make an epoch."""
    made, steps = config(preset), -(-50_000 // 128)
    assert made.batch_size == 128
    assert 64_000 <= made.epochs * steps < 64_000 + steps
    # What a step sees is its epoch and its place in it, put together as train_epoch does.
    rates = {
        n: made.learning_rate_at(n // steps + n % steps / steps) for n in (0, 399, 400, 31_999, 32_000, 47_999, 48_000)
    }
    assert list(rates.values()) == pytest.approx([0.01, 0.01, 0.1, 0.1, 0.01, 0.01, 0.001])


# Everything else about optimisation: batch, momentum Nesterov's or not, weight decay; the rate of biases, whether they decay, and
# the last layer's rate.
SETTINGS = {
    "densenet_bc_250_24-c100+": (64, True, 1e-4, 1, True, 1),
    "densenet201-imagenet": (256, True, 1e-4, 1, True, 1),
    "nin-c10": (128, False, 1e-4, 2, False, 0.1),
    "nin-c100": (128, False, 5e-4, 2, False, 1),
    "nin-svhn": (128, False, 1e-4, 2, False, 0.1),
    "allcnn_c-c100+": (128, False, 1e-3, 1, True, 1),
    "dsn-c10+": (100, False, 5e-4, 2, False, 0.1),
    "highway_19-c100+": (100, True, 1e-3, 2, False, 1),
    "fractalnet_c3_b5-c10": (100, False, 0, 1, True, 1),
    "resnet110-c10+": (128, False, 1e-4, 1, True, 1),
    "resnet110_stochdepth-c100": (128, True, 1e-4, 1, True, 1),
    "wrn16_8-c100+": (128, True, 5e-4, 1, True, 1),
    "preresnet1001-c100+": (64, True, 1e-4, 1, True, 1),
    "vgg16_bn_drop_cifar-c10+": (128, False, 5e-4, 1, True, 1),
}


@pytest.mark.parametrize("preset", SETTINGS)
def test_the_optimiser_is_the_authors(preset):
    made = config(preset)
    assert made.momentum == 0.9
    assert SETTINGS[preset] == (
        *(made.batch_size, made.nesterov, made.weight_decay),
        *(made.bias_rate, made.bias_decay, made.last_layer_rate),
    )


DENSENETS = [row for row in TABLE_2 if row.startswith("densenet")]


@pytest.mark.parametrize("row", DENSENETS)
def test_densenets_are_trained_as_their_paper_says(row):
    """Section 4.2: the defaults with augmentation; dropout of 0.2 without; SVHN for 40 epochs on pixels / 255."""
    for column in TABLE_2[row].split():
        made = config(f"{row}-{column}")
        changed = {} if column.endswith("+") else {"augment": False, "dropout": 0.2}
        if column == "svhn":
            changed |= {"epochs": 40, "normalise": "scale", "validation": 6_000}
        assert made == TrainConfig(model=row, data=made.data, **changed), column


def test_the_default_is_the_papers_run_on_cifar10_with_augmentation():
    assert config("densenet_bc_100_12-c10+") == TrainConfig()


@pytest.mark.parametrize("depth", [121, 169, 201, 264])
def test_densenets_for_imagenet_drop_nothing_and_have_256_images_a_step(depth):
    made = config(f"densenet{depth}-imagenet")
    assert (made.model, made.data, made.dropout, made.drop_at) == (f"densenet{depth}", "imagenet", None, (30, 60))


def test_images_are_treated_as_the_authors_did():
    treated = {
        "nin-c10": "zca",
        "allcnn_c-c10": "zca",
        "dsn-c10": "gcn",
        "highway_19-c10+": "gcn",
        "resnet110-c10+": "pixel_mean",
        "resnet110_stochdepth-c10": "pixel_mean_std",
        "resnet110_stochdepth-svhn": "pixel_mean_std",
        "preresnet1001-c10+": "channel",
        "wrn28_10-c10+": "zca",
        "wrn16_4-svhn": "scale",
    }
    assert {preset: config(preset).normalise for preset in treated} == treated


def test_crops_are_the_authors():
    crops = {
        preset: (config(preset).crop_padding, config(preset).padding)
        for preset in (
            "allcnn_c-c10+",
            "highway_19-c10+",
            "wrn28_10-c100+",
            "resnet110_stochdepth-c10+",
            "vgg16_bn_drop_cifar-c10+",
        )
    }
    assert list(crops.values()) == [(5, "zeros"), (8, "zeros"), (None, "reflect"), (None, "zeros"), (0, "zeros")]


def test_images_are_held_out_where_the_authors_did():
    held = {preset: config(preset).validation for preset in PRESETS}
    assert {held[f"resnet110_stochdepth-{column}"] for column in ("c10", "c10+", "c100", "c100+")} == {5_000}
    assert held["resnet1202_stochdepth-c10+"] == 5_000
    assert {preset for preset, count in held.items() if count == 6_000} == {
        *(f"{row}-svhn" for row in DENSENETS if "svhn" in TABLE_2[row]),
        *(f"{row}-svhn" for row in ("nin", "dsn", "resnet110_stochdepth", "resnet110_constdepth")),
    }


def test_columns_differ_in_data_and_augmentation_alone():
    assert {tuple(column) for column in COLUMNS.values()} <= {("data",), ("data", "augment")}
