"""Threads: one pool for everything that is computed in pieces, with the matrix library held at one thread meanwhile.

NumPy's loops use one core and let go of the interpreter while they run, so pieces of a batch can be worked on side by side.
"""

import contextvars
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy
import threadpoolctl

from .errors import ConfigError

VARIABLE = "MINIDENSE_THREADS"
MOST = 1024
# NumPy asks the system for large pages (2 MB) where an array has 4 MB or more: they save the processor much looking up of addresses.
LARGE, LARGE_PAGES = 1 << 18, 4 << 20  # bytes

_local = threading.local()


class _Settings:
    """How many threads were asked for, the pool, and how many sections hold the matrix library at one thread now."""

    count: int | None = None
    pool: ThreadPoolExecutor | None = None
    pool_size = 0
    sections = 0
    limit: Any = None
    lock = threading.Lock()


def thread_count() -> int:
    """How many threads work: what set_threads said, else $MINIDENSE_THREADS, else the cores this process may use.

    Raises ConfigError when the variable is not a whole number from 1 up.
    """
    if _Settings.count is None:
        text = os.environ.get(VARIABLE, "")
        if text and not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST):
            raise ConfigError(
                f"${VARIABLE} must be a whole number from 1 to {MOST}, got {text!r}; unset it for all cores"
            )
        _Settings.count = int(text) if text else _cores()
    return _Settings.count


def set_threads(count: int | None) -> None:
    """From now on work with this many threads; None goes back to $MINIDENSE_THREADS or all cores."""
    if count is not None and (not isinstance(count, int) or not 1 <= count <= MOST):
        raise ConfigError(f"set_threads: needs a whole number from 1 to {MOST}, or None for all cores; got {count!r}")
    _Settings.count = count


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Work with this many threads inside, NumPy's own matrix products included; None changes nothing."""
    before = _Settings.count
    if count is not None:
        set_threads(count)
    try:
        with _blas().limit(limits=thread_count(), user_api="blas"):
            yield
    finally:
        _Settings.count = before


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold matrix products at one thread, because the threads are ours. May be nested."""
    with _Settings.lock:
        _Settings.sections += 1
        if _Settings.sections == 1:
            _Settings.limit = _blas().limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _Settings.lock:
            _Settings.sections -= 1
            if _Settings.sections == 0:
                _Settings.limit.restore_original_limits()


def in_parallel(work: Callable[[Any], Any], items: Sequence) -> list:
    """[work(item) for item in items], several at once; the results in the order of the items, whoever made them.

    The first exception is raised here, when all threads have stopped.
    """
    workers = min(thread_count(), len(items))
    results: list[Any] = [None] * len(items)
    # Threads take the next item from here; next() of it is one step of the interpreter.
    waiting = iter(range(len(items)))
    if workers < 2 or getattr(_local, "working", False):
        for i in waiting:
            results[i] = work(items[i])
        return results

    def take():
        _local.working = True
        try:
            for i in waiting:
                results[i] = work(items[i])
        except BaseException:
            for _ in waiting:  # the others find nothing left
                pass
            raise
        finally:
            _local.working = False

    # With a copy of this thread's context each, NumPy's error settings above all.
    others = [_pool(workers).submit(contextvars.copy_context().run, take) for _ in range(workers - 1)]
    try:
        take()
        errors = [future.exception() for future in others]
    except BaseException:  # Ctrl-C while waiting, too
        for _ in waiting:
            pass
        wait(others)
        raise
    for error in errors:
        if error is not None:
            raise error
    return results


def scratch(name: str, shape: tuple[int, ...], dtype, *, cleared: bool = False) -> numpy.ndarray:
    """This thread's working memory of that name, kept for the next call. It holds whatever was left there.

    cleared  zeros whenever the shape is another than last time; what is never written then stays zero
    """
    kept = _local.__dict__.setdefault("scratch", {})
    flat, array = kept.get(name, (None, None))
    if array is not None and array.shape == shape and array.dtype == dtype:
        return array
    size = math.prod(shape)
    if flat is None or flat.size < size or flat.dtype != dtype:
        item = numpy.dtype(dtype).itemsize
        flat = numpy.empty(size if size * item < LARGE else max(size, LARGE_PAGES // item), dtype)
    array = flat[:size].reshape(shape)
    if cleared:
        array[...] = 0
    kept[name] = flat, array
    return array


def _pool(workers: int) -> ThreadPoolExecutor:
    if _Settings.pool is None or _Settings.pool_size < workers - 1:
        if _Settings.pool is not None:
            _Settings.pool.shutdown()
        _Settings.pool, _Settings.pool_size = (
            ThreadPoolExecutor(workers - 1, thread_name_prefix="minidense"),
            workers - 1,
        )
    return _Settings.pool


def _forget_pool() -> None:
    """A forked process has none of its parent's threads."""
    _Settings.pool, _Settings.pool_size, _Settings.lock = None, 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _blas() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()
