"""Batches: shuffled, augmented, and prepared ahead of time."""

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import numpy

from .augment import normalise, random_crop, random_flip
from .datasets import Dataset


def training_batches(
    dataset: Dataset, *, size: int, seed: tuple[int, ...], augment: bool = True, start: int = 0
) -> Iterator[tuple[Any, Any]]:
    """One epoch of training: (images float32 (n, C, H, W), labels int64 (n,)), in an order that `seed` decides.

    Every image comes once; the last batch may be smaller. Each batch has a generator of its own, made from `seed` and its number,
    so an epoch can start anywhere and goes on with the same bits.

    start    number of the first batch
    augment  mirror and crop as the data set allows; otherwise only normalise
    """
    # One stream of random numbers for the order and one for each batch; the leading number keeps them apart.
    order = numpy.random.default_rng((1, *seed)).permutation(len(dataset.train_images))
    for number in range(start, -(-len(order) // size)):
        chosen = order[number * size : (number + 1) * size]
        batch = normalise(dataset.train_images[chosen], dataset.mean, dataset.std)
        if augment:
            rng = numpy.random.default_rng((2, *seed, number))
            batch = random_flip(batch, rng) if dataset.flip else batch
            batch = random_crop(batch, rng, padding=dataset.crop_padding)
        yield batch, dataset.train_labels[chosen]


def test_batches(dataset: Dataset, *, size: int) -> Iterator[tuple[Any, Any]]:
    """The test part in its own order, normalised and nothing else: a single view, as the paper tests."""
    for i in range(0, len(dataset.test_images), size):
        yield normalise(dataset.test_images[i : i + size], dataset.mean, dataset.std), dataset.test_labels[i : i + size]


def prefetch(items: Iterable, *, ahead: int = 2) -> Generator:
    """The same items, made up to `ahead` of time in a thread, so that the model does not wait for data.

    An exception in the making is raised here, in its turn. Closing the iterator stops the thread.
    """
    ready: queue.Queue = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(entry) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make():
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:  # noqa: BLE001  whatever it is, it belongs to the consumer
            put((None, error))

    maker = threading.Thread(target=make, name="minidense-prefetch", daemon=True)
    maker.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        stopped.set()
        maker.join()
