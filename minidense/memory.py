"""Memory that a training step gives back stays with the process, for the next step to use.

A step needs the same hundreds of megabytes each time. The C library hands large arrays back to the system as soon as they are
freed, and to get them again costs more than to fill them: the system clears every page anew. That is a tenth to a fifth of a training
step.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Names from malloc.h and mallopt(3) of the GNU C library. Left to itself, the library raises the size from which an array gets pages
# of its own, as large arrays come and go, until it stands where USUAL puts it.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
USUAL = {M_TRIM_THRESHOLD: 64 << 20, M_MMAP_THRESHOLD: 32 << 20, M_MMAP_MAX: 65536}
KEEPING = {M_TRIM_THRESHOLD: -1, M_MMAP_MAX: 0}  # -1: never
USERS_OWN = "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"


class _Sections:
    count = 0
    lock = threading.Lock()


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Inside, the process keeps what it frees; at the end it gives back what it does not use. May be nested.

    It concerns the whole process, so it is for whoever owns it: the training loop, the benchmark. Without the GNU C library, and
    where the environment has options for it (USERS_OWN), nothing changes.
    """
    with _Sections.lock:
        _Sections.count += 1
        if _Sections.count == 1:
            set_options(KEEPING)
    try:
        yield
    finally:
        with _Sections.lock:
            _Sections.count -= 1
            if _Sections.count == 0:
                set_options(USUAL)
                give_back()


def set_options(options: dict[int, int]) -> None:
    """Tell the C library, where it is the GNU one and the user has not told it otherwise."""
    library = _library()
    if library is not None:
        for option, value in options.items():
            library.mallopt(option, value)


def give_back() -> None:
    """Return to the system what the process has and does not use."""
    library = _library()
    if library is not None:
        library.malloc_trim(ctypes.c_size_t(0))


def _library() -> Any:
    if sys.platform != "linux" or any(name in os.environ for name in USERS_OWN):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def _after_fork() -> None:
    _Sections.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
