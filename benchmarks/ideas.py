"""What each idea of the fast dense block buys: one training step of a network, with the idea switched off, in alternation.

    python benchmarks/ideas.py [MODEL] [--batch-size 64] [--rounds 5] [--threads N]

Prints images per second (median over the rounds) and how much slower the step is without each idea.
"""

import argparse
import statistics
import time
from contextlib import ExitStack, contextmanager, nullcontext
from threading import Barrier
from unittest.mock import patch

import numpy

import minidense as md
from minidense import functional as F
from minidense import memory
from minidense.fast.cpu import pieces, unit
from minidense.models.densenet import Transition, block_and_transition, dense_block
from minidense.speed import REFERENCES, reference_only
from minidense.threads import in_parallel, thread_count, threads


@contextmanager
def without_twins(*functions):
    """These functions run as they are defined."""
    kept = [list(function.fast_paths) for function in functions]
    for function in functions:
        function.fast_paths.clear()
    try:
        yield
    finally:
        for function, twins in zip(functions, kept, strict=True):
            function.fast_paths.extend(twins)


@contextmanager
def freed_memory_given_back():
    """As the C library does it by itself."""
    memory.set_options(memory.USUAL)
    memory.give_back()
    try:
        yield
    finally:
        memory.set_options(memory.KEEPING)


@contextmanager
def small_pages():
    """Working memory in pages of 4 kB."""
    with patch.object(md.threads, "LARGE_PAGES", 0):
        forget_scratch()
        yield
    forget_scratch()


def forget_scratch():
    """Every thread throws its working memory away."""
    barrier = Barrier(thread_count())

    def forget(_):
        barrier.wait()  # so that each thread comes once
        vars(md.threads._local).pop("scratch", None)

    in_parallel(forget, range(thread_count()))


def variants():
    """(what is missing, a context in which it is)."""
    everything = [function for function in REFERENCES if function.fast_paths]
    stages = (dense_block, block_and_transition, Transition.forward)
    composite = [f for f in everything if f in stages or "norm_relu" in f.__name__]
    return [
        ("nothing: the step as it is", nullcontext),
        ("every twin: the definitions alone", reference_only),
        ("fusing: twins of single operations only", lambda: without_twins(*composite)),
        (
            "the block in one buffer: BN-ReLU-Conv fused, layer by layer",
            lambda: without_twins(dense_block, block_and_transition),
        ),
        ("the transition as part of the block", lambda: without_twins(block_and_transition)),
        (
            "that, and pooling before the transition's convolution",
            lambda: without_twins(block_and_transition, Transition.forward),
        ),
        (
            "leaving out constants (one pass over the features instead of two)",
            lambda: patch.object(unit, "SHIFT", -1.0),
        ),
        ("keeping freed memory", freed_memory_given_back),
        ("large pages for working memory", small_pages),
        ("pieces of the right size: 256 pixels", lambda: patch.object(pieces, "PIXELS", (256, 256))),
        ("pieces of the right size: 16,384 pixels", lambda: patch.object(pieces, "PIXELS", (16384, 16384))),
        ("the second thread", lambda: threads(1)),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="densenet_bc_100_12")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    model = md.models.create(options.model)
    optimizer = md.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    rng = numpy.random.default_rng(0)
    images = md.Tensor(rng.standard_normal((options.batch_size, 3, 32, 32), numpy.float32))
    labels = rng.integers(0, 10, options.batch_size)

    def step():
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def seconds(context):
        with context():
            step()  # memory comes to lie as this case needs it
            start = time.perf_counter()
            step()
            return time.perf_counter() - start

    cases = variants()
    measured: dict[str, list[float]] = {name: [] for name, _ in cases}
    with ExitStack() as stack:
        stack.enter_context(threads(options.threads))
        stack.enter_context(memory.freed_memory_kept())
        for _ in range(options.rounds):
            for name, context in cases:
                measured[name].append(seconds(context))
        print(
            f"{options.model}, batch {options.batch_size}, {thread_count()} threads, median of {options.rounds} alternating rounds"
        )
    base = statistics.median(measured[cases[0][0]])
    print(f"{'without':<70} images/s   time")
    for name, times in measured.items():
        print(
            f"{name:<70} {options.batch_size / statistics.median(times):8.1f} {statistics.median(times) / base:6.2f}×"
        )


if __name__ == "__main__":
    main()
