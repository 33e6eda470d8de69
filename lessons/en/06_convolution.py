# %% [markdown] id="why-convolution"
# Of the multiply-adds of a DenseNet, all but a handful are done by convolutions. They hold most of its weights,
# and every table that compares networks (parameters, FLOPs, output sizes) is a table of convolutions. If you can
# write one, differentiate it and count what it costs, you can read any architecture on paper before anybody
# trains it.
#
# In this lesson a 3×3 convolution becomes nine small matrix products that are added up, and both of its gradients
# are the same nine products read backwards. Then come the things that people get wrong: what padding means when
# the stride is 2, and what pooling does to a gradient.

# %% id="imports" tags=["setup"]
import inspect
import time

import numpy as np

from minidense import Tensor, ops
from minidense import functional as F
from minidense.data import load
from minidense.lessons import SEED, check, claim
from minidense.models import create
from minidense.nn import AvgPool2d, Conv2d, MaxPool2d
from minidense.ops.window import window
from minidense.plots import Picture, curves, several
from minidense.speed import reference_only
from minidense.summary import summarise

rng = np.random.default_rng(SEED)


def show(images, alt, most=None):
    """Images by title, side by side: orange is positive, purple negative, white zero. ``most`` is the darkest, else each its own."""
    figure, axes = several(len(images), width=2.4 * len(images), height=2.7)
    for axis, (title, image) in zip(axes[0], images.items(), strict=True):
        limit = most or abs(image).max()
        axis.imshow(image, cmap="PuOr_r", vmin=-limit, vmax=limit)
        axis.set(title=title, xticks=[], yticks=[])
        axis.title.set_fontsize("medium")
    return Picture(figure, alt)


# %% [markdown] id="filters"
# ## A filter is nine numbers and a question
#
# Lay nine numbers over nine pixels, multiply each pair, add up. The result is large where the picture looks like
# the nine numbers: a filter asks "how much is there of *this*, here?" Ask it at every place, and the answers make
# a new picture, the **feature map**.
#
# $$y_{ij} = \sum_{p=0}^{2} \sum_{q=0}^{2} w_{pq} \, x_{i+p,\;j+q}$$
#
# (A mathematician calls this a correlation; a convolution would turn the filter round first. Every deep learning
# library computes this and says convolution.)
#
# Here are a handwritten digit and four filters. We put one pixel of zeros around it, `padding=1`, so that the
# feature map is as large as the digit.

# %% [markdown] id="predict-edge"
# **Predict.** The filter `across` has −1 in its left column, 0 in the middle and +1 in its right column. The ink
# is bright (positive), the paper 0. Where will its feature map be positive?
#
# - (a) wherever there is ink
# - (b) along the left edges of the strokes
# - (c) along the right edges of the strokes
#
# Choose before you run the next cell.

# %% id="edge-run"
digits = load("digits")
digit = digits.test_images[5, 0] / 16.0  # 8×8, from 0 to 1
filters = {
    "across": np.array([[-1.0, 0, 1], [-1, 0, 1], [-1, 0, 1]]),
    "down": np.array([[-1.0, -1, -1], [0, 0, 0], [1, 1, 1]]),
    "blur": np.ones((3, 3)) / 9,
    "spot": np.array([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]]),
}
weight = np.stack(list(filters.values()))[:, None]  # (F, C, K, K) = (4, 1, 3, 3)
maps = F.conv2d(Tensor(digit[None, None]), Tensor(weight), padding=1).data[0]
show(
    {"the digit": digit, **dict(zip(filters, maps, strict=True))},
    f"A handwritten {digits.test_labels[5]} and its four feature maps; (row, column) from the top left, (0, 0). "
    + " ".join(
        f"'{name}' is largest at {divmod(int(a.argmax()), 8)} and smallest at {divmod(int(a.argmin()), 8)}."
        for name, a in zip(filters, maps, strict=True)
    ),
)

# %% [markdown] id="edge-read"
# How to read it: orange is positive, purple negative, white zero, each picture on a scale of its own.

# %% id="edge-claim"
pictures = digits.test_images / 16.0
across = F.conv2d(Tensor(pictures), Tensor(filters["across"][None, None]), padding=1).data[:, 0]
columns = np.arange(8)
left = (np.maximum(across, 0) * columns).sum((1, 2)) / np.maximum(across, 0).sum((1, 2))
right = (np.maximum(-across, 0) * columns).sum((1, 2)) / np.maximum(-across, 0).sum((1, 2))
claim("share of test digits whose positive answers lie left of the negative ones", (left < right).mean(), 1, 1)
mirrored = F.conv2d(Tensor(pictures[..., ::-1].copy()), Tensor(filters["across"][None, None]), padding=1).data[:, 0]
claim(
    "largest difference between the mirror's map and minus the map's mirror",
    abs(mirrored + across[..., ::-1]).max(),
    0,
    1e-12,
    seen=(0.0, 0.0),
)

# %% [markdown] id="why-edge"
# It is (b): the answer is the brightness on the right minus the brightness on the left, so it is positive where
# the picture gets brighter from left to right. Mirror the digit, and left edges become right edges: the map is
# mirrored and changes its sign.
#
# Nobody writes such filters by hand any more: they are the weights, and training finds them. An image has several
# **channels** $c$ (three colours, or the feature maps of the layer before), and a filter has nine numbers for
# each, whose answers are added up. A layer has several filters $f$, each with a feature map of its own:
#
# $$y_{n f i j} = \sum_{c} \sum_{p, q} w_{f c p q} \; x_{n c,\; i s + p,\; j s + q}$$
#
# with images $n$ (their border of zeros already around them) and a **stride** $s$: how many pixels the filter
# moves from one question to the next.

# %% [markdown] id="taps"
# ## Nine matrix products
#
# Written as loops, the formula is this. It is the definition: slow, and beyond doubt.


# %% id="loop" tags=["setup"]
def conv2d_loop(x, weight, stride=1, padding=0):
    """x (N, C, H, W) and weight (F, C, K, K') give (N, F, H', W'), one multiplication at a time."""
    (n, c, h, w), (f, _, k_h, k_w) = x.shape, weight.shape
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    y = np.zeros((n, f, (h + 2 * padding - k_h) // stride + 1, (w + 2 * padding - k_w) // stride + 1), x.dtype)
    for image, number, i, j in np.ndindex(y.shape):
        for channel, p, q in np.ndindex(c, k_h, k_w):
            y[image, number, i, j] += (
                weight[number, channel, p, q] * padded[image, channel, i * stride + p, j * stride + q]
            )
    return y


# %% [markdown] id="taps-idea"
# Now turn the loops inside out. Do not ask "which nine pixels does this output see?" but "which pixels does this
# **tap** see?" A tap is one place $(p, q)$ of the filter. While the filter slides over the image, tap $(0, 0)$
# meets one pixel for each output position, and together these pixels are a *view* of the image: all of it but the
# borders, moved by $(p, q)$, every $s$-th pixel. That is one slice of NumPy:

# %% id="window-run"
print(inspect.getsource(window))
small = np.arange(25.0).reshape(1, 1, 5, 5)
print("tap (0, 0) with stride 2 sees\n", window(small, 0, 0, 2, 2, 2)[0, 0])
print("tap (1, 2) with stride 2 sees\n", window(small, 1, 2, 2, 2, 2)[0, 0])

# %% [markdown] id="taps-product"
# For one tap, the sum over channels is a matrix product: its weights are a matrix of $F \times C$, the pixels
# that it sees a matrix of $C \times H'W'$. Nine taps, nine products, added up:
#
# $$y = \sum_{p, q} W_{pq} \, X_{pq}, \qquad W_{pq} \in \mathbb{R}^{F \times C}, \quad X_{pq} \in \mathbb{R}^{C
# \times H'W'}$$
#
# Matrix products are what computers are best at. A 1×1 convolution, which DenseNet uses for its bottlenecks and
# transitions, is the same with one tap: a single matrix product, pixel by pixel.

# %% [markdown] id="predict-exact"
# **Predict.** minidense computes convolutions by taps. We compare it with the loop, once on whole numbers and
# once on random fractions, in float64. The largest difference will be
#
# - (a) 0 both times: it is the same sum
# - (b) 0 for whole numbers, tiny but not 0 for fractions
# - (c) tiny but not 0 both times


# %% id="exact-run"
def compared(x, weight):
    """The largest difference between the loop and minidense, and the seconds that each took, best of three."""
    runs = {
        "loop": lambda: conv2d_loop(x, weight, 1, 1),
        "taps": lambda: F.conv2d(Tensor(x), Tensor(weight), padding=1).data,
    }
    y, seconds = {}, {}
    with reference_only():  # minidense has quicker twins of its definitions; lesson 16 is about them
        for name, run in runs.items():
            times = []
            for _ in range(3):
                start = time.perf_counter()
                y[name] = run()
                times.append(time.perf_counter() - start)
            seconds[name] = min(times)
    return abs(y["loop"] - y["taps"]).max(), seconds


whole = rng.integers(-9, 10, (2, 3, 16, 16)).astype(float), rng.integers(-9, 10, (8, 3, 3, 3)).astype(float)
fractions = rng.standard_normal((2, 3, 16, 16)), rng.standard_normal((8, 3, 3, 3))
of_whole, seconds = compared(*whole)
of_fractions, _ = compared(*fractions)
print(f"largest difference: whole numbers {of_whole:g}, fractions {of_fractions:.1e}")
print(f"the loop took {1e3 * seconds['loop']:.0f} ms, the taps {1e3 * seconds['taps']:.2f} ms")

# %% id="exact-claim"
claim("largest difference for whole numbers", of_whole, 0, 0)
claim("largest difference for fractions, times 1e15", 1e15 * of_fractions, 1, 30, seen=(5.32, 7.11))
claim("how many times longer the loop takes", seconds["loop"] / seconds["taps"], 10, 1e6, seen=(1850.0, 3070.0))

# %% [markdown] id="why-exact"
# It is (b). Both compute the same sum of 27 products, but in another order, and floating point addition rounds
# after each step: $(a + b) + c$ is not always $a + (b + c)$. Whole numbers of this size are added without
# rounding, so there the two agree **exactly**, and any difference would be a mistake. Remember the trick: to test
# an algorithm and not the rounding, feed it whole numbers.
#
# The loop does what the taps do, only one multiplication at a time, and Python charges for each.

# %% [markdown] id="x1"
# ## Exercise 1: a convolution
#
# Write it by taps: a loop over $p$ and $q$ and nothing else. `window(image, p, q, stride, out_h, out_w)` is
# there. The output has $H' = \lfloor (H + 2 \cdot \text{padding} - K) / \text{stride} \rfloor + 1$ rows.


# %% id="x1-stub"
def conv2d_by_taps(x, weight, stride=1, padding=0):
    """x (N, C, H, W) and weight (F, C, K, K') give (N, F, H', W')."""
    raise NotImplementedError


# %% [markdown] id="x1-hint"
# <details>
# <summary>Hint</summary>
#
# `np.pad` adds the border. For each tap: take the window of the padded image, make it $(N, C, H'W')$ with
# `reshape`, and multiply: `weight[:, :, p, q] @ seen` gives $(N, F, H'W')$, because `@` treats the first axis as
# a list of matrices.
#
# </details>

# %% [markdown] id="x1-hint-2"
# <details>
# <summary>Another hint</summary>
#
# Begin with zeros of shape $(N, F, H'W')$ and `+=` each tap's product; reshape at the end.
#
# </details>


# %% id="x1-solution"
def conv2d_by_taps(x, weight, stride=1, padding=0):
    """x (N, C, H, W) and weight (F, C, K, K') give (N, F, H', W')."""
    (n, c, h, w), (f, _, k_h, k_w) = x.shape, weight.shape
    out_h, out_w = (h + 2 * padding - k_h) // stride + 1, (w + 2 * padding - k_w) // stride + 1
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    y = np.zeros((n, f, out_h * out_w), x.dtype)
    for p in range(k_h):
        for q in range(k_w):
            seen = window(padded, p, q, stride, out_h, out_w).reshape(n, c, -1)
            y += weight[:, :, p, q] @ seen
    return y.reshape(n, f, out_h, out_w)


# %% id="x1-check"
@check
def convolution_by_taps():
    numbers = np.random.default_rng(0)
    cases = [((1, 1, 4, 4), (1, 1, 3, 3), 1, 0), ((2, 3, 5, 6), (4, 3, 3, 3), 1, 1), ((2, 3, 7, 8), (4, 3, 3, 3), 2, 1)]
    cases += [
        ((2, 4, 6, 5), (3, 4, 1, 1), 1, 0),
        ((1, 2, 8, 9), (2, 2, 2, 3), 3, 2),
        ((1, 2, 9, 7), (3, 2, 5, 5), 2, 0),
    ]
    for x_shape, weight_shape, stride, padding in cases:
        x, weight = (numbers.integers(-9, 10, shape).astype(float) for shape in (x_shape, weight_shape))
        x_before, weight_before = x.copy(), weight.copy()
        case = f"x {x_shape}, weight {weight_shape}, stride {stride}, padding {padding}"
        y, wanted = conv2d_by_taps(x, weight, stride, padding), conv2d_loop(x_before, weight_before, stride, padding)
        assert isinstance(y, np.ndarray), f"{case}: an array should come back, not {type(y).__name__}"
        assert y.shape == wanted.shape, f"{case}: the shape should be {wanted.shape}, yours is {y.shape}"
        wrong = (y != wanted).ravel()
        assert not wrong.any(), (
            f"{case}: {wrong.mean():.0%} of the outputs are wrong; the first of them should be "
            f"{wanted.flat[wrong.argmax()]:g}, yours is {y.flat[wrong.argmax()]:g}"
        )
        unchanged = (x == x_before).all() & (weight == weight_before).all()
        assert unchanged, f"{case}: your function has changed its input"
        if padding:
            with_default = conv2d_by_taps(x, weight)
            assert with_default.shape[2] == x_shape[2] - weight_shape[2] + 1, (
                f"{case}: without stride and padding given, they are 1 and 0"
            )


# %% [markdown] id="gradients"
# ## The way back
#
# A convolution is nine products and a sum, and you know how to differentiate both. Call the gradient of the loss
# with respect to the output `dy`. For one tap, $y \mathrel{+}= W_{pq} X_{pq}$, and a product $Y = WX$ has the
# gradients $dW = dY\,X^{\mathsf T}$ and $dX = W^{\mathsf T} dY$. So
#
# $$dW_{pq} = dY \, X_{pq}^{\mathsf T} \qquad dX_{pq} = W_{pq}^{\mathsf T} \, dY$$
#
# $dW_{pq}$ is summed over the images. $dX_{pq}$ belongs to the pixels that the tap has seen: add it there, in the
# same window. A pixel that nine taps have seen gets nine contributions; paths that meet add up, as in lesson 01.
#
# To see what this does, send back a `dy` with a single 1 in it.

# %% [markdown] id="predict-stamp"
# **Predict.** The filter holds the numbers 1 to 9, in reading order. `dy` is 1 at one output position and 0
# elsewhere. Around that position, `dx` will show
#
# - (a) the numbers 1 to 9 in reading order
# - (b) the numbers 9 to 1: the filter turned by 180°
# - (c) a 1 in the middle


# %% id="stamp-run"
def gradients(x, weight, dy, stride=1, padding=0):
    """(dx, dweight) as minidense computes them."""
    x, weight = Tensor(x, requires_grad=True), Tensor(weight, requires_grad=True)
    with reference_only():
        F.conv2d(x, weight, stride=stride, padding=padding).backward(dy)
    return x.grad, weight.grad


numbered = np.arange(1.0, 10).reshape(1, 1, 3, 3)
dy = np.zeros((1, 1, 7, 7))
dy[0, 0, 3, 3] = 1
one_dx, _ = gradients(np.zeros((1, 1, 7, 7)), numbered, dy, padding=1)
print(one_dx[0, 0, 2:5, 2:5])
dy[0, 0, 3, 5] = 1
two_dx, _ = gradients(np.zeros((1, 1, 7, 7)), numbered, dy, padding=1)
show(
    {"filter": numbered[0, 0], "dy, two ones": dy[0, 0], "dx": two_dx[0, 0]},
    f"The filter with its numbers 1 to 9; a dy with ones at (3, 3) and (3, 5); and dx, whose rows 2 to 4 are "
    f"{two_dx[0, 0, 2:5].astype(int).tolist()}.",
)

# %% id="stamp-claim"
claim(
    "largest difference between dx of one output and the filter",
    abs(one_dx[0, 0, 2:5, 2:5] - numbered[0, 0]).max(),
    0,
    0,
)
x, weight = rng.standard_normal((2, 3, 8, 8)), rng.standard_normal((4, 3, 3, 3))
dy = rng.standard_normal((2, 4, 8, 8))
dx, dweight = gradients(x, weight, dy, padding=1)
turned = weight[:, :, ::-1, ::-1].swapaxes(0, 1)  # each filter turned by 180°, in and out exchanged
off = abs(dx - conv2d_loop(dy, turned, 1, 1)).max()
claim(
    "largest difference between dx and a convolution of dy with turned filters, times 1e14",
    1e14 * off,
    0.1,
    5,
    seen=(0.71, 0.889),
)
y = conv2d_loop(x, weight, 1, 1)
off = abs((dy * y).sum() - (dx * x).sum()) / abs(dy * y).sum()
claim("difference of Σ dy·y and Σ dx·x, as a share of Σ |dy·y|, times 1e16", 1e16 * off, 0, 10, seen=(0, 0.204))

# %% [markdown] id="why-stamp"
# It is (a). The output at that place is $1 \cdot x_0 + 2 \cdot x_1 + \dots + 9 \cdot x_8$; the slope with respect
# to each pixel is its weight. So `dx` is made by **stamping**: each output presses the filter, times its `dy`,
# onto the pixels that it saw. (In the picture darker is larger. Where the two stamps overlap, they are added.)
#
# Then where does the famous "turned by 180°" come from? From asking the other way round. A pixel collects from
# all stamps that touch it, and the stamp to its *right* touches it with its *left* column. Read from the pixel's
# side, with stride 1, `dx` is a convolution of `dy` with turned filters; the second claim holds one against the
# other. Stamping also works for stride 2, and there is nothing to turn.
#
# The last claim is the check with two dot products of lesson 03. A convolution is linear in $x$, so $\sum dy
# \cdot y = \sum dx \cdot x$, whatever the numbers.

# %% [markdown] id="x2"
# ## Exercise 2: both gradients
#
# Write them by taps. You need two arrays: `dweight`, which you fill tap by tap, and a padded `dx`, to which each
# tap adds in its window. Give back `dx` without its border. Do not forget the sum over images, and mind stride
# and padding.


# %% id="x2-stub"
def conv2d_gradients(dy, x, weight, stride=1, padding=0):
    """From dy (N, F, H', W'): dx (N, C, H, W) and dweight (F, C, K, K')."""
    raise NotImplementedError


# %% [markdown] id="x2-hint"
# <details>
# <summary>Hint</summary>
#
# `window(dpadded, p, q, stride, out_h, out_w)` is a view: `window(...)[...] += something` writes into `dpadded`
# itself. For the sums over several axes `np.einsum` says what you mean: `"nfij,ncij->fc"` multiplies and sums
# over images and positions.
#
# </details>


# %% id="x2-solution"
def conv2d_gradients(dy, x, weight, stride=1, padding=0):
    """From dy (N, F, H', W'): dx (N, C, H, W) and dweight (F, C, K, K')."""
    (h, w), (out_h, out_w) = x.shape[2:], dy.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    dpadded, dweight = np.zeros_like(padded), np.zeros_like(weight)
    for p in range(weight.shape[2]):
        for q in range(weight.shape[3]):
            seen = window(padded, p, q, stride, out_h, out_w)
            dweight[:, :, p, q] = np.einsum("nfij,ncij->fc", dy, seen)
            window(dpadded, p, q, stride, out_h, out_w)[...] += np.einsum("fc,nfij->ncij", weight[:, :, p, q], dy)
    return dpadded[:, :, padding : padding + h, padding : padding + w], dweight


# %% id="x2-check"
@check
def both_gradients_of_a_convolution():
    numbers = np.random.default_rng(1)
    cases = [((1, 1, 4, 4), (1, 1, 3, 3), 1, 0), ((2, 3, 5, 6), (4, 3, 3, 3), 1, 1), ((3, 2, 7, 8), (4, 2, 3, 3), 2, 1)]
    cases += [((2, 4, 6, 5), (3, 4, 1, 1), 1, 0), ((2, 3, 8, 9), (2, 3, 2, 3), 3, 2)]
    for x_shape, weight_shape, stride, padding in cases:
        x, weight = (numbers.integers(-9, 10, shape).astype(float) for shape in (x_shape, weight_shape))
        dy = numbers.integers(-9, 10, conv2d_loop(x, weight, stride, padding).shape).astype(float)
        before = dy.copy(), x.copy(), weight.copy()
        case = f"x {x_shape}, weight {weight_shape}, stride {stride}, padding {padding}"
        dx, dweight = conv2d_gradients(dy, x, weight, stride, padding)
        given = Tensor(before[1], requires_grad=True), Tensor(before[2], requires_grad=True)
        with reference_only():
            F.conv2d(*given, stride=stride, padding=padding).backward(before[0])
        for name, mine, wanted in (("dx", dx, given[0].grad), ("dweight", dweight, given[1].grad)):
            assert mine.shape == wanted.shape, f"{case}: {name} should be {wanted.shape}, yours is {mine.shape}"
            assert (mine == wanted).all(), (
                f"{case}: {(mine != wanted).mean():.0%} of {name} is wrong; its sum should be {wanted.sum():g}, yours is {mine.sum():g}"
            )
        unchanged = all((now == then).all() for now, then in zip((dy, x, weight), before, strict=True))
        assert unchanged, f"{case}: your function has changed its input"


# %% [markdown] id="counting"
# ## What it costs
#
# A layer with $C$ channels in, $F$ filters and $K \times K$ taps has $F \cdot C \cdot K^2$ weights. (No bias:
# behind it stands a batch norm, which takes away any constant; lesson 07.) For every output position each weight
# is used once, so it takes $F \cdot C \cdot K^2 \cdot H'W'$ multiply-adds for one image.
#
# DenseNet-BC (L = 100, k = 12) has 3×3 convolutions from 48 to 12 channels in each of its three blocks. Between
# the blocks the image shrinks from 32×32 to 16×16 to 8×8.

# %% [markdown] id="predict-cost"
# **Predict.** Compare such a layer in block 1 with the same layer in block 3. In block 3 it has
#
# - (a) fewer weights and fewer multiply-adds
# - (b) the same weights, and a quarter of the multiply-adds
# - (c) the same weights, and a sixteenth of the multiply-adds

# %% id="cost-run"
network = create("densenet_bc_100_12")
summary = summarise(network, (3, 32, 32), kept=False)
blocks = [row for row in summary.model.rows[0].rows if row.name.startswith("denseblock")]
first, _, third = (block.rows[0].rows[-1] for block in blocks)  # conv2 of each block's first layer
for name, row in (("block 1", first), ("block 3", third)):
    print(f"{name}: {row.layer}, {row.parameters:,} weights, {row.multiply_adds:,} multiply-adds")
curves(
    [1, 2, 3],
    {
        "share of the parameters": [block.parameters / summary.parameters for block in blocks],
        "share of the multiply-adds": [block.multiply_adds / summary.multiply_adds for block in blocks],
    },
    ylim=(0, 0.7),
    title="The three dense blocks of DenseNet-BC (100, 12)",
    xlabel="block",
    ylabel="share of the network",
    alt="Parameters: the blocks hold "
    + ", ".join(f"{block.parameters / summary.parameters:.0%}" for block in blocks)
    + " of them. Multiply-adds: "
    + ", ".join(f"{block.multiply_adds / summary.multiply_adds:.0%}" for block in blocks)
    + ".",
)

# %% id="cost-claim"
claim("weights of a 3×3 layer in block 3", third.parameters, 12 * 48 * 9, 12 * 48 * 9)
claim("multiply-adds in block 1 for each one in block 3", first.multiply_adds / third.multiply_adds, 16, 16)
claim("multiply-adds of the whole network", summary.multiply_adds, 287_929_692, 287_929_692)
claim("of which in the linear layer", summary.model.rows[-1].multiply_adds, 3_420, 3_420)

# %% [markdown] id="why-cost"
# It is (c): weights do not know how large the image is, but each of them is used at every pixel, and 32×32 is
# sixteen times 8×8. So parameters and work are two different maps of a network. In the picture one line rises and
# the other falls: of the three blocks, the last has the most parameters and the least work. "Fewer parameters"
# never means "faster" by itself; lesson 15 comes back to it.
#
# The linear layer at the end has 3,420 multiply-adds. All the rest that is counted is convolution.

# %% [markdown] id="field"
# ## What one output sees
#
# One 3×3 layer sees 3×3 pixels. The next sees 3×3 pixels of *that*, each of which saw 3×3. To find out how much
# image stands behind one output, we need no formula: send a 1 back from it and count the pixels where a gradient
# arrives. Each layer here has eight channels and random weights.

# %% [markdown] id="predict-field"
# **Predict.** Behind one output of ten 3×3 layers lies a square of pixels. Its side, and how the gradient is
# spread over it:
#
# - (a) 21, and evenly
# - (b) 21, and mostly near the middle
# - (c) $3^{10}$ = 59,049, if the image were that large


# %% id="field-run"
def felt(layers, size=25, channels=8, draws=12):
    """Root of the mean squared gradient at each pixel, from one output in the middle, over random weights."""
    squares = np.zeros((size, size))
    for _ in range(draws):
        x = y = Tensor(np.zeros((1, channels, size, size)), requires_grad=True)
        for _ in range(layers):
            weight = rng.standard_normal((channels, channels, 3, 3)) / np.sqrt(9 * channels)
            y = F.conv2d(y, Tensor(weight), padding=1)
        dy = np.zeros(y.shape)
        dy[0, 0, size // 2, size // 2] = 1
        y.backward(dy)
        squares += (x.grad[0] ** 2).mean(0)
    return np.sqrt(squares / draws)


fields = {layers: felt(layers) for layers in (1, 3, 10)}
squares = fields[10] ** 2
inner = squares[7:18, 7:18].sum() / squares.sum()
sides = {layers: int((field > 0).any(0).sum()) for layers, field in fields.items()}
show(
    {f"layers: {layers}, seen: {sides[layers]}×{sides[layers]}": field for layers, field in fields.items()},
    f"Gradient at the pixels behind one output: a square of side {sides[1]} after one layer, {sides[3]} after three, "
    f"{sides[10]} after ten. There the inner 11×11 pixels have {inner:.0%} of the squared gradient.",
)

# %% id="field-claim"
for layers, side in sides.items():
    claim(f"side of the square behind an output of {layers} 3×3 layers", side, 2 * layers + 1, 2 * layers + 1)
claim(
    "share of the squared gradient in the inner 11×11 of 21×21",
    inner,
    0.9,
    0.97,
    seen=(0.931, 0.943),
)

# %% [markdown] id="why-field"
# It is (b). Each 3×3 layer adds one pixel on either side, $1 + 2 \cdot 10 = 21$; this square is the **receptive
# field**. But to a corner leads a single path, to the middle many, and paths add up (darker is more): the inner
# 11×11, a good quarter of the square, gets more than nine tenths of the squared gradient. Luo et al. (2016) call
# what is left the *effective* receptive field.
#
# Ten layers for 21 pixels is slow. After a layer with stride 2, one step of the next layer is two pixels of the
# image, after two of them four. In general, a layer with kernel $K$ adds $(K - 1)$ times the product of all
# strides *before* it. This, besides the cost, is why networks shrink their images.

# %% [markdown] id="x3"
# ## Exercise 3: read an architecture
#
# A chain of convolutions is given as a list of tuples `(channels_in, filters, kernel, stride, padding)`, for
# square images. Count its weights (no biases), its multiply-adds for one image, the side of what comes out, and
# the receptive field of one output.


# %% id="x3-stub"
def read_chain(layers, size):
    """(weights, multiply_adds, size_out, receptive_field) of a chain of convolutions on images of size×size."""
    raise NotImplementedError


# %% [markdown] id="x3-hint"
# <details>
# <summary>Hint</summary>
#
# Walk through the chain with five numbers in hand: weights and multiply-adds so far, the present size, the field
# (begin with 1), and the step: how many pixels of the image one step of the present layer is (begin with 1). The
# field grows by `(kernel - 1) * step`, and *then* the step is multiplied by the stride.
#
# </details>


# %% id="x3-solution"
def read_chain(layers, size):
    """(weights, multiply_adds, size_out, receptive_field) of a chain of convolutions on images of size×size."""
    weights = multiply_adds = 0
    field = step = 1
    for channels, filters, kernel, stride, padding in layers:
        size = (size + 2 * padding - kernel) // stride + 1
        count = filters * channels * kernel * kernel
        weights += count
        multiply_adds += count * size * size
        field += (kernel - 1) * step
        step *= stride
    return weights, multiply_adds, size, field


# %% id="x3-check"
@check
def an_architecture_read_from_paper():
    stem = [(3, 64, 7, 2, 3)]
    stages = [(3, 8, 3, 1, 1), (8, 16, 3, 2, 1), (16, 16, 1, 1, 0), (16, 32, 5, 2, 0), (32, 10, 3, 1, 0)]
    names = ("weights", "multiply-adds", "size of the output", "receptive field")
    for layers, size, wanted in (
        ([(48, 12, 3, 1, 1)], 32, (5_184, 5_308_416, 32, 3)),
        (stem, 224, (9_408, 118_013_952, 112, 7)),
        (3 * [(4, 4, 3, 1, 1)], 10, (432, 43_200, 10, 7)),
        (3 * [(4, 4, 3, 2, 1)], 32, (432, 48_384, 4, 15)),
        (stages, 33, (17_304, 1_341_336, 5, 21)),
    ):
        found = tuple(read_chain(list(layers), size))
        assert len(found) == 4, f"four numbers should come back, there are {len(found)}"
        for name, mine, right in zip(names, found, wanted, strict=True):
            assert mine == right, f"{layers} on {size}×{size}: {name} should be {right:,}, yours is {mine:,}"


# %% [markdown] id="pooling"
# ## Pooling
#
# Pooling shrinks an image without weights. **Max pooling** keeps the largest of each window, **average pooling**
# the mean; with a 2×2 window and stride 2, height and width are halved. DenseNet uses both: average pooling in
# every transition, and for ImageNet max pooling once, near the picture. Their values look alike; their gradients
# do not.

# %% [markdown] id="predict-pool"
# **Predict.** An 8×8 image is pooled to 4×4 with windows of 2×2, and a `dy` of ones comes back. How many of the
# 64 pixels get a gradient that is not 0?
#
# - (a) all 64 with both
# - (b) 16 with max pooling, 64 with average pooling
# - (c) 16 with both

# %% id="pool-run"
pooled, arrived = {}, {}
for name, pool in (("max", F.max_pool2d), ("average", F.avg_pool2d)):
    x = Tensor(digit[None, None], requires_grad=True)
    y = pool(x, 2)
    y.backward(np.ones(y.shape))
    pooled[name], arrived[name] = y.data[0, 0], x.grad[0, 0]
show(
    {
        "the digit": digit,
        "max": pooled["max"],
        "dx of max": arrived["max"],
        "average": pooled["average"],
        "dx of average": arrived["average"],
    },
    f"The digit, pooled by maximum and by mean, and the gradients: {(arrived['max'] != 0).sum()} of them are not 0 with max "
    f"pooling, the largest {arrived['max'].max():g}; {(arrived['average'] != 0).sum()} with average pooling, the largest "
    f"{arrived['average'].max():g}.",
    most=1,
)

# %% id="pool-claim"
claim("pixels with a gradient behind 2×2 max pooling", (arrived["max"] != 0).sum(), 16, 16)
claim("pixels with a gradient behind 2×2 average pooling", (arrived["average"] != 0).sum(), 64, 64)
claim("sum of dx behind max pooling", arrived["max"].sum(), 16, 16)
claim("sum of dx behind average pooling", arrived["average"].sum(), 16, 16)

# %% [markdown] id="why-pool"
# It is (b). (All five pictures share one scale: white is 0, the darkest 1.) Moving a pixel that is not the
# largest of its window changes nothing, so its slope is 0: max pooling hands the whole `dy` to the winner. (Where
# several tie, minidense takes the first in reading order, as PyTorch does.) In a mean every pixel has a share of
# a quarter. Both hand on the same sum; max pooling picks, average pooling spreads.

# %% [markdown] id="x4"
# ## Exercise 4: the gradient of average pooling
#
# Windows of $K \times K$, `stride` apart, no padding. Windows may overlap (a pixel gets a share from each), and
# some pixels may be seen by none. Without looking at how minidense does it.


# %% id="x4-stub"
def avg_pool2d_backward(dy, x_shape, kernel, stride):
    """dx (N, C, H, W) of average pooling, from dy (N, C, H', W')."""
    raise NotImplementedError


# %% [markdown] id="x4-hint"
# <details>
# <summary>Hint</summary>
#
# Average pooling is a convolution in which every weight is $1/K^2$ and channels do not mix. Stamp: for every
# place $(p, q)$ of the window, add `dy / kernel**2` to what that place has seen. `window` again.
#
# </details>


# %% id="x4-solution"
def avg_pool2d_backward(dy, x_shape, kernel, stride):
    """dx (N, C, H, W) of average pooling, from dy (N, C, H', W')."""
    dx = np.zeros(x_shape, dy.dtype)
    out_h, out_w = dy.shape[2:]
    for p in range(kernel):
        for q in range(kernel):
            window(dx, p, q, stride, out_h, out_w)[...] += dy / kernel**2
    return dx


# %% id="x4-check"
@check
def gradient_of_average_pooling():
    numbers = np.random.default_rng(2)
    for shape, kernel, stride in (
        ((2, 3, 4, 6), 2, 2),
        ((1, 2, 7, 9), 3, 2),
        ((2, 1, 8, 8), 3, 3),
        ((1, 1, 7, 6), 2, 4),
    ):
        x = Tensor(numbers.standard_normal(shape), requires_grad=True)
        y = F.avg_pool2d(x, kernel, stride=stride)
        dy = numbers.standard_normal(y.shape)
        y.backward(dy.copy())
        before = dy.copy()
        dx = avg_pool2d_backward(dy, shape, kernel, stride)
        case = f"x {shape}, kernel {kernel}, stride {stride}"
        assert dx.shape == shape, f"{case}: dx should be {shape}, yours is {dx.shape}"
        assert (dy == before).all(), f"{case}: your function has changed dy"
        off = abs(dx - x.grad).max()
        assert off < 1e-12, (
            f"{case}: off by up to {off:.3g}; the sum of dx should be {x.grad.sum():.4f}, yours is {dx.sum():.4f}"
        )


# %% [markdown] id="padding"
# ## Where frameworks disagree
#
# The lecture builds DenseNet-121 in Keras. Its first two layers are
#
# ```python
# layers.Conv2D(k * 2, (7, 7), strides=2, padding='same', ...)
# layers.MaxPool2D((3, 3), 2, padding='same')
# ```
#
# and the authors' code (as torchvision's) says padding 3 for the convolution and padding 1 for the pooling. The
# sizes are the same: 224 → 112 → 56. Are the values?
#
# With `padding='same'` TensorFlow adds as few zeros as it takes for an output of $\lceil H / s \rceil$, and if
# that is an odd number, the larger half goes to the bottom and the right.

# %% [markdown] id="predict-same"
# **Predict.** How many zeros does 'same' put before and behind 224 pixels, for a 7×7 kernel with stride 2?
#
# - (a) 3 and 3
# - (b) 2 and 3
# - (c) 3 and 2


# %% id="same-run"
def same_padding(size, kernel, stride):
    """Zeros (before, behind) that TensorFlow adds along an axis for padding='same'."""
    out = -(-size // stride)  # rounded up
    total = max((out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


for size, kernel, stride in ((224, 7, 2), (112, 3, 2), (32, 3, 1)):
    before, behind = same_padding(size, kernel, stride)
    print(f"{size} pixels, kernel {kernel}, stride {stride}: {before} before, {behind} behind")

# %% id="same-claim"
claim("zeros before, for the 7×7 convolution", same_padding(224, 7, 2)[0], 2, 2)
claim("zeros behind", same_padding(224, 7, 2)[1], 3, 3)
claim("zeros before, for the 3×3 pooling", same_padding(112, 3, 2)[0], 0, 0)

image, weight = rng.standard_normal((1, 3, 32, 32)), rng.standard_normal((8, 3, 7, 7))
(before, behind) = same_padding(32, 7, 2)
as_tensorflow = conv2d_loop(np.pad(image, ((0, 0), (0, 0), (before, behind), (before, behind))), weight, stride=2)
as_torch = conv2d_loop(image, weight, stride=2, padding=3)
moved = np.zeros_like(image)
moved[:, :, :-1, :-1] = image[:, :, 1:, 1:]  # one pixel up and to the left
claim("difference in size", abs(np.subtract(as_tensorflow.shape, as_torch.shape)).max(), 0, 0)
claim("share of outputs that are equal", (as_tensorflow == as_torch).mean(), 0, 0)
inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
of_moved = conv2d_loop(moved, weight, stride=2, padding=3)
claim("largest inner difference once the image is moved by a pixel", abs(as_tensorflow - of_moved)[inner].max(), 0, 0)

# %% [markdown] id="differs-6"
# **Lecture and paper differ (1).** It is (b): the lecture's `padding='same'` pads 2 and 3 at the convolution and
# 0 and 1 at the pooling, the published networks 3 and 3, and 1 and 1. Same sizes, and not one equal value: with
# 'same' every output looks at a place one pixel further down and to the right. Move the image by one pixel, and
# away from the borders the two agree to the last bit.
#
# A network trained from scratch learns its filters where they sit. But carry *trained* weights from one framework
# to the other, and everything fits, no error is raised, and every value behind the first layer is another.
# (PyTorch refuses `padding='same'` with a stride above 1.) With stride 1 and an odd kernel there is nothing to
# disagree about: the convolutions inside DenseNet's blocks are safe.

# %% [markdown] id="shrinking"
# ## Who loses what
#
# The lecture says about the stem: "max pooling can lose the information of these fine features. Therefore the
# image is made smaller by a larger stride of the convolution, which keeps features from being lost." Let us see
# which pixels can have a say at all: a pixel has one if a gradient can reach it.

# %% [markdown] id="predict-loss"
# **Predict.** Which of these ways to halve an image lets **every** pixel have a say? Several may be right.
#
# - (a) max pooling 2×2
# - (b) a 1×1 convolution with stride 2
# - (c) a 3×3 convolution with stride 2
# - (d) average pooling 2×2

# %% id="loss-run"
random_image = rng.standard_normal((1, 1, 32, 32))
ways = {
    "max pooling 2×2": lambda x: F.max_pool2d(x, 2),
    "max pooling 3×3, stride 2, padding 1": lambda x: F.max_pool2d(x, 3, stride=2, padding=1),
    "convolution 1×1, stride 2": lambda x: F.conv2d(x, Tensor(np.ones((1, 1, 1, 1))), stride=2),
    "convolution 3×3, stride 2, padding 1": lambda x: F.conv2d(x, Tensor(np.ones((1, 1, 3, 3))), stride=2, padding=1),
    "average pooling 2×2": lambda x: F.avg_pool2d(x, 2),
}
reached = {}
for name, way in ways.items():
    x = Tensor(random_image, requires_grad=True)
    y = way(x)
    y.backward(np.ones(y.shape))
    reached[name] = (x.grad != 0).mean()
    print(f"{name:38} {reached[name]:6.1%} of the pixels have a say")

# %% id="loss-claim"
claim("share reached by 2×2 max pooling", reached["max pooling 2×2"], 0.25, 0.25)
claim("share reached by a 1×1 convolution with stride 2", reached["convolution 1×1, stride 2"], 0.25, 0.25)
claim("share reached by a 3×3 convolution with stride 2", reached["convolution 3×3, stride 2, padding 1"], 1, 1)
claim("share reached by 2×2 average pooling", reached["average pooling 2×2"], 1, 1)
claim(
    "share reached by 3×3 max pooling", reached["max pooling 3×3, stride 2, padding 1"], 0.14, 0.19, seen=(0.157, 0.167)
)

# %% [markdown] id="why-loss"
# (c) and (d). A stride by itself loses exactly as much as max pooling does, only blindly: the 1×1 convolution
# never looks at three quarters of the image, whatever is there. What saves the 3×3 convolution is that its
# windows leave no gaps.
#
# Now look at what the networks really do.

# %% id="shrink-run"
for name in ("densenet121", "densenet_bc_100_12"):
    modules = list(create(name).named_modules())
    strided = [where for where, m in modules if isinstance(m, Conv2d) and m.stride > 1]
    largest = [where for where, m in modules if isinstance(m, MaxPool2d)]
    means = [where for where, m in modules if isinstance(m, AvgPool2d)]
    print(f"{name}\n  strided convolutions: {strided}\n  max pooling: {largest}\n  average pooling: {means}")
    claim(f"strided convolutions of {name}", len(strided), name == "densenet121", name == "densenet121")
    claim(
        f"average poolings of {name}", len(means), 3 if name == "densenet121" else 2, 3 if name == "densenet121" else 2
    )

# %% [markdown] id="differs-23"
# **Lecture and paper differ (2).** DenseNet does not replace max pooling by a stride. For ImageNet it has one
# convolution with stride 2, the very first, **and** a max pooling right behind it (Table 1 of the paper; the
# lecture's next sentence says so itself). All further shrinking is done by 2×2 *average* pooling in the
# transitions. For CIFAR there is no strided convolution and no max pooling at all. Inside a block nothing may
# shrink, because feature maps of different sizes could not be concatenated.
#
# The idea that the lecture describes exists: it is the All-CNN of Springenberg et al. (2015), one of the networks
# in the lecture's table of results.

# %% [markdown] id="break-it"
# ## Break it
#
# - In "stamp-run", set `stride=2` in both calls and let `dy` be 4×4, with its ones at (1, 1) and (1, 2). Where do
#   the stamps go now? Why can "turn the filter and convolve" not give this any more?
# - In `felt`, put `F.relu` between the layers, with an image of random numbers. Does the side of the square
#   change? Does the share in the middle?
# - Pool the digit with windows of 3×3 and stride 2 (no padding): which pixels get no gradient from *average*
#   pooling? What does that say about odd sizes?

# %% [markdown] id="summary"
# ## Three lines to keep
#
# 1. A convolution is one matrix product per tap, added up; backwards each tap gives to the pixels that it has
#    seen.
# 2. Weights: $F C K^2$, whatever the image. Multiply-adds: that times the output positions.
# 3. Sizes may agree while values do not: write padding down in numbers when the stride is not 1.

# %% [markdown] id="paper"
# ## What the lecture and the papers say
#
# - The equation is that of LeCun et al. 1998 (§II.A, there with the word convolution for what we compute, too);
#   the sizes are in Dumoulin & Visin 2016, whose pictures of stride and padding are worth an evening.
# - Table 1 of the DenseNet paper prints the stem as "7×7 conv, stride 2" and "3×3 max pool, stride 2", the
#   transitions as "1×1 conv" and "2×2 average pool, stride 2". Padding is printed only for CIFAR (§3: "each side
#   of the inputs is zero-padded by one pixel" for 3×3 kernels). The 3 and 1 of the stem come from the code.
# - The paper prints no FLOPs for CIFAR. Its Figure 3 does for ImageNet, and lesson 15 goes there.
# - It does not compare average pooling in the transitions with other ways to shrink, and 1,437 digits of 8×8
#   pixels cannot. What we counted is which pixels *can* have a say, not how well the network learns with it.

# %% [markdown] id="source"
# ## The real one
#
# minidense goes one step further than your exercise: it stacks the weights of all taps into one tall matrix, so
# that one large product replaces nine small ones, and then picks from it what each tap contributes. Find the
# lines where the shares are added up, and in `backward` the line that stamps.

# %% id="source-code"
print(inspect.getsource(ops.Conv2d))
