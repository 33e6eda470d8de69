"""Each picture is read back from its axes, its words hold its numbers, and its colours differ for colour-blind eyes as well."""

import base64
import io
import itertools
import math
import re

import numpy as np
import pytest
from PIL import Image

from minidense import plots
from minidense.errors import ConfigError, DataError, ShapeError
from minidense.tensor import Tensor


def record(epoch, rate, loss, accuracy, **more):
    return {"epoch": epoch, "learning_rate": rate, "train_loss": loss, "train_accuracy": accuracy, **more}


HISTORY = [
    record(1, 0.1, 2.0, 0.25, test_loss=2.25, test_accuracy=0.2),
    record(2, 0.1, 1.0, 0.5, test_loss=1.25, test_accuracy=0.4),
    record(3, 0.01, 0.5, 0.75, test_loss=0.75, test_accuracy=0.7),
    record(4, 0.01, 0.25, 1.0, test_loss=0.5, test_accuracy=0.9),
]
UNTESTED = [{key: value for key, value in each.items() if "test" not in key} for each in HISTORY]


def lines_of(axes):
    """{label: (x, y)} of every line drawn on data coordinates."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def legend_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def stairs_of(axes):
    (steps,) = axes.patches
    values, edges, _ = steps.get_data()
    return list(values), list(edges)


def fields_of(axes):
    """The number that is written into each field, by (row, column)."""
    return {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}


# -- a picture and its words ------------------------------------------------------------------------------------------


def embedded(picture):
    html = picture._repr_html_()
    return html, base64.b64decode(re.search(r"base64,([A-Za-z0-9+/=]+)", html).group(1))


def test_a_notebook_shows_the_picture_with_its_words():
    picture = plots.curves([1, 2], {"a < b": [3, 4]}, alt='Rises from 3 to 4, "quickly" & <well>.')
    html, png = embedded(picture)
    assert 'alt="Rises from 3 to 4, &quot;quickly&quot; &amp; &lt;well&gt;."' in html
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        assert image.size == (8 * 120, 4 * 120)
    assert "width: 768px" in html  # 8 inches of a screen: letters of 10 points are 10 points
    assert repr(picture) == f"Picture: {picture.alt}"


def test_the_words_lie_in_the_file_too():
    png = plots.curves([1, 2], {"": [3, 4]}, alt="From 3 to 4 · × −").png("a title")
    with Image.open(io.BytesIO(png)) as image:
        assert image.text["Title"] == "a title"
        assert image.text["Description"] == "From 3 to 4 · × −"


SQUARE = np.arange(9.0).reshape(3, 3)
ONE_OF_EACH = {
    "learning_curves": lambda: plots.learning_curves(HISTORY, title="a title"),
    "rate_staircase": lambda: plots.rate_staircase(HISTORY),
    "update_ratios": lambda: plots.update_ratios({"a.weight": [1e-3, 2e-3], "b.weight": [1e-4, 2e-4]}),
    "confusion_matrix": lambda: plots.confusion_matrix(SQUARE, ["cat", "dog", "airplane"]),
    "gradient_flow": lambda: plots.gradient_flow({"sigmoid": [0, 1e-3, 1], "ReLU": [0.5, 0.6, 0.7]}),
    "activation_histograms": lambda: plots.activation_histograms(
        {"1": SQUARE / 8, "2": SQUARE / 9}, saturated="sigmoid"
    ),
    "feature_reuse": lambda: plots.feature_reuse(np.triu(SQUARE + 1)),
}


def test_none_is_forgotten():
    tools = {"Picture", "curves", "heat_map", "plain", "several"}
    assert ONE_OF_EACH.keys() | tools == {name for name in plots.__all__ if callable(getattr(plots, name))}


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_picture_is_readable_at_the_width_of_a_notebook(name):
    picture = ONE_OF_EACH[name]()
    width, height = picture.figure.get_size_inches()
    assert 3 <= width <= 9.5
    assert 2 <= height <= 9
    words = [
        text for axes in picture.figure.axes for text in (*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels())
    ]
    assert min(text.get_fontsize() for text in words) >= 7
    assert 40 < len(picture.alt) < 700
    assert picture.alt.endswith(".")
    assert "\n" not in picture.alt
    with Image.open(io.BytesIO(picture.png())) as image:
        assert image.text["Description"] == picture.alt


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_nothing_is_cut_off_and_no_words_lie_on_others(name):
    figure = ONE_OF_EACH[name]().figure
    figure.draw_without_rendering()
    everything = figure.get_tightbbox()  # in inches
    assert min(everything.x0, everything.y0) > -0.01
    assert everything.x1 < figure.get_figwidth() + 0.01
    assert everything.y1 < figure.get_figheight() + 0.01
    for axes in figure.axes:
        for one, other in itertools.combinations((text.get_window_extent() for text in axes.texts), 2):
            assert not one.overlaps(other)


# -- colours ----------------------------------------------------------------------------------------------------------

# What the eye makes of linear RGB without one kind of cone: Machado, Oliveira & Fernandes 2009, severity 1.0.
EYES = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour):
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE 1976 L*a*b* of linear sRGB: a distance of 2.3 can just be seen."""
    t = XYZ @ np.clip(rgb, 0, 1) / XYZ.sum(axis=1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(one, other, eye):
    return float(np.linalg.norm(lab(EYES[eye] @ linear(one)) - lab(EYES[eye] @ linear(other))))


@pytest.mark.parametrize("eye", EYES)
def test_colours_differ_for_every_eye(eye):
    for one, other in itertools.combinations((*plots.COLOURS, plots.GREY), 2):
        assert distance(one, other, eye) > 15, (one, other)  # the nearest are 17.7 apart


def test_the_check_of_colours_can_fail():
    """The red and the green of matplotlib's own colours lie far apart, but not for whoever lacks the middle cones."""
    assert distance("#D62728", "#2CA02C", "all cones") > 100
    assert distance("#D62728", "#2CA02C", "deuteranopia") < 15


def test_the_map_goes_from_light_to_dark_for_every_eye():
    picture = plots.heat_map([[0, 1, 2, 3, 4]], rows=["r"], columns=list("abcde"), alt="")
    (image,) = picture.figure.axes[0].images
    for matrix in EYES.values():
        srgb = np.array([image.cmap(image.norm(value))[:3] for value in range(5)])
        lightness = [lab(matrix @ np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4))[0] for c in srgb]
        assert min(-np.diff(lightness)) > 10


# -- curves and maps --------------------------------------------------------------------------------------------------


def test_curves_have_their_values_and_bands():
    picture = plots.curves(
        [1, 2, 4],
        {"a": [1, 10, 100], "b": np.float32([2, 0, 3])},
        alt="words",
        between={"b": ([1, 1, 1], [4, 5, 6])},
        log="y",
        xlabel="depth",
        title="T",
    )
    (axes,) = picture.figure.axes
    assert lines_of(axes) == {"a": ([1, 2, 4], [1, 10, 100]), "b": ([1, 2, 4], [2, 0, 3])}
    assert legend_of(axes) == ["a", "b"]
    assert (axes.get_yscale(), axes.get_xscale(), axes.get_xlabel(), axes.get_title()) == (
        "log",
        "linear",
        "depth",
        "T",
    )
    (band,) = axes.collections
    assert {tuple(point) for point in band.get_paths()[0].vertices} >= {(1, 1), (2, 1), (4, 1), (1, 4), (2, 5), (4, 6)}
    a, b = axes.lines
    assert a.get_color() != b.get_color()
    assert a.get_marker() != b.get_marker()
    assert picture.alt == "words"


def test_curves_may_have_places_of_their_own_and_share_axes():
    _, axes = plots.several(2, 1)
    plots.curves({"a": [1, 2], "b": [5]}, {"a": [1, 2], "b": [3]}, alt="", axes=axes[0, 1])
    assert lines_of(axes[0, 1]) == {"a": ([1, 2], [1, 2]), "b": ([5], [3])}
    assert not axes[0, 0].lines


def test_the_seventh_curve_is_dashed_and_the_legend_stands_beside():
    picture = plots.curves([1, 2], {str(i): [i, i] for i in range(8)}, alt="")
    (axes,) = picture.figure.axes
    looks = [(line.get_color(), line.get_linestyle()) for line in axes.lines]
    assert len(set(looks)) == 8
    picture.figure.draw_without_rendering()
    assert axes.get_legend().get_window_extent().x0 > axes.bbox.x1


def test_few_depths_on_a_logarithmic_axis_are_written_there():
    (axes,) = plots.curves([2, 5, 10, 20, 50], {"": [1, 2, 3, 4, 5]}, alt="", log="x").figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "5", "10", "20", "50"]
    assert axes.get_legend() is None


def test_a_map_has_its_numbers_in_its_fields():
    picture = plots.heat_map(
        [[0.5, 1.25], [math.nan, 100.0]],
        rows=["r0", "r1"],
        columns=["c0", "c1"],
        alt="words",
        form="{:.1f}",
        bar="unit",
    )
    axes, bar = picture.figure.axes
    (image,) = axes.images
    assert image.get_array().tolist() == [[0.5, 1.25], [None, 100.0]]
    assert fields_of(axes) == {(0, 0): "0.5", (0, 1): "1.2", (1, 1): "100.0"}
    assert [text.get_text() for text in axes.get_xticklabels()] == ["c0", "c1"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["r0", "r1"]
    assert bar.get_ylabel() == "unit"
    assert {text.get_text(): text.get_color() for text in axes.texts} == {
        "0.5": "black",
        "1.2": "black",
        "100.0": "white",
    }


@pytest.mark.parametrize(
    ("draw", "error", "says"),
    [
        (lambda: plots.curves([1, 2], {"a": [1, 2, 3]}, alt=""), ShapeError, "'a' has 3 values for 2 places"),
        (lambda: plots.curves([1, 2], {}, alt=""), ShapeError, "no lines"),
        (lambda: plots.curves([1, 2, 3], [1, 2, 3], alt=""), ShapeError, "got a list; give {name: values}"),
        (lambda: plots.curves([1], {"a": [1]}, alt="", log="z"), ConfigError, "got 'z'"),
        (lambda: plots.curves([1], {"a": [1]}, alt="", between={"b": ([1], [1])}), ConfigError, "a band for 'b'"),
        (
            lambda: plots.curves([1], {"a": [1]}, alt="", between={"a": ([1], [1, 2])}),
            ShapeError,
            "2 values of its band",
        ),
        (lambda: plots.heat_map([[1, 2]], rows=["a"], columns=["b"], alt=""), ShapeError, "1 rows and 1 columns"),
        (lambda: plots.heat_map([], rows=[], columns=[], alt=""), ShapeError, "0 rows"),
    ],
)
def test_curves_and_maps_refuse_what_does_not_fit(draw, error, says):
    with pytest.raises(error, match=says):
        draw()


# -- training ---------------------------------------------------------------------------------------------------------


def test_learning_curves_are_the_log():
    picture = plots.learning_curves(HISTORY, title="net on digits")
    loss, error, rate = picture.figure.axes
    assert lines_of(loss) == {
        "train": ([1, 2, 3, 4], [2, 1, 0.5, 0.25]),
        "test": ([1, 2, 3, 4], [2.25, 1.25, 0.75, 0.5]),
    }
    drawn = lines_of(error)
    assert drawn["train"][1] == pytest.approx([75, 50, 25, 0])
    assert drawn["test"][1] == pytest.approx([80, 60, 30, 10])
    assert stairs_of(rate) == ([0.1, 0.1, 0.01, 0.01], [0.5, 1.5, 2.5, 3.5, 4.5])
    assert error.get_title() == "error (test: 10.00 % at the end)"
    assert legend_of(loss) == ["train", "test"]
    for words in (
        "4 epochs of net on digits",
        "train loss from 2 to 0.25, error from 75.00 to 0.00 %",
        "test loss from 2.25 to 0.5, error from 80.00 to 10.00 %",
        "learning rate goes from 0.1 to 0.01",
    ):
        assert words in picture.alt


def test_learning_curves_without_tests_with_validation_and_diverged():
    loss, error, _ = plots.learning_curves(UNTESTED).figure.axes
    assert list(lines_of(loss)) == ["train"]
    assert error.get_title() == "error"

    held_out = [each | {"validation_loss": 3.0, "validation_accuracy": 0.5} for each in HISTORY]
    loss, *_ = plots.learning_curves(held_out).figure.axes
    assert lines_of(loss)["validation"] == ([1, 2, 3, 4], [3, 3, 3, 3])

    picture = plots.learning_curves([*HISTORY, record(5, 0.01, None, 0.1, diverged=True)])
    loss, *_ = picture.figure.axes
    assert lines_of(loss)["train"][1][:4] == [2, 1, 0.5, 0.25]
    assert math.isnan(lines_of(loss)["train"][1][4])
    assert math.isnan(lines_of(loss)["test"][1][4])
    assert "diverged" in picture.alt


def test_a_single_epoch_can_be_drawn():
    assert "1 epoch:" in plots.learning_curves(HISTORY[:1]).alt
    assert "0.1 throughout" in plots.rate_staircase(HISTORY[:1]).alt


def test_the_staircase_marks_the_drop_above_and_below():
    picture = plots.rate_staircase(HISTORY, title="T")
    above, below = picture.figure.axes
    assert stairs_of(above) == ([0.1, 0.1, 0.01, 0.01], [0.5, 1.5, 2.5, 3.5, 4.5])
    drawn = lines_of(below)
    assert drawn["train"] == ([1, 2, 3, 4], [2, 1, 0.5, 0.25])
    assert drawn["test"] == ([1, 2, 3, 4], [2.25, 1.25, 0.75, 0.5])
    for axes in (above, below):
        assert [
            list(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "--" and len(line.get_xdata()) == 2
        ] == [[2.5, 2.5]]
    assert texts_of(above) == ["0.1 → 0.01"]
    assert above.get_title() == "T"
    assert "drops after epoch 2 from 0.1 to 0.01, and the training loss from 1 to 0.5 in the next" in picture.alt
    assert "from 2 to 0.25" in picture.alt


@pytest.mark.parametrize(
    ("rates", "drops"),
    [
        ((1, 1, 0.1, 0.1, 0.01), ["1 → 0.1", "0.1 → 0.01"]),
        ((1, 0.1, 0.1), ["1 → 0.1"]),
        ((1, 1, 0.6, 0.6), []),
        ((0.1, 1, 0.9, 0.5, 0.2, 0.05), []),  # a curve, however steep it ends
    ],
)
def test_only_steps_count_as_drops(rates, drops):
    history = [record(epoch, rate, 1.0, 0.5) for epoch, rate in enumerate(rates, 1)]
    above, _ = plots.rate_staircase(history).figure.axes
    assert texts_of(above) == drops


def test_update_ratios_are_drawn_beside_the_rule_of_thumb():
    ratios = {"a.weight": [1e-2, 4e-3, 2e-3], "b.weight": [1e-4, 0, 3e-4], "still.weight": [0, 0, 0]}
    picture = plots.update_ratios(ratios, steps=[10, 20, 30])
    (axes,) = picture.figure.axes
    assert axes.get_yscale() == "log"
    drawn = lines_of(axes)
    assert drawn["a.weight"] == ([10, 20, 30], [1e-2, 4e-3, 2e-3])
    assert drawn["b.weight"][1][::2] == [1e-4, 3e-4]
    assert math.isnan(drawn["b.weight"][1][1])
    assert set(drawn["rule of thumb: 1e-3"][1]) == {1e-3}
    assert "rule of thumb: 1e-3" in legend_of(axes)
    for words in ("a.weight 0.004", "b.weight 0.0002", "the rule of thumb is 1e-3", "Not moved at all: still.weight"):
        assert words in picture.alt
    many = plots.update_ratios({f"p{i}": [10.0**-i] for i in range(8)})
    assert "between 1e-7 (p7) and 1 (p0)" in many.alt
    assert lines_of(many.figure.axes[0])["p3"] == ([1], [1e-3])


def test_the_confusion_matrix_has_true_classes_in_rows():
    matrix = [[8, 2, 0], [0, 10, 0], [5, 1, 1234]]
    picture = plots.confusion_matrix(matrix, ["cat", "dog", "frog"], title="T")
    (axes,) = picture.figure.axes
    assert fields_of(axes) == {(0, 0): "8", (0, 1): "2", (1, 1): "10", (2, 0): "5", (2, 1): "1", (2, 2): "1234"}
    (image,) = axes.images
    assert image.get_array().tolist() == [[None, 2, None], [None, None, None], [5, 1, None]]
    assert image.get_clim() == (0, 5)  # of mistakes: what is right would drown them
    assert [patch.get_xy() for patch in axes.patches] == [(-0.5, -0.5), (0.5, 0.5), (1.5, 1.5)]
    assert (axes.get_ylabel(), axes.get_xlabel(), axes.get_title()) == ("true class", "taken for", "T")
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog", "frog"]
    assert "1,252 of 1,260 right (99.37 %)" in picture.alt
    assert "frog taken for cat (5 of 1,240), cat taken for dog (2 of 10)" in picture.alt


def test_a_confusion_matrix_without_mistakes_and_one_of_many_classes():
    assert "There are no mistakes." in plots.confusion_matrix(np.eye(2), ["a", "b"]).alt
    names = [f"class {i}" for i in range(100)]
    axes, bar = plots.confusion_matrix(np.eye(100) + np.eye(100, k=1), names).figure.axes
    assert not axes.texts  # a hundred numbers in a row cannot be read
    assert [text.get_text() for text in axes.get_xticklabels()] == names[::2]
    assert bar.get_ylabel() == "mistakes"


@pytest.mark.parametrize(
    ("draw", "error", "says"),
    [
        (lambda: plots.learning_curves([]), ShapeError, "learning_curves: the history is empty"),
        (lambda: plots.learning_curves([{"epoch": 1}]), DataError, "no record has a train_accuracy"),
        (lambda: plots.learning_curves([HISTORY[0], {"epoch": 2}]), DataError, "record 2 of 2 has no learning_rate"),
        (lambda: plots.rate_staircase([]), ShapeError, "rate_staircase: the history is empty"),
        (lambda: plots.rate_staircase([{"epoch": 1, "learning_rate": 1}]), DataError, "has no train_loss"),
        (lambda: plots.update_ratios({}), ShapeError, "no ratios"),
        (lambda: plots.update_ratios({"a": []}), ShapeError, "no ratios"),
        (lambda: plots.update_ratios({"a": [1e-3, -1e-3]}), DataError, "'a' has a negative ratio"),
        (lambda: plots.update_ratios({"a": [1e-3]}, steps=[1, 2]), ShapeError, "1 ratios for 2 steps"),
        (lambda: plots.confusion_matrix(np.eye(3), ["a", "b"]), ShapeError, r"shape \(3, 3\) for 2 class names"),
        (lambda: plots.confusion_matrix(np.ones((2, 3)), ["a", "b"]), ShapeError, r"expected \(2, 2\)"),
        (lambda: plots.confusion_matrix([[1, -1], [0, 1]], ["a", "b"]), DataError, "whole numbers"),
        (lambda: plots.confusion_matrix([[0.9, 0.1], [0, 1]], ["a", "b"]), DataError, "whole numbers"),
        (lambda: plots.confusion_matrix([[0]], ["a"]), DataError, "not all 0"),
    ],
)
def test_pictures_of_training_refuse_what_cannot_be(draw, error, says):
    with pytest.raises(error, match=says):
        draw()


# -- layers -----------------------------------------------------------------------------------------------------------


def test_gradient_flow_is_a_line_a_network():
    picture = plots.gradient_flow(
        {"depth 2": [0.25, 1.0], "depth 4": np.float32([1e-6, 1e-4, 1e-2, 1.0])},
        between={"depth 2": ([0.2, 0.9], [0.3, 1.1])},
        title="T",
    )
    (axes,) = picture.figure.axes
    drawn = lines_of(axes)
    assert drawn["depth 2"] == ([1, 2], [0.25, 1.0])
    assert drawn["depth 4"][0] == [1, 2, 3, 4]
    assert drawn["depth 4"][1] == pytest.approx([1e-6, 1e-4, 1e-2, 1.0])
    assert (axes.get_yscale(), axes.get_ylabel(), axes.get_title()) == ("log", "gradient norm", "T")
    assert len(axes.collections) == 1  # the band
    assert not axes.texts
    assert "depth 2: 0.25 at the first of 2 layers, 1 at the last (ratio 0.25)" in picture.alt
    assert "depth 4: 1e-6 at the first of 4 layers, 1 at the last (ratio 1e-6)" in picture.alt


def test_zeros_lie_at_the_bottom_edge_and_are_said():
    picture = plots.gradient_flow(
        {"sigmoid": [0, 0, 1e-40, 1], "ReLU": [1, 1, 1, 1]}, layers=list("abcd"), what="mean |dy|"
    )
    (axes,) = picture.figure.axes
    (zeros,) = [line for line in axes.lines if line.get_marker() == "v"]
    assert list(zeros.get_xdata()) == [1, 2]
    assert zeros.get_color() == axes.lines[0].get_color()
    assert zeros.get_transform() == axes.get_xaxis_transform()  # y is a share of the height
    assert max(zeros.get_ydata()) < 0.1
    assert texts_of(axes) == ["exactly 0"]
    band = axes.patches[0].get_bbox()
    assert axes.get_ylim()[0] == pytest.approx(band.y0)
    assert band.y1 < 1e-40
    assert all(tick >= band.y1 for tick in axes.get_yticks())  # no number where there is no axis
    curve = axes.lines[0].get_ydata()
    assert np.isnan(curve[:2]).all()
    assert list(curve[2:]) == [1e-40, 1]
    assert [text.get_text() for text in axes.get_xticklabels()] == list("abcd")
    assert "Exactly 0, by underflow or because nothing arrives: sigmoid at 2 layers" in picture.alt
    assert picture.alt.startswith("Mean |dy| by layer")


def test_what_is_no_number_leaves_a_gap_and_is_counted():
    picture = plots.gradient_flow({"a": [math.nan, 1, math.inf, 2]})
    (axes,) = picture.figure.axes
    assert np.isnan(axes.lines[0].get_ydata()).tolist() == [True, False, True, False]
    assert "2 values without a finite number" in picture.alt
    dead = plots.gradient_flow({"a": [0, 0]})
    assert len(dead.figure.axes[0].get_yticks()) == 0
    assert dead.png()


def test_of_many_layers_some_are_named():
    names = [f"features.block{i}.conv" for i in range(60)]
    (axes,) = plots.gradient_flow({"a": np.ones(60)}, layers=names).figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == names[::3]
    assert list(axes.get_xticks()) == list(range(1, 61, 3))


@pytest.mark.filterwarnings("error")
def test_extremes_can_be_drawn():
    """What has no spread, no numbers, or ends at the edge of float64."""
    for picture in (
        plots.heat_map([[1.0, 1.0]], rows=["a"], columns=["b", "c"], alt="", bar="x"),
        plots.heat_map([[math.nan]], rows=["a"], columns=["b"], alt=""),
        plots.update_ratios({"a": [0.0, 0.0]}),
        plots.update_ratios({"a": [math.nan, 1e-3]}),
        plots.gradient_flow({"a": [0, 1e-300, 1], "b": [0, 0, 0], "c": [math.nan] * 3}),
        plots.gradient_flow({"a": [1e-4]}, between={"a": ([0.0], [1e-3])}),
        plots.gradient_flow({"a": [0.5, 0.5]}),
        plots.rate_staircase([record(1, 0.1, None, 0.1, diverged=True) | {"test_loss": 1.0}, record(2, 0.0, 1.0, 0.1)]),
        plots.learning_curves([record(1, 0.0, 0.0, 1.0)]),
        plots.confusion_matrix([[1]], ["a class with a very long name"]),
        plots.activation_histograms({"a": [1e30, -1e30]}, saturated="tanh"),
        plots.feature_reuse([[-0.5]]),
    ):
        assert picture.png().startswith(b"\x89PNG")


def test_of_many_flows_the_words_give_the_extremes():
    alt = plots.gradient_flow({f"net {i}": [10.0**-i, 1.0] for i in range(8)}).alt
    assert "net 7: 1e-7 at the first" in alt
    assert "net 0: 1 at the first" in alt
    assert "net 3" not in alt


def bars_of(axes):
    """Heights of what is not saturated, and of what is."""
    plain, flat = axes.containers
    return [bar.get_height() for bar in plain], [bar.get_height() for bar in flat]


def test_histograms_show_every_value_and_which_are_saturated():
    layers = {"one": np.array([[0.0, 0.005], [0.5, 0.6]]), "two": Tensor(np.float32([0.25, 0.25, 0.25, 1.0]))}
    picture = plots.activation_histograms(layers, saturated="sigmoid", bins=4, title="T")
    one, two = picture.figure.axes
    assert bars_of(one) == ([0, 0, 50, 0], [50, 0, 0, 0])
    assert bars_of(two) == ([0, 75, 0, 0], [0, 0, 0, 25])
    assert [bar.get_x() for bar in one.containers[0]] == pytest.approx([0, 0.25, 0.5, 0.75])
    assert [bar.get_y() for bar in one.containers[1]] == [0, 0, 50, 0]  # on top of the others
    assert (one.get_title(), two.get_title()) == ("one", "two")
    assert texts_of(one) == ["50 % saturated"]
    assert texts_of(two) == ["25 % saturated"]
    assert "Share saturated: one 50 %, two 25 %." in picture.alt
    assert "from 0.28 in one to 0.32 in two" in picture.alt
    assert one.get_ylim()[1] > 1.2 * 50  # room for the share


@pytest.mark.parametrize(
    ("saturated", "values", "share"),
    [
        ("sigmoid", [0.0099, 0.011, 0.9899, 0.9901], "50 % saturated"),
        ("tanh", [-0.981, -0.979, 0.979, 0.5], "25 % saturated"),
        ("relu", [0, 0, 0, 1e-30], "75 % exactly 0"),
        (lambda y: y > 2, [1, 2, 3, 4, 5], "60 % saturated"),
        ("relu", [0, *[1] * 9999], "< 0.1 % exactly 0"),
        ("relu", [1, *[0] * 9999], "100.0 % exactly 0"),
        ("relu", [1, 2], "0 % exactly 0"),
    ],
)
def test_what_counts_as_saturated(saturated, values, share):
    (axes,) = plots.activation_histograms({"layer": np.array(values)}, saturated=saturated).figure.axes
    assert texts_of(axes) == [share]


def test_saturation_is_where_the_slope_is_below_a_twenty_fifth():
    sigmoid, tanh = 0.99 * (1 - 0.99) / 0.25, 1 - 0.98**2
    assert sigmoid == pytest.approx(0.0396)
    assert tanh == pytest.approx(0.0396)


def test_many_layers_stand_in_rows_of_five_and_constant_ones_can_be_drawn():
    picture = plots.activation_histograms({f"layer {i}": np.full(4, 0.5) for i in range(7)}, saturated="tanh")
    assert len([axes for axes in picture.figure.axes if axes.get_visible()]) == 7
    assert len({round(axes.get_position().y0, 2) for axes in picture.figure.axes}) == 2
    assert "layer 6 0 %" in picture.alt
    without = plots.activation_histograms({"a": [1.0, 2.0]})
    assert not without.figure.axes[0].texts
    assert "Share" not in without.alt


def test_feature_reuse_has_a_field_for_each_connection():
    matrix = np.array([[1.0, 0.5, 0.25], [0.0, 2.0, 0.125], [np.nan, 0.0, 4.0]])
    picture = plots.feature_reuse(matrix, what="accuracy lost", form="{:.2f}", title="T")
    axes, bar = picture.figure.axes
    (image,) = axes.images
    assert image.get_array().tolist() == [[1, 0.5, 0.25], [None, 2, 0.125], [None, None, 4]]
    assert fields_of(axes) == {
        (0, 0): "1.00",
        (0, 1): "0.50",
        (0, 2): "0.25",
        (1, 1): "2.00",
        (1, 2): "0.12",
        (2, 2): "4.00",
    }
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "out"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["input", "1", "2"]
    assert (axes.get_title(), bar.get_ylabel()) == ("T", "accuracy lost")
    assert "from 0.12 to 4, the most where “out” reads “2”" in picture.alt
    assert "2.3 for the newest source of each layer, 0.29 for older ones" in picture.alt


def test_feature_reuse_keeps_zeros_where_there_is_a_connection_and_takes_names():
    picture = plots.feature_reuse([[0.0, 1.0]], sources=["stem"], layers=["a", "b"])
    axes, _ = picture.figure.axes
    assert fields_of(axes) == {(0, 0): "0", (0, 1): "1"}
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "b"]
    large, _ = plots.feature_reuse(np.triu(np.ones((20, 20)))).figure.axes
    assert not large.texts


@pytest.mark.parametrize(
    ("draw", "error", "says"),
    [
        (lambda: plots.gradient_flow({}), ShapeError, "no values"),
        (lambda: plots.gradient_flow([1, 2, 3]), ShapeError, "got a list; give {name: values}"),
        (lambda: plots.gradient_flow(np.ones(3)), ShapeError, "got a ndarray; give {name: values}"),
        (lambda: plots.gradient_flow({"a": []}), ShapeError, "no values"),
        (lambda: plots.gradient_flow({"a": [1, -2]}), DataError, r"'a' has a negative value \(-2\)"),
        (lambda: plots.gradient_flow({"a": [1, 2]}, layers=["x"]), ShapeError, "1 names of layers for 2 layers"),
        (lambda: plots.gradient_flow({"a": [1, 2]}, between={"b": ([1], [1])}), ConfigError, "a band for 'b'"),
        (lambda: plots.activation_histograms({}), ShapeError, "no layers"),
        (lambda: plots.activation_histograms({"a": []}), ShapeError, "'a' has no values"),
        (lambda: plots.activation_histograms({"a": [1, math.nan]}), DataError, "'a' has values that are not finite"),
        (lambda: plots.activation_histograms({"a": [1]}, saturated="gelu"), ConfigError, "sigmoid, tanh, relu.*'gelu'"),
        (lambda: plots.feature_reuse([1, 2]), ShapeError, r"must be \(sources, layers\)"),
        (lambda: plots.feature_reuse(np.triu(np.ones((2, 2))), sources=["a"]), ShapeError, "1 sources and 2 layers"),
        (lambda: plots.feature_reuse([[1, 1], [3, 1]]), DataError, "layer 1 cannot read source 1.*3 there"),
        (lambda: plots.feature_reuse([[math.nan]]), DataError, "no number"),
    ],
)
def test_pictures_of_layers_refuse_what_cannot_be(draw, error, says):
    with pytest.raises(error, match=says):
        draw()


def test_every_picture_says_how_to_read_it():
    for name in plots.__all__:
        thing = getattr(plots, name)
        if callable(thing) and name not in ("Picture", "plain", "several"):
            assert "How to read it: " in thing.__doc__, name
