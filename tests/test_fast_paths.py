"""Every twin against its definition: results, all gradients, and what it leaves in running statistics."""

import importlib
import os
import signal
import threading
import time
import zlib

import numpy as np
import pytest
from twins import assert_same, collect, run

import minidense as md
from minidense import functional as F
from minidense import speed, threads
from minidense.fast.cpu import ways, winograd
from minidense.fast.cpu.pieces import Piece
from minidense.models import create
from minidense.speed import REFERENCES, fast_path, reference, reference_only

models = importlib.import_module("minidense.models.densenet")  # the package has a function of that name

# Twins add in another order and, in float32, keep every intermediate result in float32 (2⁻²⁴ = 6e-8 each, and as many terms in a sum
# as a layer has pixels): far below these bounds, and a
# wrong term would stand out far above them.
TOLERANCE = {np.float32: 1e-4, np.float64: 1e-10}

CASES = [
    pytest.param(function, twin, example, dtype, id=f"{twin.run.__name__}-{number}-{dtype.__name__}")
    for function in REFERENCES
    for twin in function.fast_paths
    if ".gpu." not in twin.run.__module__  # those are tried in test_gpu_twins.py
    for number, example in enumerate(twin.examples())
    for dtype in TOLERANCE
]


@pytest.mark.parametrize(("function", "twin", "example", "dtype"), CASES)
def test_a_twin_equals_its_definition(function, twin, example, dtype):
    args, options = example(np.random.default_rng(0), dtype)
    assert twin.fits(*args, **options), "an example that the twin would not answer tests nothing"
    found = run(twin.run, args, options)
    args, options = example(np.random.default_rng(0), np.float64)
    with reference_only():
        expected = run(function.definition, args, options)
    assert found["result"].dtype == dtype
    assert_same(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("function", "twin", "example", "dtype"), [case for case in CASES if np.float32 in case.values]
)
def test_a_twin_computes_the_same_without_a_graph(function, twin, example, dtype):
    args, options = example(np.random.default_rng(0), dtype)
    expected = twin.run(*args, **options).data
    args, options = example(np.random.default_rng(0), dtype)
    with md.no_grad():
        y = twin.run(*args, **options)
    assert y.source is None
    assert_same({"result": y.data}, {"result": expected}, 1e-5)  # in evaluation other pieces may be shared out


def test_every_twin_has_examples():
    twins = [twin for function in REFERENCES for twin in function.fast_paths]
    assert len(twins) >= 9
    for twin in twins:
        assert list(twin.examples()), twin.run


@pytest.mark.parametrize("name", ["densenet_bc_40_12", "densenet_22_12"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_whole_training_step_equals_the_definitions_in_float64(name, dtype):
    """All gradients and running statistics of a network of the paper, against its definition in float64."""

    def step(dtype):
        rng = np.random.default_rng(3)
        model = create(name, dtype=dtype)
        images = md.Tensor(rng.standard_normal((4, 3, 32, 32), np.float32).astype(dtype), requires_grad=True)
        loss = F.cross_entropy(model(images), np.arange(4))
        loss.backward()
        found = {"loss": loss.data, "images": images.grad}
        collect("model", model, found)
        return found

    found = step(dtype)
    with reference_only():
        expected = step(np.float64)
    for key, right in expected.items():
        error = abs(found[key] - right).max() / max(abs(right).max(), 1e-12)
        assert error <= TOLERANCE[dtype], (key, error)


def small_network_for_large_images(dtype=np.float32):
    """A stem with stride, pooling and four blocks, as DenseNet-121 has them, with filters enough for Winograd's way."""
    model = models.densenet_imagenet(blocks=(2, 1, 1, 1), growth_rate=48, classes=5, dtype=dtype)
    for norm in (m for m in model.modules() if isinstance(m, md.nn.BatchNorm2d)):
        rng = np.random.default_rng(len(norm.weight.data))
        norm.weight.data[...] = rng.standard_normal(len(norm.weight.data))
        norm.running_mean.data[...] = rng.standard_normal(len(norm.weight.data)) / 4
    images = np.random.default_rng(3).standard_normal((5, 3, 97, 106), np.float32)
    return model.eval(), md.Tensor(images.astype(dtype))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_an_evaluation_of_large_images_equals_the_definitions_in_float64(dtype):
    model, images = small_network_for_large_images(dtype)
    with md.no_grad():
        found = model(images).data
    model, images = small_network_for_large_images(np.float64)
    with md.no_grad(), reference_only():
        expected = model(images).data
    assert_same({"logits": found}, {"logits": expected}, TOLERANCE[dtype])


@pytest.mark.parametrize("size", [(12, 12), (13, 15), (16, 13)])
def test_an_image_does_not_see_its_neighbour_in_the_piece(size):
    """In Winograd's way they lie next to one another, with zeros between; the second time working memory is not new."""
    weight = np.random.default_rng(0).standard_normal((48, 48, 3, 3))
    way = winograd.Winograd(ways.TapsOnBothSides(weight))
    piece = Piece(0, 3, *size)
    x = np.random.default_rng(1).standard_normal((48, 3, *size))
    results = []
    for loud in (1e300, np.nan, 0.0):
        x[:, 1] = loud
        out = np.empty((48, piece.pixels))
        way.transformed(x.reshape(48, -1), piece, piece, out)
        results.append(out.reshape(48, 3, *size))
    for found in results[:2]:
        np.testing.assert_array_equal(found[:, ::2], results[2][:, ::2])


def test_running_statistics_are_updated_exactly_once():
    model = create("densenet_bc_10_4")
    images = md.Tensor(np.random.default_rng(0).standard_normal((4, 3, 8, 8), np.float32))
    F.cross_entropy(model(images), np.arange(4)).backward()
    counts = {name: int(b.data) for name, b in model.named_arrays() if name.endswith("num_batches_tracked")}
    assert set(counts.values()) == {1}
    assert len(counts) == 2 * 3 + 2 + 1


def test_nothing_has_moved_when_a_block_fails(monkeypatch):
    model = create("densenet_bc_10_4")
    before = model.state_dict()

    def broken(*args):
        raise MemoryError("no room")

    monkeypatch.setattr("minidense.fast.cpu.taps.multiply", broken)
    with pytest.raises(MemoryError, match="no room"):
        model(md.Tensor(np.ones((4, 3, 8, 8), np.float32)))
    block = "features.denseblock1."
    after = model.state_dict()
    for name in after:
        if name.startswith(block):
            np.testing.assert_array_equal(after[name], before[name])


# -- the mechanism --------------------------------------------------------------------------------------------------


def test_the_first_twin_that_fits_answers():
    @reference
    def double(x):
        return 2 * x

    fast_path(double, fits=lambda x: x > 10, examples=lambda: [lambda rng, dtype: ([11], {})])(lambda x: "large")
    fast_path(double, fits=lambda x: x > 5, examples=lambda: [lambda rng, dtype: ([6], {})])(lambda x: "medium")
    try:
        assert [double(x) for x in (1, 6, 11)] == [2, "medium", "large"]
        with reference_only():
            assert [double(x) for x in (1, 6, 11)] == [2, 12, 22]
        assert double(6) == "medium"
        assert double.definition(6) == 12
    finally:
        REFERENCES.remove(double)


def test_reference_only_ends_with_an_error_inside():
    with pytest.raises(ValueError, match="inside"), reference_only():
        raise ValueError("inside")
    assert speed._enabled


def test_only_a_reference_can_have_a_twin():
    with pytest.raises(md.ConfigError, match="mark it with @reference"):
        fast_path(len, fits=bool, examples=list)


def test_somebody_who_watches_inside_a_block_sees_every_layer():
    """A hook on an inner module is a reason to run the definition."""
    model = create("densenet_bc_10_4")
    with md.nn.watch_gradients(model) as seen:
        model(md.Tensor(np.ones((2, 3, 8, 8), np.float32)))
    assert "features.denseblock1.denselayer1.conv1" in seen


def test_a_subclassed_layer_runs_as_it_is_written():
    class Loud(models.BottleneckLayer):
        def forward(self, x):
            return super().forward(x) * 2

    layer = Loud(4, 2, 0.0)
    x = md.Tensor(np.random.default_rng(0).standard_normal((2, 4, 3, 3), np.float32))
    with reference_only():
        expected = models.dense_block(x, [layer]).data
    np.testing.assert_allclose(models.dense_block(x, [layer]).data, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_layer_that_somebody_put_into_the_place_of_another_runs_as_it_is_written(place):
    """A module that the twin has never heard of, such as one that looks at what passes by."""

    class Beside(md.nn.Module):
        def __init__(self, layer):
            self.layer = layer

        def forward(self, x):
            return self.layer(x)

    layers = [models.DenseLayer(4 + 2 * i, 2, 0.0) for i in range(3)]
    x = md.Tensor(np.random.default_rng(0).standard_normal((2, 4, 3, 3), np.float32))
    expected = models.dense_block(x, layers).data
    layers[place] = Beside(layers[place])
    np.testing.assert_allclose(models.dense_block(x, layers).data, expected, rtol=0, atol=1e-5)


def test_a_layer_that_was_rebuilt_runs_as_it_is():
    """A bias, another stride or another width: not what the twin was made for."""
    for change in ("bias", "stride", "width"):
        layers = [models.BottleneckLayer(4, 2, 0.0), models.BottleneckLayer(6, 2, 0.0)]
        if change == "bias":
            layers[1].conv2 = md.nn.Conv2d(8, 2, 3, padding=1)
        elif change == "stride":
            layers[0].conv1.stride = 2
        else:
            layers[1].conv2 = md.nn.Conv2d(8, 3, 3, padding=1, bias=False)
        x = md.Tensor(np.ones((2, 4, 6, 6), np.float32))
        assert not any(twin.fits(x, layers) for twin in models.dense_block.fast_paths), change


@pytest.mark.parametrize("change", ["3×3", "stride", "max", "stride of the pool"])
def test_a_transition_that_was_rebuilt_runs_as_it_is(change):
    transition = models.Transition(4, 2, 0.0)
    x = md.Tensor(np.random.default_rng(0).standard_normal((2, 4, 8, 8), np.float32))
    assert models.Transition.forward.fast_paths[0].fits(transition, x)
    if change == "3×3":
        transition.conv = md.nn.Conv2d(4, 2, 3, padding=1, bias=False)
    elif change == "stride":
        transition.conv.stride = 2
    elif change == "max":
        transition.pool = md.nn.MaxPool2d(2)
    else:
        transition.pool = md.nn.AvgPool2d(2, stride=1)
    assert not models.Transition.forward.fast_paths[0].fits(transition, x)


def stage(dropout=0.0):
    """A dense block with a transition, and what goes in."""
    block = models.DenseBlock(models.BottleneckLayer, 2, 4, 2, dropout)
    return block, models.Transition(8, 3, dropout), md.Tensor(np.random.default_rng(0).standard_normal((3, 4, 6, 6)))


def suits_stage(block, transition, x):
    return models.block_and_transition.fast_paths[0].fits(
        block.to(dtype=np.float64), transition.to(dtype=np.float64), x
    )


PARTS = ["block", "transition", "block.denselayer2", "block.denselayer1.norm2", "block.denselayer2.drop"]
PARTS += ["transition.norm", "transition.conv", "transition.drop", "transition.pool"]


@pytest.mark.parametrize("watched", PARTS)
def test_whoever_watches_one_module_of_a_stage_sees_it(watched):
    block, transition, x = stage()
    both = md.nn.Sequential(block=block, transition=transition)
    assert suits_stage(block, transition, x)
    seen = []
    dict(both.named_modules())[watched].on_output = seen.append
    assert not suits_stage(block, transition, x)
    models.block_and_transition(block, transition, x)
    assert len(seen) == (2 if watched.endswith("2.drop") else 1)  # a layer drops after each convolution


def test_a_stage_in_two_modes_or_with_dropout_or_another_eps_is_two_steps():
    for change in (
        lambda block, transition: block.eval(),
        lambda block, transition: transition.eval(),
        lambda block, transition: block.denselayer2.norm1.eval(),
        lambda block, transition: setattr(transition.norm, "eps", 1e-3),
        lambda block, transition: setattr(transition.drop, "p", 0.5),
    ):
        block, transition, x = stage()
        change(block, transition)
        assert not suits_stage(block, transition, x)
        with reference_only():
            transition.drop.rng = np.random.default_rng(1)
            expected = models.block_and_transition(block, transition, x).data
        transition.drop.rng = np.random.default_rng(1)
        found = models.block_and_transition(block, transition, x).data
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_another_module_in_place_of_a_transition_runs():
    block, _, x = stage()
    pool = md.nn.Sequential(md.nn.AvgPool2d(2))
    assert models.block_and_transition(block.to(dtype=np.float64), pool, x).shape == (3, 8, 3, 3)
    model = create("densenet_bc_10_4")
    model.features.transition1 = md.nn.Sequential(md.nn.Conv2d(12, 6, 1), md.nn.AvgPool2d(2))
    model.features.denseblock2 = models.DenseBlock(models.BottleneckLayer, 1, 6, 4, 0.0)
    model.features.transition2 = md.nn.Sequential(md.nn.Conv2d(10, 7, 1))
    model.features.denseblock3 = models.DenseBlock(models.BottleneckLayer, 1, 7, 4, 0.0)
    model.features.norm5 = md.nn.BatchNorm2d(11)
    model.features.pool6 = md.nn.AvgPool2d(2)
    model.classifier = md.nn.Linear(11, 5)
    assert model(md.Tensor(np.ones((2, 3, 8, 8), np.float32))).shape == (2, 5)


def test_margins_of_one_kernel_are_not_read_by_another():
    """225 rows of 18 values each, for 3×3 on pieces of two images and for 5×5 on one."""
    rng = np.random.default_rng(0)
    cases = [((4, 50, 3, 2), (25, 50, 3, 3), 1), ((1, 18, 3, 2), (9, 18, 5, 5), 2)]
    with threads.threads(1):
        for x_shape, weight_shape, padding in cases:
            x, weight = md.Tensor(rng.standard_normal(x_shape)), md.Tensor(rng.standard_normal(weight_shape))
            found = F.conv2d(x, weight, padding=padding).data
            with reference_only():
                np.testing.assert_allclose(found, F.conv2d(x, weight, padding=padding).data, rtol=1e-10, atol=1e-10)


def test_a_single_value_a_channel_is_refused_as_by_the_definition():
    model = create("densenet_bc_10_4")
    before = model.state_dict()
    with pytest.raises(md.ShapeError, match="no variance"):
        model.features.denseblock1(md.Tensor(np.ones((1, 8, 1, 1), np.float32)))
    assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())


# -- threads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_same_bits_at_any_number_of_threads(count):
    """Sums are taken in shares of the batch, not of the threads, and added up in their order."""

    def bits(count):
        with threads.threads(count):
            model = create("densenet_bc_10_4")
            images = md.Tensor(np.random.default_rng(0).standard_normal((40, 3, 8, 8), np.float32))
            F.cross_entropy(model(images), np.arange(40) % 10).backward()
        return zlib.crc32(b"".join(p.grad.tobytes() for p in model.parameters()))

    assert bits(count) == bits(2)


def test_an_evaluation_has_the_same_bits_at_any_number_of_threads():
    def bits(count):
        model, images = small_network_for_large_images()
        with threads.threads(count), md.no_grad():
            return model(images).data.tobytes()

    assert bits(1) == bits(2) == bits(3)


def test_work_is_shared_out_and_comes_back_in_order():
    who = set()

    def work(i):
        who.add(threading.get_ident())
        barrier.wait(timeout=10)  # nobody passes alone
        return i * i

    barrier = threading.Barrier(2)
    with threads.threads(2):
        assert threads.in_parallel(work, range(6)) == [0, 1, 4, 9, 16, 25]
        assert len(who) == 2


def test_an_error_in_any_thread_arrives_and_the_pool_goes_on():
    def work(i):
        if i == 3:
            raise KeyError("third")

    with threads.threads(2):
        for _ in range(20):
            with pytest.raises(KeyError, match="third"):
                threads.in_parallel(work, range(8))
        assert threads.in_parallel(abs, [-1, -2]) == [1, 2]


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
@pytest.mark.parametrize("waiting", [False, True])
def test_an_interrupt_stops_all_threads(waiting):
    """While the main thread works, or when it has done its share and waits for the other, which sends the signal."""
    started, done = threading.Event(), []

    def work(i):
        if threading.current_thread() is threading.main_thread():
            if waiting:
                started.wait(10)
                return
            time.sleep(0.02)
        elif not started.is_set():
            started.set()
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        else:
            time.sleep(0.02)
        done.append(i)

    with threads.threads(2):
        with pytest.raises(KeyboardInterrupt):
            threads.in_parallel(work, range(2 if waiting else 400))
        finished = len(done)
        time.sleep(0.3)
        assert len(done) == finished < 300
        assert threads.in_parallel(abs, [-1, -2, -3]) == [1, 2, 3]


def test_parallel_work_inside_parallel_work_does_not_wait_for_itself():
    with threads.threads(2):
        result = threads.in_parallel(lambda i: threads.in_parallel(lambda j: i + j, [1, 2, 3]), [10, 20, 30, 40])
    assert result == [[11, 12, 13], [21, 22, 23], [31, 32, 33], [41, 42, 43]]


def test_threads_keep_numpys_error_settings():
    with threads.threads(2), np.errstate(over="ignore"):
        threads.in_parallel(lambda i: np.float32(1e38) * np.array([i + 10], np.float32), range(8))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 on warns of fork beside threads
def test_a_forked_process_computes_too():
    with threads.threads(2):
        threads.in_parallel(abs, [-1, -2, -3])
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # rather dead than waiting for threads that are not there
            try:
                os._exit(threads.in_parallel(abs, [-1, -2, -3]) != [1, 2, 3])
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("text", ["0", "two", "-1", "1.5", "²", "99999"])
def test_a_wrong_number_of_threads_is_refused(text, monkeypatch):
    monkeypatch.setenv("MINIDENSE_THREADS", text)
    monkeypatch.setattr(threads._Settings, "count", None)
    with pytest.raises(md.ConfigError, match="MINIDENSE_THREADS must be a whole number"):
        threads.thread_count()
    with pytest.raises(md.ConfigError, match="set_threads"):
        threads.set_threads(text)


def test_the_environment_says_how_many_threads(monkeypatch):
    monkeypatch.setenv("MINIDENSE_THREADS", "3")
    monkeypatch.setattr(threads._Settings, "count", None)
    assert threads.thread_count() == 3
    with threads.threads(1):
        assert threads.thread_count() == 1
    assert threads.thread_count() == 3
