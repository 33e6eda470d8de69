"""Every cell of the DenseNet paper's Table 2, and its ImageNet runs, as settings: a family's recipe and what the data set changes.

A name is a row and a column: densenet_bc_100_12-c10+ is DenseNet-BC (L = 100, k = 12) on CIFAR-10, where + means augmentation by
crops and mirror images. What is not said has the default of ``config.TrainConfig``, which is the DenseNet paper's recipe on c10+.
NOTES says where a preset had to guess, and where it does something else than its authors.
"""

from typing import Any

Settings = dict[str, Any]
PRESETS: dict[str, Settings] = {
    "paper": {},
    "quickstart": {
        "model": "densenet_bc_22_12",
        "data": "digits",
        "epochs": 15,
        "schedule": "one_cycle",
    },
}
NOTES: dict[str, str] = {}

COLUMNS: dict[str, Settings] = {
    "c10": {"data": "cifar10", "augment": False},
    "c10+": {"data": "cifar10"},
    "c100": {"data": "cifar100", "augment": False},
    "c100+": {"data": "cifar100"},
    "svhn": {"data": "svhn", "augment": False},
    "imagenet": {"data": "imagenet"},
}
CIFAR = ("c10", "c10+", "c100", "c100+")


def recipe(**settings: Any) -> Settings:
    return settings


def row(name: str, columns: tuple[str, ...], settings: Settings, *, note: str = "", **by_column: Settings) -> None:
    """A preset for each column of a row.

    settings   of the row; it is a model's name unless they name one
    note       of all of them
    by_column  what a row changes in a column, with "note" for a note more: c10={...}, c100_plus={...}
    """
    for column in columns:
        own = dict(by_column.get(column.replace("+", "_plus"), {}))
        text = " ".join(filter(None, (own.pop("note", ""), note)))
        PRESETS[f"{name}-{column}"] = {"model": name, **COLUMNS[column], **settings, **own}
        if text:
            NOTES[f"{name}-{column}"] = text


# SVHN since Sermanet et al. 2012: 6,000 validation images say which epoch's test counts. The DenseNet paper divides by 255.
SVHN = recipe(validation=6_000, normalise="scale")
MEMORY = "As float32 the images take 8 GB."

# -- DenseNet: Huang, Liu, van der Maaten & Weinberger 2017, section 4.2, and the authors' code -------------------------
# 300 epochs of batches of 64, a tenth of the rate at 50 % and at 75 %: the defaults. Dropout where nothing is augmented.

DROPPED = recipe(dropout=0.2)
for name in ("densenet_40_12", "densenet_100_12", "densenet_100_24", "densenet_bc_100_12", "densenet_bc_250_24"):
    row(name, (*CIFAR, "svhn"), {}, c10=DROPPED, c100=DROPPED, svhn={**DROPPED, **SVHN, "epochs": 40})
row("densenet_bc_190_40", ("c10+", "c100+"), {})

IMAGENET = recipe(epochs=90, batch_size=256, drop_at=(30, 60))
PICTURES = "Reading ImageNet is not part of minidense yet."  # the data set says so, too
for name in ("densenet121", "densenet169", "densenet201", "densenet264"):
    row(name, ("imagenet",), IMAGENET, note=PICTURES)
row(
    "densenet161",
    ("imagenet",),
    recipe(epochs=100, batch_size=128, drop_at=(30, 60, 90)),
    note=f"From the paper's first versions; batch and epochs are quoted from memory. {PICTURES}",
)

# -- Network in Network: Lin, Chen & Yan 2014, and the authors' files for cuda-convnet -----------------------------------

# Biases in the authors' files: twice the rate. In those for Caffe they do not decay either.
BIASES = recipe(bias_rate=2.0, bias_decay=False)
LR_INSIDE = "Caffe and cuda-convnet multiply by the rate before momentum, minidense after it: steps just after a change of rate differ."
NIN = recipe(
    **BIASES, epochs=200, batch_size=128, learning_rate=0.1, nesterov=False, weight_decay=1e-4, last_layer_rate=0.1, normalise="zca"
)  # fmt: skip
row(
    "nin",
    ("c10", "c10+", "c100", "svhn"),
    NIN,
    note="The authors lowered the rate by hand, twice, when training stalled: number of epochs and drops at 50 % and 75 % are ours, "
    f"and so is that biases do not decay. {LR_INSIDE}",
    c10_plus=recipe(note="Moved by up to 4 pixels: how far is ours."),
    c100=recipe(learning_rate=0.02, weight_decay=5e-4, last_layer_rate=1.0),
    svhn=recipe(
        model="nin_svhn",
        epochs=30,
        normalise="gcn",
        validation=6_000,
        note=f"The authors normalised contrast locally, which is not built; here it is done image by image. {MEMORY}",
    ),
)

# -- All-CNN-C: Springenberg, Dosovitskiy, Brox & Riedmiller 2015 --------------------------------------------------------

row(
    "allcnn_c",
    ("c10", "c10+", "c100+"),
    recipe(
        epochs=350,
        batch_size=128,
        learning_rate=0.05,
        drop_at=(200, 250, 300),
        nesterov=False,
        weight_decay=1e-3,
        normalise="zca",
    ),
    note="The paper has the best rate of 0.25, 0.1, 0.05 and 0.01, and does not say which that was; batch size and initial weights "
    "are not known.",
    c10_plus=recipe(crop_padding=5),
    c100_plus=recipe(crop_padding=5),
)

# -- Deeply-Supervised Nets: Lee, Xie, Gallagher, Zhang & Tu 2015, and the authors' Caffe files --------------------------

# 50,000 steps with companions, 120,000 without, 30,000 more at a rate of 1e-4; of 100 images, 500 an epoch.
DSN = recipe(
    **BIASES,
    epochs=400,
    batch_size=100,
    learning_rate=0.025,
    drop_at=(340,),
    drop_factor=0.004,
    nesterov=False,
    weight_decay=5e-4,
    last_layer_rate=0.1,
    normalise="gcn",
)
row(
    "dsn",
    ("c10", "c10+", "c100+", "svhn"),
    DSN,
    note=f"Companions leave after 100 epochs; until then the authors' learn more and more slowly, these do not. {LR_INSIDE}",
    c10_plus=recipe(note="Moved by up to 4 pixels: how far is ours."),
    c100_plus=recipe(
        note="The DenseNet paper prints the number, 34.57, in this column, but the authors' run was probably --no-augment."
    ),
    svhn=recipe(
        **SVHN,
        model="dsn_svhn",
        epochs=34,
        drop_at=(170_000 / 5_984,),  # 598,388 images make 5,984 batches
        note="What the authors did on SVHN is not published: this has as many steps as on CIFAR-10. It ends before 100 epochs.",
    ),
)

# -- Highway Networks: Srivastava, Greff & Schmidhuber 2015, and the authors' Caffe files --------------------------------

# 200,000 steps of 100 images, 500 an epoch; the rate falls at 100,000, 150,000 and 175,000.
HIGHWAY = recipe(
    **BIASES,
    epochs=400,
    batch_size=100,
    learning_rate=0.025,
    drop_at=(200, 300, 350),
    weight_decay=1e-3,
    normalise="gcn",
    crop_padding=8,
)
row(
    "highway_19",
    ("c10+", "c100+"),
    HIGHWAY,
    note=f"The scale of the authors' contrast normalisation is not known. {LR_INSIDE}",
    c10_plus=recipe(note="7.72 is of another head, fully connected; this one, of convolutions, has 7.69."),
)
row(
    "highway_32", ("c10+",), HIGHWAY, note=f"Its widths are not published: the network is a reconstruction. {LR_INSIDE}"
)

# -- FractalNet: Larsson, Maire & Shakhnarovich 2017 ---------------------------------------------------------------------

# A tenth of the rate whenever what is left of the run has halved.
HALVED = (200, 300, 350, 375, 387.5, 393.75, 396.875)
for name in ("fractalnet_c3_b5", "fractalnet_c3_b5_drop"):
    row(
        name,
        (*CIFAR, "svhn"),
        recipe(epochs=400, batch_size=100, learning_rate=0.02, drop_at=HALVED, nesterov=False, weight_decay=0.0),
        note="Weight decay, normalisation and crops are not published; the released generator builds 33.7 M parameters, not 38.6 M. "
        f"Others did not reach the printed errors. {LR_INSIDE}",
        svhn=recipe(epochs=20, drop_at=tuple(at / 20 for at in HALVED), normalise="scale"),
    )

# -- Residual networks: He, Zhang, Ren & Sun 2016 ------------------------------------------------------------------------

STEPS = 391  # of 128 images in an epoch of 50,000
# 64,000 steps, with a hundredth for the first 400; the rate falls at 32,000 and 48,000.
RESNET = recipe(
    epochs=164,
    batch_size=128,
    drop_at=(32_000 / STEPS, 48_000 / STEPS),
    warmup_epochs=400 / STEPS,
    warmup_rate=0.01,
    nesterov=False,
    normalise="pixel_mean",
)
HELD_OUT = "The authors chose their schedule on 45,000 images; here all 50,000 are trained on."
row("resnet110", ("c10+",), RESNET, note=HELD_OUT)
row("resnet1202", ("c10+",), RESNET, note=HELD_OUT)
for depth in (18, 34, 50, 101, 152):
    row(f"resnet{depth}", ("imagenet",), {**IMAGENET, "model": f"resnet{depth}_imagenet"}, note=PICTURES)

# -- Stochastic depth: Huang, Sun, Liu, Sedra & Weinberger 2016, and the authors' code; also at constant depth -----------

STOCHASTIC_DEPTH = recipe(epochs=500, batch_size=128, normalise="pixel_mean_std", validation=5_000)
HOUSE_NUMBERS = recipe(
    epochs=50,
    drop_at=(29, 34),  # the code counts epochs from 1, and has 30 and 35
    validation=6_000,
    note=f"Tables print it beside 110 layers, but the run has 152. Its authors validate every 200 steps, this every epoch. {MEMORY}",
)
row(
    "resnet110_stochdepth",
    (*CIFAR, "svhn"),
    STOCHASTIC_DEPTH,
    svhn={**HOUSE_NUMBERS, "model": "resnet152_stochdepth_svhn"},
)
row(
    "resnet1202_stochdepth",
    ("c10+",),
    {**STOCHASTIC_DEPTH, **recipe(epochs=300, warmup_epochs=10.0, warmup_rate=0.01)},
)
row(
    "resnet110_constdepth",
    (*CIFAR, "svhn"),
    {**STOCHASTIC_DEPTH, "model": "resnet110"},
    note="The constant depth that stochastic depth was compared with. There, shortcuts take means and convolutions have biases; not here.",
    svhn={**HOUSE_NUMBERS, "model": "resnet152"},
)

# -- Pre-activation: He, Zhang, Ren & Sun 2016, "Identity Mappings" ------------------------------------------------------

OURS = recipe(
    note="The DenseNet authors ran this column and do not say how; here, as with augmentation but without it."
)
row("preresnet164", CIFAR, RESNET, note=HELD_OUT, c10=OURS, c100=OURS)
row(
    "preresnet1001",
    CIFAR,
    # fb.resnet.torch, to which the published code belongs, counts epochs from 1 and drops at 81 and 122.
    recipe(epochs=200, batch_size=64, drop_at=(80, 121)),
    note="The published code in batches of 64, with which c10+ has 4.62; the paper's batches of 128 have 4.92.",
    c10=OURS,
    c100=OURS,
    c100_plus=recipe(note="It is not said which of the two 22.71 is from."),
)

# -- Wide ResNet: Zagoruyko & Komodakis 2016, and the authors' code ------------------------------------------------------

WIDE = recipe(batch_size=128, weight_decay=5e-4)
# The code drops at 60, 120 and 160 and on SVHN at 80 and 120, counted from 1.
CROPPED = recipe(epochs=200, drop_at=(59, 119, 159), drop_factor=0.2, normalise="zca", padding="reflect")
VERSION_1 = "The numbers in the table are of the paper's first version, on whitened images (ZCA)."
row("wrn16_8", ("c10+", "c100+"), {**WIDE, **CROPPED}, note=VERSION_1)
row(
    "wrn28_10",
    ("c10+", "c100+"),
    {**WIDE, **CROPPED},
    note=f"{VERSION_1} Later ones, 4.00 and 19.25, are with --normalise channel.",
)
# No validation images are named: all 604,388 are trained on, and the last epoch counts.
row(
    "wrn16_4",
    ("svhn",),
    {**WIDE, **recipe(epochs=160, learning_rate=0.01, drop_at=(79, 119), dropout=0.4, normalise="scale")},
)

# -- VGG with batch norm and dropout: Zagoruyko's cifar.torch ------------------------------------------------------------

row(
    "vgg16_bn_drop_cifar",
    ("c10+",),
    recipe(
        epochs=300,
        batch_size=128,
        learning_rate=1.0,
        drop_at=tuple(range(24, 300, 25)),  # each 25th, counted from 1
        drop_factor=0.5,
        nesterov=False,
        weight_decay=5e-4,
        crop_padding=0,  # mirrored, not moved
    ),
    note="The code works on YUV and lowers the rate by a further 1e-7 a step; neither is built.",
)
