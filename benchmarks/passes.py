"""Where the time of a dense block goes, pass by pass: every NumPy call of the fast path is timed, on one thread.

    python benchmarks/passes.py [--batch-size 32] [--size 32] [--layers 16] [--channels 24] [--growth-rate 12]

A line is one place in the source: microseconds a call, milliseconds an image, share of the whole. By default the first block of
DenseNet-BC(100,12). The clock itself costs about a microsecond a call.
"""

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy

import minidense as md
from minidense.fast.cpu import moments, one_buffer, pieces, taps, unit, ways
from minidense.memory import freed_memory_kept
from minidense.models.densenet import BottleneckLayer, DenseBlock
from minidense.threads import threads


class Timed:
    """A function that notes how long it took, and from which line it was called."""

    def __init__(self, function, spent):
        self.function, self.spent = function, spent

    def __call__(self, *args, **options):
        caller = sys._getframe(1)
        start = time.perf_counter()
        result = self.function(*args, **options)
        name = self.function.__name__
        entry = self.spent[f"{Path(caller.f_code.co_filename).name}:{caller.f_lineno}  {name}"]
        entry[0] += 1
        entry[1] += time.perf_counter() - start
        return result

    def __getattr__(self, name):
        return Timed(getattr(self.function, name), self.spent)


class TimedNumPy:
    """NumPy with every function timed."""

    def __init__(self, spent):
        self.spent = spent

    def __getattr__(self, name):
        value = getattr(numpy, name)
        return value if isinstance(value, type) or not callable(value) else Timed(value, self.spent)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("batch-size", 32),
        ("size", 32),
        ("layers", 16),
        ("channels", 24),
        ("growth-rate", 12),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    n, c, k = options.batch_size, options.channels, options.growth_rate
    rng = numpy.random.default_rng(0)
    block = DenseBlock(BottleneckLayer, options.layers, c, k, 0.0)
    x = md.Tensor(rng.standard_normal((n, c, options.size, options.size), numpy.float32), requires_grad=True)
    dy = rng.standard_normal((n, c + options.layers * k, options.size, options.size), numpy.float32)

    def step():
        start = time.perf_counter()
        block(x).backward(dy)
        return time.perf_counter() - start

    spent: dict[str, list] = defaultdict(lambda: [0, 0.0])
    with threads(1), freed_memory_kept():
        step()
        plain = step()
        for module in (moments, one_buffer, pieces, taps, unit, ways):
            module.numpy = TimedNumPy(spent)
        timed = step()
    print(f"one step, one thread: {1e3 * plain / n:.1f} ms an image, {1e3 * timed / n:.1f} with the clocks running")
    print(f"{'place':<44} {'calls':>7} {'µs a call':>10} {'ms an image':>12} {'share':>7}")
    for place, (calls, seconds) in sorted(spent.items(), key=lambda item: -item[1][1])[:24]:
        print(f"{place:<44} {calls:7d} {1e6 * seconds / calls:10.1f} {1e3 * seconds / n:12.2f} {seconds / timed:7.1%}")
    rest = timed - sum(seconds for _, seconds in spent.values())
    print(
        f"{'what is written with operators, and Python':<44} {'':7} {'':10} {1e3 * rest / n:12.2f} {rest / timed:7.1%}"
    )


if __name__ == "__main__":
    main()
