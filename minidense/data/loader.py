"""Batches: shuffled, augmented, and prepared ahead of time."""

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import numpy

from ..backend import array_module, to_device
from .augment import prepared
from .datasets import Dataset


def training_batches(
    dataset: Dataset, *, size: int, seed: tuple[int, ...], augment: bool = True, start: int = 0
) -> Iterator[tuple[Any, Any]]:
    """One epoch of training: (images float32 (n, C, H, W), labels int64 (n,)) on the data set's device, in an order from `seed`.

    Every image comes once; the last batch may be smaller. Each batch has a key of its own, made from `seed` and its number,
    so an epoch can start anywhere and goes on with the same bits, on either device.

    start    number of the first batch
    augment  mirror and crop as the data set allows; otherwise only normalise
    """
    # One stream of random numbers for the order and one for each batch; the leading number keeps them apart.
    order = numpy.random.default_rng((1, *seed)).permutation(len(dataset.train_images))
    order = to_device(order, dataset.device)
    for number in range(start, -(-len(order) // size)):
        chosen = order[number * size : (number + 1) * size]
        images = prepared(
            dataset.train_images,
            chosen,
            dataset.mean,
            dataset.std,
            key=batch_key(seed, number) if augment else None,
            padding=dataset.crop_padding,
            flip=dataset.flip,
            reflect=dataset.reflect,
        )
        yield images, dataset.train_labels[chosen]


def batch_key(seed: tuple[int, ...], number: int) -> tuple[int, int]:
    """The key of Philox from which a batch of an epoch draws its ``moves``."""
    first, second = numpy.random.SeedSequence((2, *seed, number)).generate_state(2, numpy.uint64).tolist()
    return first, second


def test_batches(dataset: Dataset, *, size: int) -> Iterator[tuple[Any, Any]]:
    """The test part in its own order, normalised and nothing else: a single view, as the paper tests."""
    order = array_module(dataset.test_images).arange(len(dataset.test_images))
    for i in range(0, len(order), size):
        images = prepared(dataset.test_images, order[i : i + size], dataset.mean, dataset.std)
        yield images, dataset.test_labels[i : i + size]


def prefetch(items: Iterable, *, device: str = "cpu", ahead: int = 2) -> Generator:
    """The same items, made up to `ahead` of time in a thread, so that the model does not wait for data.

    An exception in the making is raised here, in its turn. Closing the iterator stops the thread.

    device  where the items are made. The GPU works through a queue of its own: there they are made when asked for, without a thread
    """
    if device == "gpu":
        yield from items
        return
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
