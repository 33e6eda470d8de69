"""minidense predict: pictures of every kind become torchvision's bytes, and what cannot be read is said in a line."""

import errno
import io
import json
import random
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest

from minidense import models, predict
from minidense.checkpoint import save_weights
from minidense.config import TrainConfig
from minidense.errors import DataError
from minidense.pictures import View, imagenet_classes, picture, view_of
from minidense.speed import reference_only

try:
    import torch
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="compares with PyTorch: pip install torch==2.13.0")

IMAGENET = view_of("imagenet")
TINY = View(("a", "b"), (3, 4, 4), 4, (0.0,) * 3, (255.0,) * 3)
GREY = replace(TINY, shape=(1, 4, 4), mean=(0.0,), std=(255.0,))


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def seen(image, view=TINY, name="a.png", **how):
    """What the network sees of a Pillow image that went through a file."""
    image.save(name, **how)
    return picture(name, view)


# -- classes ----------------------------------------------------------------------------------------------------------


def test_the_classes_of_imagenet_are_in_their_order():
    names = imagenet_classes()
    assert len(names) == 1000
    landmarks = {
        0: "tench",
        1: "goldfish",
        207: "golden retriever",
        281: "tabby",
        409: "analog clock",
        999: "toilet tissue",
    }
    assert {number: names[number] for number in landmarks} == landmarks
    assert all(name == name.strip() != "" for name in names)
    # Birds and machines may share a name; where WordNet's first word does not tell two apart, the second does.
    assert sorted({name for name in names if names.count(name) > 1}) == []
    assert (names[134], names[517], names[638], names[639]) == ("crane bird", "crane", "maillot", "maillot tank suit")


# -- the bytes of torchvision -----------------------------------------------------------------------------------------

SIZES = [(300, 200), (200, 301), (100, 80), (1024, 77), (256, 256), (257, 513), (224, 224), (255, 1000)]


def resized(width, height):
    """torchvision's Resize(256): the shorter side exactly, the longer one cut to a whole number."""
    return (256, int(256 * height / width)) if width <= height else (int(256 * width / height), 256)


def centre(array):
    """torchvision's CenterCrop(224) of (C, H, W)."""
    top, left = (round((n - 224) / 2.0) for n in array.shape[1:])
    return array[:, top : top + 224, left : left + 224]


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_becomes_the_bytes_that_torchvision_makes_of_it(size):
    """torchvision hands a Pillow image to Pillow, with its own arithmetic of sizes around it."""
    image = PIL.Image.fromarray(noise(*size))
    expected = np.asarray(image.resize(resized(*size), PIL.Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert (seen(image, IMAGENET) == centre(expected)).all()


@needs_torch
@pytest.mark.parametrize("size", SIZES)
def test_a_picture_becomes_what_pytorch_interpolates_to_a_unit(size):
    image = torch.from_numpy(noise(*size)).permute(2, 0, 1)[None].float()
    width, height = resized(*size)
    expected = torch.nn.functional.interpolate(image, size=(height, width), mode="bilinear", antialias=True)
    expected = centre(expected[0].round().clamp(0, 255).numpy())
    # Pillow computes with weights of 22 bits and rounds after each direction, PyTorch in float32 and once: half a unit each time.
    assert abs(seen(PIL.Image.fromarray(noise(*size)), IMAGENET) - expected).max() <= 1


def test_the_numbers_of_a_picture_are_normalised_as_for_these_weights():
    told = []

    class Listener(models.Classifier):
        device = "cpu"

        def forward(self, x):
            told.append(x.numpy())
            return x.reshape((1, -1))[:, :2]

    pixels = np.full((3, 224, 224), 51, np.uint8)
    predict.likeliest(Listener(), IMAGENET, pixels, 2)
    for channel, mean, std in zip(told[0][0], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True):
        # float32, a few roundings; here and below
        np.testing.assert_allclose(channel, (0.2 - mean) / std, rtol=1e-5)
    predict.likeliest(Listener(), view_of("digits"), np.full((1, 8, 8), 255, np.uint8), 1)
    # the digits have 17 levels
    np.testing.assert_allclose(told[1], (16 - 4.88) / 6.02, rtol=1e-5)


# -- pictures of every kind -------------------------------------------------------------------------------------------

RED = (200, 40, 20)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif", "a.bmp", "a.tiff", "a.ppm"])
def test_every_format_is_read(name):
    pixels = seen(PIL.Image.new("RGB", (9, 7), RED), name=name)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (3, 4, 4)
    # JPEG and WebP compute luma and chroma in whole numbers, and divide them by steps of a few units: 4 of 255 are no other colour.
    assert abs(pixels.astype(int) - np.reshape(RED, (3, 1, 1))).max() <= 4


T = PIL.Image.Transpose
# What the number in the EXIF data says has been done to the upright picture. 6: the camera stood on its right side.
HELD = {
    2: T.FLIP_LEFT_RIGHT,
    3: T.ROTATE_180,
    4: T.FLIP_TOP_BOTTOM,
    5: T.TRANSPOSE,
    6: T.ROTATE_90,
    7: T.TRANSVERSE,
    8: T.ROTATE_270,
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation):
    upright = PIL.Image.fromarray(noise(8, 8))
    held = upright if orientation == 1 else upright.transpose(HELD[orientation])
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    whole = replace(TINY, shape=(3, 8, 8), shorter_side=8)
    assert (seen(held, whole, exif=exif) == noise(8, 8).transpose(2, 0, 1)).all()


def transparent(mode):
    image = PIL.Image.new("RGBA", (8, 8), (*RED, 255))
    # The upper half lets through what lies behind.
    image.paste((0, 0, 0, 0), (0, 0, 8, 4))
    return image if mode == "RGBA" else image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_lies_on_white(mode):
    pixels = seen(transparent(mode))
    assert (pixels[:, 0] == 255).all()
    # 86 = 0.299·200 + 0.587·40 + 0.114·20
    below = RED if mode == "RGBA" else (86, 86, 86)
    assert all((channel == value).all() for channel, value in zip(pixels[:, 3], below, strict=True))


@pytest.mark.parametrize("half", [True, False])
def test_what_lets_half_through_is_half_white(half):
    pixels = seen(PIL.Image.new("RGBA", (4, 4), (0, 0, 0, 128 if half else 255)))
    assert (pixels == (127 if half else 0)).all()


def test_a_palette_with_a_transparent_colour_lies_on_white():
    image = PIL.Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, *RED])
    assert (seen(image)[:, 0, 0] == (10, 20, 30)).all()
    assert (seen(image, name="b.png", transparency=0) == 255).all()


def test_grey_black_and_white_and_16_bits():
    assert (seen(PIL.Image.new("L", (4, 4), 77)) == 77).all()
    assert (seen(PIL.Image.new("1", (4, 4), 1)) == 255).all()
    deep = np.full((4, 4), 0x4D7F, np.uint16)
    for name in ("a.png", "a.tiff", "a.ppm"):
        assert (seen(PIL.Image.fromarray(deep), name=name) == 0x4D).all(), name
    assert seen(PIL.Image.fromarray(deep), GREY).shape == (1, 4, 4)
    with pytest.raises(DataError, match="its pixels are neither of 8 nor of 16 bits"):
        seen(PIL.Image.fromarray(np.ones((4, 4), np.float32)), name="a.tiff")


def test_cmyk_is_read():
    pixels = seen(PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0)), name="a.jpg").astype(int)
    # JPEG is not exact, as above.
    assert abs(pixels - np.reshape((255, 0, 0), (3, 1, 1))).max() <= 4


def test_colours_become_grey_for_a_network_that_sees_grey():
    assert (seen(PIL.Image.new("RGB", (4, 4), RED), GREY) == round(0.299 * 200 + 0.587 * 40 + 0.114 * 20)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 2)])
def test_tiny_pictures_are_made_larger(size):
    assert seen(PIL.Image.fromarray(noise(*size)), IMAGENET).shape == (3, 224, 224)


# -- pictures that cannot be read -------------------------------------------------------------------------------------


def refused(path, view=TINY) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError) as refusal:
            picture(path, view)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(f"{path}: ")
    return str(refusal.value)


def png(width, height) -> bytes:
    """The beginning of a PNG file of so many pixels."""
    file = io.BytesIO()
    PIL.Image.new("1", (8, 8)).save(file, "PNG")
    raw = bytearray(file.getvalue())
    raw[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, "big")
    return bytes(raw)


@pytest.mark.parametrize(
    ("width", "height"), [(10**5, 10**5), (12_000, 12_000), (2**31 - 1, 2**31 - 1), (1, 10**7), (10**6, 20)]
)
def test_a_picture_that_would_fill_the_memory_is_refused_before_it_is_unpacked(width, height):
    Path("bomb.png").write_bytes(png(width, height))
    message = refused("bomb.png", IMAGENET)
    assert "pixels are more than is read here" in message or "decompression bomb" in message


def test_what_is_no_picture_is_refused():
    Path("text.jpg").write_text("hello\n" * 100)
    Path("empty.jpg").write_bytes(b"")
    # A language for printers, which Pillow would hand to another program.
    PIL.Image.new("RGB", (4, 4)).save("a.eps")
    for name in ("text.jpg", "empty.jpg", "a.eps"):
        assert "not a picture in a format known here (JPEG, PNG" in refused(name)
    assert refused("nowhere.jpg") == "nowhere.jpg: no such file"
    assert refused(".") == ".: not a file"


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.bmp", "a.tiff", "a.ppm"])
def test_a_picture_cut_short_is_refused(name):
    PIL.Image.fromarray(noise(64, 48)).save(name)
    raw = Path(name).read_bytes()
    for share in (0.05, 0.3, 0.6, 0.9):
        Path("cut" + name).write_bytes(raw[: int(share * len(raw))])
        refused("cut" + name)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.bmp", "a.tiff", "a.ppm"])
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_picture_is_refused_or_shown(name):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    how = {"exif": exif} if name in ("a.jpg", "a.png", "a.webp", "a.tiff") else {}
    PIL.Image.fromarray(noise(24, 16)).save(name, **how)
    rng, raw = random.Random(name), Path(name).read_bytes()
    for _ in range(150):
        mutant = bytearray(raw)
        for _ in range(rng.randrange(1, 4)):
            mutant[rng.randrange(min(len(raw), 300))] = rng.randrange(256)
        Path("mutant").write_bytes(mutant)
        message = ""
        try:
            assert picture("mutant", TINY).shape == (3, 4, 4)
        except DataError as error:
            message = str(error)
        assert message == "" or message.startswith("mutant: ")
        assert "\n" not in message


# -- the command ------------------------------------------------------------------------------------------------------


def run(*argv, capsys):
    """Exit code, output, complaints."""
    code = predict.main(argv)
    return code, *capsys.readouterr()


@pytest.fixture
def cifar_run():
    """A run folder of a network on CIFAR-10 which calls whatever it sees a ship, and a picture."""
    folder = Path("runs/small")
    folder.mkdir(parents=True)
    config = TrainConfig(model="densenet_bc_10_4", data="cifar10")
    (folder / "config.toml").write_text(config.to_toml())
    weights = models.create("densenet_bc_10_4").state_dict()
    weights["classifier.weight"][...] = 0
    weights["classifier.bias"][:] = [0, 0, 0, 2, 0, 0, 0, 0, 4, 0]
    save_weights(weights, folder / "weights.safetensors")
    PIL.Image.fromarray(noise(50, 40)).save("a.png")
    PIL.Image.fromarray(noise(30, 40, seed=1)).save("b.png")
    return folder


# e⁴ and e² beside eight times 1: the sum is 54.598 + 7.389 + 8.
SHIP, CAT = 54.598 / 69.987, 7.389 / 69.987

PRINTED = """\
a.png
   78.0%  #######################         ship
   10.6%  ###                             cat
    1.4%                                  airplane
"""


def test_the_likeliest_classes_are_printed(cifar_run, capsys):
    code, out, err = run("a.png", "--run", str(cifar_run), "--top", "3", capsys=capsys)
    assert (code, err) == (0, "")
    assert out == PRINTED


def test_several_pictures_follow_one_another(cifar_run, capsys):
    code, out, _ = run("a.png", "b.png", "--run", "runs/small", "--top", "3", capsys=capsys)
    assert code == 0
    assert out == PRINTED + PRINTED.replace("a.png", "b.png")


def test_a_model_and_its_weights_do_as_well_as_a_run(cifar_run, capsys):
    argv = ("--model", "densenet-bc-10-4", "--weights", str(cifar_run / "weights.safetensors"), "--data", "cifar10")
    assert run("a.png", *argv, "--top", "3", capsys=capsys) == (0, PRINTED, "")


def test_json_is_one_object(cifar_run, capsys):
    code, out, _ = run("a.png", "b.png", "--run", "runs/small", "--json", "--top", "2", capsys=capsys)
    assert code == 0
    found = json.loads(out)
    assert found.keys() == {"model", "data", "weights", "pictures"}
    assert [found["model"], found["data"], Path(found["weights"]).name] == [
        "densenet_bc_10_4",
        "cifar10",
        "weights.safetensors",
    ]
    assert [one["file"] for one in found["pictures"]] == ["a.png", "b.png"]
    ship, cat = found["pictures"][1]["classes"]
    assert (ship["class"], ship["name"]) == (8, "ship")
    assert (cat["class"], cat["name"]) == (3, "cat")
    # The sum above has five digits.
    assert abs(ship["probability"] - SHIP) < 1e-5
    assert abs(cat["probability"] - CAT) < 1e-5


def test_a_picture_that_cannot_be_read_does_not_keep_the_others_from_being_looked_at(cifar_run, capsys):
    Path("text.png").write_text("hello")
    code, out, err = run("nowhere.png", "a.png", "text.png", "--run", "runs/small", "--top", "3", capsys=capsys)
    assert (code, out) == (2, PRINTED)
    assert err.splitlines()[0] == "minidense predict: nowhere.png: no such file"
    assert err.splitlines()[1].startswith("minidense predict: text.png: not a picture")
    code, out, err = run("nowhere.png", "a.png", "--run", "runs/small", "--json", capsys=capsys)
    assert (code, [one["file"] for one in json.loads(out)["pictures"]]) == (2, ["a.png"])


def test_a_run_s_last_checkpoint_will_do_and_its_normalisation_counts(cifar_run, capsys, monkeypatch):
    (cifar_run / "weights.safetensors").rename(cifar_run / "last.safetensors")
    (cifar_run / "config.toml").write_text(TrainConfig(model="densenet_bc_10_4", normalise="scale").to_toml())
    views = []
    monkeypatch.setattr(predict, "likeliest", lambda model, view, *_: views.append(view) or [])
    assert run("a.png", "--run", "runs/small", capsys=capsys)[0] == 0
    assert (views[0].mean, views[0].std) == ((0.0,) * 3, (255.0,) * 3)
    (cifar_run / "config.toml").write_text(TrainConfig(model="densenet_bc_10_4", normalise="zca").to_toml())
    code, _, err = run("a.png", "--run", "runs/small", capsys=capsys)
    assert (code, "normalised by zca, which takes all training images" in err) == (2, True)


def test_digits_are_seen_in_grey(capsys):
    model = models.create("densenet_bc_10_4", in_channels=1)
    save_weights(model.state_dict(), "weights.safetensors")
    PIL.Image.fromarray(noise(20, 20)).save("a.png")
    argv = ("--model", "densenet_bc_10_4", "--data", "digits", "--weights", "weights.safetensors", "--json")
    code, out, _ = run("a.png", *argv, "--top", "99", capsys=capsys)
    classes = json.loads(out)["pictures"][0]["classes"]
    assert (code, sorted(one["name"] for one in classes)) == (0, list("0123456789"))
    # ten numbers of float32, 6e-8 each
    assert abs(sum(one["probability"] for one in classes) - 1) < 1e-5


def test_digits_of_a_scaled_run_are_divided_by_their_brightest_level(cifar_run, capsys, monkeypatch):
    config = TrainConfig(model="densenet_bc_10_4", data="digits", normalise="scale")
    (cifar_run / "config.toml").write_text(config.to_toml())
    model = models.create("densenet_bc_10_4", in_channels=1)
    save_weights(model.state_dict(), cifar_run / "weights.safetensors")
    views = []
    monkeypatch.setattr(predict, "likeliest", lambda model, view, *_: views.append(view) or [])
    assert run("a.png", "--run", "runs/small", capsys=capsys)[0] == 0
    assert (views[0].mean, views[0].std, views[0].levels) == ((0.0,), (16.0,), 16)


@pytest.mark.parametrize(
    ("name", "data", "channels", "sizes"),
    [
        ("allcnn_c", "digits", 1, ("32×32", "8×8")),
        ("fractalnet_c3_b5", "digits", 1, ("32×32", "8×8")),
        ("densenet121", "digits", 1, ("224×224", "8×8")),
    ],
)
def test_pictures_too_small_for_a_network_are_told_in_one_line(name, data, channels, sizes, capsys):
    save_weights(models.create(name, classes=10, in_channels=channels).state_dict(), "weights.safetensors")
    PIL.Image.fromarray(noise(40, 40)).save("a.png")
    argv = ("--model", name, "--data", data, "--weights", "weights.safetensors")
    code, out, err = run("a.png", *argv, capsys=capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err == (
        f"minidense predict: {name} was made for images of {sizes[0]} pixels and cannot look at those of --data {data}, "
        f"{sizes[1]}; name the data set that these weights were trained on\n"
    )


def test_imagenet_s_networks_are_found_under_torchvisions_names(capsys):
    save_weights(models.create("resnet18_imagenet").state_dict(), "weights.safetensors")
    PIL.Image.fromarray(noise(20, 20)).save("a.png")
    code, out, _ = run("a.png", "--model", "resnet18", "--weights", "weights.safetensors", "--json", capsys=capsys)
    found = json.loads(out)
    assert (code, found["model"], found["data"]) == (0, "resnet18_imagenet", "imagenet")
    assert [one["name"] for one in found["pictures"][0]["classes"]] == [
        imagenet_classes()[one["class"]] for one in found["pictures"][0]["classes"]
    ]


def test_a_gpu_may_look(cifar_run, strict_gpu, capsys):
    with reference_only():  # no kernels, which would have to be compiled
        assert run("a.png", "--run", "runs/small", "--top", "3", "--device", "gpu", capsys=capsys) == (0, PRINTED, "")


def test_weights_that_do_not_fit_are_listed_as_far_as_one_wants_to_read(cifar_run, capsys):
    argv = ("--model", "densenet_bc_16_4", "--data", "cifar10", "--weights", "runs/small/weights.safetensors")
    code, out, err = run("a.png", *argv, capsys=capsys)
    lines = err.splitlines()
    assert (code, out, len(lines)) == (2, "", 12)
    assert lines[0] == "minidense predict: runs/small/weights.safetensors: these weights do not fit this model:"
    assert lines[1] == "  missing     features.denseblock1.denselayer2.norm1.weight"
    assert lines[-1].startswith("  … and ")


def test_weights_that_make_no_numbers_are_told(cifar_run, capsys):
    weights = models.create("densenet_bc_10_4").state_dict()
    weights["classifier.bias"][3] = np.nan
    save_weights(weights, cifar_run / "weights.safetensors")
    code, _, err = run("a.png", "--run", "runs/small", capsys=capsys)
    assert (code, err) == (2, "minidense predict: with these weights the network's results are no numbers\n")


WRONG = {
    ("a.png",): "which network? Give --model NAME and --weights FILE, or --run FOLDER",
    ("a.png", "--model", "densenet121"): "which network?",
    ("a.png", "--weights", "x"): "which network?",
    ("a.png", "--model", "densnet121", "--weights", "x"): "Did you mean densenet121",
    (
        "a.png",
        "--model",
        "densenet121",
        "--weights",
        "x",
        "--data",
        "cifar11",
    ): "--data: unknown 'cifar11'; did you mean cifar10?",
    (
        "a.png",
        "--model",
        "densenet121",
        "--weights",
        "x",
        "--device",
        "gqu",
    ): "--device: unknown 'gqu'; did you mean gpu?",
    ("a.png", "--model", "densenet_bc_10_4", "--weights", "x"): "x: no such file",
    ("a.png", "--model", "densenet_bc_10_4", "--weights", "a.png"): "neither a safetensors file nor one of torch.save",
    ("a.png", "--run", "runs/small", "--model", "x"): "leave out --model and --data",
    ("a.png", "--run", "runs/small", "--data", "digits"): "leave out --model and --data",
    ("a.png", "--run", "runs/small", "--top", "0"): "--top must be at least 1, got 0",
    ("a.png", "--run", "runs"): "--run runs: no config.toml in it",
    ("a.png", "--run", "runs/empty"): "--run runs/empty: no weights in it yet",
    ("a.png", "--run", "runs/small", "--weights", "nowhere"): "nowhere: no such file",
}


@pytest.mark.parametrize("argv", WRONG, ids=" ".join)
def test_a_wrong_command_line_is_told_in_one_line(argv, cifar_run, capsys):
    Path("runs/empty").mkdir()
    Path("runs/empty/config.toml").write_text(TrainConfig(model="densenet_bc_10_4").to_toml())
    code, out, err = run(*argv, capsys=capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("minidense predict: ")
    assert WRONG[argv] in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--model", "x"), "the following arguments are required: FILE"),
        (("a.png", "--wieghts", "x"), "unknown option --wieghts; did you mean --weights?"),
        (("a.png", "--top", "five"), "--top: needs a whole number, got 'five'"),
    ],
)
def test_an_option_that_is_none_is_told_in_one_line(argv, words, capsys):
    with pytest.raises(SystemExit) as end:
        predict.main(argv)
    err = capsys.readouterr().err
    assert (end.value.code, err.count("\n")) == (2, 1)
    assert words in err


def test_help_shows_an_example_of_each_way(capsys):
    with pytest.raises(SystemExit) as end:
        predict.main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert "minidense predict dog.jpg --model densenet121 --weights densenet121-a639ec97.pth" in text
    assert "--run runs/densenet_bc_100_12-cifar10" in text
    assert "https://download.pytorch.org/models/densenet121-a639ec97.pth" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("error", "code"),
    [(MemoryError("4 GB"), 5), (OSError(errno.ENOSPC, "No space left on device"), 4), (KeyboardInterrupt(), 130)],
)
def test_what_goes_wrong_while_looking_has_its_exit_code(error, code, cifar_run, capsys, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(predict, "likeliest", fail)
    found, out, err = run("a.png", "--run", "runs/small", capsys=capsys)
    assert (found, out) == (code, "")
    assert err.count("\n") == (code != 130)


def test_a_terminal_without_the_letters_of_a_name_is_no_error(cifar_run, capsys, monkeypatch):
    PIL.Image.new("RGB", (8, 8)).save("bär.png")
    text = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", text)
    assert predict.main(["bär.png", "--run", "runs/small", "--top", "1"]) == 0
    text.flush()
    assert text.buffer.getvalue().startswith(b"b\\xe4r.png\n")
