"""What was published about the networks: counts that summarise() confirms, and errors with their sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CIFAR_COLUMNS = ("C10", "C10+", "C100", "C100+", "SVHN")  # + is with augmentation: shifted and mirrored images
IMAGENET_COLUMNS = ("top-1", "top-1 10-crop", "top-5", "top-5 10-crop")  # of one crop of an image unless it says ten
CLASSES = {"C10": 10, "C10+": 10, "C100": 100, "C100+": 100, "SVHN": 10}

TABLE_2 = "Huang et al. 2017, Table 2"
TABLE_3 = "Huang et al. 2017, Table 3"
README = "README of liuzhuang13/DenseNet"
RESNET = "He et al. 2015, Deep Residual Learning, Table 6"
UNITS = "He et al. 2016, Identity Mappings, Table 2"
HIGHWAY = "Srivastava et al. 2015, Training Very Deep Networks"
FB = "README of fb.resnet.torch"
CIFAR_TORCH = "README of szagoruyko/cifar.torch"


@dataclass(frozen=True)
class Published:
    """One network, or a variant of it.

    counts    {classes: (parameters, multiply-adds of one image)}, exactly
    options   what ``create`` has to be told besides the name
    millions  of parameters, as Table 2 of the DenseNet paper prints them
    errors    in per cent, by column
    source    of the errors
    note      where names, counts and errors do not quite go together
    """

    name: str
    counts: Mapping[int, tuple[int, int]]
    options: Mapping[str, Any] = field(default_factory=dict)
    millions: float | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    note: str = ""


# In the order of ``names()``.
PUBLISHED = (
    Published(
        "nin",
        {10: (966_986, 222_486_528), 100: (984_356, 223_592_448)},
        errors={"C10": 10.41, "C10+": 8.81, "C100": 35.68},
        source=TABLE_2,
    ),
    Published("nin_svhn", {10: (1_986_026, 274_235_392)}, errors={"SVHN": 2.35}, source=TABLE_2),
    Published(
        "allcnn_c",
        {10: (1_369_738, 270_798_336), 100: (1_387_108, 271_420_416)},
        errors={"C10": 9.08, "C10+": 7.25, "C100+": 33.71},
        source=TABLE_2,
        note="its paper says about 1.4M; Table 2 leaves the column blank",
    ),
    Published(
        "dsn",
        {10: (3_547_496, 225_067_008), 100: (26_789_456, 249_397_248)},
        errors={"C10": 9.69, "C10+": 7.97, "C100+": 34.57},
        source=TABLE_2,
        note="with its three companion classifiers, also called dsn_train; what is tested is nin. The authors report CIFAR-100 without "
        "augmentation",
    ),
    Published(
        "dsn_svhn",
        {10: (3_547_496, 225_067_008)},
        errors={"SVHN": 1.92},
        source=TABLE_2,
        note="its trunk is the one for CIFAR: the authors' file for SVHN could not be seen",
    ),
    Published(
        "highway_19",
        {10: (2_256_838, 330_826_728), 100: (2_265_928, 330_835_728)},
        errors={"C10+": 7.72, "C100+": 32.39},
        source=TABLE_2,
        note="its paper says 2.3M. 7.72 is of another head than this one, whose mean is 7.69",
    ),
    Published(
        "highway_32",
        {10: (1_239_932, 256_845_800)},
        errors={"C10+": 8.8},
        source=HIGHWAY,
        note="its paper gives the depth, the alternating kernels and about 1.25M; the widths 32, 64, 82 are ours",
    ),
    Published(
        "fractalnet_c3_b5",
        {10: (33_724_618, 845_222_912), 100: (33_770_788, 845_268_992)},
        millions=38.6,
        errors={"C10": 10.18, "C10+": 5.22, "C100": 35.34, "C100+": 23.3, "SVHN": 2.01},
        source=TABLE_2,
        note="the 38.6M of Table 2 is not what the released generator builds: 33.7M",
    ),
    Published(
        "fractalnet_c3_b5",
        {10: (33_714_314, 845_222_912), 100: (33_760_484, 845_268_992)},
        options={"released": True},
        note="the released generator's layout: biases in convolutions, batch norm without anything to learn",
    ),
    Published(
        "fractalnet_c3_b5_drop",
        {10: (33_724_618, 845_222_912), 100: (33_770_788, 845_268_992)},
        millions=38.6,
        errors={"C10": 7.33, "C10+": 4.6, "C100": 28.2, "C100+": 23.73, "SVHN": 1.87},
        source=TABLE_2,
        note="with dropout and drop-path; the counts are those without",
    ),
    Published(
        "fractalnet_c3_b5_38m",
        {10: (38_649_034, 1_129_518_080), 100: (38_695_204, 1_129_564_160)},
        note="a 1×1 convolution before each block whose width changes: our reading, the simplest layout with 38.6M",
    ),
    Published(
        "fractalnet_c3_b5_doubling",
        {10: (38_912_202, 1_130_566_656)},
        note="a 1×1 convolution before every block, as in khanrc's pt.fractalnet",
    ),
    Published("resnet20", {10: (269_722, 40_551_040)}, errors={"C10+": 8.75}, source=RESNET),
    Published("resnet56", {10: (853_018, 125_485_696)}, errors={"C10+": 6.97}, source=RESNET),
    Published(
        "resnet110",
        {10: (1_727_962, 252_887_680), 100: (1_733_812, 252_893_440)},
        millions=1.7,
        errors={"C10": 13.63, "C10+": 6.61, "C100": 44.74, "C100+": 27.22},
        source=TABLE_2,
        note="C10, C100 and C100+ are reported by Huang et al. 2016, who have 6.41 for C10+",
    ),
    Published(
        "resnet110",
        {10: (1_730_714, 253_149_824)},
        options={"shortcut": "projection"},
        note="1×1 convolutions with batch norm where the width changes, as in many ports",
    ),
    Published("resnet1202", {10: (19_421_274, 2_829_238_912)}, errors={"C10+": 7.93}, source=RESNET),
    Published(
        "resnet1202",
        {10: (19_424_026, 2_829_501_056)},
        options={"shortcut": "projection"},
        note="1×1 convolutions with batch norm where the width changes, as in many ports",
    ),
    Published("resnet110_unit_original", {10: (1_727_962, 252_887_680)}, errors={"C10+": 6.61}, source=UNITS),
    Published("resnet110_unit_bn_after_add", {10: (1_727_962, 252_887_680)}, errors={"C10+": 8.17}, source=UNITS),
    Published("resnet110_unit_relu_before_add", {10: (1_727_962, 252_887_680)}, errors={"C10+": 7.84}, source=UNITS),
    Published("resnet110_unit_relu_only_preact", {10: (1_727_962, 252_887_680)}, errors={"C10+": 6.71}, source=UNITS),
    Published("resnet110_unit_full_preact", {10: (1_727_962, 252_887_680)}, errors={"C10+": 6.37}, source=UNITS),
    Published("resnet164_unit_original", {10: (1_704_154, 244_500_992)}, errors={"C10+": 5.93}, source=UNITS),
    Published("resnet164_unit_bn_after_add", {10: (1_703_258, 244_500_992)}, errors={"C10+": 6.5}, source=UNITS),
    Published("resnet164_unit_relu_before_add", {10: (1_704_154, 244_500_992)}, errors={"C10+": 6.14}, source=UNITS),
    Published("resnet164_unit_relu_only_preact", {10: (1_704_154, 244_500_992)}, errors={"C10+": 5.91}, source=UNITS),
    Published("resnet164_unit_full_preact", {10: (1_703_258, 244_500_992)}, errors={"C10+": 5.46}, source=UNITS),
    Published("preresnet29", {10: (312_218, 43_960_832)}),
    Published(
        "preresnet164",
        {10: (1_703_258, 244_500_992), 100: (1_726_388, 244_524_032)},
        millions=1.7,
        errors={"C10": 11.26, "C10+": 5.46, "C100": 35.58, "C100+": 24.33},
        source=TABLE_2,
        note="C10 and C100 were run by the DenseNet authors",
    ),
    Published(
        "preresnet1001",
        {10: (10_327_706, 1_487_849_984), 100: (10_350_836, 1_487_873_024)},
        millions=10.2,
        errors={"C10": 10.56, "C10+": 4.62, "C100": 33.47, "C100+": 22.71},
        source=TABLE_2,
        note="C10 and C100 were run by the DenseNet authors. 10.2M leaves out batch norm; 4.62 is with batches of 64",
    ),
    Published(
        "resnet110_stochdepth",
        {10: (1_732_010, 252_887_680), 100: (1_737_860, 252_893_440)},
        millions=1.7,
        errors={"C10": 11.66, "C10+": 5.23, "C100": 37.8, "C100+": 24.58},
        source=TABLE_2,
        note="biases in convolutions, as in the authors' code. Their final paper says 5.25 and 24.98 with augmentation",
    ),
    Published(
        "resnet152_stochdepth_svhn",
        {10: (2_408_474, 351_978_112)},
        millions=1.7,
        errors={"SVHN": 1.75},
        source=TABLE_2,
        note="Table 2 has its errors in the rows of 110 layers; 2.01 at constant depth",
    ),
    Published(
        "resnet1202_stochdepth",
        {10: (19_466_090, 2_829_238_912)},
        millions=10.2,
        errors={"C10+": 4.91},
        source=TABLE_2,
        note="the 10.2M of Table 2 is really 19.4M, and 19.5M with the biases of the authors' code",
    ),
    Published(
        "wrn16_8",
        {10: (10_961_370, 1_548_145_664), 100: (11_007_540, 1_548_191_744)},
        millions=11.0,
        errors={"C10+": 4.81, "C100+": 22.07},
        source=TABLE_2,
    ),
    Published(
        "wrn28_10",
        {10: (36_479_194, 5_243_328_768), 100: (36_536_884, 5_243_386_368)},
        millions=36.5,
        errors={"C10+": 4.17, "C100+": 20.5},
        source=TABLE_2,
        note="with whitened data; the authors later report 4.00 and 19.25 with mean and deviation",
    ),
    Published(
        "wrn16_4",
        {10: (2_748_890, 392_612_352)},
        options={"dropout": 0.4},
        millions=2.7,
        errors={"SVHN": 1.64},
        source=TABLE_2,
        note="dropout 0.4",
    ),
    Published(
        "densenet_40_12",
        {10: (1_019_722, 264_812_928), 100: (1_060_132, 264_853_248)},
        millions=1.0,
        errors={"C10": 7.0, "C10+": 5.24, "C100": 27.55, "C100+": 24.42, "SVHN": 1.79},
        source=TABLE_2,
    ),
    Published(
        "densenet_40_12",
        {10: (1_059_298, 282_917_328), 100: (1_100_428, 282_958_368)},
        options={"stem_channels": 24},
        note="the authors' published code, whose stem has 2k channels; the table's parameters are those of 16",
    ),
    Published(
        "densenet_100_12",
        {10: (6_979_642, 1_769_516_448), 100: (7_084_852, 1_769_621_568)},
        millions=7.0,
        errors={"C10": 5.77, "C10+": 4.1, "C100": 23.79, "C100+": 20.2, "SVHN": 1.67},
        source=TABLE_2,
    ),
    Published(
        "densenet_100_12",
        {10: (7_083_538, 1_816_743_408), 100: (7_189_468, 1_816_849_248)},
        options={"stem_channels": 24},
        note="the authors' published code, whose stem has 2k channels; the table's parameters are those of 16",
    ),
    Published(
        "densenet_100_24",
        {10: (27_249_082, 6_889_347_744), 100: (27_457_972, 6_889_556_544)},
        millions=27.2,
        errors={"C10": 5.83, "C10+": 3.74, "C100": 23.42, "C100+": 19.25, "SVHN": 1.59},
        source=TABLE_2,
    ),
    Published(
        "densenet_100_24",
        {10: (28_071_706, 7_265_623_008), 100: (28_283_476, 7_265_834_688)},
        options={"stem_channels": 48},
        note="the authors' published code, whose stem has 2k channels; the table's parameters are those of 16",
    ),
    Published(
        "densenet_bc_100_12",
        {10: (769_162, 287_929_692), 100: (800_032, 287_960_472)},
        millions=0.8,
        errors={"C10": 5.92, "C10+": 4.51, "C100": 24.15, "C100+": 22.27, "SVHN": 1.76},
        source=TABLE_2,
    ),
    Published(
        "densenet_bc_250_24",
        {10: (15_324_406, 5_418_785_724), 100: (15_480_556, 5_418_941_784)},
        millions=15.3,
        errors={"C10": 5.19, "C10+": 3.62, "C100": 19.64, "C100+": 17.6, "SVHN": 1.74},
        source=TABLE_2,
    ),
    Published(
        "densenet_bc_190_40",
        {10: (25_624_430, 9_301_945_740), 100: (25_821_620, 9_302_142_840)},
        millions=25.6,
        errors={"C10+": 3.46, "C100+": 17.18},
        source=TABLE_2,
    ),
    Published("wide_densenet_bc_40_36", {10: (1_542_682, 647_298_936)}, errors={"C10+": 4.58}, source=README),
    Published("wide_densenet_bc_40_48", {10: (2_733_130, 1_149_867_168)}, errors={"C10+": 3.99}, source=README),
    Published("wide_densenet_bc_40_60", {10: (4_261_690, 1_795_836_360)}, errors={"C10+": 4.01}, source=README),
    Published("densenet_c_40_12", {10: (599_050, 205_906_452)}, note="compression without bottleneck; not in Table 2"),
    Published(
        "densenet_c_100_12", {10: (4_068_490, 1_324_548_732)}, note="compression without bottleneck; not in Table 2"
    ),
    Published(
        "densenet_c_100_24", {10: (16_114_138, 5_296_854_264)}, note="compression without bottleneck; not in Table 2"
    ),
    Published("densenet_bc_40_24", {10: (690_346, 288_131_664)}),
    Published("densenet_bc_40_12", {10: (176_122, 72_365_352)}),
    Published("densenet_bc_22_12", {10: (71_686, 31_238_322)}),
    Published("densenet_22_12", {10: (270_706, 72_906_000)}),
    Published("densenet_13_8", {10: (39_370, 12_088_176)}),
    Published(
        "densenet121",
        {1000: (7_978_856, 2_834_161_664)},
        errors={"top-1": 25.02, "top-1 10-crop": 23.61, "top-5": 7.71, "top-5 10-crop": 6.66},
        source=TABLE_3,
    ),
    Published(
        "densenet169",
        {1000: (14_149_480, 3_359_843_328)},
        errors={"top-1": 23.8, "top-1 10-crop": 22.08, "top-5": 6.85, "top-5 10-crop": 5.92},
        source=TABLE_3,
    ),
    Published(
        "densenet201",
        {1000: (20_013_928, 4_291_365_888)},
        errors={"top-1": 22.58, "top-1 10-crop": 21.46, "top-5": 6.34, "top-5 10-crop": 5.54},
        source=TABLE_3,
    ),
    Published(
        "densenet264",
        {1000: (33_337_704, 5_751_653_376)},
        errors={"top-1": 22.15, "top-1 10-crop": 20.8, "top-5": 6.12, "top-5 10-crop": 5.29},
        source=TABLE_3,
        note="265 layers by the count that gives the others their names",
    ),
    Published(
        "densenet161",
        {1000: (28_681_000, 7_727_907_072)},
        errors={"top-1": 22.2},
        source=README,
        note="of the paper's first versions and the authors' README",
    ),
    Published(
        "densenet264_k48",
        {1000: (72_686_632, 12_850_693_632)},
        errors={"top-1": 20.4},
        source=README,
        note="of the technical report by Pleiss et al. 2017, whose abstract says 20.26; with a cosine schedule",
    ),
    Published(
        "resnet18_imagenet",
        {1000: (11_689_512, 1_814_073_344)},
        errors={"top-1": 30.43, "top-1 10-crop": 28.22, "top-5": 10.76, "top-5 10-crop": 9.42},
        source=FB,
    ),
    Published(
        "resnet34_imagenet",
        {1000: (21_797_672, 3_663_761_408)},
        errors={"top-1": 26.73, "top-1 10-crop": 24.76, "top-5": 8.74, "top-5 10-crop": 7.35},
        source=FB,
    ),
    Published(
        "resnet50_imagenet",
        {1000: (25_557_032, 4_089_184_256)},
        errors={"top-1": 24.01, "top-1 10-crop": 22.24, "top-5": 7.02, "top-5 10-crop": 6.08},
        source=FB,
    ),
    Published(
        "resnet101_imagenet",
        {1000: (44_549_160, 7_801_405_440)},
        errors={"top-1": 22.44, "top-1 10-crop": 21.08, "top-5": 6.21, "top-5 10-crop": 5.35},
        source=FB,
    ),
    Published(
        "resnet152_imagenet",
        {1000: (60_192_808, 11_513_626_624)},
        errors={"top-1": 22.16, "top-1 10-crop": 20.69, "top-5": 6.16, "top-5 10-crop": 5.21},
        source=FB,
    ),
    Published("vgg16_bn_cifar", {10: (14_728_266, 313_201_664)}),
    Published(
        "vgg16_bn_drop_cifar",
        {10: (14_991_946, 313_463_808)},
        errors={"C10": 8.7, "C10+": 7.55},
        source=CIFAR_TORCH,
        note="C10+ with flips only",
    ),
    Published("vgg19_bn_gap_cifar", {10: (20_035_018, 398_136_320)}),
    Published("vgg16_imagenet", {1000: (138_357_544, 15_470_264_320)}),
    Published("vgg16_bn_imagenet", {1000: (138_365_992, 15_470_264_320)}),
)


@dataclass(frozen=True)
class TableRow:
    """A row of Table 2.

    method    as the paper prints it
    depth     layers, where the paper says
    millions  of parameters, as printed
    errors    in per cent, by column
    models    our network for each column that has an error: (name, options of ``create``)
    starred   columns that the DenseNet authors ran themselves, where the method is another's
    """

    method: str
    depth: int | None
    millions: float | None
    errors: Mapping[str, float]
    models: Mapping[str, tuple[str, Mapping[str, Any]]]
    starred: tuple[str, ...] = ()


def row(method, depth, millions, errors, name, *, starred=(), without_augmentation=None, **elsewhere) -> TableRow:
    """A row from its columns in one line, "-" for none.

    without_augmentation  options of C10, C100 and SVHN
    elsewhere             (name, options) of a column that has a network of its own
    """
    found = {column: float(e) for column, e in zip(CIFAR_COLUMNS, errors.split(), strict=True) if e != "-"}
    models = {
        column: elsewhere.get(column, (name, {} if column.endswith("+") else without_augmentation or {}))
        for column in found
    }
    return TableRow(method, depth, millions, found, models, starred)


DROPOUT = {"dropout": 0.2}  # the DenseNets' without augmentation

TABLE2 = (
    row("Network in Network", None, None, "10.41 8.81 35.68 - 2.35", "nin", SVHN=("nin_svhn", {})),
    row("All-CNN", None, None, "9.08 7.25 - 33.71 -", "allcnn_c"),
    row("Deeply Supervised Net", None, None, "9.69 7.97 - 34.57 1.92", "dsn", SVHN=("dsn_svhn", {})),
    row("Highway Network", None, None, "- 7.72 - 32.39 -", "highway_19"),
    row("FractalNet", 21, 38.6, "10.18 5.22 35.34 23.30 2.01", "fractalnet_c3_b5"),
    row("with Dropout/Drop-path", 21, 38.6, "7.33 4.60 28.20 23.73 1.87", "fractalnet_c3_b5_drop"),
    row("ResNet", 110, 1.7, "- 6.61 - - -", "resnet110"),
    row(
        "ResNet (reported by Huang et al. 2016)", 110, 1.7, "13.63 6.41 44.74 27.22 2.01", "resnet110",
        SVHN=("resnet152_stochdepth_svhn", {"survival": 1.0}),
    ),
    row(
        "ResNet with Stochastic Depth", 110, 1.7, "11.66 5.23 37.80 24.58 1.75", "resnet110_stochdepth",
        SVHN=("resnet152_stochdepth_svhn", {}),
    ),
    row("ResNet with Stochastic Depth", 1202, 10.2, "- 4.91 - - -", "resnet1202_stochdepth"),
    row("Wide ResNet", 16, 11.0, "- 4.81 - 22.07 -", "wrn16_8"),
    row("Wide ResNet", 28, 36.5, "- 4.17 - 20.50 -", "wrn28_10"),
    row("with Dropout", 16, 2.7, "- - - - 1.64", "wrn16_4", without_augmentation={"dropout": 0.4}),
    row("ResNet (pre-activation)", 164, 1.7, "11.26 5.46 35.58 24.33 -", "preresnet164", starred=("C10", "C100")),
    row("ResNet (pre-activation)", 1001, 10.2, "10.56 4.62 33.47 22.71 -", "preresnet1001", starred=("C10", "C100")),
    row("DenseNet (k = 12)", 40, 1.0, "7.00 5.24 27.55 24.42 1.79", "densenet_40_12", without_augmentation=DROPOUT),
    row("DenseNet (k = 12)", 100, 7.0, "5.77 4.10 23.79 20.20 1.67", "densenet_100_12", without_augmentation=DROPOUT),
    row("DenseNet (k = 24)", 100, 27.2, "5.83 3.74 23.42 19.25 1.59", "densenet_100_24", without_augmentation=DROPOUT),
    row("DenseNet-BC (k = 12)", 100, 0.8, "5.92 4.51 24.15 22.27 1.76", "densenet_bc_100_12", without_augmentation=DROPOUT),
    row("DenseNet-BC (k = 24)", 250, 15.3, "5.19 3.62 19.64 17.60 1.74", "densenet_bc_250_24", without_augmentation=DROPOUT),
    row("DenseNet-BC (k = 40)", 190, 25.6, "- 3.46 - 17.18 -", "densenet_bc_190_40"),
)  # fmt: skip


def published(name: str) -> Published | None:
    """What was published about the network that a name builds; variants by options come behind it in PUBLISHED."""
    return next((known for known in PUBLISHED if known.name == name), None)
