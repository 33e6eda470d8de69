"""A training step as one CUDA graph, and training on the GPU as a whole. The stand-in refuses whatever a replay would do without."""

import dataclasses

import numpy as np
import pytest
import strict_cupy
from cuda_on_cpu import thread_order

import minidense as md
from minidense import train
from minidense.backend import to_device, to_numpy
from minidense.config import TrainConfig
from minidense.fast.gpu import graph, launch
from minidense.models import create
from minidense.optim import SGD
from minidense.precision import precision
from minidense.run_folder import RunFolder
from minidense.speed import reference_only
from minidense.step import steps_as_graph, training_step

pytestmark = pytest.mark.usefixtures("kernels")


class Run:
    """A model in training."""

    def __init__(self, device, dtype=np.float32, name="densenet_bc_10_4", **options):
        self.model = create(name, classes=3, dtype=dtype, device=device, **options)
        self.optimizer = SGD(self.model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
        self.rng, self.device, self.dtype = np.random.default_rng(0), device, dtype

    def step(self, n=4):
        images = self.rng.standard_normal((n, 3, 8, 8), np.float32).astype(self.dtype)
        images, labels = (to_device(a, self.device) for a in (images, self.rng.integers(0, 3, n)))
        with precision("float32"):
            logits, loss = training_step(self.model, self.optimizer, images, labels)
        return logits.numpy().copy(), loss.item()

    def recordings(self):
        return [r for r in graph._known.get(self.optimizer, {}).values() if isinstance(r, graph.Recording)]

    def state(self):
        velocity = {f"velocity {i}": to_numpy(v) for i, v in enumerate(self.optimizer.velocity.values())}
        gradients = {f"gradient {i}": to_numpy(w.grad) for i, w in enumerate(self.model.parameters())}
        return {**self.model.state_dict(), **velocity, **gradients}


def same_bits(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_replayed_steps_are_the_definitions_steps(gpu):
    """Six steps with a falling learning rate and new batches, against the definition in float64 on the CPU."""
    run, expected = Run(gpu), Run("cpu", np.float64)
    for number in range(6):
        run.optimizer.groups[0]["lr"] = expected.optimizer.groups[0]["lr"] = 0.1 / (1 + number)
        logits, loss = run.step()
        with reference_only():
            right, right_loss = expected.step()
        # Six steps of rounding in float32, through three batch norms over 16 values each.
        np.testing.assert_allclose(loss, right_loss, rtol=1e-4)
        np.testing.assert_allclose(logits, right, rtol=1e-3, atol=1e-3)
    assert len(run.recordings()) == 1
    for name, value in expected.state().items():
        np.testing.assert_allclose(
            run.state()[name], value, rtol=1e-3, atol=1e-3 * max(abs(value).max(), 1e-3), err_msg=name
        )


def test_replayed_or_launch_by_launch_the_bits_are_the_same(gpu):
    replayed, launched = Run(gpu), Run(gpu)
    for number in range(5):
        for run in (replayed, launched):
            run.optimizer.groups[0]["lr"] = 0.1 / (1 + number)
        one = replayed.step()
        with steps_as_graph(False):
            other = launched.step()
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1] == other[1]
    assert replayed.recordings()
    assert not launched.recordings()
    same_bits(replayed.state(), launched.state())


def test_two_runs_give_the_same_bits(gpu):
    runs = Run(gpu), Run(gpu)
    for order, run in enumerate(runs):
        with thread_order(order):  # forward, then shuffled: no sum depends on who comes first
            for _ in range(3):
                run.step()
    same_bits(runs[0].state(), runs[1].state())


def test_each_shape_of_batch_has_a_graph_of_its_own(gpu):
    run, launched = Run(gpu), Run(gpu)
    for n in (4, 2, 4, 2, 4, 2):
        run.step(n)
        with steps_as_graph(False):
            launched.step(n)
    assert len(run.recordings()) == 2
    same_bits(run.state(), launched.state())


@pytest.mark.parametrize(
    "change", ["weights", "momentum", "frozen", "mode", "watched", "eps", "momentum from 0", "unfrozen", "module"]
)
def test_a_graph_that_is_out_of_date_is_noted_down_anew(change, gpu):
    """Whatever the replay takes for granted may change between two steps, and then counts."""
    run, launched = Run(gpu), Run(gpu)
    for one in (run, launched):
        if change == "momentum from 0":
            one.optimizer.groups[0].update(momentum=0.0, nesterov=False)
        elif change == "unfrozen":
            one.model.features.conv0.weight.requires_grad = False
    for number in range(7):
        for one in (run, launched):
            if number == 3:
                alter(one, change)
            with steps_as_graph(one is run):
                one.step()
        if number == 2:
            (first,) = run.recordings()
    assert run.recordings() != [first]
    same_bits(run.state(), launched.state())


def alter(run, change):
    model = run.model
    if change == "weights":
        model.classifier.weight.data = model.classifier.weight.data * 2
    elif change == "momentum":
        run.optimizer.groups[0]["momentum"] = 0.5
    elif change == "frozen":
        model.features.conv0.weight.requires_grad = False
    elif change == "momentum from 0":
        run.optimizer.groups[0].update(momentum=0.9, nesterov=True)
    elif change == "unfrozen":
        model.features.conv0.weight.requires_grad = True
    elif change == "module":
        model.classifier = md.nn.Linear(9, 3, rng=np.random.default_rng(5)).to(run.device)
        run.optimizer.groups[0]["params"] = model.parameters()
    elif change == "mode":
        model.features.denseblock1.eval()
    elif change == "watched":
        model.features.denseblock2.on_output = lambda y: None
    else:
        model.features.denseblock3.denselayer1.norm1.eps = 1e-3
        model.features.denseblock3.denselayer1.norm1.weight.data = (
            model.features.denseblock3.denselayer1.norm1.weight.data * 1
        )
    # A frozen parameter keeps the gradient it had; both runs forget it.
    for w in model.parameters():
        w.grad = None


def test_two_models_of_one_optimiser_are_not_mixed_up(gpu):
    runs = []
    for as_graph in (True, False):
        run, other = Run(gpu), Run(gpu)
        run.optimizer = SGD([*run.model.parameters(), *other.model.parameters()], lr=0.1)
        other.optimizer, other.rng = run.optimizer, run.rng
        with steps_as_graph(as_graph):
            for _ in range(3):
                run.step()
                other.step()
        runs.append({**run.model.state_dict(), **{f"other {k}": v for k, v in other.model.state_dict().items()}})
    same_bits(*runs)


def test_what_spoils_a_graph_is_what_is_told(strict_gpu, monkeypatch, capsys):
    """Ending a spoilt capture fails as well, and says less."""

    def end(self):
        strict_cupy._noted = None
        raise RuntimeError("cudaErrorStreamCaptureInvalidated")

    run = Run(strict_gpu)
    run.model.features.norm5.on_output = lambda y: y.data * 2
    monkeypatch.setattr(strict_cupy.Stream, "end_capture", end)
    for _ in range(3):
        run.step()
    assert "mul while a graph is noted down" in capsys.readouterr().err


def test_labels_from_the_cpu_are_refused_before_anything_moves(gpu):
    run = Run(gpu)
    before = run.model.classifier.weight.numpy().copy()
    images = to_device(run.rng.standard_normal((4, 3, 8, 8), np.float32), gpu)
    for _ in range(3):
        with pytest.raises(md.DeviceError, match=r"labels \(4,\) on the cpu, scores \(4, 3\) on the gpu"):
            training_step(run.model, run.optimizer, images, run.rng.integers(0, 3, 4))
    np.testing.assert_array_equal(run.model.classifier.weight.numpy(), before)
    assert not run.recordings()


def test_a_new_shape_leaves_the_graphs_of_others_as_they_are(gpu):
    run = Run(gpu)
    for _ in range(3):
        run.step(4)
    (first,) = run.recordings()
    run.step(2)
    run.step(4)
    assert run.recordings() == [first]


def test_loading_weights_needs_no_new_graph(gpu):
    """They are copied to where the graph reads them."""
    run, other = Run(gpu), Run(gpu)
    for _ in range(3):
        run.step()
    (first,) = run.recordings()
    run.model.load_state_dict(other.model.state_dict())
    run.optimizer.velocity = {w: v * 0 for w, v in run.optimizer.velocity.items()}
    run.step()
    assert run.recordings() != [first], "new velocities are elsewhere"
    (second,) = run.recordings()
    run.model.load_state_dict(other.model.state_dict())
    run.step()
    assert run.recordings() == [second]


def test_where_noting_down_is_refused_steps_go_on_launch_by_launch(strict_gpu, monkeypatch, capsys):
    def refuse(self):
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")

    run, launched = Run(strict_gpu), Run(strict_gpu)
    monkeypatch.setattr(strict_cupy.Stream, "begin_capture", refuse)
    for _ in range(4):
        run.step()
        with steps_as_graph(False):
            launched.step()
    same_bits(run.state(), launched.state())
    said = capsys.readouterr().err
    assert said.count("\n") == 1, "said once"
    assert "no CUDA graph for this step (NotImplementedError: calling cuBLAS" in said


def test_what_is_not_a_kernel_cannot_be_noted_down(strict_gpu, capsys):
    """The check on the graph can fail: a layer that computes in CuPy is noticed, and the step still right."""
    run, launched = Run(strict_gpu), Run(strict_gpu)
    for one in (run, launched):
        one.model.features.norm5.on_output = lambda y: y.data * 2
        for _ in range(3):
            with steps_as_graph(one is run):
                one.step()
    assert not run.recordings()
    assert "mul while a graph is noted down" in capsys.readouterr().err
    same_bits(run.state(), launched.state())


def test_dropout_is_never_noted_down_but_what_follows_it_is(gpu, capsys):
    """Its masks are drawn on the CPU: a replay would drop the same values for ever."""
    run = Run(gpu, dropout=0.3)
    losses = [run.step()[1] for _ in range(4)]
    assert not run.recordings()
    assert len(set(losses)) == 4
    assert capsys.readouterr().err.count("no CUDA graph for this step (what is dropped is drawn on the CPU") == 1
    for module in run.model.modules():
        if isinstance(module, md.nn.Dropout):
            module.p = 0.0
    for _ in range(2):
        run.step()
    assert len(run.recordings()) == 1


def test_a_parameter_that_nobody_uses_does_not_keep_a_step_from_being_noted_down(gpu):
    run = Run(gpu)
    run.optimizer.groups[0]["params"].append(md.nn.Parameter(to_device(np.ones(3, np.float32), gpu)))
    for _ in range(3):
        run.step()
    assert len(run.recordings()) == 1


def test_a_label_too_few_is_refused_also_by_a_replay(gpu):
    run = Run(gpu)
    for _ in range(3):
        run.step()
    images = to_device(run.rng.standard_normal((4, 3, 8, 8), np.float32), gpu)
    with pytest.raises(md.ShapeError, match="labels"):
        training_step(run.model, run.optimizer, images, to_device(np.array([1]), gpu))


def test_an_optimiser_keeps_the_graphs_of_two_shapes(gpu):
    run = Run(gpu)
    for n in (4, 2, 3, 4, 2, 3):
        run.step(n)
    assert len(run.recordings()) == 2


def test_a_learning_rate_of_numpys_is_a_number_too(gpu):
    runs = Run(gpu), Run(gpu)
    runs[1].optimizer.groups[0]["lr"] = np.float32(0.1)
    for _ in range(3):
        for run in runs:
            run.step()
    same_bits(runs[0].state(), runs[1].state())


def test_memory_is_not_refused_but_lacking(strict_gpu, monkeypatch):
    """Too little memory ends the run as anywhere else."""

    def full(self):
        raise MemoryError("Out of memory allocating 8,000 bytes (allocated so far: 7,000 bytes).")

    run = Run(strict_gpu)
    run.step()
    monkeypatch.setattr(strict_cupy.Stream, "begin_capture", full)
    with pytest.raises(MemoryError, match="8,000 bytes"):
        run.step()


def test_a_graph_goes_with_its_optimiser(gpu):
    run = Run(gpu)
    for _ in range(2):
        run.step()
    assert len(graph._known) >= 1
    before = len(graph._known)
    run.optimizer = None
    assert len(graph._known) == before - 1


def test_tables_noted_down_are_filled_before_the_replay(strict_gpu):
    """Nothing may come from the CPU while launches are noted down; see launch.tables_later."""
    x = to_device(np.zeros(3, np.float32), strict_gpu)
    with launch.tables_later():
        table = launch.addresses([(x, 5, None, 0.5)])
    assert to_numpy(table).tolist() == [[x.data.ptr, 5, 0, np.float64(0.5).view(np.int64)]]


# -- training -----------------------------------------------------------------------------------------------------------


def test_training_on_the_gpu_is_training(gpu, tmp_path):
    """The command's whole way, on 64 digits: data kept there as bytes, augmented there, replayed steps, evaluation, checkpoints."""
    settings = {
        "model": "densenet_bc_10_4", "data": "digits", "limit_train": 64, "limit_test": 32,
        "epochs": 3, "batch_size": 16, "schedule": "one_cycle",
    }  # fmt: skip
    histories = {}
    for device in ("cpu", gpu):
        config = TrainConfig(**settings, device=device, precision="float32" if device == "gpu" else None)
        histories[device] = train.fit(config, folder=RunFolder(tmp_path / device), say=lambda line: None)
    assert len(histories["gpu"]) == 3
    for here, there in zip(histories["cpu"], histories["gpu"], strict=True):
        # Twelve steps of float32 in another order of summing.
        assert there["train_loss"] == pytest.approx(here["train_loss"], rel=1e-2)
        assert there["test_loss"] == pytest.approx(here["test_loss"], rel=3e-2)


def test_a_run_on_the_gpu_resumes_to_the_same_bits(gpu, tmp_path):
    config = TrainConfig(
        model="densenet_bc_10_4", data="digits", epochs=2, limit_train=48, limit_test=16, batch_size=16, device="gpu", precision="float32"
    )  # fmt: skip
    whole = RunFolder(tmp_path / "whole")
    train.fit(config, folder=whole, say=lambda line: None)
    half, rest = RunFolder(tmp_path / "half"), RunFolder(tmp_path / "rest")
    stop_after_an_epoch(config, half)
    train.fit(config, folder=rest, saved=train.Checkpoint.load(half.checkpoint), say=lambda line: None)
    same_bits(train.Checkpoint.load(whole.checkpoint).arrays, train.Checkpoint.load(rest.checkpoint).arrays)


def stop_after_an_epoch(config, folder):
    """Leave the checkpoint of the first epoch."""
    saved = []

    class Once(RunFolder):
        def save(self, checkpoint):
            if not saved:
                saved.append(checkpoint)
                super().save(checkpoint)

    train.fit(config, folder=Once(folder.path), say=lambda line: None)


def test_precision_is_for_the_gpu():
    with pytest.raises(md.ConfigError, match=r"--precision mixed is for the GPU.*--device gpu"):
        TrainConfig(precision="mixed")
    with pytest.raises(md.ConfigError, match="unknown 'half'"):
        TrainConfig(precision="half", device="gpu")
    assert dataclasses.replace(TrainConfig(device="gpu"), precision="mixed").precision == "mixed"
    with (
        pytest.raises(md.ConfigError, match="unknown precision 'half': choose one of float32, tf32, mixed"),
        precision("half"),
    ):
        pass
