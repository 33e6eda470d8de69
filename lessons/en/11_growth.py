# %% [markdown] id="why-count"
# Open the paper at Table 2 and look at the column of parameters. A DenseNet with 100 layers has 7.0 million;
# another one, also with 100 layers and the same growth rate, has 0.8 million and does almost as well. Between the
# two rows stand two letters, B and C. This lesson is about what they do.
#
# Nothing is trained here. You count with a pencil, and each count is held against a network that minidense has
# built. At the end you have a function of a dozen lines that tells the size of any DenseNet for small images to
# the last parameter.

# %% id="imports" tags=["setup"]
import inspect
import random

import numpy

from minidense import Tensor, models
from minidense import functional as F
from minidense.experiments.arithmetic import break_even, dense_arithmetic, layer_by_layer, vgg_channels
from minidense.lessons import SEED, check, claim
from minidense.models.densenet import BottleneckLayer, DenseLayer, Transition
from minidense.nn import Conv2d, init
from minidense.plots import Picture, curves, several

# %% [markdown] id="channels"
# ## Growth by addition
#
# In a dense block (lesson 10) layer $\ell$ reads everything before it, side by side, and adds $k$ feature maps of
# its own. If $k_0$ channels enter the block, layer $\ell$ therefore reads
#
# $$k_0 + k\,(\ell - 1)$$
#
# channels: an **arithmetic** sequence whose step is the growth rate $k$ (§3, "growth rate"). VGG's channels grow
# **geometrically**: they double at each pooling, until they stay at 512.

# %% [markdown] id="predict-channels"
# **Predict.** A plain DenseNet (neither B nor C) with $L = 100$ and $k = 12$ has three blocks of 32 layers, one
# after the other; 16 channels come from its first convolution, and between the blocks none are lost. VGG never
# has more than 512 channels. How many does the classifier of this DenseNet read?
#
# - (a) about a hundred: $k$ is small, and that is the point of it
# - (b) about as many as VGG's, 500
# - (c) more than a thousand
#
# Choose before you run the next cell.

# %% id="channels-run"
with init.undrawn():  # built, but nobody needs the random weights
    densenet = models.densenet(depth=100, growth_rate=12, bottleneck=False, compression=1.0)

block1 = [layer for _, layer in densenet.features.denseblock1.named_children()]
read = [layer.conv1.weight.shape[1] for layer in block1]
formula = [16 + 12 * (number - 1) for number in range(1, len(block1) + 1)]
print(f"block 1 has {len(block1)} layers; they read {read[0]}, {read[1]}, {read[2]}, …, {read[-1]} channels")
claim(
    "layers of block 1 that do not read k₀ + k(ℓ − 1) channels",
    sum(a != b for a, b in zip(read, formula, strict=True)),
    0,
    0,
)
claim("channels that the classifier reads, L = 100, k = 12", densenet.classifier.weight.shape[1], 1168, 1168)

# %% id="channels-plot"
dense_rows = [row for row in layer_by_layer(densenet) if "denselayer" in row["layer"]]
rows = {"VGG-16": vgg_channels(), "DenseNet, L = 100, k = 12": dense_rows}
figure, ((left, right),) = several(2, width=10, height=3.8)
layers = {name: range(1, len(found) + 1) for name, found in rows.items()}
for axes, key, title in (
    (left, "channels", "Channels that a layer reads"),
    (right, "weights", "Weights that it needs"),
):
    lines = {name: [row[key] for row in found] for name, found in rows.items()}
    curves(layers, lines, alt="", axes=axes, title=title, xlabel="3×3 convolution", log="y" * (key == "weights"))
most = {name: max(row["weights"] for row in found) for name, found in rows.items()}
Picture(
    figure,
    f"Left: VGG-16's channels double up to 512 in 13 layers, DenseNet's climb in a straight line to {dense_rows[-1]['channels']:,} "
    f"in 96. Right, on a logarithmic scale: the largest layer has {most['VGG-16']:,} weights in VGG-16 and "
    f"{most['DenseNet, L = 100, k = 12']:,} in DenseNet.",
)

# %% id="channels-claim"
claim("weights of VGG-16's largest convolution", most["VGG-16"], 9 * 512 * 512, 9 * 512 * 512)
claim("weights of DenseNet's largest convolution", most["DenseNet, L = 100, k = 12"], 9 * 1156 * 12, 9 * 1156 * 12)

# %% [markdown] id="why-channels"
# It is (c): $16 + 96 \cdot 12 = 1168$. How to read the picture: left, the straight line is growth by addition,
# the stairs are doubling; right, the same layers by the weights they need, each labelled mark ten times the one
# below.
#
# So DenseNet is *not* a network with few channels. What is small is what each layer has to **make**. A 3×3
# convolution from $c$ channels to $f$ has $9cf$ weights. When VGG doubles, both factors double and the layer has
# four times the weights. In a DenseNet $f = k$ stays where it is, and a layer's weights grow no faster than its
# channels.

# %% [markdown] id="differs-19"
# **Lecture and paper differ.** The lecture gives VGG's channels as 32, 64, 128, 256, … The networks of Simonyan &
# Zisserman have 64, 128, 256, 512, 512, as the left panel counts. The point stands.

# %% [markdown] id="growth"
# ## What the growth rate costs
#
# A layer has $9ck$ weights, and $c$ itself comes from $k$.

# %% [markdown] id="predict-growth"
# **Predict.** Double the growth rate from 12 to 24. The parameters of the network grow by a factor of
#
# - (a) 2: each layer makes twice as many maps
# - (b) nearly 4
# - (c) 8 or more

# %% id="growth-run"
numbers = dense_arithmetic(depth=100, growth_rate=12)
growth, networks = numbers["growth"], {each["family"]: each for each in numbers["networks"]}
curves(
    growth["growth_rates"],
    {family: growth[family] for family in networks},
    log="xy",
    title="Four DenseNets with L = 100",
    xlabel="growth rate k",
    ylabel="parameters",
    alt="Four straight lines of about the same slope, four times the parameters for twice the growth rate. At k = 12, from above: "
    + ", ".join(f"{family} {each['parameters']:,}" for family, each in networks.items()),
)

# %% id="growth-claim"
with init.undrawn():
    wide = models.densenet(depth=100, growth_rate=24, bottleneck=False, compression=1.0).parameter_count()
claim("parameters of DenseNet, L = 100, k = 12", densenet.parameter_count(), 6_979_642, 6_979_642)
claim("parameters of DenseNet, L = 100, k = 24", wide, 27_249_082, 27_249_082)
claim("factor for twice the growth rate, to two digits", round(wide / densenet.parameter_count(), 2), 3.90, 3.90)

# %% [markdown] id="why-growth"
# It is (b): what goes in doubles and what comes out doubles. (Not quite four, because the 16 channels of the
# first convolution do not double, and batch norm and classifier grow only with $c$.) How to read the picture: on
# axes that are both logarithmic, a law like $k^2$ is a straight line of slope 2. All four lines run side by side;
# B and C move them down without turning them. The paper prints 7.0 and 27.2 M for the two networks (Table 2).
#
# Depth acts alike: with twice the layers in a block, the last of them reads twice as much.

# %% [markdown] id="bottleneck"
# ## B: a fee at the door
#
# In the last layers of a block, 3×3 convolutions with nine weights for every channel read hundreds of channels.
# DenseNet-B first makes $4k$ channels of them by a 1×1 convolution, whatever $c$ is (§3, "bottleneck layers"):
#
# $$\underbrace{9\,c\,k}_{\text{3×3: } c \to k} \qquad \text{against} \qquad
# \underbrace{4\,c\,k}_{\text{1×1: } c \to 4k} + \underbrace{9 \cdot 4k \cdot k}_{\text{3×3: } 4k \to k} = 4ck + 36k^2$$
#
# The bottleneck trades a slope of $9k$ for one of $4k$, at an entrance fee of $36k^2$.

# %% [markdown] id="predict-bottleneck"
# **Predict.** The first layer of DenseNet-BC (k = 12) reads 24 channels. With its bottleneck it has
#
# - (a) fewer than half of the weights that it would have without
# - (b) about as many
# - (c) more than twice as many

# %% id="bottleneck-run"
pays = break_even(12)  # builds both layers for c = 1, 2, 3, … and counts
picture = curves(
    pays["channels"],
    {"9ck": pays["plain"], "4ck + 36k²": pays["bottleneck"]},
    title="Weights of a dense layer, k = 12",
    xlabel="c, channels that it reads",
    ylabel="weights",
    alt=f"Two straight lines. Without bottleneck it starts at 0 and is steeper; with bottleneck it starts at 36k² = 5,184. They cross "
    f"at c = {pays['by_formula']:g}, marked by a dotted line.",
)
picture.figure.axes[0].axvline(pays["by_formula"], color="black", linestyle=":", linewidth=1)
picture

# %% id="bottleneck-claim"
at24 = pays["bottleneck"][23] / pays["plain"][23]
claim("weights with bottleneck, relative to without, at c = 24, to two digits", round(at24, 2), 2.44, 2.44)
claim("first c at which the bottleneck has fewer weights, k = 12", pays["by_weights"], 87, 87)
bc = networks["DenseNet-BC"]
claim("layers of DenseNet-BC (100, 12)", bc["dense_layers"], 48, 48)
claim("of which the bottleneck makes smaller", bc["bottlenecks_that_pay"], 42, 42)

# %% [markdown] id="why-bottleneck"
# It is (c): $4 \cdot 24 \cdot 12 + 36 \cdot 144 = 6336$ weights instead of $9 \cdot 24 \cdot 12 = 2592$. How to
# read the picture: where a line starts is the fee, its slope the price of each channel. They cross where $5ck =
# 36k^2$, at $c = 7.2\,k$, so for $k = 12$ a bottleneck saves weights from 87 channels on. In DenseNet-BC (100,
# 12) that holds for 42 of the 48 layers; the six others stand at the beginning of block 1.

# %% [markdown] id="differs-22"
# **Lecture and paper differ.** The lecture says that the 1×1 convolution reduces the number of channels that are
# multiplied, and so the parameters. Without a condition this is false: where $c < 4k$ the "bottleneck" even
# *widens*, from 24 channels to 48 in the first layer, and below $7.2k$ it adds weights. The paper promises "to
# reduce the number of input feature-maps, and thus to improve computational efficiency" (§3); for that too $c$
# must exceed $7.2k$, because every weight of a convolution is used once at each pixel.

# %% [markdown] id="predict-b"
# **Predict.** With B, the 6,979,642 parameters of $L = 100$, $k = 12$ become 1,210,066. What does most of this?
#
# - (a) the 1×1 convolutions: the last layers of a block are the large ones, and there they pay best
# - (b) the depth: the 1×1 convolutions count in $L$ too, so fewer dense layers are left
# - (c) both do about the same

# %% id="b-run"
with init.undrawn():
    half = models.densenet(depth=52, growth_rate=12, bottleneck=False, compression=1.0, stem_channels=24)
b = networks["DenseNet-B"]
print(f"plain, L = 100 (96 dense layers)     {networks['DenseNet']['parameters']:>9,}")
print(f"plain, L =  52 (48 dense layers)     {half.parameter_count():>9,}")
print(f"with B, L = 100 ({b['dense_layers']} dense layers)    {b['parameters']:>9,}")

# %% id="b-claim"
claim("parameters of DenseNet-B, L = 100, k = 12", b["parameters"], 1_210_066, 1_210_066)
claim(
    "parameters of a plain DenseNet with 48 layers and the same first convolution",
    half.parameter_count(),
    1_837_906,
    1_837_906,
)

# %% [markdown] id="why-b"
# It is (b). $L$ counts **convolutions**, and with B a dense layer has two of them. At the same $L$ there are half
# as many layers, and half the depth means about a quarter of the weights. That is the step from 7.0 to 1.8
# million. The 1×1 convolutions themselves save a third of what is left. A fair sentence about B compares networks
# of equal accuracy, not of equal $L$; Figure 4 of the paper does, and so does lesson 15.

# %% [markdown] id="depth"
# ## What L counts
#
# Three blocks of $n$ layers each. Outside of them stand four layers with weights: the first convolution, two
# transitions and the classifier. So $L = 3n + 4$, and with two convolutions in each dense layer $L = 6n + 4$. $L
# = 100$ works for both: $n = 32$ and $n = 16$. Batch norm has parameters too, but by custom does not count as a
# layer.

# %% [markdown] id="x1"
# ## Exercise 1: a dense layer
#
# Count all parameters of one dense layer: its convolutions, which have no biases, and batch norm, which has
# $\gamma$ and $\beta$ for each channel that it normalises. Without bottleneck the layer is BN-ReLU-Conv3×3; with
# it, BN-ReLU-Conv1×1-BN-ReLU-Conv3×3.


# %% id="x1-stub"
def layer_parameters(c, k, bottleneck):
    """Parameters of a dense layer that reads c channels and makes k, with a 1×1 convolution to 4k channels or without."""
    raise NotImplementedError


# %% [markdown] id="x1-hint"
# <details>
# <summary>Hint</summary>
#
# Batch norm stands *before* its convolution, so it has as many channels as that convolution reads. Go through the
# layer from left to right and note how many channels there are at each place: $c$, then $4k$, then $k$.
#
# </details>


# %% id="x1-solution"
def layer_parameters(c, k, bottleneck):
    """Parameters of a dense layer that reads c channels and makes k, with a 1×1 convolution to 4k channels or without."""
    if not bottleneck:
        return 2 * c + 9 * c * k
    return 2 * c + c * 4 * k + 2 * (4 * k) + 9 * (4 * k) * k


# %% id="x1-check"
@check
def parameters_of_a_dense_layer():
    for c, k in ((16, 12), (24, 12), (86, 12), (87, 12), (300, 12), (7, 5), (64, 32)):
        for bottleneck, kind in ((False, DenseLayer), (True, BottleneckLayer)):
            with init.undrawn():
                wanted = kind(c, k, 0.0).parameter_count()
            got = layer_parameters(c, k, bottleneck)
            assert got == wanted, (
                f"c = {c}, k = {k}, {'with' if bottleneck else 'without'} bottleneck: built, it has {wanted:,} parameters; you say {got}"
            )


# %% [markdown] id="compression"
# ## C: leave some behind
#
# A block ends with all that entered it and all that was made in it. The **transition** to the next block halves
# height and width, and it can also drop channels: of $m$ it keeps $\lfloor \theta m \rfloor$, with $0 < \theta
# \le 1$ (§3, "compression"). Let one work:

# %% id="transition-run"
with init.undrawn():
    transition = Transition(216, 108, dropout=0.0)
x = Tensor(numpy.zeros((1, 216, 32, 32), dtype=numpy.float32))
print([name for name, _ in transition.named_children()], x.shape, "→", transition(x).shape)

# %% [markdown] id="predict-compression"
# **Predict.** DenseNet-B (100, 12) has 1,210,066 parameters. With $\theta = 0.5$ it becomes DenseNet-BC. Where
# does it lose most?
#
# - (a) in the transitions, which make half as many channels
# - (b) in blocks 2 and 3, whose layers read fewer channels
# - (c) in the classifier, which reads 342 channels instead of 600

# %% id="compression-run"
by_layer = {family: networks[family]["layers"] for family in ("DenseNet-B", "DenseNet-BC")}
figure, ((left, right),) = several(2, width=10, height=3.8)
places = range(1, len(by_layer["DenseNet-B"]) + 1)
for axes, key, title in ((left, "channels", "Channels that it reads"), (right, "parameters", "Its parameters")):
    lines = {family: [row[key] for row in found] for family, found in by_layer.items()}
    curves(places, lines, alt="", axes=axes, title=title, xlabel="layer, front to back")
Picture(
    figure,
    f"Left: both climb to 216 channels in block 1; then DenseNet-BC falls to half at each transition, like a saw, and DenseNet-B climbs "
    f"on to {networks['DenseNet-B']['last_channels']}. Right: "
    "parameters of each layer have the same shape; the peaks of DenseNet-B are its two transitions.",
)


# %% id="compression-claim"
def parameters_in(family, part):
    """Parameters of all layers of a network whose name has this in it."""
    return sum(row["parameters"] for row in by_layer[family] if part in row["layer"])


saved = {
    part: parameters_in("DenseNet-B", part) - parameters_in("DenseNet-BC", part)
    for part in ("denseblock1", "denseblock2", "denseblock3", "transition", "norm5", "classifier")
}
print(saved)
claim("parameters of DenseNet-BC, L = 100, k = 12", bc["parameters"], 769_162, 769_162)
claim("parameters that compression saves in block 1", saved["denseblock1"], 0, 0)
claim("parameters that it saves in blocks 2 and 3", saved["denseblock2"] + saved["denseblock3"], 292_800, 292_800)
claim("parameters that it saves in the two transitions", saved["transition"], 145_008, 145_008)
claim("parameters that it saves in the classifier", saved["classifier"], 2580, 2580)

# %% [markdown] id="why-compression"
# It is (b). How to read the picture: left, the lines part at the first transition, and from there DenseNet-BC
# stays below; right, the two peaks are the transitions. High as they are, they are only two, and give back
# 145,008 parameters; the 32 layers of blocks 2 and 3 give back twice as much, 292,800, and block 1 nothing,
# because nothing was compressed before it. A channel that is not carried on needs no weights in any later layer.
#
# Compression does not pick half of the channels: its 1×1 convolution makes $\lfloor\theta m\rfloor$ mixtures of
# all of them, and training decides which.

# %% [markdown] id="order"
# ## The order inside a transition
#
# The 1×1 convolution is linear, and so is averaging over 2×2 pixels. The one mixes channels, the other pixels.

# %% [markdown] id="predict-order"
# **Predict.** Swap the two in minidense's transition: BN-ReLU, then pool, then convolve. The result
#
# - (a) is the same, up to rounding
# - (b) differs
#
# And if a ReLU stands between convolution and pooling?

# %% id="order-run"
rng = numpy.random.default_rng(SEED)
x = F.relu(Tensor(rng.standard_normal((4, 20, 8, 8))))  # what comes out of BN-ReLU, in float64
conv = Conv2d(20, 10, 1, bias=False, rng=rng)
conv.weight.data = rng.standard_normal(conv.weight.shape)


def largest_difference(a, b):
    """Relative to the largest value."""
    return float(abs(a.data - b.data).max() / abs(b.data).max())


swapped = largest_difference(conv(F.avg_pool2d(x, 2)), F.avg_pool2d(conv(x), 2))
with_relu = largest_difference(F.relu(conv(F.avg_pool2d(x, 2))), F.avg_pool2d(F.relu(conv(x)), 2))
claim("difference when pooling comes before the 1×1 convolution", swapped, 0, 1e-12, seen=(2.53e-16, 4.51e-16))
claim("the same with a ReLU behind the convolution", with_relu, 0.05, 1.0, seen=(0.326, 0.405))

claim("channels that the transition's batch norm sees", len(transition.norm.weight), 216, 216)

# %% [markdown] id="why-order"
# It is (a) in the paper's order: convolution and pooling commute, so one may pool first and convolve a quarter of
# the pixels. With a ReLU between them they do not.

# %% [markdown] id="differs-2"
# **Lecture and paper differ.** The lecture's code has its transition as Conv1×1-BN-ReLU-pooling. In the paper's
# text it is "a batch normalization layer and an 1×1 convolutional layer followed by a 2×2 average pooling layer";
# the authors' code has a ReLU behind the batch norm. You can see which one you have before you: the batch norm of
# our transition has 216 channels, all that the block hands over, where the lecture's has the 108 that are kept.
# And in the lecture's order, the swap above is not free.

# %% [markdown] id="x2"
# ## Exercise 2: the saw
#
# Write down the channels of a whole network, wherever they change direction: after the first convolution, after
# each block, after each transition (none behind the last block). Blocks may have different lengths, as on
# ImageNet.


# %% id="x2-stub"
def channels_along(stem, blocks, k, theta):
    """Channels after the first convolution, block 1, transition 1, block 2, …, last block, as a list of whole numbers.

    blocks  layers in each of them, such as (6, 12, 24, 16)
    """
    raise NotImplementedError


# %% [markdown] id="x2-hint"
# <details>
# <summary>Hint</summary>
#
# Keep one number, the channels that there are now, and append it to the list whenever it changes. $\lfloor \theta
# m \rfloor$ is `int(theta * m)`. A transition follows each block but the last: the list has twice as many entries
# as there are blocks.
#
# </details>


# %% id="x2-solution"
def channels_along(stem, blocks, k, theta):
    """Channels after the first convolution, block 1, transition 1, block 2, …, last block, as a list of whole numbers.

    blocks  layers in each of them, such as (6, 12, 24, 16)
    """
    channels = [stem]
    for number, layers in enumerate(blocks):
        if number > 0:
            channels.append(int(theta * channels[-1]))
        channels.append(channels[-1] + layers * k)
    return channels


# %% id="x2-check"
@check
def channels_of_a_network():
    known = {
        "DenseNet-BC (100, 12)": ((24, (16, 16, 16), 12, 0.5), [24, 216, 108, 300, 150, 342]),
        "DenseNet (40, 12)": ((16, (12, 12, 12), 12, 1.0), [16, 160, 160, 304, 304, 448]),
        "DenseNet-121": ((64, (6, 12, 24, 16), 32, 0.5), [64, 256, 128, 512, 256, 1024, 512, 1024]),
        "an odd one": ((5, (1, 2, 3), 3, 0.5), [5, 8, 4, 10, 5, 14]),
        "θ = 0.7, rounded down": ((10, (1, 1), 7, 0.7), [10, 17, 11, 18]),
        "a single block": ((9, (4,), 2, 0.5), [9, 17]),
    }
    for name, (arguments, wanted) in known.items():
        got = channels_along(*arguments)
        assert isinstance(got, list | tuple), f"return a list of channels; you return {got!r}"
        assert list(got) == wanted, f"{name}: the channels are {wanted}, you say {list(got)}"
        assert all(isinstance(each, (int, numpy.integer)) for each in got), (
            f"{name}: channels are whole numbers, got {list(got)}"
        )


# %% [markdown] id="x3"
# ## Exercise 3: the size of any DenseNet
#
# Now all of it: the parameters of a DenseNet for 32×32 images with three colours, without building it. Parts in
# order: 3×3 convolution from 3 channels to `stem`; three blocks of equally many layers; transitions behind the
# first two (BN, 1×1 convolution); a last BN; a linear layer with a bias for each class.


# %% id="x3-stub"
def densenet_parameters(depth, k, *, stem, bottleneck, theta, classes=10):
    """Parameters of a DenseNet with L = depth, counted without building it."""
    raise NotImplementedError


# %% [markdown] id="x3-hint"
# <details>
# <summary>Hint</summary>
#
# Two numbers run along: `c`, the channels that there are now, and `total`. How many layers a block has follows
# from $L = 3n + 4$ or $L = 6n + 4$. What one layer has, `layer_parameters` of exercise 1 tells you.
#
# </details>

# %% [markdown] id="x3-hint-2"
# <details>
# <summary>Where it usually goes wrong</summary>
#
# If you are off by a little: batch norm behind the last block ($2c$), the biases of the classifier, the batch
# norm of the transitions. If you are off by a lot: does `c` grow by $k$ after *every* layer, and is it
# $\lfloor\theta c\rfloor$ after a transition?
#
# </details>


# %% id="x3-solution"
def densenet_parameters(depth, k, *, stem, bottleneck, theta, classes=10):
    """Parameters of a DenseNet with L = depth, counted without building it."""
    layers = (depth - 4) // (6 if bottleneck else 3)
    c, total = stem, 9 * 3 * stem
    for block in range(3):
        for _ in range(layers):
            total += 2 * c + (4 * c * k + 8 * k + 36 * k * k if bottleneck else 9 * c * k)
            c += k
        if block < 2:
            kept = int(theta * c)
            total += 2 * c + c * kept
            c = kept
    return total + 2 * c + c * classes + classes


# %% id="x3-check"
@check
def parameters_of_any_densenet():
    networks = [(100, 12, 16, False, 1.0, 10), (100, 12, 24, True, 0.5, 10), (40, 12, 16, False, 1.0, 100)]
    networks += [
        (22, 7, 14, True, 0.5, 10),
        (22, 5, 9, False, 0.5, 10),
        (40, 3, 16, True, 1.0, 7),
        (10, 1, 1, True, 0.5, 2),
    ]
    draw = random.Random(11)
    for _ in range(6):
        bottleneck, n = draw.random() < 0.5, draw.randint(1, 6)
        depth = (6 if bottleneck else 3) * n + 4
        networks.append((depth, draw.randint(1, 30), draw.randint(1, 40), bottleneck, draw.choice((0.3, 0.5, 1.0)), 10))
    for depth, k, stem, bottleneck, theta, classes in networks:
        how = {"bottleneck": bottleneck, "classes": classes}
        with init.undrawn():
            model = models.densenet(depth=depth, growth_rate=k, stem_channels=stem, compression=theta, **how)
        wanted, got = model.parameter_count(), densenet_parameters(depth, k, stem=stem, theta=theta, **how)
        assert got == wanted, (
            f"L = {depth}, k = {k}, stem = {stem}, bottleneck = {bottleneck}, θ = {theta}, {classes} classes: built, it has {wanted:,} "
            f"parameters; you say {got}"
        )


# %% [markdown] id="break-it"
# ## Break it
#
# - Ask for `models.densenet(depth=101)`. Which depths does the message offer, and why those?
# - Give the bottleneck $rk$ channels instead of $4k$, on paper: $9ck$ against $rck + 9rk^2$. Where is the
#   crossing for $r = 1$? From which $r$ on can a bottleneck never pay?
# - In "order-run", replace the average pooling by `F.max_pool2d`. Does it still commute with the 1×1 convolution?
#   Which property of the mean is gone?

# %% [markdown] id="summary"
# ## Three lines to keep
#
# 1. Layer $\ell$ of a block reads $k_0 + k(\ell - 1)$ channels and makes $k$: what grows is what is read, and the
#    parameters go with $k^2$.
# 2. A bottleneck swaps $9ck$ weights for $4ck + 36k^2$: it pays only if $c > 7.2k$.
# 3. Compression lets a transition keep $\lfloor\theta m\rfloor$ channels, and every later layer reads less:
#    6,979,642 → 1,210,066 (B) → 769,162 (BC).

# %% [markdown] id="paper"
# ## What the lecture and the papers say
#
# The counts agree with the paper's Table 2: 7.0 M, 27.2 M and, for DenseNet-BC (100, 12), 0.8 M. Printed there
# beside them are the errors on CIFAR-10 with augmentation: 4.10 % for 7.0 M and 4.51 % for 0.8 M. This lesson has
# measured no accuracy at all, and parameters alone do not say which network is better. Lesson 15 trains some.

# %% [markdown] id="differs-28-29"
# **Lecture and paper differ.** The lecture describes the ImageNet network alone, and says nothing of the
# DenseNets for CIFAR on which most of the paper's table rests: 16 channels in the first convolution, or $2k$ with
# BC; three equal blocks; $L = 3n + 4$ or $6n + 4$. (The authors' published code has $2k$ for all of them, and
# 7,083,538 parameters for $L = 100$, $k = 12$, which would be printed as 7.1 M.) The lecture also says that the
# experiments use DenseNet-C with $\theta = 0.5$. What the paper's tables report is DenseNet-**BC** with this
# $\theta$; C alone, 4,013,370 parameters at $L = 100$, $k = 12$, occurs only as a curve in the left panel of
# Figure 4.

# %% id="variants-claim"
claim("parameters of DenseNet-C, L = 100, k = 12", networks["DenseNet-C"]["parameters"], 4_013_370, 4_013_370)
with init.undrawn():
    published = models.densenet(depth=100, growth_rate=12, bottleneck=False, compression=1.0, stem_channels=24)
claim(
    "parameters with 2k channels in the first convolution, as in the authors' code",
    published.parameter_count(),
    7_083_538,
    7_083_538,
)

# %% [markdown] id="source"
# ## The real one
#
# A bottleneck layer in minidense, and the transition.

# %% id="source-code"
print(inspect.getsource(BottleneckLayer.__init__))
print(inspect.getsource(Transition))
