"""Training, on one page: python -m minidense.train. The last lesson and the command line both call ``fit``."""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy
from tqdm import tqdm

from . import models
from .backend import synchronise, to_device
from .checkpoint import Checkpoint, Progress
from .command import DIVERGED, DONE, ended, one_line
from .config import CommandLine, TrainConfig, parse, resumed_settings
from .cupy_trouble import in_our_words
from .data import Dataset, prefetch, test_batches, training_batches
from .errors import ConfigError, DivergenceError, ShapeError
from .fitting import fitting_batch
from .gpus import out_of_memory_message
from .interrupt import Stopped, Stopping, stop_on_ctrl_c
from .memory import freed_memory_kept
from .models import Classifier
from .nn import has_chance, seed_chance
from .optim import SGD, parameter_groups
from .precision import precision
from .report import forecast, summary, table_head, table_row, typical_seconds
from .run_folder import RunFolder, checkpoint_at, folder_for
from .step import steps_as_graph, training_step
from .tensor import Tensor, no_grad
from .threads import threads


def train_epoch(
    model: Classifier,
    optimizer: SGD,
    dataset: Dataset,
    config: TrainConfig,
    progress: Progress,
    stopping: Stopping,
    bar: tqdm,
) -> None:
    """The rest of one epoch: forward, loss, backward, step. Keeps `progress` up to date; raises Stopped between two steps."""
    model.train()
    seed = (config.seed, progress.epoch)
    steps = steps_in_epoch(dataset, config)
    tally = Tally(progress, config.device)
    batches = training_batches(dataset, size=config.batch_size, seed=seed, augment=config.augment, start=progress.step)
    with closing(prefetch(batches, device=dataset.device)) as ready:
        for images, labels in ready:
            now = progress.epoch + progress.step / steps
            model.at_epoch(now)
            optimizer.set_lr(config.learning_rate_at(now))
            if has_chance(model):
                seed_chance(model, (3, *seed, progress.step))
            logits, loss = training_step(model, optimizer, images, labels)
            tally.add(logits, loss, labels)
            progress.step += 1
            bar.update()
            if progress.step % 20 == 0 or progress.step == steps or stopping.asked:
                tally.read()
                refuse_divergence(progress.loss, f"in epoch {progress.epoch + 1}, at or before step {progress.step}")
                bar.set_postfix_str(
                    f"{progress.images / progress.seconds:.0f} images/s, loss {progress.loss / progress.images:.3f}"
                )
            if stopping.asked:
                raise Stopped


def evaluate(
    model: Classifier, dataset: Dataset, config: TrainConfig, stopping: Stopping | None = None
) -> tuple[float, float]:
    """Mean loss and accuracy (a fraction) on the test images, in evaluation mode and without recording."""
    model.eval()
    progress = Progress()
    tally = Tally(progress, config.device)
    batches = test_batches(dataset, size=config.batch_size)
    with no_grad(), closing(prefetch(batches, device=dataset.device)) as ready:
        for images, labels in ready:
            logits = model(Tensor(images))
            tally.add(logits, model.criterion(logits, labels), labels)
            if stopping is not None and stopping.asked:
                raise Stopped
    tally.read()
    return progress.loss / progress.images, progress.hits / progress.images


class Tally:
    """Adds up loss and hits where they are computed, and reads them back only when asked: reading waits for the device."""

    def __init__(self, progress: Progress, device: str):
        self.progress, self.device = progress, device
        self.loss: Any = progress.loss
        self.hits: Any = progress.hits
        self.started = time.perf_counter()

    def add(self, logits: Tensor, loss: Tensor, labels: Any) -> None:
        self.loss = self.loss + loss.data.astype(numpy.float64) * len(labels)
        self.hits = self.hits + (logits.data.argmax(1) == labels).sum()
        self.progress.images += len(labels)

    def read(self) -> None:
        """Bring `progress` up to date."""
        synchronise(self.device)
        now, progress = time.perf_counter(), self.progress
        progress.seconds += now - self.started
        self.started = now
        progress.loss, progress.hits = float(self.loss), int(self.hits)


def fit(
    config: TrainConfig,
    *,
    folder: RunFolder | None = None,
    saved: Checkpoint | None = None,
    note: str = "",
    say: Callable[[str], Any] = print,
) -> list[dict[str, Any]]:
    """Train as `config` says and keep everything in a run folder; returns one record an epoch, as in log.jsonl.

    folder  where to; else what config.out says
    saved   a checkpoint to go on from
    note    what the report begins with
    say     receives each line of the report

    Raises KeyboardInterrupt after Ctrl-C, when the state has been saved; a second Ctrl-C does not wait.
    """
    with (
        threads(config.threads),
        precision(config.precision),
        steps_as_graph(config.graph),
        freed_memory_kept(),
        # a run that diverges is told once, by refuse_divergence
        numpy.errstate(over="ignore", divide="ignore", invalid="ignore"),
        in_our_words(),
        stop_on_ctrl_c() as stopping,
    ):
        dataset = config.dataset()
        model, optimizer = build(config, dataset)
        refuse_misfit(model, config, dataset)
        history: list[dict[str, Any]] = []
        progress = Progress()
        if saved is not None:
            saved.restore(model, optimizer)
            history, progress = list(saved.history), replace(saved.progress)
        run = folder or folder_for(config)
        run.begin(config)

        def save():
            run.save(Checkpoint.of(model, optimizer, config=asdict(config), history=history, progress=progress))

        if note:
            say(note)
        validated = f"validated on {len(dataset.validation_images):,}, " if config.validation else ""
        say(
            f"{config.model}: {model.parameter_count():,} parameters, on {len(dataset.train_images):,} {config.data} images, "
            f"{validated}tested on {len(dataset.test_images):,}; run folder {run}"
        )
        epochs_left = config.epochs - progress.epoch
        if epochs_left:
            say(forecast(epochs_left, seconds_per_epoch(config, dataset), config))
            say(table_head(config))
        try:
            while progress.epoch < config.epochs:
                steps = steps_in_epoch(dataset, config)
                name = f"epoch {progress.epoch + 1}/{config.epochs}"
                with tqdm(desc=name, total=steps, initial=progress.step, unit="step", leave=False, disable=None) as bar:
                    train_epoch(model, optimizer, dataset, config, progress, stopping, bar)
                    bar.set_description_str(f"{name}, testing")
                    found = {"test": evaluate(model, dataset, config, stopping)}
                    if config.validation:
                        found["validation"] = evaluate(model, dataset.validating(), config, stopping)
                for part, (loss, _) in found.items():
                    refuse_divergence(loss, f"on the {part} images after epoch {progress.epoch + 1}")
                history.append(record_of(config, progress, found))
                progress = Progress(epoch=progress.epoch + 1)
                save()
                run.draw(history, title=f"{config.model} on {config.data}")
                say(table_row(history[-1], config.epochs))
        except Stopped:
            save()
            say(
                f"Stopped in epoch {progress.epoch + 1} after step {progress.step}; everything is saved. "
                f"Go on with: python -m minidense.train --resume {shlex.quote(str(run))}"
            )
            raise KeyboardInterrupt from None
    return history


def refuse_misfit(model: Classifier, config: TrainConfig, dataset: Dataset) -> None:
    """Raise ConfigError when a network cannot work on images of this size: better now than after a run folder is made."""
    shape, usual = dataset.train_images.shape[1:], models.about(config.model).image_shape
    if shape[1:] == usual[1:]:
        return
    x = Tensor(to_device(numpy.zeros((2, *shape), model.dtype), config.device))
    labels = to_device(numpy.zeros(2, numpy.int64), config.device)
    try:
        with no_grad():
            model.eval().loss(x, labels)
    except ShapeError as error:
        height, width = shape[1:]
        raise ConfigError(
            f"--model {config.model} cannot work on {config.data}, whose images have {height}×{width} pixels; "
            f"it was made for {usual[1]}×{usual[2]} ({error}). DenseNets and ResNets work on any size"
        ) from None
    finally:
        model.train()


def refuse_divergence(loss: float, where: str) -> None:
    """Raise DivergenceError when a loss is not a finite number any more."""
    if not math.isfinite(loss):
        raise DivergenceError(f"the loss became {loss} {where}: training has diverged. Try a lower --learning-rate")


def build(config: TrainConfig, dataset: Dataset) -> tuple[Classifier, SGD]:
    """The network and the optimiser that the settings ask for. Raises ConfigError for what the network does not have."""
    about = models.about(config.model)
    if config.dropout is not None and "dropout" not in (*about.options, *about.settings):
        raise ConfigError(f"--dropout {config.dropout:g}: {config.model} has none; leave it out")
    model = models.create(
        config.model,
        classes=len(dataset.class_names),
        seed=config.seed,
        device=config.device,
        **about.for_images(dataset.train_images.shape[1:]),
        **({} if config.dropout is None else {"dropout": config.dropout}),
    )
    last = set(model.last_layer.parameters())

    def settings(name: str, w: Tensor) -> dict[str, Any]:
        """A bias is what is called so, β of batch norm included. Caffe: twice the rate and no weight decay for biases."""
        is_bias = name.rpartition(".")[2] == "bias"
        scale = (config.bias_rate if is_bias else 1.0) * (config.last_layer_rate if w in last else 1.0)
        decay = 0.0 if is_bias and not config.bias_decay else config.weight_decay
        return {"lr_scale": scale * model.rate_of(name), "weight_decay": decay}

    optimizer = SGD(
        parameter_groups(model.named_parameters(), settings),
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        coast=True,  # as do the frameworks of all these papers
    )
    return model, optimizer


def steps_in_epoch(dataset: Dataset, config: TrainConfig) -> int:
    """Steps that show every training image once; the last may be smaller."""
    return -(-len(dataset.train_images) // config.batch_size)


def record_of(config: TrainConfig, progress: Progress, found: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """One line of log.jsonl. Losses in nats, accuracies as fractions; epoch counts from 1, the rate is that of its first step.

    found  loss and accuracy on "test" and, where some images are held out, "validation"
    """
    record = {
        "epoch": progress.epoch + 1,
        "learning_rate": config.learning_rate_at(progress.epoch),
        "train_loss": progress.loss / progress.images,
        "train_accuracy": progress.hits / progress.images,
    }
    for part, (loss, accuracy) in found.items():
        record |= {f"{part}_loss": loss, f"{part}_accuracy": accuracy}
    return record | {"images_per_second": progress.images / progress.seconds, "seconds": progress.seconds}


def seconds_per_epoch(config: TrainConfig, dataset: Dataset) -> float:
    """How long an epoch and its test will take here: a few steps on a twin of the model, which is then thrown away."""
    model, optimizer = build(config, dataset)
    images, labels = next(
        training_batches(dataset, size=config.batch_size, seed=(config.seed,), augment=config.augment)
    )

    def train_step():
        training_step(model, optimizer, images, labels)

    def test_step():
        with no_grad():
            model(Tensor(images))

    step = typical_seconds(train_step, config.device)
    model.eval()
    test = typical_seconds(test_step, config.device)
    tested = len(dataset.test_images) + config.validation
    return (step * len(dataset.train_images) + test * tested) / len(labels)


def plan(line: CommandLine) -> tuple[TrainConfig, RunFolder, Checkpoint | None]:
    """What a command line asks for: settings, run folder, and the checkpoint to go on from."""
    if line.resume is None or line.resume == "auto":
        config = TrainConfig(**line.settings)
        folder = folder_for(config, resume=line.resume == "auto")
        if line.resume is None or not folder.checkpoint.exists():
            return config, folder, None
        path = folder.checkpoint
    else:
        path = checkpoint_at(line.resume)
        folder = RunFolder(path.parent)
    saved = Checkpoint.load(path)
    if path != folder.checkpoint and "out" not in line.settings:
        raise ConfigError(f"--resume {path}: not the last checkpoint of its folder; say with --out where to go on")
    config = TrainConfig(**resumed_settings(saved.config, line.settings))
    if line.resume != "auto" and "out" in line.settings and Path(line.settings["out"]) != folder.path:
        folder = folder_for(config)
    return config, folder, saved


def main(argv: Sequence[str] | None = None) -> int:
    """python -m minidense.train. Exit codes: 0 done, 2 wrong command line, 3 diverged, 4 cannot write, 5 no memory, 130 interrupted."""
    config = None

    def work() -> int:
        nonlocal config
        line = parse(argv)
        config, folder, saved = plan(line)
        history = fit(config, folder=folder, saved=saved, note=line.note)
        print(summary(history, config, folder))
        return DONE

    def words(error: BaseException) -> str | None:
        if isinstance(error, MemoryError):
            return no_memory(error, config)
        if isinstance(error, OSError):
            return f"{one_line(error)}. What was saved before is intact; make room and go on with --resume"
        return None

    return ended("python -m minidense.train", work, codes={DivergenceError: DIVERGED}, words=words)


def no_memory(error: MemoryError, config: TrainConfig | None) -> str:
    """How much was lacking and, on the GPU, the batch that would fit: measured, so the run must be over."""
    if config is None or config.device == "cpu":
        return f"not enough memory ({error}); try a smaller --batch-size or --model"
    return out_of_memory_message(
        error, batch_size=config.batch_size, fitting=lambda: fitting_batch(error, config, build)
    )


if __name__ == "__main__":
    sys.exit(main())
