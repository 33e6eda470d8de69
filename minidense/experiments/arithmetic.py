"""Growth rate, bottleneck and compression: what a DenseNet's channels and parameters come to, counted from built networks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .. import models
from ..models.densenet import BottleneckLayer, DenseBlock, DenseLayer, DenseNet, Transition
from ..nn import Conv2d, Linear, Module, init
from ..plots import BLACK, Picture, curves, several
from ..summary import summarise
from .experiment import Experiment, Numbers
from .figures import VARIANTS

GROWTH_RATES = (4, 8, 12, 16, 24, 32, 40)
CIFAR = (3, 32, 32)


def layers_of(model: DenseNet) -> Iterator[tuple[str, Module]]:
    """What a DenseNet consists of, in order and by name: stem, every dense layer, transitions, last norm, classifier."""
    for name, module in model.features.named_children():
        if isinstance(module, DenseBlock):
            for layer, member in module.named_children():
                yield f"{name}.{layer}", member
        else:
            yield name, module
    yield "classifier", model.classifier


def channels_in(module: Module) -> int:
    """Channels, or features, that the first weight in a module reads."""
    first = module.parameters()[0]
    return first.shape[1] if isinstance(module, Conv2d | Linear) else len(first)


def weights_of(module: Module) -> int:
    """Weights of the convolutions in a module, without batch norm: 9ck in a dense layer, 4ck + 36k² with a bottleneck."""
    return sum(each.weight.size for each in module.modules() if isinstance(each, Conv2d))


def layer_by_layer(model: DenseNet) -> list[Numbers]:
    """Every layer of a DenseNet: name, channels it reads, channels it leaves for the next, its weights, all its parameters."""
    rows = []
    for name, module in layers_of(model):
        channels = channels_in(module)
        out = channels
        if isinstance(module, DenseLayer | BottleneckLayer):
            out = channels + module.parameters()[-1].shape[0]  # its k feature maps beside what it read
        elif isinstance(module, Transition):
            out = module.conv.weight.shape[0]
        elif isinstance(module, Conv2d | Linear):
            out = module.weight.shape[0]
        rows.append(
            {
                "layer": name,
                "channels": channels,
                "channels_after": out,
                "weights": weights_of(module),
                "parameters": module.parameter_count(),
            }
        )
    return rows


def break_even(growth_rate: int) -> Numbers:
    """From how many channels c on a bottleneck makes a dense layer smaller: 9ck against 4ck + 4k·9k, so c > 36k²/5k = 7.2k.

    Counted by building both layers for c = 1, 2, 3, … until the bottleneck has been the smaller one for 4k channels more.

    returns  growth_rate
             by_formula            7.2k
             by_weights            the first whole c at which the bottleneck has fewer weights
             by_parameters         the same with the γ and β of batch norm, 2c against 2c + 8k
             channels, plain, bottleneck    every c, and the weights of both layers
    """
    channels = range(1, math.ceil(11.2 * growth_rate) + 3)
    with init.undrawn():
        plain = [DenseLayer(c, growth_rate, 0.0) for c in channels]
        narrow = [BottleneckLayer(c, growth_rate, 0.0) for c in channels]
    weights = [(weights_of(a), weights_of(b)) for a, b in zip(plain, narrow, strict=True)]
    parameters = [(a.parameter_count(), b.parameter_count()) for a, b in zip(plain, narrow, strict=True)]
    return {
        "growth_rate": growth_rate,
        "by_formula": 7.2 * growth_rate,
        "by_weights": first_smaller(channels, weights),
        "by_parameters": first_smaller(channels, parameters),
        "channels": list(channels),
        "plain": [a for a, _ in weights],
        "bottleneck": [b for _, b in weights],
    }


def first_smaller(channels: Sequence[int], counts: Sequence[tuple[int, int]]) -> int:
    """The first c from which on the second count is always the smaller one."""
    return max((c for c, (a, b) in zip(channels, counts, strict=True) if b >= a), default=channels[0] - 1) + 1


def vgg_channels() -> list[Numbers]:
    """What each of the 13 convolutions of VGG-16 reads and makes, and its weights, as ``layer_by_layer``."""
    with init.undrawn():
        model = models.vgg_cifar()
    rows = []
    for name, module in model.named_children():
        if isinstance(module, Conv2d):
            out, channels = module.weight.shape[:2]
            rows.append({"layer": name, "channels": channels, "channels_after": out, "weights": module.weight.size})
    return rows


def dense_arithmetic(
    *, depth: int = 100, growth_rate: int = 12, growth_rates: Sequence[int] = GROWTH_RATES, classes: int = 10
) -> Numbers:
    """Count DenseNet, -C, -B and -BC of one depth, layer by layer and by growth rate; nothing is trained or drawn.

    depth  L = 6n + 4, so that all four exist

    returns  depth, growth_rate, classes
             networks    of each variant: family, bottleneck, compression, stem_channels, parameters, multiply_adds of a 32×32 image,
                         last_channels (that the classifier reads), dense_layers (how many there are), bottlenecks_that_pay (in how many
                         of them; None without bottlenecks), layers (see ``layer_by_layer``)
             bottleneck  see ``break_even``
             growth      {"growth_rates": [...], family: [parameters, ...]}; first convolutions have 16 channels, with bottlenecks 2k
             vgg         layers of VGG-16, whose channels double where DenseNet's grow by k
    """
    networks, pays = [], break_even(growth_rate)
    growth: Numbers = {"growth_rates": list(growth_rates)}
    with init.undrawn():
        for family, how in VARIANTS.items():
            model = variant(family, depth=depth, growth_rate=growth_rate, classes=classes)
            layers = layer_by_layer(model)
            dense = [each["channels"] for each in layers if "denselayer" in each["layer"]]
            networks.append(
                {
                    "family": family,
                    **how,
                    "stem_channels": layers[0]["channels_after"],
                    "parameters": model.parameter_count(),
                    "multiply_adds": summarise(model, CIFAR, kept=False).multiply_adds,
                    "last_channels": layers[-1]["channels"],
                    "dense_layers": len(dense),
                    "bottlenecks_that_pay": sum(c >= pays["by_weights"] for c in dense) if how["bottleneck"] else None,
                    "layers": layers,
                }
            )
            growth[family] = [
                variant(family, depth=depth, growth_rate=k, classes=classes).parameter_count() for k in growth_rates
            ]
    return {
        "depth": depth,
        "growth_rate": growth_rate,
        "classes": classes,
        "networks": networks,
        "bottleneck": pays,
        "growth": growth,
        "vgg": vgg_channels(),
    }


def variant(family: str, *, depth: int, growth_rate: int, classes: int = 10) -> DenseNet:
    """A DenseNet, DenseNet-C, -B or -BC as in figure 4: 16 channels from the first convolution, with bottlenecks 2k."""
    how = dict(VARIANTS[family])
    how["stem_channels"] = 2 * growth_rate if how["bottleneck"] else 16
    return models.densenet(depth=depth, growth_rate=growth_rate, classes=classes, **how)


def table(numbers: Numbers) -> str:
    """The four variants, the break-even, the layers of the first and the last, and growth rates."""
    k, pays = numbers["growth_rate"], numbers["bottleneck"]
    lines = [
        f"## Four DenseNets with L = {numbers['depth']} and k = {k}, {numbers['classes']} classes",
        "",
        "| network | bottleneck | θ | first convolution | classifier reads | parameters | multiply-adds, 32×32 | bottlenecks that pay |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for each in numbers["networks"]:
        paid = each["bottlenecks_that_pay"]
        paying = "" if paid is None else f"{paid} of {each['dense_layers']}"
        lines.append(
            f"| {each['family']} | {'yes' if each['bottleneck'] else 'no'} | {each['compression']:g} | {each['stem_channels']} | "
            f"{each['last_channels']:,} | {each['parameters']:,} | {each['multiply_adds'] / 1e6:,.1f} M | "
            f"{paying} |"
        )
    lines += [
        "",
        f"A layer that reads c channels has 9ck weights, with a bottleneck 4ck + 36k²: fewer if c > 7.2k = {pays['by_formula']:g}. "
        f"Counted: from c = {pays['by_weights']} on; with the γ and β of batch norm from {pays['by_parameters']} on.",
        "",
        "## Parameters by growth rate",
        "",
        f"| k | {' | '.join(each['family'] for each in numbers['networks'])} |",
        f"|--:|{len(numbers['networks']) * '--:|'}",
    ]
    growth = numbers["growth"]
    for i, rate in enumerate(growth["growth_rates"]):
        counts = [f"{growth[each['family']][i]:,}" for each in numbers["networks"]]
        lines.append(f"| {rate} | {' | '.join(counts)} |")
    lines += [
        "",
        "## Layer by layer: channels read (parameters)",
        "",
        f"| layer | {' | '.join(each['family'] for each in numbers['networks'])} |",
        f"|---|{len(numbers['networks']) * '--:|'}",
    ]
    by_name = [{row["layer"]: row for row in each["layers"]} for each in numbers["networks"]]
    for name in by_name[0]:  # the networks without bottlenecks have twice the layers, and so all the names
        cells = [
            f"{rows[name]['channels']:,} ({rows[name]['parameters']:,})" if name in rows else "" for rows in by_name
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture(numbers: Numbers) -> Picture:
    """Channels by layer, weights of a layer with and without bottleneck, parameters by growth rate."""
    k, pays, growth = numbers["growth_rate"], numbers["bottleneck"], numbers["growth"]
    figure, ((channels, bottleneck, parameters),) = several(3, width=12, height=4)
    shown = [each for each in numbers["networks"] if each["family"] in ("DenseNet", "DenseNet-BC")]
    read = {each["family"]: [row["channels"] for row in each["layers"] if row["layer"] != "norm5"] for each in shown}
    read["VGG-16"] = [row["channels"] for row in numbers["vgg"]]
    curves(
        {name: list(range(1, len(values) + 1)) for name, values in read.items()},
        read,
        alt="",
        axes=channels,
        xlabel="layer (bottleneck and 3×3 are one)",
        ylabel="channels it reads",
        title="k more a layer, or twice as many",
    )
    curves(
        pays["channels"],
        {"9ck": pays["plain"], "with bottleneck: 4ck + 36k²": pays["bottleneck"]},
        alt="",
        axes=bottleneck,
        xlabel="c, channels read",
        ylabel="weights of the layer",
        title=f"a bottleneck pays if c > 7.2k = {pays['by_formula']:g}",
    )
    bottleneck.axvline(pays["by_formula"], color=BLACK, linewidth=0.8, linestyle=":")
    families = {each["family"]: growth[each["family"]] for each in numbers["networks"]}
    curves(
        growth["growth_rates"],
        families,
        alt="",
        axes=parameters,
        log="xy",
        xlabel="growth rate k",
        ylabel="parameters",
        title=f"L = {numbers['depth']}",
    )
    parameters.set_xticks(growth["growth_rates"], [str(rate) for rate in growth["growth_rates"]])
    parameters.minorticks_off()
    counts = ", ".join(f"{each['family']} {each['parameters']:,}" for each in numbers["networks"])
    alt = (
        f"Left: channels that each layer reads, {max(read['DenseNet']):,} at most in DenseNet and {max(read['DenseNet-BC']):,} in "
        f"DenseNet-BC, a saw-tooth where transitions compress; VGG's double up to {max(read['VGG-16'])}. "
        f"Middle: weights of a layer against channels; the lines with and without bottleneck cross at {pays['by_formula']:g}. "
        f"Right: parameters against growth rate on logarithmic axes; at k = {k}: {counts}."
    )
    return Picture(figure, alt)


READING = """How to read this: everything is counted from built networks; nothing was trained. A dense layer reads all channels before it in
its block and adds only k, so channels grow by addition, where VGG's double. Without bottlenecks the weights of a layer are 9ck; a 1×1
convolution to 4k channels first makes them 4ck + 36k². Below c = 7.2k the bottleneck makes the layer larger, which is so for the first
layers of each block: what the lecture says, that it reduces parameters, holds for the others.

-B at equal depth L has half as many dense layers, because each has two convolutions: most of what it saves against the plain network
of the same L comes from there. Parameters say nothing of accuracy; for that see parameter-efficiency."""

DENSE_ARITHMETIC = Experiment(
    name="dense-arithmetic",
    about="growth rate, bottleneck and compression: channels and parameters, counted layer by layer",
    measure=lambda given, notebook: dense_arithmetic(),
    table=table,
    picture=picture,
    reading=READING,
)
