"""The twins of the GPU against their definitions: on a real GPU where there is one, and on the CPU through a shim everywhere.

The shim compiles the kernels with g++ and runs every CUDA thread as a fiber (cuda_on_cpu.py); all that launches them is the same.
"""

import numpy as np
import pytest
import strict_cupy
from cuda_on_cpu import ORDERS, SANITIZED, thread_order
from twins import assert_same, collect, run

import minidense as md
from minidense import functional as F
from minidense.backend import to_device, to_numpy
from minidense.fast.gpu import launch
from minidense.models import create
from minidense.models.densenet import Transition, block_and_transition, dense_block
from minidense.nn import Module
from minidense.precision import precision
from minidense.speed import REFERENCES, reference_only

pytestmark = pytest.mark.usefixtures("kernels")

TOLERANCE = 1e-4  # float32, another order of summing: as for the twins of the CPU

TWINS = [(function, twin) for function in REFERENCES for twin in function.fast_paths if ".gpu." in twin.run.__module__]
CASES = [
    pytest.param(function, twin, example, id=f"{twin.run.__name__}-{number}")
    for function, twin in TWINS
    for number, example in enumerate(twin.examples())
    if not SANITIZED or number % 5 == 0
]


def moved(value, device):
    """The same arguments on a device."""
    if isinstance(value, md.Tensor | Module):
        return value.to(device)
    if isinstance(value, np.ndarray):
        return to_device(value, device)
    if isinstance(value, list):
        return [moved(item, device) for item in value]
    return value


def arguments(example, device, dtype=np.float32):
    args, options = example(np.random.default_rng(0), dtype)
    return [moved(value, device) for value in args], options


@pytest.mark.parametrize(("function", "twin", "example"), CASES)
def test_a_twin_equals_its_definition(function, twin, example, gpu):
    args, options = arguments(example, gpu)
    assert twin.fits(*args, **options), "an example that the twin would not answer tests nothing"
    with precision("float32"):
        found = run(twin.run, args, options)
    args, options = arguments(example, "cpu", np.float64)
    with reference_only():
        expected = run(function.definition, args, options)
    assert_same(found, expected, TOLERANCE)


SMALL = ("classifier", "pictures", "sgd")  # what test_kernels.py does not try in every order


@pytest.mark.parametrize("order", ORDERS[1:])
@pytest.mark.parametrize(
    ("function", "twin", "example"), [case for case in CASES if case.values[1].run.__module__.endswith(SMALL)]
)
def test_the_order_of_threads_changes_no_bit(function, twin, example, order, strict_gpu):
    found = []
    for this in (0, order):
        args, options = arguments(example, strict_gpu)
        with precision("float32"), thread_order(this):
            found.append(run(twin.run, args, options))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name], err_msg=name)


@pytest.mark.parametrize(("how", "rounding"), [("tf32", 2**-10), ("mixed", 2**-8)])
@pytest.mark.parametrize("name", ["densenet_bc_22_12", "densenet_13_8"])
def test_reduced_precision_is_as_near_as_its_rounding_allows(name, how, rounding, gpu):
    """All gradients of a step as one vector, against the definition in float64.

    How near that can be, the definition says itself: it is computed once more with weights that are moved by a step of the rounding
    (where values fall on the other side of a ReLU's edge, terms come and go whole, and gradients move by several percent).
    """
    with precision(how):
        found = one_step(name, gpu, np.float32, images=8, size=8)
    with reference_only():
        expected, moved_weights = (one_step(name, "cpu", np.float64, images=8, size=8, moved=m) for m in (0, rounding))
    assert abs(found["loss"] - expected["loss"]) <= 4 * rounding
    error = distance(found, expected)
    assert error > 1e-5, "something has computed in float32"
    assert error <= 1.5 * distance(moved_weights, expected)


def distance(one, other):
    """Between all gradients, relative to the size of the second's."""
    a, b = (np.concatenate([value.ravel() for name, value in s.items() if "gradient" in name]) for s in (one, other))
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def one_step(name, device, dtype, *, images=4, size=32, moved=0.0):
    """Everything that forward and backward leave, by name; with weights that are `moved` by such a share of themselves."""
    rng = np.random.default_rng(3)
    model = create(name, dtype=dtype)
    for w in model.parameters() if moved else ():
        w.data = w.data * (1 + moved * np.random.default_rng(5).standard_normal(w.shape))
    model.to(device)
    x = md.Tensor(
        rng.standard_normal((images, 3, size, size), np.float32).astype(dtype), device=device, requires_grad=True
    )
    loss = F.cross_entropy(model(x), to_device(np.arange(images) % 10, device))
    loss.backward()
    found: dict = {"loss": loss.item()}
    collect("images", x, found)
    collect("model", model, found)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["densenet_bc_22_12", "densenet_22_12"])
def test_a_whole_training_step_equals_the_definitions_in_float64(name, gpu):
    """Loss, every gradient and the running statistics, in strict float32."""
    with precision("float32"):
        found = one_step(name, gpu, np.float32)
    with reference_only():
        expected = one_step(name, "cpu", np.float64)
    assert found.keys() == expected.keys()
    for key, right in expected.items():
        error = np.abs(found[key] - right).max() / max(np.abs(right).max(), 1e-12)
        assert error <= TOLERANCE, (key, error)


def test_running_statistics_and_counts_move_once(gpu):
    model = create("densenet_bc_10_4", device=gpu)
    model(md.Tensor(np.random.default_rng(0).standard_normal((4, 3, 8, 8)), device=gpu, dtype=np.float32))
    counts = {name: int(b.data) for name, b in model.named_arrays() if name.endswith("num_batches_tracked")}
    assert set(counts.values()) == {1}
    assert len(counts) == 2 * 3 + 2 + 1


def test_no_twin_copies_a_layout_on_the_way(strict_gpu, monkeypatch):
    """From the first convolution to the classifier, images lie channel by channel and are only looked at in another order."""
    copies = []
    original = strict_cupy.ascontiguousarray

    def watched(a):
        if not a.flags.c_contiguous:
            copies.append(a.shape)
        return original(a)

    monkeypatch.setattr(strict_cupy, "ascontiguousarray", watched)
    one_step("densenet_bc_10_4", strict_gpu, np.float32, images=2, size=8)
    assert copies == [(3, 2, 8, 8)], "only the images themselves, which came from the CPU image by image"


def test_what_the_kernels_cannot_do_is_the_definitions(gpu):
    """Float64, strides, biases, dropout in training: computed by CuPy, as it is written."""
    x = md.Tensor(np.random.default_rng(0).standard_normal((2, 3, 6, 6)), device=gpu)
    weight = md.Tensor(np.ones((4, 3, 3, 3)), device=gpu)
    assert not any(twin.fits(x, weight, padding=1) for twin in F.conv2d.fast_paths), "float64"
    x, weight = x.astype(np.float32), weight.astype(np.float32)
    on_gpu = F.conv2d.fast_paths[-1]
    assert on_gpu.fits(x, weight, padding=1)
    assert not on_gpu.fits(x, weight, padding=1, stride=2)
    assert not on_gpu.fits(x, weight)
    assert not on_gpu.fits(md.Tensor(np.ones((0, 3, 6, 6), np.float32), device=gpu), weight, padding=1), "no images"
    assert not on_gpu.fits(md.Tensor(np.ones((1, 3, 3, 3), np.float32), device=gpu), weight, padding=1), "nine pixels"
    assert not on_gpu.fits(x, weight, md.Tensor(np.ones(4, np.float32), device=gpu), padding=1)
    model = create("densenet_bc_10_4", dropout=0.2, device=gpu)
    block = model.features.denseblock1
    features = md.Tensor(np.ones((2, 8, 4, 4), np.float32), device=gpu)
    layers = [layer for _, layer in block.named_children()]
    assert not any(twin.fits(features, layers) for twin in dense_block.fast_paths)
    model.eval()
    assert any(twin.fits(features, layers) for twin in dense_block.fast_paths)


@pytest.mark.parametrize("size", [(1, 2, 2), (3, 2, 2), (1, 2, 6), (1, 6, 6)])
def test_a_stage_whose_pooled_pixels_are_no_fours_is_two_steps(size, gpu):
    """Its transition would read four pixels where there are fewer."""
    n, h, w = size
    block, transition = (create("densenet_bc_10_4", device=gpu).features.denseblock1, Transition(12, 6, 0.0).to(gpu))
    x = md.Tensor(np.random.default_rng(0).standard_normal((n, 8, h, w), np.float32), device=gpu)
    assert not any(twin.fits(block, transition, x) for twin in block_and_transition.fast_paths)
    assert not any(twin.fits(transition, x) for twin in Transition.forward.fast_paths)
    with precision("float32"):
        found = block_and_transition(block, transition, x).numpy()
    with reference_only():
        expected = block_and_transition(block, transition, x).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    even = md.Tensor(np.ones((4, 8, h, w), np.float32), device=gpu)
    assert any(twin.fits(block, transition, even) for twin in block_and_transition.fast_paths)


def test_arguments_of_the_wrong_width_are_noticed(strict_gpu):
    """The shim is stricter than CUDA, which would read whatever lies there."""
    x = to_device(np.ones(4, np.float32), "gpu")
    relu = launch.kernel(strict_cupy, "images.cu", "relu", "float32")
    with pytest.raises(TypeError, match=r"argument 2 .* has 8 bytes"):
        relu((1,), (256,), (x, x, 4))
    with pytest.raises(TypeError, match="another number of arguments"):
        relu((1,), (256,), (x, x))
    with pytest.raises(TypeError, match="a NumPy array of shape"):
        relu((1,), (256,), (x, np.ones(4, np.float32), np.int32(4)))


def test_a_label_without_a_class_makes_the_loss_nan(gpu):
    logits = md.Tensor(np.ones((3, 4), np.float32), device=gpu)
    assert np.isnan(F.cross_entropy(logits, to_device(np.array([0, 4, 1]), gpu)).item())


def test_what_is_not_a_number_stays_visible(gpu):
    """A run that diverges must be seen to diverge: no maximum and no threshold may swallow a NaN."""
    x = np.ones((1, 2, 4, 4), np.float32)
    x[0, 1, 2, 2] = np.nan
    there = md.Tensor(x, device=gpu)
    for y in (F.relu(there), F.max_pool2d(there, 2), F.avg_pool2d(there, 2), F.global_avg_pool2d(there)):
        assert np.isnan(y.numpy()).any()
    weight = md.Tensor(np.ones((3, 2, 1, 1), np.float32), device=gpu)
    assert np.isnan(F.conv2d(there, weight).numpy()).any()
    model = create("densenet_bc_10_4", device=gpu)
    images = np.ones((2, 3, 8, 8), np.float32)
    images[0, 0, 0, 0] = np.inf
    assert np.isnan(F.cross_entropy(model(md.Tensor(images, device=gpu)), to_device(np.arange(2), gpu)).item())


def test_evaluation_without_statistics_is_refused(gpu):
    x, gamma = md.Tensor(np.ones((2, 3, 4, 4), np.float32), device=gpu), md.Tensor(np.ones(3, np.float32), device=gpu)
    with pytest.raises(md.ConfigError, match=r"evaluation \(training=False\) needs running_mean"):
        F.batch_norm(x, gamma, gamma, training=False)


def test_a_single_value_a_channel_is_refused_as_by_the_definition(gpu):
    model = create("densenet_bc_10_4", device=gpu)
    before = model.state_dict()
    with pytest.raises(md.ShapeError, match="no variance"):
        model.features.denseblock1(md.Tensor(np.ones((1, 8, 1, 1), np.float32), device=gpu))
    assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())


@pytest.mark.parametrize("change", ["float64", "strides"])
def test_running_statistics_that_kernels_cannot_read_are_the_definitions(change, gpu):
    """They are known by address alone: another type or layout would be read as something else."""

    def statistics(device):
        both = np.ones((3, 2), np.float64 if change == "float64" else np.float32)
        array = to_device(both, device)
        return [array[:, 0], array[:, 1]] if change == "strides" else [array[:, 0] * 1, array[:, 1] * 1]

    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4), np.float32)
    found = {}
    for device in ("cpu", gpu):
        gamma, beta = (md.Tensor(np.ones(3, np.float32), device=device) for _ in range(2))
        running = statistics(device)
        F.batch_norm(md.Tensor(x, device=device), gamma, beta, *running)
        found[device] = [to_numpy(v) for v in running]
    np.testing.assert_allclose(found["gpu"], found["cpu"], rtol=1e-5)
    layer = create("densenet_bc_10_4", device=gpu).features.denseblock1
    layer.denselayer1.norm2.running_var.data = layer.denselayer1.norm2.running_var.data.astype(np.float64)
    features = md.Tensor(np.ones((2, 8, 4, 4), np.float32), device=gpu)
    assert not any(twin.fits(features, [layer.denselayer1]) for twin in dense_block.fast_paths)


def test_a_view_that_begins_between_four_numbers_is_copied(gpu):
    """Four numbers travel at once, from multiples of 16 bytes; anything else would end the program on a GPU."""
    x = np.random.default_rng(0).standard_normal((9, 1, 5, 5), np.float32)
    part = md.Tensor(to_device(x, gpu)[1:9])
    assert part.data.data.ptr % 16
    norm = md.nn.BatchNorm2d(1).to(gpu)
    expected = md.nn.BatchNorm2d(1)(md.Tensor(x[1:9])).data
    np.testing.assert_allclose(norm(part).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_kernels_have_names_of_their_own():
    names = [name for path in launch.KERNELS.glob("*.cu") for name in launch.names(path.name)]
    assert len(names) == len(set(names)) > 20
