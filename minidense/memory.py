"""Memory that a training step gives back stays with the process, for the next step to use.

A step needs the same hundreds of megabytes each time. The C library hands large arrays back to the system as soon as they are
freed, and to get them again costs more than to fill them: the system clears every page anew. That is a tenth of a training step.
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
    where the user has set its memory options in the environment, nothing changes.
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


def set_options(options: dict[int, int]) -> None:
    """Tell the C library, and let it give back what is free where it is to do that again."""
    library: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "mallopt") or any(name in os.environ for name in USERS_OWN):
        return
    for option, value in options.items():
        library.mallopt(option, value)
    if options is USUAL:
        library.malloc_trim(ctypes.c_size_t(0))
