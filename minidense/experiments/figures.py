"""What the DenseNet paper prints, drawn again from exact counts: figures 3 and 4, and Table 2 with what is wrong in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import models
from ..models.published import CIFAR_COLUMNS, PUBLISHED, TABLE2, Published, TableRow
from ..plots import BLUE, GREEN, GREY, ORANGE, PINK, SKY, Picture, several
from .experiment import Experiment, Numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Figure 3: the networks of the paper's Table 3, and the ResNets that it compares with; name -> label.
ON_IMAGENET = {
    "DenseNet-BC": {f"densenet{depth}": f"DenseNet-{depth}" for depth in (121, 169, 201, 264)},
    "ResNet": {f"resnet{depth}_imagenet": f"ResNet-{depth}" for depth in (34, 50, 101, 152)},
}

# Figure 4: everything with a printed error on C10+; name -> label.
ON_CIFAR = {
    "DenseNet": {"densenet_40_12": "40, 12", "densenet_100_12": "100, 12", "densenet_100_24": "100, 24"},
    "DenseNet-BC": {
        "densenet_bc_100_12": "100, 12",
        "densenet_bc_250_24": "250, 24",
        "densenet_bc_190_40": "190, 40",
    },
    "ResNet": {f"resnet{depth}": str(depth) for depth in (20, 56, 110, 1202)},
    "pre-activation ResNet": {
        "resnet110_unit_full_preact": "110",
        "preresnet164": "164",
        "preresnet1001": "1001",
    },
    "stochastic depth": {"resnet110_stochdepth": "110", "resnet1202_stochdepth": "1202"},
    "Wide ResNet": {"wrn16_8": "16-8", "wrn28_10": "28-10"},
    "FractalNet": {"fractalnet_c3_b5": "plain", "fractalnet_c3_b5_drop": "drop-path"},
    "earlier networks": {"nin": "NIN", "allcnn_c": "All-CNN", "dsn": "DSN", "highway_19": "Highway"},
}
TESTED_AS = {"dsn": "nin"}  # its companions leave after training

# The sizes of figure 4's curves, whose errors were never printed.
DEPTHS = (22, 28, 34, 40, 52, 64)
VARIANTS: dict[str, dict[str, Any]] = {
    "DenseNet": {"bottleneck": False, "compression": 1.0, "stem_channels": 16},
    "DenseNet-C": {"bottleneck": False, "compression": 0.5, "stem_channels": 16},
    "DenseNet-B": {"bottleneck": True, "compression": 1.0, "stem_channels": 24},
    "DenseNet-BC": {"bottleneck": True, "compression": 0.5, "stem_channels": 24},
}
RESNETS = {False: (20, 32, 44, 56, 110), True: (29, 47, 65, 83, 164)}  # by whether units are bottlenecks

# What is to be known of Table 2, and which of its rows it is about: the network's name there.
NOTES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("nin", "dsn"),
        "35.68 stands under C100 and 34.57 under C100+; He et al. (2016, Table 4) and the Highway paper list both in one column.",
    ),
    (
        ("dsn",),
        "Counted with its three companion classifiers, which leave after training; what is tested is the Network in Network. "
        "He et al. quote an older 8.22 for C10+.",
    ),
    (
        ("highway_19",),
        "7.72 and 32.39 are means of two different networks, one with a fully connected head and one with a convolutional one, "
        "which is the one counted; the best runs had 7.54 and 32.24.",
    ),
    (
        ("fractalnet_c3_b5", "fractalnet_c3_b5_drop"),
        "The authors' released generator builds 33.7 M parameters. 38.6 M would need a 1×1 convolution before each block whose "
        "width changes (38,649,034): our reading, which no source states.",
    ),
    (
        ("resnet110", "resnet110_stochdepth"),
        "SVHN's 2.01 and 1.75 come from 152 layers with 2.4 M parameters (2,408,474), not from 110 with 1.7 M. The final paper on "
        "stochastic depth has 1.80 instead of 2.01, and 5.25 and 24.98 for C10+ and C100+.",
    ),
    (
        ("resnet1202_stochdepth",),
        "10.2 M belongs to the pre-activation ResNet of 1001 layers. This network has 19.4 M (19,421,274 without the biases of the "
        "authors' code).",
    ),
    (
        ("wrn28_10",),
        "4.17 and 20.50 are of the first version, with whitened images. With mean and deviation, as the DenseNets have it, the "
        "authors report 4.00 and 19.25: less than DenseNet (L = 100, k = 12) has on C10+ and C100+.",
    ),
    (
        ("preresnet1001",),
        "10.2 M leaves out the parameters of batch norm, which the DenseNets' counts include. 4.62 is with batches of 64; "
        "with 128 it was 4.92.",
    ),
    (
        ("densenet_40_12", "densenet_100_12", "densenet_100_24"),
        "With 16 channels from the first convolution, as the paper says. The released code has 2k, and 1,059,298, 7,083,538 and "
        "28,071,706 parameters.",
    ),
)


def published(name: str) -> Published:
    """What is published about the network that Table 2 means by a name."""
    return next(each for each in PUBLISHED if each.name == name)


def paper_figures() -> Numbers:
    """Errors as printed, counts as built: the points of figures 3 and 4, the sizes of figure 4's curves, and Table 2."""
    return {
        "figure3": [point(*each, "top-1", 1000) for each in flat(ON_IMAGENET)],
        "figure4": [point(*each, "C10+", 10) for each in flat(ON_CIFAR)],
        "sizes": [*densenet_sizes(), *resnet_sizes()],
        "table2": [table_row(each) for each in TABLE2],
        "notes": [text for _, text in NOTES],
    }


def flat(families: dict[str, dict[str, str]]) -> list[tuple[str, str, str]]:
    """(family, name, label) of everything in a figure."""
    return [(family, name, label) for family, members in families.items() for name, label in members.items()]


def point(family: str, name: str, label: str, column: str, classes: int) -> Numbers:
    """A network in a figure: its error, parameters and FLOPs, two for each multiply-add."""
    parameters, multiply_adds = published(TESTED_AS.get(name, name)).counts[classes]
    return {
        "family": family,
        "name": name,
        "label": label,
        "error": published(name).errors[column],
        "source": published(name).source,
        "parameters": parameters,
        "flops": 2 * multiply_adds,
    }


def densenet_sizes() -> list[Numbers]:
    """Parameters of DenseNets with k = 12 for ten classes, by variant and depth."""
    return [
        {"family": family, "depth": depth, "parameters": models.densenet(depth=depth, **how).parameter_count()}
        for family, how in VARIANTS.items()
        for depth in DEPTHS
    ]


def resnet_sizes() -> list[Numbers]:
    """The same of pre-activation ResNets, with two 3×3 convolutions in a unit and with bottlenecks."""
    return [
        {
            "family": f"pre-activation ResNet, {'bottlenecks' if bottleneck else 'basic'}",
            "depth": depth,
            "parameters": models.resnet(depth=depth, unit="full_preact", bottleneck=bottleneck).parameter_count(),
        }
        for bottleneck, depths in RESNETS.items()
        for depth in depths
    ]


def table_row(each: TableRow) -> Numbers:
    """A row of Table 2 with exact counts for 10 and 100 classes, and the numbers of the notes it needs."""
    names = {name for name, _ in each.models.values()}
    name = next(name for column, (name, _) in each.models.items() if column != "SVHN" or len(each.models) == 1)
    counts = published(name).counts
    errors_of_svhn = "resnet152_stochdepth_svhn" in names
    return {
        "method": each.method,
        "depth": each.depth,
        "millions": each.millions,
        "name": name,
        "parameters": {str(classes): count for classes, (count, _) in counts.items()},
        "multiply_adds": {str(classes): work for classes, (_, work) in counts.items()},
        "errors": dict(each.errors),
        "starred": list(each.starred),
        "notes": [
            number
            for number, (about, _) in enumerate(NOTES, start=1)
            if name in about and (name != "resnet110" or errors_of_svhn)
        ],
    }


# -- what is made of it -----------------------------------------------------------------------------------------------


def table(numbers: Numbers) -> str:
    """Table 2 and the points of figure 3, in Markdown."""
    lines = [
        "## Table 2: error in percent, parameters as printed and as built",
        "",
        f"| method | depth | printed | parameters, 10 classes | 100 classes | multiply-adds | {' | '.join(CIFAR_COLUMNS)} | notes |",
        f"|---|--:|--:|--:|--:|--:|{len(CIFAR_COLUMNS) * '--:|'}---|",
    ]
    for each in numbers["table2"]:
        printed = "" if each["millions"] is None else f"{each['millions']:.1f} M"
        counts = [f"{count:,}" if (count := each["parameters"].get(n)) else "" for n in ("10", "100")]
        errors = [
            ""
            if (error := each["errors"].get(column)) is None
            else f"{error:.2f}{'*' if column in each['starred'] else ''}"
            for column in CIFAR_COLUMNS
        ]
        notes = ", ".join(map(str, each["notes"]))
        work = f"{each['multiply_adds']['10'] / 1e6:,.0f} M"
        cells = [each["method"], str(each["depth"] or ""), printed, *counts, work, *errors, notes]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Errors and millions as the paper prints them; + is with shifted and mirrored images, * was run by the DenseNet authors. "
        "Multiply-adds of convolutions and linear layers for one image of 32×32, 10 classes. Notes:",
        "",
        *(f"{number}. {text}" for number, text in enumerate(numbers["notes"], start=1)),
        "",
        "## Figure 3: ImageNet, one crop of 224×224",
        "",
        "| network | top-1 error, % | parameters | GFLOPs | errors from |",
        "|---|--:|--:|--:|---|",
    ]
    lines += [
        f"| {each['label']} | {each['error']:.2f} | {each['parameters']:,} | {each['flops'] / 1e9:.2f} | {each['source']} |"
        for each in numbers["figure3"]
    ]
    return "\n".join(lines) + "\n"


STYLE = {
    "DenseNet": (ORANGE, "s"),
    "DenseNet-C": (PINK, "^"),
    "DenseNet-B": (GREEN, "v"),
    "DenseNet-BC": (ORANGE, "o"),
    "ResNet": (BLUE, "o"),
    "pre-activation ResNet": (SKY, "D"),
    "pre-activation ResNet, basic": (BLUE, "x"),
    "pre-activation ResNet, bottlenecks": (SKY, "D"),
    "stochastic depth": (GREEN, "^"),
    "Wide ResNet": (PINK, "v"),
    "FractalNet": (GREY, "P"),
    "earlier networks": ("black", "x"),
}

# Where a label stands, in points from its network, when right above would be in the way of another.
RIGHT, LEFT, BELOW_LEFT = (6, 4), (-6, 4), (-5, -11)
PLACES = {
    "densenet_40_12": BELOW_LEFT,
    "densenet_bc_100_12": BELOW_LEFT,
    "densenet_bc_250_24": BELOW_LEFT,
    "resnet110": (1, 9),
    "resnet110_unit_full_preact": BELOW_LEFT,
    "preresnet164": LEFT,
    "preresnet1001": BELOW_LEFT,
    "fractalnet_c3_b5_drop": LEFT,
    **dict.fromkeys(ON_IMAGENET["DenseNet-BC"], BELOW_LEFT),
}
JOINED = ("DenseNet", "DenseNet-BC", "ResNet")  # families of one kind of network, which a line may go through


def name_points(axes: Axes, points: Sequence[Numbers], x: Sequence[float]) -> None:
    """Write each network's label beside it."""
    for each, place in zip(points, x, strict=True):
        offset = PLACES.get(each["name"], RIGHT)
        axes.annotate(
            each["label"],
            (place, each["error"]),
            offset,
            textcoords="offset points",
            fontsize="small",
            ha="left" if offset[0] > 0 else "right",
        )


def picture(numbers: Numbers) -> Picture:
    """Above, figure 3; below, the printed results of figure 4 and the sizes of its curves."""
    figure, ((by_parameters, by_flops), (printed, sizes)) = several(2, 2, width=14, height=12)
    draw_figure3(by_parameters, numbers["figure3"], "parameters", 1e6)
    by_parameters.set(xlabel="parameters, millions", title="Figure 3, left: ImageNet")
    draw_figure3(by_flops, numbers["figure3"], "flops", 1e9)
    by_flops.set(xlabel="GFLOPs of one image", title="Figure 3, right: ImageNet")
    draw_figure4(printed, numbers["figure4"])
    draw_sizes(sizes, numbers["sizes"])
    for axes in (by_parameters, by_flops, printed, sizes):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return Picture(figure, in_words(numbers))


def in_words(numbers: Numbers) -> str:
    """What the picture shows: the best network of either family on ImageNet and on CIFAR-10, and how small it is."""
    said = []
    for key, families in (
        ("figure3", ("DenseNet-BC", "ResNet")),
        ("figure4", ("DenseNet-BC", "pre-activation ResNet")),
    ):
        for family in families:
            best = min((each for each in numbers[key] if each["family"] == family), key=lambda each: each["error"])
            said.append(f"{family} {best['error']:.2f} % with {best['parameters'] / 1e6:.1f} M")
    return (
        "The paper's figures 3 and 4 from printed errors and exact counts: error by parameters and FLOPs on ImageNet, by parameters "
        f"on CIFAR-10, and parameters by depth. The lowest errors on ImageNet: {said[0]} parameters, {said[1]}; "
        f"on CIFAR-10: {said[2]}, {said[3]}."
    )


def draw_figure3(axes: Axes, points: Sequence[Numbers], key: str, unit: float) -> None:
    """A line for each family, its networks named."""
    for family in dict.fromkeys(each["family"] for each in points):
        colour, marker = STYLE[family]
        members = [each for each in points if each["family"] == family]
        x = [each[key] / unit for each in members]
        axes.plot(x, [each["error"] for each in members], marker=marker, color=colour, label=family)
        name_points(axes, members, x)
    axes.set_ylabel("top-1 error, %, one crop")
    axes.margins(x=0.28, y=0.1)
    axes.legend(frameon=False)


def draw_figure4(axes: Axes, points: Sequence[Numbers]) -> None:
    """Every printed error on C10+."""
    for family in dict.fromkeys(each["family"] for each in points):
        colour, marker = STYLE[family]
        members = [each for each in points if each["family"] == family]
        x = [each["parameters"] for each in members]
        axes.plot(
            x,
            [each["error"] for each in members],
            marker=marker,
            color=colour,
            label=family,
            linewidth=1,
            linestyle="-" if family in JOINED else "none",
        )
        name_points(axes, members, x)
    axes.set_xscale("log")
    axes.margins(x=0.1)
    axes.set(
        xlabel="parameters",
        ylabel="error on CIFAR-10 with augmentation, %",
        title="Figure 4, as far as its numbers were printed (depth; depth, k; depth-width)",
    )
    axes.legend(frameon=False, fontsize="small", ncols=2)


def draw_sizes(axes: Axes, sizes: Sequence[Numbers]) -> None:
    """Parameters by depth, a line for each variant."""
    for family in dict.fromkeys(each["family"] for each in sizes):
        colour, marker = STYLE[family]
        members = [each for each in sizes if each["family"] == family]
        axes.plot(
            [each["depth"] for each in members],
            [each["parameters"] for each in members],
            marker=marker,
            color=colour,
            linestyle="--" if "ResNet" in family else "-",
            label=family if "ResNet" in family else f"{family}, k = 12",
        )
    axes.set_yscale("log")
    axes.set(xlabel="depth L", ylabel="parameters", title="Sizes for figure 4's curves, ten classes")
    axes.legend(frameon=False, fontsize="small")


READING = """How to read this: errors are the papers', counts are ours and exact; nothing was trained. FLOPs are twice the multiply-adds
of convolutions and linear layers. Figure 3 has the DenseNets of Table 3 and the ResNets of fb.resnet.torch; further left or further
down is better. Of figure 4 the paper prints only a few points. The others, of its curves for DenseNet, -B, -C and -BC and for
pre-activation ResNets of one recipe, were never printed as numbers and are not drawn, and neither are the training curves of its
right panel; where it says that DenseNet-BC needs a third of the parameters, only the end points can be seen here (DenseNet-BC with
0.77 M beside a pre-activation ResNet of 10.3 M). The last panel has the exact sizes that a sweep
for such curves would train; first convolutions have 16 channels there, with bottlenecks 2k."""

PAPER_FIGURES = Experiment(
    name="paper-figures",
    about="the DenseNet paper's figures 3 and 4 and its Table 2, from printed errors and exact counts",
    measure=lambda given, notebook: paper_figures(),
    table=table,
    picture=picture,
    reading=READING,
)
