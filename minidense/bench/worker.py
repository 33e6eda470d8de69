"""One contender in a process of its own: python -m minidense.bench.worker reads commands and answers, one JSON line each.

What it prints otherwise goes to standard error, so that nothing comes between the answers. It ends with its input.
"""

from __future__ import annotations

import gc
import json
import math
import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy

from .. import functional as F
from ..backend import synchronise, to_device
from ..errors import MinidenseError
from ..gpus import memory_info
from ..memory import freed_memory_kept
from ..optim import SGD
from ..precision import precision
from ..step import training_step
from ..tensor import Tensor, no_grad
from ..threads import threads
from .peer import Peer
from .trace import Trace, trace
from .work import build, images_and_labels, made_for

if sys.platform != "win32":
    import resource

MATRIX_SIZE = 1536


def peak_bytes() -> int | None:
    """The most memory this program ever had in use; None where the system does not say."""
    if sys.platform == "win32":
        return None
    # Linux hands ru_maxrss down from the process that started this one, however large that was; VmHWM begins with this program.
    with suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # bytes on macOS, kB on Linux


limited = threads  # the commands have an argument of that name


def array_bytes() -> int:
    """NumPy's arrays alive now and made since tracemalloc began."""
    gc.collect()
    arrays = tracemalloc.DomainFilter(inclusive=True, domain=numpy.lib.tracemalloc_domain)
    return sum(part.size for part in tracemalloc.take_snapshot().filter_traces([arrays]).traces)


class Ours:
    """minidense at work on one model."""

    def __init__(self, model: str, batch_size: int, image_size: int, mode: str, device: str = "cpu"):
        images, labels = images_and_labels(batch_size, image_size, made_for(model)[1])
        self.device = device
        self.images, self.labels = to_device(images, device), to_device(labels, device)
        self.model = build(model).to(device).train(mode == "train")
        self.optimizer = SGD(self.model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
        self.step: Callable[[], Any] = self.train_step if mode == "train" else self.eval_step

    def train_step(self) -> Tensor:
        return training_step(self.model, self.optimizer, self.images, self.labels)[1]

    def eval_step(self) -> None:
        with no_grad():
            self.model(Tensor(self.images))

    def finish(self) -> None:
        synchronise(self.device)

    def kept_bytes(self) -> int:
        """What a forward pass leaves in memory for the backward pass, by NumPy's own account.

        It is what goes when the graph goes: working memory that a thread happens to need for the first time stays.
        """
        tracemalloc.start()
        loss = F.cross_entropy(self.model(Tensor(self.images)), self.labels)
        with_graph = array_bytes()
        del loss
        kept = with_graph - array_bytes()
        tracemalloc.stop()
        return kept


class Torch:
    """PyTorch at the same work; `how` goes to Peer."""

    def __init__(
        self, model: str, trace_file: str, batch_size: int, image_size: int, mode: str, threads: int, **how: Any
    ):
        import torch

        torch.set_num_threads(threads)
        self.peer = Peer(Trace.load(Path(trace_file), example=False), **how)
        images, labels = images_and_labels(batch_size, image_size, made_for(model)[1])
        self.images, self.labels = self.peer.tensor(images), self.peer.tensor(labels)
        self.step: Callable[[], Any] = self.train_step if mode == "train" else self.eval_step

    def train_step(self) -> Any:
        return self.peer.train_step(self.images, self.labels)

    def eval_step(self) -> None:
        self.peer.eval_step(self.images)

    def finish(self) -> None:
        if self.peer.device == "cuda":
            self.peer.torch.cuda.synchronize()


class Matrices:
    """The yardstick: large square matrix products in float32."""

    def __init__(self):
        rng = numpy.random.default_rng(0)
        self.a, self.b = (rng.standard_normal((MATRIX_SIZE, MATRIX_SIZE), numpy.float32) for _ in range(2))
        self.product = self.a @ self.b

    def step(self) -> None:
        numpy.matmul(self.a, self.b, out=self.product)

    def finish(self) -> None:
        """Nothing is under way."""


class Worker:
    """The commands; each takes what its JSON line says and returns what is answered."""

    contender: Ours | Torch | Matrices

    def __init__(self):
        self.inside = ExitStack()

    def trace(self, *, model: str, image_size: int, file: str) -> dict[str, Any]:
        found = trace(build(model), image_size)
        found.save(Path(file))
        return {
            "parameters": found.parameter_count,
            "multiply_adds": {mode: found.multiply_adds(mode) for mode in ("train", "eval")},
        }

    def check(self, *, file: str) -> dict[str, Any]:
        """Refuse a model that PyTorch would not do the same work for, in either layout."""
        for channels_last in (False, True):
            Peer(Trace.load(Path(file)), channels_last=channels_last).check()
        return {}

    def card(self, *, contender: str) -> dict[str, Any]:
        """Memory of the GPU in use, by whomever."""
        if contender == "torch":
            import torch

            free, total = torch.cuda.mem_get_info()
        else:
            free, total = memory_info("gpu")
        return {"bytes": total - free}

    def prepare(self, *, contender: str, threads: int, **settings: Any) -> dict[str, Any]:
        if contender == "torch":
            import torch

            before = peak_bytes()
            self.contender = Torch(**settings, threads=threads)
            return {"bytes_before": before, "version": torch.__version__}
        before = peak_bytes()
        self.inside.enter_context(limited(threads))
        self.inside.enter_context(freed_memory_kept())  # as in training
        self.inside.enter_context(precision(settings.pop("precision", None)))
        self.contender = Ours(**settings) if contender == "minidense" else Matrices()
        return {"bytes_before": before}

    def warm_up(self) -> dict[str, Any]:
        for _ in range(2):
            self.contender.step()
        self.contender.finish()
        return {}

    def measure(self, *, seconds: float) -> dict[str, Any]:
        """Steps until so much time is up."""
        cpu_start = time.process_time()  # before the tidying: who asks looks at the whole machine meanwhile
        gc.collect()
        steps, start = 0, time.perf_counter()
        while True:
            last = self.contender.step()
            steps += 1
            if time.perf_counter() - start >= seconds:
                break
        loss = math.nan if last is None else last.item()
        self.contender.finish()
        spent, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        loss = loss if math.isfinite(loss) else None
        return {"steps": steps, "seconds": spent, "cpu_seconds": cpu_seconds, "loss": loss}

    def peak(self) -> dict[str, Any]:
        return {"bytes": peak_bytes()}

    def kept(self) -> dict[str, Any]:
        assert isinstance(self.contender, Ours)
        return {"bytes": self.contender.kept_bytes()}


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(
        sys.stderr.fileno(), sys.stdout.fileno()
    )  # libraries in C print there without asking Python (ONEDNN_VERBOSE=1)
    sys.stdout = sys.stderr
    worker = Worker()
    with worker.inside:
        for line in sys.stdin:
            command = json.loads(line)
            try:
                answer = getattr(worker, command.pop("do"))(**command)
            except MinidenseError as error:
                answer = {"refused": str(error)}
            except Exception as error:  # noqa: BLE001  whatever it is, the one who asked says it
                answer = {"failed": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
