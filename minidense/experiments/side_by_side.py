"""Many small training runs, each by itself, shared out among processes with one thread each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from typing import Any

from ..data import Dataset
from ..schedule import one_cycle
from ..threads import threads
from .small_networks import FAMILIES
from .training import CHANCE, loss_and_accuracy, train

GUESSING = 100 * (1 - CHANCE)  # % of errors


@dataclass(frozen=True)
class Recipe:
    """What all runs have in common: images, length, and how the weights move."""

    train_images: int
    test_images: int
    epochs: int
    batch_size: int = 50
    warmup: float = 0.3  # share of the run in which the rate goes up, from a tenth of it
    momentum: float = 0.9  # Nesterov's
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class Job:
    """One run: a family at a highest learning rate, from a seed that decides weights, order and augmentation."""

    family: str
    rate: float
    seed: int
    recipe: Recipe

    def asked(self) -> dict[str, Any]:
        """All that decides what comes out, for JSON."""
        return asdict(self)


def trained(job: Job, dataset: Dataset) -> dict[str, Any]:
    """Train a network by its recipe and test it: what was asked, errors in percent, and how long it took."""
    family, recipe = FAMILIES[job.family], job.recipe
    began, worked = time.perf_counter(), time.process_time()
    model = family.build(job.seed)
    optimizer = family.optimizer(model, momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay)
    history = train(
        model,
        optimizer,
        dataset,
        epochs=recipe.epochs,
        learning_rate=lambda now: one_cycle(now, peak=job.rate, epochs=recipe.epochs, warmup=recipe.warmup),
        seed=job.seed,
        batch_size=recipe.batch_size,
        tested=False,
    )
    diverged = history[-1]["diverged"]
    return {
        **job.asked(),
        "train_loss": history[-1]["train_loss"],
        "test_error": GUESSING if diverged else 100 * (1 - loss_and_accuracy(model, dataset)[1]),
        "diverged": diverged,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - worked,
    }


def all_trained(jobs: Sequence[Job], dataset: Dataset, *, processes: int) -> Iterator[dict[str, Any]]:
    """Every job's result, in the order in which they are done, with one thread each.

    Small networks gain little from a second thread: two runs side by side use two cores better than one run does.
    With one process all is done here.
    """
    if processes == 1:
        with threads(1):
            for job in jobs:
                yield trained(job, dataset)
        return
    # Processes that start afresh, not as copies of this one: it may have threads.
    pool = ProcessPoolExecutor(
        min(processes, len(jobs)), multiprocessing.get_context("spawn"), initializer=begin, initargs=(dataset,)
    )
    try:
        for done in as_completed([pool.submit(work, job) for job in jobs]):
            yield done.result()
    except BaseException:  # also when whoever asked wants no more: a run takes a minute, and nobody waits for it
        # The pool's alone: whoever asked may have other processes. Python 3.14 has pool.terminate_workers() for this.
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_dataset: Dataset  # of a process that works


def begin(dataset: Dataset) -> None:
    """In a new process: keep the images, leave Ctrl-C to the one that asked, and end with it however it ends."""
    global _dataset
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    _dataset = dataset


def end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this process was started by another
    parent.join()
    os._exit(1)


def work(job: Job) -> dict[str, Any]:
    """In such a process."""
    with threads(1):
        return trained(job, _dataset)
