"""The summary of a network: every number adds up, tiny ones by hand, the model stays as it was, and a person can read it."""

import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from minidense import functional as F
from minidense import models, models_command, nn, summary_command
from minidense.errors import ConfigError, ShapeError
from minidense.speed import reference_only
from minidense.summary import run, summarise
from minidense.summary_table import folded
from minidense.tensor import Tensor


class Tiny(models.Classifier):
    """1×4×4 pixels to 3 classes."""

    def __init__(self):
        self.conv = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(2, 3)

    def forward(self, x):
        return self.fc(F.global_avg_pool2d(self.relu(self.conv(x))))


def leaves(rows):
    for row in rows:
        yield from leaves(row.rows) if row.rows else [row]


def by_name(rows, path):
    first, _, rest = path.partition(".")
    found = next(row for row in rows if row.name == first)
    return by_name(found.rows, rest) if rest else found


# -- the numbers -----------------------------------------------------------------------------------------------------


def test_a_tiny_network_by_hand():
    found = summarise(Tiny(), (1, 4, 4), batch_size=10)
    assert found.parameters == 2 * 9 + 2 * 3 + 3
    assert found.multiply_adds == 2 * 4 * 4 * 9 + 2 * 3
    assert found.flops == 2 * found.multiply_adds
    assert [(row.name, row.layer, row.shape, row.kept) for row in found.model.rows] == [
        ("conv", "Conv2d 3×3, 1→2", (2, 4, 4), 4 * (6 * 6 + 2 * 4 * 4)),  # the image in its border, and the result
        ("relu", "ReLU", (2, 4, 4), 2 * 4 * 4 + 4 * 2 * 4 * 4),  # a mask of bytes, and the result
        ("fc", "Linear 2→3", (3,), 4 * 3),  # the logits, which the loss holds
        ("", "GlobalAvgPool2d, SoftmaxCrossEntropy", None, 4 * 2 + 4 * 3),  # the means, and ln p
    ]
    assert found.kept == 464
    assert found.kept_once == 4 * 2 * 9  # the filters, arranged for the product
    assert f"10 images keeps {(10 * 464 + 72) / 1000:.3g} kB" in str(found)


def test_views_of_one_memory_are_counted_once():
    class Viewing(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            y = self.fc(x.reshape(len(x), -1))
            return (y.reshape(len(y), 2, 2).transpose(0, 2, 1) * y.reshape(len(y), 2, 2)).sum()

    # The linear layer's result, of which all others are views, and the product, which the sum holds.
    assert summarise(Viewing(), (1, 2, 2)).kept == 4 * 4 + 4 * 4


def test_what_is_kept_is_what_the_process_holds():
    model = models.create("densenet_13_8").train()
    held = []
    for n in (2, 6):
        images, labels = Tensor(np.zeros((n, 3, 16, 16), np.float32)), np.zeros(n, int)
        with reference_only():
            model.loss(images, labels)  # whatever is set up once is there now
            tracemalloc.start()
            graph = model.loss(images, labels)
            held.append(tracemalloc.get_traced_memory()[0])
            tracemalloc.stop()
            del graph
    # Python's own objects are measured with the arrays, and differ from run to run: in two runs by 2e-6 and 5e-4 of what is kept.
    assert (held[1] - held[0]) / 4 == pytest.approx(summarise(model, (3, 16, 16)).kept, rel=0.001)


@pytest.mark.parametrize(
    "model",
    [
        lambda: models.create("densenet_bc_10_4"),
        lambda: models.create("resnet20"),
        lambda: models.resnet(depth=11, bottleneck=True, unit="full_preact"),
        lambda: models.create("resnet14_stochdepth"),
        lambda: models.create("wrn10_1"),
        lambda: models.nin(widths=((4, 4, 4), (4, 4, 4), (4, 4))),
        lambda: models.fractalnet(widths=(4, 8), dropout=(0.1, 0.2), drop_path=0.15, released=True),
        lambda: models.highway(widths=(4, 6, 8), kernels=((3,), (3,), (3,)), head=5),
    ],
)
def test_three_images_keep_what_one_keeps_three_times_and_what_is_kept_once(model):
    model = model()
    found = summarise(model, (3, 32, 32))
    steps = run(model, (3, 32, 32), 3)
    assert sum(step.kept for step in steps) == found.kept_once + 3 * found.kept
    assert sum(step.multiply_adds for step in steps) == 3 * found.multiply_adds


def test_totals_are_the_sums_of_the_rows():
    found = summarise(models.create("densenet_bc_22_12"), (3, 32, 32))
    assert (found.parameters, found.multiply_adds) == (71_686, 31_238_322)
    rows = list(leaves(found.model.rows))
    for key in ("parameters", "multiply_adds", "kept"):
        assert sum(getattr(row, key) for row in rows) == getattr(found, key)
    block = by_name(found.model.rows, "features.denseblock2")
    assert block.kept == sum(row.kept for row in block.rows)


def test_shapes_by_hand():
    found = summarise(models.create("densenet121"), (3, 64, 96), kept=False)
    shapes = {
        "features.conv0": (64, 32, 48),
        "features.pool0": (64, 16, 24),
        "features.denseblock1": (256, 16, 24),
        "features.denseblock1.denselayer6.conv1": (128, 16, 24),
        "features.transition1": (128, 8, 12),
        "features.norm5": (1024, 2, 3),
        "classifier": (1000,),
    }
    assert {path: by_name(found.model.rows, path).shape for path in shapes} == shapes


def test_companions_that_only_training_has_are_counted():
    found = summarise(models.create("dsn"), (3, 32, 32), kept=False)
    assert (found.parameters, found.multiply_adds) == (3_547_496, 225_067_008)
    assert by_name(found.model.rows, "companion3").multiply_adds == 192 * 8 * 8 * 10


def test_matrix_products_outside_convolutions_and_linear_layers_are_not_counted():
    class Multiplying(Tiny):
        def forward(self, x):
            return super().forward(x @ x)

    assert summarise(Multiplying(), (1, 4, 4)).multiply_adds == summarise(Tiny(), (1, 4, 4)).multiply_adds


def test_the_mode_of_the_model_makes_no_difference():
    model = models.create("densenet_bc_10_4")
    assert summarise(model.eval(), (3, 8, 8)) == summarise(model.train(), (3, 8, 8))


def test_frozen_layers_are_counted_like_the_others():
    model = Tiny()
    before = summarise(model, (1, 4, 4))
    for parameter in model.parameters():
        parameter.requires_grad = False
    assert summarise(model, (1, 4, 4)) == before


def test_a_batch_norm_that_sees_one_value_an_image_gets_two_images():
    class Narrow(Tiny):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(2)

        def forward(self, x):
            y = F.global_avg_pool2d(self.conv(x))
            return self.fc(self.norm(y.reshape(len(y), 2, 1, 1)).reshape(len(y), 2))

    assert summarise(Narrow(), (1, 4, 4)).multiply_adds == 294
    with pytest.raises(ShapeError, match="conv2d: x has 3 channels"):
        summarise(Narrow(), (3, 4, 4))


def test_a_module_without_a_loss_is_summarised_too():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    found = summarise(model, (3, 2, 2))
    assert found.multiply_adds == 4 * 4 * 3 + 16 * 2
    assert [row.layer for row in found.model.rows] == ["Conv2d 1×1, 3→4", "ReLU", "Flatten", "Linear 16→2"]


def test_double_precision_keeps_twice_as_much():
    single, double = (summarise(Tiny().to(dtype=dtype), (1, 4, 4)).kept for dtype in (np.float32, np.float64))
    mask = 2 * 4 * 4
    assert double - mask == 2 * (single - mask)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [((3, 32), {}, "image_shape is"), ((3, 0, 4), {}, "image_shape is"), ((1, 4, 4), {"batch_size": 0}, "batch_size")],
)
def test_nonsense_is_refused(shape, options, message):
    with pytest.raises(ConfigError, match=message):
        summarise(Tiny(), shape, **options)


def test_a_model_whose_steps_depend_on_the_batch_is_refused():
    class Counting(Tiny):
        def forward(self, x):
            y = super().forward(x)
            return y if len(x) == 1 else y + 0.0

    with pytest.raises(ConfigError, match="other steps for other numbers of images"):
        summarise(Counting(), (1, 4, 4))


# -- the model stays as it was ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 16, 16), (5, 16, 16)], ids=["fits", "does not fit"])
def test_the_model_is_unchanged(shape):
    model = models.fractalnet(widths=(4, 8), dropout=(0.1, 0.2), drop_path=0.15).eval()
    model.block1.train()
    model.fc.weight.requires_grad = False
    model.fc.bias.grad = grad = np.ones(10, np.float32)
    watched = []
    model.block2.on_output = watched.append
    state = model.state_dict()
    arrays = {name: item.data for name, item in model.named_arrays()}
    attributes = [dict(vars(module)) for module in model.modules()]
    chance = str(model.paths.rng.bit_generator.state)
    try:
        summarise(model, shape)
        assert shape[0] == 3
    except ShapeError:
        assert shape[0] == 5
    assert [dict(vars(module)) for module in model.modules()] == attributes
    assert all(item.data is arrays[name] for name, item in model.named_arrays())
    assert all(np.array_equal(array, state[name]) for name, array in model.state_dict().items())
    assert str(model.paths.rng.bit_generator.state) == chance
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert model.fc.bias.grad is grad
    assert watched == []


# -- the table -------------------------------------------------------------------------------------------------------


def test_layers_of_a_block_fold_into_one():
    found = summarise(models.create("densenet121"), (3, 32, 32), kept=False)
    text = found.table()
    assert len(text.splitlines()) < 60
    line = next(line for line in text.splitlines() if "denselayer1…24" in line)
    assert "24 × BottleneckLayer" in line
    block = by_name(found.model.rows, "features.denseblock3")
    assert f"{sum(row.parameters for row in block.rows if row.name):,}" in line
    assert "Conv2d 1×1, 256…992→128" in text
    assert len(found.table(fold=False).splitlines()) > 300


def test_units_of_another_stride_stand_alone():
    stage = by_name(summarise(models.create("resnet32"), (3, 32, 32), kept=False).model.rows, "layer2")
    assert [(row.name, row.layer) for row in folded(stage.rows)] == [("0", "Original"), ("1…4", "4 × Original")]


def test_depth_hides_what_is_below_but_not_its_sums():
    found = summarise(models.create("densenet_bc_22_12"), (3, 32, 32))
    text = found.table(depth=2)
    assert "denseblock1" in text
    assert "denselayer" not in text
    assert "21,233,664" in text
    assert f"{found.kept:,}" in text


def test_the_footer_defines_each_number_once_and_names_the_twins():
    found = summarise(models.create("densenet_bc_22_12"), (3, 32, 32), batch_size=8)
    text = str(found)
    assert text.count("FLOPs = 2 × multiply-adds") == text.count("kept: bytes an image") == 1
    assert f"{found.flops:,} an image" in text
    assert 0 < found.kept_by_twins < found.kept / 3
    assert f"{found.kept_by_twins:,} bytes an image" in text
    assert "8 images keeps" in text
    assert "kept" not in str(summarise(Tiny(), (1, 4, 4), kept=False))


def test_columns_line_up_and_fit_a_terminal():
    lines = str(summarise(models.create("densenet_bc_100_12"), (3, 32, 32))).splitlines()
    ruler = next(line for line in lines if set(line) == {"-"})
    table = lines[2 : lines.index(ruler) + 2]
    assert {len(line) for line in table} == {len(ruler)}
    assert max(map(len, lines)) <= 120


# -- minidense summary -----------------------------------------------------------------------------------------------


def said(capsys, *argv, main=summary_command.main):
    code = main(argv)
    return code, *capsys.readouterr()


def test_the_command_prints_the_table(capsys):
    code, out, err = said(capsys, "densenet-bc-22-12")
    assert (code, err) == (0, "")
    assert out.startswith("densenet-bc-22-12: DenseNet from images of 3×32×32 to 10 classes\n")
    assert "71,686     31,238,322" in out


def test_json_is_one_object(capsys):
    code, out, err = said(capsys, "densenet_40_12", "--option", "stem_channels=24", "--classes", "100", "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    found = json.loads(out)
    assert (found["name"], found["parameters"], found["macs"]) == ("densenet_40_12", 1_100_428, 282_958_368)
    assert (found["classes"], found["image"], found["flops"]) == (100, [3, 32, 32], 2 * 282_958_368)
    assert found["bytes_kept"] > found["bytes_kept_by_twins"] > 0
    conv = found["layers"][0]["layers"][0]
    assert conv == {
        "name": "conv0", "layer": "Conv2d 3×3, 3→24", "shape": [24, 32, 32], "parameters": 648,
        "macs": 663_552, "bytes_kept": 4 * 3 * 34 * 34 + 4 * 24 * 32 * 32, "layers": [],
    }  # fmt: skip
    assert sum(layer["macs"] for layer in found["layers"]) == found["macs"]


@pytest.mark.parametrize("typed", ["16x24", "3,16,24"])
def test_images_of_another_size(typed, capsys):
    _, out, _ = said(capsys, "densenet_bc_10_4", "--image", typed, "--json")
    found = json.loads(out)
    assert (found["image"], found["layers"][0]["layers"][0]["shape"]) == ([3, 16, 24], [8, 16, 24])


def test_images_of_another_number_of_channels_build_the_network_for_them(capsys):
    _, out, _ = said(capsys, "densenet_bc_10_4", "--image", "1,28,28", "--json")
    assert json.loads(out)["layers"][0]["layers"][0]["layer"] == "Conv2d 3×3, 1→8"


def test_options_of_the_model_have_pythons_types():
    typed = ["project=true", "dropout=0.2", "stem-channels=24", "shortcut=projection", "hinge=None"]
    assert [summary_command.option(text) for text in typed] == [
        ("project", True),
        ("dropout", 0.2),
        ("stem_channels", 24),
        ("shortcut", "projection"),
        ("hinge", None),
    ]


def test_options_with_several_numbers_have_commas():
    typed = ["widths=16,32,64", "dropout=0,0.25", "note=a,b", "note=1,b"]
    assert [summary_command.option(text)[1] for text in typed] == [(16, 32, 64), (0, 0.25), "a,b", "1,b"]


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        (("resnet20", "--option", "widths=4,6,8"), "Conv2d 3×3, 3→4"),
        (("allcnn_c", "--option", "widths=6,8"), "Conv2d 3×3, 3→6"),
        (("highway_19", "--option", "widths=4,6,8"), "Conv2d 3×3, 3→4"),
    ],
)
def test_a_network_of_other_widths(typed, first, capsys):
    code, out, err = said(capsys, *typed)
    assert (code, err) == (0, "")
    assert first in out


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ((), "which model? For example: minidense summary densenet_bc_100_12"),
        (("densnet_bc_100_12",), "unknown model 'densnet_bc_100_12'. Did you mean densenet_bc_100_12"),
        (("densenet_bc_23_12",), "Nearest: 22, 28"),
        (("densenet_bc_22_12", "--image", "big"), "--image is height x width"),
        (("densenet_bc_22_12", "--image", "3,32x32"), "--image is height x width"),
        (("densenet_bc_22_12", "--image", "0x32"), "--image: sizes must be at least 1"),
        (("densenet_bc_22_12", "--image", "1x1"), "avg_pool2d"),
        (("densenet_bc_22_12", "--classes", "0"), "--classes must be at least 1"),
        (("densenet_bc_22_12", "--batch-size", "0"), "--batch-size must be at least 1"),
        (("densenet_bc_22_12", "--depth", "0"), "--depth must be at least 1"),
        (("densenet_bc_22_12", "--option", "dropout"), "--option is KEY=VALUE"),
        (("densenet_bc_22_12", "--option", "droput=0.2"), "takes no option droput; it takes"),
        (("densenet_bc_22_12", "--option", "stem_channels="), "--option is KEY=VALUE"),
        (
            ("densenet_bc_22_12", "--option", "dropout=much", "--image", "1,32,32"),
            "densenet_bc_22_12 cannot be built with --option dropout=much: dropout takes a number, as in dropout=0.0\n",
        ),
        (("wrn16_4", "--option", "dropout=none"), "--option dropout=none: dropout takes a number, as in dropout=0.0\n"),
        (("resnet20", "--option", "widths=3"), "widths must be 3 whole numbers of at least 1, got 3\n"),
        (("allcnn_c", "--option", "widths=1,2,3"), "widths must be 2 whole numbers of at least 1, got (1, 2, 3)\n"),
        (
            ("allcnn_c", "--option", "input_dropout=x", "--option", "dropout=0.1"),
            "allcnn_c cannot be built with --option input_dropout=x --option dropout=0.1: "
            "input_dropout takes a number, as in input_dropout=0.2; dropout takes a number, as in dropout=0.5\n",
        ),
        (
            ("nin", "--option", "widths=3"),
            "--option widths: cannot be typed, it is sizes in groups, ((192, 160, 96), (192, 192, 192), (192, 192)) by default; "
            "call nin(widths=...) in Python\n",
        ),
        (("highway_19", "--option", "kernels=3,3,3"), "by default; call highway(kernels=...) in Python\n"),
        (
            ("vgg16_bn_cifar", "--option", "initialise=he"),
            "--option initialise: cannot be typed, it is a function; call vgg_cifar(initialise=...) in Python\n",
        ),
        (("densenet_bc_22_12", "--option", "classes=3"), "--option classes: use --classes"),
        (("densenet_bc_22_12", "--option", "seed=3"), "--option seed: makes no difference"),
        (("densenet_bc_22_12", "--option", "depth=40"), "the name of the model already says depth"),
    ],
)
def test_a_wrong_command_line_says_so_in_one_line(typed, message, capsys):
    code, out, err = said(capsys, *typed)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("minidense summary: ")
    assert err.count("\n") == 1


def test_unknown_options_are_refused_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as stopped:
        summary_command.main(["densenet_bc_22_12", "--class", "3"])
    assert stopped.value.code == 2
    assert "did you mean --classes?" in capsys.readouterr().err


def test_too_little_memory_is_said_in_one_line(capsys, monkeypatch):
    def too_much(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(summary_command, "summarise", too_much)
    assert said(capsys, "densenet_bc_22_12") == (
        5, "", "minidense summary: not enough memory to run the network once; try a smaller --image\n",
    )  # fmt: skip


@pytest.mark.parametrize("command", ["summary_command", "models_command"])
def test_a_reader_that_goes_away_causes_no_traceback(command):
    argv = "['densenet_bc_10_4']" if command == "summary_command" else "[]"
    code = f"import sys; from minidense import {command}; sys.stdin.read(); sys.exit({command}.main({argv}))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        process.stdin.close()
        assert process.wait(60) == 4
        assert process.stderr.read() == b""


@pytest.mark.parametrize("main", [summary_command.main, models_command.main])
def test_help_fits_a_screen(main, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 60
    assert max(map(len, lines)) <= 120


# -- minidense models ------------------------------------------------------------------------------------------------


def test_models_lists_every_network_with_its_numbers(capsys):
    code, out, err = said(capsys, main=models_command.main)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 120
    rows = {line.split()[0]: line.split()[1:] for line in lines[: lines.index("Notes")] if line}
    assert set(models.names()) <= rows.keys()
    assert rows["densenet_bc_100_12"] == ["769,162", "287,929,692", "5.92", "4.51", "24.15", "22.27", "1.76"]
    assert rows["densenet121"] == ["7,978,856", "2,834,161,664", "25.02", "23.61", "7.71", "6.66"]
    assert rows["allcnn_c"] == ["1,369,738", "270,798,336", "9.08", "7.25", "-", "33.71", "-"]
    assert "33.7M" in out


def test_models_as_one_json_object(capsys):
    code, out, err = said(capsys, "--json", main=models_command.main)
    assert (code, err, out.count("\n")) == (0, "", 1)
    found = {one["name"]: one for one in json.loads(out)["models"]}
    assert list(found) == list(models.names())
    one = found["preresnet1001"]
    assert (one["family"], one["parameters"], one["macs"]) == ("Pre-activation ResNet", 10_327_706, 1_487_849_984)
    assert one["errors"] == {"C10": 10.56, "C10+": 4.62, "C100": 33.47, "C100+": 22.71}
    assert one["source"] == "Huang et al. 2017, Table 2"
