"""Contenders in turn, one working while the others sleep: A B C A B C, so that a slow minute of the machine meets all of them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, MinidenseError

MINIDENSE, TORCH, CHANNELS_LAST = "minidense", "torch", "torch channels_last"
ROUND_SECONDS = 0.3
SETTLING_SECONDS = 0.05  # threads of a matrix library go on waiting actively for a moment after their last product
MATRIX_FLOP = 2 * 1536**3
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class WorkerError(MinidenseError, RuntimeError):
    """A contender that died, failed, or refused to do other work than the rest."""


class Worker:
    """A worker process; see worker.py for the commands."""

    def __init__(self, name: str, *, environment: dict[str, str] | None = None):
        self.name = name
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115  closed by stop()
        self.process = subprocess.Popen(
            # -P and our own search path: the worker measures the code that runs here, whatever lies in the current folder.
            [sys.executable, "-P", "-m", "minidense.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            env={**os.environ, "PYTHONPATH": search_path(), **(environment or {})},
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C reaches us alone; we stop the workers
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command, wait for its answer. Raises ConfigError when the worker refuses, WorkerError when it fails or is gone."""
        self.tell(do, **arguments)
        return self.answer()

    def tell(self, do: str, **arguments: Any) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.doing = do
        with suppress(OSError):  # whoever cannot read will not answer either
            print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to the last command."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.endswith("\n"):
            raise WorkerError(f"the worker for {self.name} died during {self.doing!r}: {self.last_words()}")
        answer = json.loads(line)
        if "refused" in answer:
            raise ConfigError(answer["refused"])
        if "failed" in answer:
            raise WorkerError(f"the worker for {self.name} failed during {self.doing!r}: {answer['failed']}")
        return answer

    def last_words(self) -> str:
        """How the process ended, and the last line it wrote."""
        code = self.process.wait()
        self.complaints.seek(0)
        lines = self.complaints.read().decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        if code == -9:
            how += ", perhaps for want of memory: try a smaller --batch-size"
        return f"{how}{f'; {last}' if last else ''}"

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.complaints):
            assert stream is not None
            with suppress(OSError):  # a command that was never read
                stream.close()


def search_path() -> str:
    """Where this process finds its modules, in the words of PYTHONPATH."""
    return os.pathsep.join(folder or os.getcwd() for folder in sys.path)


@contextmanager
def worker(name: str, *, environment: dict[str, str] | None = None) -> Iterator[Worker]:
    """A worker that is gone afterwards, whatever happens."""
    process = Worker(name, environment=environment)
    try:
        yield process
    finally:
        process.stop()


@dataclass
class Work:
    """A model and what is known of it before anything is timed."""

    model: str
    trace_file: str
    parameters: int
    multiply_adds: dict[str, int]


def prepared(models: list[tuple[str, int]], folder: Path, *, against_torch: bool) -> list[Work]:
    """Trace every model and check its peer, in a process of its own: neither we nor a contender shall have its memory.

    models  (name, height and width of its images)

    Raises ConfigError for the first model that cannot be measured, before any is.
    """
    works = []
    with worker("tracing") as tracer:
        for number, (model, image_size) in enumerate(models):
            file = str(folder / f"{number}.npz")
            works.append(Work(model, file, **tracer.ask("trace", model=model, image_size=image_size, file=file)))
            if against_torch:
                tracer.ask("check", file=file)
    return works


def contest(
    work: Work,
    mode: str,
    *,
    batch_size: int,
    image_size: int,
    threads: int,
    rounds: int,
    against_torch: bool,
    matrices: Worker,
) -> dict[str, Any]:
    """All contenders at one model in one mode: every raw round, and what follows from them. Plain values, for JSON."""
    settings = {
        "model": work.model,
        "batch_size": batch_size,
        "image_size": image_size,
        "mode": mode,
        "threads": threads,
    }
    names = [MINIDENSE, *((TORCH, CHANNELS_LAST) if against_torch else ())]
    with ExitStack() as stack:
        workers = {}
        for name in names:
            if name == MINIDENSE:
                limits, task = {}, {"contender": "minidense"}
            else:
                limits = dict.fromkeys(THREAD_VARIABLES, str(threads))
                task = {"contender": "torch", "trace_file": work.trace_file, "channels_last": name == CHANNELS_LAST}
            workers[name] = stack.enter_context(worker(f"{name} at {work.model}", environment=limits))
            workers[name].tell("prepare", **task, **settings)  # all at once: nothing is timed yet
        ready = {name: workers[name].answer() for name in names}
        for name in names:
            workers[name].ask("warm_up")
        raw: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        products = []
        for _ in range(rounds):
            for name in names:
                raw[name].append(timed(workers[name]))
            products.append(timed(matrices))
        peaks = {name: workers[name].ask("peak")["bytes"] for name in names}
        kept = workers[MINIDENSE].ask("kept")["bytes"] if mode == "train" else None

    multiply_adds = work.multiply_adds[mode]
    matrix_flops = statistics.median(MATRIX_FLOP * r["steps"] / r["seconds"] for r in products)
    contenders = {}
    for name in names:
        rates = [batch_size * r["steps"] / r["seconds"] for r in raw[name]]
        median = statistics.median(rates)
        contenders[name] = {
            "images_per_second": median,
            "images_per_second_range": [min(rates), max(rates)],
            "gflop_per_second": 2e-9 * multiply_adds * median,
            "share_of_matrix_product": 2 * multiply_adds * median / matrix_flops,
            "nanoseconds_per_multiply_add": 1e9 / (multiply_adds * median),
            "peak_bytes": peaks[name],
            "peak_bytes_before_work": ready[name]["bytes_before"],
            "rounds": raw[name],
        }
        if "version" in ready[name]:
            contenders[name]["version"] = ready[name]["version"]
    contenders[MINIDENSE]["kept_bytes"] = kept
    return {
        "model": work.model,
        "mode": mode,
        "image_size": image_size,
        "parameters": work.parameters,
        "multiply_adds_per_image": multiply_adds,
        "matrix_gflop_per_second": matrix_flops / 1e9,
        "matrix_rounds": products,
        "cores_of_other_programs": other_cores([*products, *(r for rounds in raw.values() for r in rounds)]),
        "contenders": contenders,
        "against_torch": compared(contenders) if against_torch else None,
    }


def timed(one: Worker) -> dict[str, Any]:
    """One round, and the processor time that programs other than the worker took meanwhile (Linux; else None)."""
    time.sleep(SETTLING_SECONDS)
    start, before = time.perf_counter(), busy_seconds()
    answer = one.ask("measure", seconds=ROUND_SECONDS)
    after, waited = busy_seconds(), time.perf_counter() - start
    others = None if before is None or after is None else after - before - answer["cpu_seconds"]
    return {**answer, "seconds_until_answer": waited, "others_cpu_seconds": others}


def busy_seconds() -> float | None:
    """Processor time spent so far on this machine, by everybody."""
    try:
        with open("/proc/stat") as file:
            user, nice, system, _idle, _waiting, *more = map(int, file.readline().split()[1:9])
        return (user + nice + system + sum(more)) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None


def other_cores(rounds: list[dict[str, Any]]) -> float | None:
    """How many cores other programs kept busy, on average."""
    if any(r["others_cpu_seconds"] is None for r in rounds):
        return None
    others = sum(r["others_cpu_seconds"] for r in rounds) / sum(r["seconds_until_answer"] for r in rounds)
    return max(others, 0.0)  # the system counts in hundredths of a second, a little more or less than there was


def compared(contenders: dict[str, Any]) -> dict[str, Any]:
    """minidense beside the quicker of PyTorch's two layouts: medians, the ratio in each round, and peak memory."""
    better = max((TORCH, CHANNELS_LAST), key=lambda name: contenders[name]["images_per_second"])
    ours, theirs = contenders[MINIDENSE], contenders[better]
    seconds_a_step = [[r["seconds"] / r["steps"] for r in one["rounds"]] for one in (ours, theirs)]
    ratios = [their / our for our, their in zip(*seconds_a_step, strict=True)]
    return {
        "layout": better,
        "speed_ratio": ours["images_per_second"] / theirs["images_per_second"],
        "speed_ratio_median_of_rounds": statistics.median(ratios),
        "speed_ratio_range": [min(ratios), max(ratios)],
        "speed_ratios": ratios,
        "memory_ratio": ours["peak_bytes"] / theirs["peak_bytes"] if ours["peak_bytes"] else None,
    }
