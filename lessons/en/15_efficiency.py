# %% [markdown] id="why-cost"
# In the paper's Table 2, on CIFAR-10, a pre-activation ResNet with 1001 layers and 10.2 million parameters errs
# on 4.62 %, a DenseNet-BC with 100 layers and 0.8 million on 4.51 %: the same accuracy for a thirteenth of the
# parameters.
#
# What do you pay if you use one of the two? A file of weights, which parameters count; and time for each image,
# which they do not. You will count both exactly, hold a printed table against your counts, compare networks at
# equal parameters, and ask a trained network which old features it uses.

# %% id="imports" tags=["setup"]
import inspect
import math
import time
from itertools import pairwise

import numpy

from minidense import Tensor, models, no_grad
from minidense.experiments.by_parameters import equal_parameters
from minidense.experiments.efficiency import parameter_efficiency
from minidense.experiments.efficiency import picture as efficiency_picture
from minidense.experiments.figures import draw_figure3, draw_figure4, paper_figures
from minidense.experiments.reuse import Blinded, ablation_maps, feature_reuse
from minidense.experiments.reuse import picture as reuse_picture
from minidense.experiments.stacks import stack
from minidense.lessons import SEED, check, claim
from minidense.models.published import published
from minidense.nn import BatchNorm2d, Conv2d, Linear, init
from minidense.plots import Picture, curves, several
from minidense.plots import feature_reuse as reuse_map
from minidense.summary import summarise

# %% [markdown] id="count"
# ## Two costs of a convolution
#
# A convolution from $c$ channels to $f$ with a kernel of $K \times K$ and no bias has $f \cdot c \cdot K^2$
# weights. Each is multiplied and added once for **every place** of the result:
#
# $$\text{multiply-adds} = f \cdot c \cdot K^2 \cdot H_{out} \cdot W_{out}$$
#
# `summarise` runs a network on one image and counts (batch norm, ReLU and pooling count as nothing, as is the
# custom):

# %% id="count-run"
layer = Conv2d(48, 12, 3, padding=1, bias=False)
for size in (32, 16, 8):
    counted = summarise(layer, (48, size, size), kept=False)
    print(f"{size:2}×{size:<2}  {counted.parameters:,} weights, {counted.multiply_adds:9,} multiply-adds")

# %% [markdown] id="predict-where"
# **Predict.** DenseNet-BC (L = 100, k = 12) has three blocks of 16 layers, on images of 32×32, 16×16 and 8×8. The
# third has the most parameters. Of all multiply-adds, it does
#
# - (a) the most as well
# - (b) about a third
# - (c) about a sixteenth
#
# Choose before you run the next cell.

# %% id="where-run"
with init.undrawn():  # built, but nobody needs the random weights
    densenet = models.create("densenet_bc_100_12")
whole = summarise(densenet, (3, 32, 32), kept=False)
print(whole.table(depth=2))

# %% id="where-plot"
features = {row.name: row for row in whole.model.rows[0].rows}
dense_layers = [row for i in (1, 2, 3) for row in features[f"denseblock{i}"].rows]
figure, ((left, right),) = several(2, width=10, height=3.6)
numbers = range(1, len(dense_layers) + 1)
parameters = [row.parameters / 1e3 for row in dense_layers]
work = [row.multiply_adds / 1e6 for row in dense_layers]
curves(
    numbers, {"": parameters}, alt="", axes=left, title="parameters, thousands", xlabel="dense layer", ylim=(0, None)
)
curves(numbers, {"": work}, alt="", axes=right, title="multiply-adds, millions", xlabel="dense layer", ylim=(0, None))
Picture(
    figure,
    f"Left: parameters of the 48 dense layers climb in each of three blocks, to {max(parameters):.0f} thousand. Right: their "
    f"multiply-adds climb likewise within a block, but fall to about a quarter from block to block: {work[15]:.1f}, {work[31]:.1f} and "
    f"{work[47]:.1f} million in the last layers of the three.",
)

# %% id="where-claim"
claim("parameters of DenseNet-BC (100, 12)", whole.parameters, 769_162, 769_162)
claim("its multiply-adds for one image of 32×32", whole.multiply_adds, 287_929_692, 287_929_692)
claim("of these in block 1", features["denseblock1"].multiply_adds, 174_587_904, 174_587_904)
claim("of these in block 3", features["denseblock3"].multiply_adds, 17_104_896, 17_104_896)

# %% [markdown] id="why-where"
# It is (c): 17.1 of 287.9 million. How to read the picture: each of the 48 places is one dense layer, left its
# parameters, right its work. Left, each of three stairs begins lower than the one before ended, because a
# transition halves the channels. Right, the stairs shrink, because the images do. Block 1 has less than a quarter
# of the parameters and does six tenths of the work: "few parameters" and "fast" are two different claims.

# %% [markdown] id="x1"
# ## Exercise 1: the work of a DenseNet-BC
#
# Count the multiply-adds of DenseNet-BC for small images: a stem of 3×3 from 3 channels to $2k$; three blocks of
# $(L - 4)/6$ layers, each with a 1×1 convolution to $4k$ channels and a 3×3 convolution to $k$; after the first
# two blocks a transition, a 1×1 convolution to half the channels (rounded down) and *then* pooling; a linear
# layer at the end. All 3×3 convolutions have padding 1.


# %% id="x1-stub"
def work_of_bc(depth, k, size=32, classes=10):
    """Multiply-adds of a DenseNet-BC (depth, k) for one image of 3×size×size."""
    raise NotImplementedError


# %% [markdown] id="x1-hint"
# <details>
# <summary>Hint</summary>
#
# Walk through the network with three numbers in hand: the channels, the places ($size^2$, a quarter of it after
# each transition), and the work so far. A dense layer reads `channels` and works $c \cdot 4k + 9 \cdot 4k \cdot
# k$ times the places; then there are $k$ channels more.
#
# </details>

# %% [markdown] id="x1-hint-2"
# <details>
# <summary>Second hint: a little too small?</summary>
#
# The transition's convolution stands before its pooling, so it still works on the large image.
#
# </details>


# %% id="x1-solution"
def work_of_bc(depth, k, size=32, classes=10):
    """Multiply-adds of a DenseNet-BC (depth, k) for one image of 3×size×size."""
    channels, places = 2 * k, size * size
    work = 9 * 3 * channels * places
    for block in range(3):
        for _ in range((depth - 4) // 6):
            work += (channels * 4 * k + 9 * 4 * k * k) * places
            channels += k
        if block < 2:
            work += channels * (channels // 2) * places
            channels, places = channels // 2, places // 4
    return work + channels * classes


# %% id="x1-check"
@check
def work_counted_with_a_pencil():
    for depth, k, classes in ((22, 12, 10), (40, 24, 10), (100, 12, 10), (100, 12, 100), (250, 24, 10), (190, 40, 10)):
        wanted = published(f"densenet_bc_{depth}_{k}").counts[classes][1]
        got = work_of_bc(depth, k, classes=classes)
        assert got == wanted, (
            f"DenseNet-BC ({depth}, {k}), {classes} classes: built, it does {wanted:,} multiply-adds; you say {got:,}"
        )
    for size, k in ((8, 3), (16, 5)):  # odd growth rates: half the channels is rounded down
        with init.undrawn():
            small = models.densenet(depth=22, growth_rate=k)
        wanted = summarise(small, (3, size, size), kept=False).multiply_adds
        got = work_of_bc(22, k, size)
        assert got == wanted, (
            f"DenseNet-BC (22, {k}) on {size}×{size}: built, it does {wanted:,} multiply-adds; you say {got:,}"
        )


# %% [markdown] id="flops"
# ## FLOPs and FLOPS
#
# A multiply-add is two floating point operations, so an image costs DenseNet-BC (100, 12) 576 million **FLOPs**,
# small s: a *number of operations*, a property of the network. How many a computer does in a second is its
# **FLOPS**, capital S: *operations per second*. Measure yours: one product of two 1024×1024 matrices takes $2
# \cdot 1024^3$ operations.


# %% id="flops-run"
def quickest(task, times=5):
    """Seconds of the quickest of several runs: other programs can only make one longer."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        task()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


a = numpy.random.default_rng(SEED).normal(size=(1024, 1024)).astype(numpy.float32)
rate = 2 * 1024**3 / quickest(lambda: a @ a)
print(f"this machine, in one big matrix product: {rate / 1e9:.0f} GFLOPS (10⁹ operations per second)")
print(f"{whole.flops / 1e6:.0f} million operations at this rate: {1000 * whole.flops / rate:.1f} ms an image")

# %% [markdown] id="predict-rate"
# **Predict.** Now the network itself, on four images at once. Compared with the time that the count says, an
# image takes
#
# - (a) less: 287.9 million multiply-adds are an upper limit
# - (b) the same, within a hundredth
# - (c) longer

# %% id="rate-run"
network = models.create("densenet_bc_100_12", seed=SEED).eval()
images = Tensor(numpy.random.default_rng(SEED).normal(size=(4, 3, 32, 32)).astype(numpy.float32))
with no_grad():
    seconds = quickest(lambda: network(images)) / len(images)
print(f"measured: {1000 * seconds:.1f} ms an image, {seconds * rate / whole.flops:.1f} times what the count says")

# %% [markdown] id="why-rate"
# It is (c), if the machine has nothing else to do. (No claim here: a time depends on what else runs, a count
# never.) Batch norm, ReLU and concatenation count as nothing, but read and write every value; and thin 1×1
# convolutions keep a processor less busy than one large product.

# %% [markdown] id="differs-25"
# **Lecture and paper differ.** Under Figure 3 the lecture explains FLOPS as operations *per second*. The axis of
# the figure is FLOPs, the number of operations for one image ("FLOPs during test-time", says its caption): a
# network has a place on it without anybody naming a computer.

# %% [markdown] id="imagenet"
# ## Figures 3 and 4, drawn from counts
#
# Figure 3 compares networks on ImageNet. Drawn again: errors as printed (Table 3; for the ResNets the README of
# fb.resnet.torch), parameters and FLOPs counted from built networks, nothing trained.

# %% [markdown] id="predict-imagenet"
# **Predict.** DenseNet-201 and ResNet-101 are about equally accurate, with 22.58 % and 22.44 % of errors.
# Compared with the ResNet, the DenseNet with its twice as many layers needs
#
# - (a) more parameters and more FLOPs
# - (b) less than half the parameters, but as many FLOPs
# - (c) less than half the parameters and little more than half the FLOPs

# %% id="imagenet-run"
paper = paper_figures()
figure, ((left, right),) = several(2, width=11, height=4.2)
draw_figure3(left, paper["figure3"], "parameters", 1e6)
left.set(xlabel="parameters, millions", title="ImageNet: error by parameters")
left.margins(x=0.4)
draw_figure3(right, paper["figure3"], "flops", 1e9)
right.set(xlabel="FLOPs of one image, 10⁹", title="error by FLOPs")
right.margins(x=0.4)
Picture(
    figure,
    "Top-1 error against parameters and against FLOPs; the DenseNets' line lies left of the ResNets' in both. "
    + "; ".join(
        f"{each['label']}: {each['error']:.2f} %, {each['parameters'] / 1e6:.1f} million, {each['flops'] / 1e9:.1f} GFLOPs"
        for each in paper["figure3"]
    ),
)

# %% id="imagenet-claim"
by_name = {each["label"]: each for each in paper["figure3"]}
for label, each in by_name.items():
    top5 = published(each["name"]).errors["top-5"]
    print(f"{label:12} top-1 {each['error']:.2f} %, top-5 {top5:.2f} %  ({each['source']})")
claim("parameters of DenseNet-201", by_name["DenseNet-201"]["parameters"], 20_013_928, 20_013_928)
claim("parameters of ResNet-101", by_name["ResNet-101"]["parameters"], 44_549_160, 44_549_160)
claim("FLOPs of DenseNet-201", by_name["DenseNet-201"]["flops"], 2 * 4_291_365_888, 2 * 4_291_365_888)
claim("FLOPs of ResNet-101", by_name["ResNet-101"]["flops"], 2 * 7_801_405_440, 2 * 7_801_405_440)

# %% [markdown] id="why-imagenet"
# It is (c). How to read the picture: a network further left costs less, one further down errs less. The
# DenseNets' line lies lower in both panels, but its advantage is larger on the left.

# %% [markdown] id="differs-30"
# **Lecture and paper differ.** The lecture leaves out Table 3, and of Figures 3 and 4 it has the captions only.
# The cell above prints what Table 3 says of one crop, and the picture is Figure 3 again. Figure 4 comes next, in
# part: the curves between its end points were never printed as numbers.

# %% [markdown] id="predict-cifar"
# **Predict.** On CIFAR-10 the pre-activation ResNet with 1001 layers has 13 times the parameters of DenseNet-BC
# (100, 12). For an image it does
#
# - (a) about 13 times the multiply-adds
# - (b) about 5 times
# - (c) about as many

# %% id="cifar-run"
figure, ((axes,),) = several(1, width=9, height=5.5)
draw_figure4(axes, paper["figure4"])
axes.grid(alpha=0.3)
Picture(
    figure,
    "Error on CIFAR-10 with augmentation against parameters, on a logarithmic axis. Lowest: "
    + "; ".join(
        f"{best['family']} {best['label']}: {best['error']:.2f} % with {best['parameters']:,}"
        for best in sorted(paper["figure4"], key=lambda each: each["error"])[:3]
    ),
)

# %% id="cifar-claim"
resnet = {each["name"]: each for each in paper["figure4"]}["preresnet1001"]
claim("parameters of the ResNet, per parameter of DenseNet-BC", round(resnet["parameters"] / 769_162, 2), 13.43, 13.43)
claim("FLOPs of the ResNet, per FLOP of DenseNet-BC", round(resnet["flops"] / whole.flops, 2), 5.17, 5.17)
for label, parameters, work in (
    ("ResNet", resnet["parameters"], resnet["flops"] // 2),
    ("DenseNet-BC", whole.parameters, whole.multiply_adds),
):
    print(f"{label:11} {work / parameters:.0f} multiply-adds for each parameter")

# %% [markdown] id="why-cifar"
# It is (b): a thirteenth of the parameters comes with a fifth of the work, since each parameter of the DenseNet
# is used more often. How to read the picture: each mark is a printed result; further left and further down is
# better. What is *not* in it are error bars: "The test errors were only evaluated once for each task and model
# setting" (§4.2), and 4.51 against 4.62 % are 11 images of 10,000.

# %% [markdown] id="slips"
# ## Check a table by counting
#
# The parameters that a table prints can be checked without training anything. Seventeen rows of Table 2 print a
# number of parameters, in millions with one decimal. We build each network, for 10 and for 100 classes, and
# round.

# %% [markdown] id="predict-slips"
# **Predict.** In how many of the seventeen rows does the printed number disagree with both counts?
#
# - (a) none
# - (b) four
# - (c) more than half

# %% id="slips-run"
printed_rows = [each for each in paper["table2"] if each["millions"] is not None]
slips = []
for each in printed_rows:
    counts = [count / 1e6 for count in each["parameters"].values()]
    fits = any(round(count, 1) == each["millions"] for count in counts)
    slips += [] if fits else [each]
    print(
        f"{each['method']:40} {each['depth']:4}  printed {each['millions']:4.1f}  counted {counts[0]:6.2f}  {'' if fits else '← ?'}"
    )

# %% id="slips-claim"
claim("rows of Table 2 that print parameters", len(printed_rows), 17, 17)
claim("of these with another number than the network has", len(slips), 4, 4)
with init.undrawn():
    deep = models.create("preresnet1001")
norms = sum(p.size for m in deep.modules() if isinstance(m, BatchNorm2d) for p in m.parameters())
claim("parameters of the ResNet with 1001 layers", deep.parameter_count(), 10_327_706, 10_327_706)
claim("without those of batch norm", deep.parameter_count() - norms, 10_178_490, 10_178_490)

# %% [markdown] id="why-slips"
# It is (b):
#
# - **Pre-activation ResNet, 1001 layers:** 10.2 is the count *without* batch norm, 10.3 with it. The DenseNets
#   are counted with it, to their disadvantage.
# - **Stochastic depth, 1202 layers:** 10.2 again, but He et al. print 19.4 for the same ResNet (19.5 with the
#   biases in the code of stochastic depth). The 10.2 seems to belong to the row of 1001 layers.
# - **FractalNet, twice:** the generator that its authors released builds 33.7, not 38.6.

# %% [markdown] id="differs-32"
# **Lecture and paper agree**, for once: compared cell by cell, all numbers in the lecture's copies of Table 2 and
# of He et al.'s table of units are those of the papers. So are the slips.

# %% [markdown] id="table1"
# In Table 1 the lecture has a ×10 where the paper has a ×16. Such a slip shows when you count layers, since a
# DenseNet's name is its depth, convolutions and the classifier:

# %% id="table1-run"
depths = {}
for blocks in ((6, 12, 24, 16), (6, 12, 24, 10), (6, 12, 64, 48)):
    with init.undrawn():
        built = models.densenet_imagenet(blocks=blocks)
    depths[blocks] = sum(isinstance(module, Conv2d | Linear) for module in built.modules())
    print(f"blocks {blocks!s:16}: {depths[blocks]} layers, {built.parameter_count():,} parameters")
print("images of 224×224:", ", ".join(f"{224 // 2**i}×{224 // 2**i}" for i in range(1, 6)))

# %% id="table1-claim"
claim("layers of DenseNet-121 with blocks of 6, 12, 24, 16", depths[6, 12, 24, 16], 121, 121)
claim("layers with the lecture's 10 instead of 16", depths[6, 12, 24, 10], 109, 109)
claim("layers of DenseNet-264", depths[6, 12, 64, 48], 265, 265)

# %% [markdown] id="differs-26"
# **Lecture and paper differ.** The lecture's Table 1 has ×10 for ×16, ×46 for ×48, several multipliers missing,
# and sizes of 30×30 and 26×26. The paper's blocks are 6, 12, 24, 16 (DenseNet-121), 6, 12, 32, 32 (169), 6, 12,
# 48, 32 (201) and 6, 12, 64, 48 (264); images are halved from 224 on, so a 30 or a 26 cannot occur. The count
# finds a slip of the paper as well: its DenseNet-264 has 265 layers.

# %% [markdown] id="x2"
# ## Exercise 2: find the slip
#
# Count the parameters of a ResNet for CIFAR-10 (He et al. 2015, §4.2) with $6n + 2$ layers: a 3×3 convolution
# from 3 channels to 16; three stages of $n$ units with 16, 32 and 64 channels; a linear layer to 10 classes, with
# biases. A unit is two 3×3 convolutions; the first of a stage brings the channels of the stage before to its own.
# Shortcuts have no parameters. No convolution has a bias, and behind each stands a batch norm with $\gamma$ and
# $\beta$ for each channel that it makes. Then ask it for 1202 layers.


# %% id="x2-stub"
def resnet_parameters(depth):
    """Parameters of the CIFAR-10 ResNet with 6n + 2 = depth layers."""
    raise NotImplementedError


# %% [markdown] id="x2-hint"
# <details>
# <summary>Hint</summary>
#
# Write down what one convolution from $c$ to $f$ channels costs with its batch norm: $9cf + 2f$. Then walk: the
# stem, and for each stage $n$ units, of which only the very first convolution has $c \neq f$.
#
# </details>


# %% id="x2-solution"
def resnet_parameters(depth):
    """Parameters of the CIFAR-10 ResNet with 6n + 2 = depth layers."""
    channels, total = 16, 9 * 3 * 16 + 2 * 16
    for width in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            total += 9 * channels * width + 2 * width
            total += 9 * width * width + 2 * width
            channels = width
    return total + 64 * 10 + 10


# %% id="x2-check"
@check
def a_slip_found_by_counting():
    for depth in (8, 14, 20, 56):
        with init.undrawn():
            wanted = models.resnet(depth=depth).parameter_count()
        got = resnet_parameters(depth)
        assert got == wanted, f"ResNet-{depth}: built, it has {wanted:,} parameters; you say {got:,}"
    got = resnet_parameters(1202)
    assert got == 19_421_274, f"ResNet-1202 has 19,421,274 parameters, whatever Table 2 prints; you say {got:,}"


# %% [markdown] id="equal"
# ## A fair comparison
#
# "As accurate with fewer parameters" needs networks that were trained alike. On 1,437 digits we can train small
# ones. Here is a pair with about the same number of parameters:

# %% id="equal-pair"
dense = models.densenet(
    depth=13, growth_rate=4, bottleneck=False, compression=1.0, stem_channels=8, in_channels=1, seed=SEED
)
residual = models.resnet(depth=14, unit="full_preact", widths=(4, 8, 16), in_channels=1, seed=SEED)
pair = {"DenseNet": summarise(dense, (1, 8, 8), kept=False), "ResNet": summarise(residual, (1, 8, 8), kept=False)}
for family, counted in pair.items():
    print(f"{family:8} {counted.parameters:6,} parameters, {counted.multiply_adds:7,} multiply-adds an image")

# %% [markdown] id="predict-equal"
# **Predict.** We train three sizes of each by the paper's recipe, for 8 epochs. At equal parameters
#
# - (a) the ResNet is ahead: 1,437 digits do not need dense connections
# - (b) there is no difference beyond chance
# - (c) the DenseNet is ahead at every size

# %% id="equal-run"
families = ("DenseNet", "pre-activation ResNet")
fair = parameter_efficiency(families=families, sizes=(0, 1, 2), seeds=[SEED], epochs=8)
efficiency_picture(fair)

# %% id="equal-claim"
points = {(each["family"], each["size"]): each for each in fair["points"]}
loss = {key: each["test_loss"]["mean"] for key, each in points.items()}
for (family, size), each in points.items():
    print(
        f"{family:22} {size:10} {each['parameters']:6,}  {100 * each['test_accuracy']['mean']:.1f} %, loss {loss[family, size]:.3f}"
    )
small = loss["DenseNet", "k = 2"] / loss["pre-activation ResNet", "width = 2"]
middle = loss["DenseNet", "k = 4"] / loss["pre-activation ResNet", "width = 4"]
share = next(each["share"] for each in fair["matches"] if each["size"] == "width = 6")
claim("test loss of DenseNet by that of ResNet, about 2,900 parameters", small, 0.15, 0.95, seen=(0.366, 0.654))
claim("test loss of DenseNet by that of ResNet, about 11,000 parameters", middle, 0.1, 0.98, seen=(0.298, 0.556))
claim(
    "share of the parameters of the ResNet with 24,628 that DenseNet needs for its loss",
    share,
    0.1,
    0.8,
    seen=(0.257, 0.427),
)
claim("multiply-adds of the DenseNet of the pair", pair["DenseNet"].multiply_adds, 187_000, 187_000)
claim("multiply-adds of the ResNet of the pair", pair["ResNet"].multiply_adds, 103_840, 103_840)

# %% [markdown] id="why-equal"
# It is (c). How to read the picture: left errors, right test loss, against parameters; a dot is one trained
# network. Go from a dot of the ResNet horizontally to the left until you meet the other line: so many parameters
# are enough for a DenseNet. For the largest ResNet it is about a third, give or take.
#
# But at equal parameters the DenseNet of the pair does nearly *twice* the multiply-adds. And the claims show that
# five seeds give quite different ratios: one run of one size says little. (We compare losses because they are
# less coarse: one test image is 0.28 % of accuracy.)

# %% [markdown] id="predict-depth"
# **Predict.** The same question, with one thing changed: both stacks get the same depth, 18 convolutions, and
# about 3,000 parameters or less. At that depth a DenseNet has to be thin: its growth rate is 1. Is it still ahead
# of the ResNet?
#
# - (a) yes: parameter efficiency is a property of dense connections
# - (b) no

# %% id="depth-run"
same_depth = equal_parameters(kinds=("residual", "dense"), sizes=(3_000,), seeds=[SEED], epochs=8)
deep_loss = {}
for each in same_depth["stacks"]:
    deep_loss[each["kind"]] = each["test_loss"]["mean"]
    print(
        f"{each['kind']:8} width {each['width']}, {each['parameters']:,} parameters: "
        f"{100 * each['test_accuracy']['mean']:.1f} %, loss {deep_loss[each['kind']]:.3f}"
    )

# %% id="depth-claim"
ratio = deep_loss["dense"] / deep_loss["residual"]
claim("test loss of DenseNet by that of ResNet, both 18 deep", ratio, 0.95, 15, seen=(2.69, 4.31))
with init.undrawn():
    wider = stack("dense", depth=18, width=2)
claim("parameters of the dense stack with a growth rate of 2", wider.parameter_count(), 7_324, 7_324)

# %% [markdown] id="why-depth"
# It is (b): the order has turned round. The DenseNet is somewhat smaller, too, but with a growth rate of 2 it
# would have 7,324 parameters. Neither experiment is wrong: "at equal parameters" fixes one number and leaves
# depth, width, recipe and time free, and whoever chooses them decides much of the result. The paper chose, too:
# for Figure 4 it varied the depth and kept $k = 12$. Say the setting with the verdict.

# %% [markdown] id="x3"
# ## Exercise 3: how many parameters for the same loss?
#
# Above you went to the left by eye. Do it exactly: given the points of a family, sorted by parameters, and a
# loss, find the number of parameters at which the line through the points *first* comes down to that loss.
# Between two points the line is straight **on logarithmic axes**, for parameters and for loss. Return `None` if
# it never comes down to it: do not extrapolate.


# %% id="x3-stub"
def needed(points, loss):
    """Parameters at which a line of (parameters, loss), straight on logarithmic axes, first comes down to loss, or None."""
    raise NotImplementedError


# %% [markdown] id="x3-hint"
# <details>
# <summary>Hint</summary>
#
# Go through neighbouring points $(n_a, a)$ and $(n_b, b)$ and look for the first pair with $a \ge loss \ge b$ and
# $a > b$. There the way from $a$ down to the loss is a share of the way from $a$ to $b$, measured in logarithms:
# $s = \log(a / loss) / \log(a / b)$. Go the same share from $\log n_a$ to $\log n_b$.
#
# </details>


# %% id="x3-solution"
def needed(points, loss):
    """Parameters at which a line of (parameters, loss), straight on logarithmic axes, first comes down to loss, or None."""
    for (n_a, a), (n_b, b) in pairwise(points):
        if a >= loss >= b and a > b:
            share = math.log(a / loss) / math.log(a / b)
            return n_a * (n_b / n_a) ** share
    return None


# %% id="x3-check"
@check
def parameters_for_the_same_loss():
    line = [(1_000, 1.0), (10_000, 0.1), (40_000, 0.05)]
    for loss, wanted in (
        (0.1, 10_000),
        (math.sqrt(0.1), 1_000 * math.sqrt(10)),
        (0.05, 40_000),
        (0.1 / math.sqrt(2), 20_000),
    ):
        got = needed(list(line), loss)
        assert got is not None, f"the points {line} come down to {loss:.4f}, at {wanted:,.0f} parameters; you say None"
        assert math.isclose(got, wanted, rel_tol=1e-9), (
            f"the points {line} come down to {loss:.4f} at {wanted:,.0f} parameters; you say {got:,.0f}"
        )
    for loss in (2.0, 0.01):
        got = needed(list(line), loss)
        assert got is None, f"the points {line} never cross a loss of {loss}: expected None, got {got}"
    bumpy = [(100, 0.8), (400, 0.2), (500, 0.9), (8_000, 0.1)]
    got = needed(list(bumpy), 0.4)
    assert math.isclose(got or 0, 200.0, rel_tol=1e-9), (
        f"the points {bumpy} first come down to 0.4 at 200 parameters; you say {got}"
    )
    rising = [(100, 0.2), (400, 0.5), (900, 0.05)]
    got = needed(list(rising), 0.3)
    assert 400 < (got or 0) < 900, (
        f"the points {rising} rise at first; they come down to 0.3 only between 400 and 900 parameters; you say {got}"
    )


# %% [markdown] id="reuse"
# ## Which old features does a layer use?
#
# Why should a DenseNet need fewer parameters? The paper's answer is *feature reuse*: a layer need not make again
# what it can still read. Whether it *does* read it, **ablation** tells: cut one connection, from one source to
# one reader, and see by how much the test loss rises.
#
# Zeros would also take away the source's average. So the reader gets the source's **mean over all images**
# instead, without any news about this one. Here the package cuts the middle one of three channels, on four images
# of one pixel:

# %% id="cut-run"
seen = []
x = Tensor(numpy.arange(12, dtype=numpy.float64).reshape(4, 3, 1, 1))
Blinded(lambda cut: seen.append(cut.numpy()), slice(1, 2))(x)
print("before:", x.numpy()[:, :, 0, 0].tolist())
print("after: ", seen[0][:, :, 0, 0].tolist())

# %% [markdown] id="predict-reuse"
# **Predict.** We train a DenseNet with three layers in each of three blocks, growth rate 6. The classifier behind
# block 3 reads four sources: the block's input (all that blocks 1 and 2 made), and what layers 1, 2 and 3 of the
# block added. It would be hurt most by losing
#
# - (a) layer 3's features, the last and most abstract ones
# - (b) the block's input
# - (c) nothing much: each source can stand in for another

# %% id="reuse-run"
reuse = feature_reuse(depth=13, growth_rate=6, seeds=[SEED], epochs=5)
print(f"test accuracy of the whole network: {100 * reuse['test_accuracy']['mean']:.1f} %")
last = reuse["blocks"][2]
reuse_map(
    last["rise"],
    sources=last["sources"],
    layers=last["readers"],
    what="rise of the test loss, nats",
    form="{:z.2f}",
    title="Block 3: what a cut connection costs",
)

# %% id="reuse-claim"
by_input, by_last = last["rise"][0][-1], last["rise"][-1][-1]
far_back = reuse["early"]["blocks"][2]["mean"]
claim(
    "rise of the test loss when the classifier does not see the input of block 3, nats",
    by_input,
    0.25,
    2.5,
    seen=(0.809, 1.21),
)
claim(
    "share of the rises in block 3 that belong to sources at least two layers back",
    far_back,
    0.7,
    1,
    seen=(0.902, 0.963),
)
claim(
    "rise without what layer 3 added, by the rise without the input",
    by_last / by_input,
    -0.15,
    0.4,
    seen=(0.0141, 0.0586),
)

# %% [markdown] id="why-reuse"
# It is (b), by far. How to read the map: a column is a reader, a row a source; the number is by how many nats the
# test loss rises when this one connection is cut. (Guessing among ten digits is a loss of $\ln 10 \approx 2.3$
# nats.) In block 3, where images are 2×2, the layers add little, and the classifier lives on what came in: that
# is feature reuse. But mind that the input has 48 channels and each layer adds 6.
#
# The paper looks in a cheaper way: its Figure 5 shows, for a trained DenseNet, the mean $|w|$ of the weights with
# which each reader reads each source.

# %% [markdown] id="predict-weights"
# **Predict.** The same network, drawn as in Figure 5. For each reader, take the source with the largest mean
# $|w|$ over the one with the smallest. On average over readers this ratio is
#
# - (a) above 3: large rises come from large weights
# - (b) about 1.1, and about what it was before training

# %% id="weights-run"
reuse_picture(reuse)

# %% id="weights-claim"
after, before = (reuse["flatness"][when]["mean"] for when in ("trained", "untrained"))
claim("mean |w| of the largest source by the smallest, after training", after, 1.01, 1.3, seen=(1.04, 1.11))
claim("the same before training", before, 1.01, 1.2, seen=(1.05, 1.09))
claim("what training changed in it", after - before, -0.1, 0.15, seen=(-0.0102, 0.0335))

# %% [markdown] id="why-weights"
# It is (b). How to read the picture: above the rises, below the weights of the same connections. One column of
# the lower row is nearly one colour: after a few epochs weights are about as large as they were drawn, for useful
# sources and for others. Such a map says nothing about reuse.
#
# The paper's network, (40, 12) on CIFAR-10, was trained for longer. There it reads (§5): weights spread over many
# sources, least on the outputs of transitions, and a classifier that tends to the last features. Our classifier
# lives on the output of a transition: another network, other images, another measure. Say which measure you mean.

# %% [markdown] id="x4"
# ## Exercise 4: ablate a source
#
# For each source, a pair `(start, stop)` of channels, put their mean over the images in place of these channels
# (each channel and place of the image has its own mean), ask `loss` again, and return by how much it rose: a
# list, one number for each source. `x` is a NumPy array of shape (images, channels, height, width); cut *one*
# source at a time, and leave the caller's `x` as it was.


# %% id="x4-stub"
def rises(loss, x, sources):
    """By how much loss(x) rises when one source's channels are replaced by their mean over images, a list."""
    raise NotImplementedError


# %% [markdown] id="x4-hint"
# <details>
# <summary>Hint</summary>
#
# Images are axis 0. A slice of a NumPy array is a view, so work on `x.copy()`, a fresh one for each source. The
# mean over axis 0 has one axis less; NumPy repeats it for all images when you assign it.
#
# </details>


# %% id="x4-solution"
def rises(loss, x, sources):
    """By how much loss(x) rises when one source's channels are replaced by their mean over images, a list."""
    whole = loss(x)
    found = []
    for start, stop in sources:
        cut = x.copy()
        cut[:, start:stop] = x[:, start:stop].mean(axis=0)
        found.append(loss(cut) - whole)
    return found


# %% id="x4-check"
@check
def rises_of_a_loss():
    rng = numpy.random.default_rng(15)
    x = rng.normal(size=(5, 7, 3, 2)) + rng.normal(size=(7, 3, 2))
    weight, wanted_y = rng.normal(size=(7, 3, 2)), rng.normal(size=5)
    sources = [(0, 3), (3, 4), (4, 7)]

    def loss(images):
        assert images.shape == x.shape, f"loss got images of shape {images.shape} instead of {x.shape}"
        return float((((images * weight).sum(axis=(1, 2, 3)) - wanted_y) ** 2).mean())

    given = x.copy()
    found = rises(loss, given, sources)
    assert numpy.array_equal(given, x), "x was changed: cut the source in a copy"
    assert len(found) == len(sources), f"one number for each of {len(sources)} sources, got {len(found)}"
    for (start, stop), got in zip(sources, found, strict=True):
        hidden = numpy.array([start <= c < stop for c in range(7)])[:, None, None]
        wanted = loss(numpy.where(hidden, sum(x) / 5, x)) - loss(x)
        assert abs(got - wanted) < 1e-9, (
            f"without channels {start} to {stop - 1} the loss rises by {wanted:.4f}, you say {got:.4f}"
        )


# %% [markdown] id="break-it"
# ## Break it
#
# - In `equal-pair`, give the DenseNet bottlenecks and half the channels at transitions (`depth=22,
#   bottleneck=True, compression=0.5`). Which growth rate brings it back to about 11,000 parameters, and with how
#   many multiply-adds?
# - Run `equal_parameters` with `sizes=(15_000,)`, a minute or two. Does the order turn round once more?
# - In exercise 4, put zeros in place of the mean, and images whose channels have a large average. Which sources
#   look important now that were not before?

# %% [markdown] id="summary"
# ## Three lines to keep
#
# 1. Parameters count weights, FLOPs count how often they are used, FLOPS is your machine: one does not stand for
#    another.
# 2. "At equal parameters" is not yet fair: depth, recipe, seeds and the other cost belong to the verdict.
# 3. To learn what a network uses, take it away and measure; weights after a short training show how they were
#    drawn.

# %% [markdown] id="paper"
# ## What the lecture and the papers say
#
# "DenseNet-BC requires about 1/3 of the parameters as ResNet to achieve comparable accuracy" (caption of Figure
# 4, which the lecture quotes). Checked here, exactly, are the counts. Seen in small is that a DenseNet *can* need
# fewer parameters, and that another depth turns the result round. What a CPU and 1,437 digits cannot show is the
# third itself: that took many trainings on CIFAR-10.
#
# The lecture's summary adds that accuracy keeps growing with parameters. Look at the rows of Table 2:

# %% id="overfitting-run"
shown = {
    "densenet_100_12": "DenseNet (100, 12)",
    "densenet_100_24": "DenseNet (100, 24)",
    "densenet_bc_100_12": "DenseNet-BC (100, 12)",
    "densenet_bc_250_24": "DenseNet-BC (250, 24)",
}
errors = {name: published(name).errors for name in shown}
for name, label in shown.items():
    e = errors[name]
    print(
        f"{label:22} {published(name).counts[10][0]:10,} parameters: C10 {e['C10']:.2f}, C10+ {e['C10+']:.2f}, SVHN {e['SVHN']:.2f} %"
    )
claim("C10 error of DenseNet (100, 12), printed", errors["densenet_100_12"]["C10"], 5.77, 5.77)
claim("C10 error of DenseNet (100, 24), printed", errors["densenet_100_24"]["C10"], 5.83, 5.83)

# %% [markdown] id="differs-31"
# **Lecture and paper differ.** "No sign of overfitting", says the lecture, as does the paper's conclusion. §4.3
# is more careful: it sees "potential overfitting" on C10 without augmentation, where four times the parameters
# bring the error *up* from 5.77 to 5.83 %, and says that very deep networks may overfit SVHN, where 250 layers
# gain next to nothing over 100. Since 0.06 % is six images of 10,000 in one run, that is a hint, not a finding.

# %% [markdown] id="source"
# ## The real one
#
# How minidense makes a map of ablations: for each block, each source and each reader, blind the one to the other
# and test again.

# %% id="source-code"
print(inspect.getsource(ablation_maps))
