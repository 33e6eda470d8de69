"""The GPUs there are, their memory, and what to say when it is not enough."""

import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .backend import check_device, library
from .cupy_trouble import OUT_OF_MEMORY
from .errors import DeviceError

# CuPy: "Out of memory allocating 1,024 bytes (allocated so far: 512 bytes, limit set to: 2,048 bytes)."
REQUESTED = re.compile(r"allocating ([\d,]+) bytes")
ALLOCATED = re.compile(r"allocated so far: ([\d,]+) bytes")
LIMIT = re.compile(r"limit set to: ([\d,]+) bytes")

_pools: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()  # those of pool_for


@dataclass(frozen=True)
class GPU:
    """One that this process may use."""

    name: str
    compute_capability: str  # such as "9.0"
    free: int  # bytes
    total: int  # bytes


def gpus() -> list[GPU]:
    """Those that this process may use, as CUDA counts them. Raises DeviceError as ``library`` does."""
    cuda = library("gpu").cuda
    found = []
    for number in range(cuda.runtime.getDeviceCount()):
        known = cuda.runtime.getDeviceProperties(number)
        with cuda.Device(number):
            free, total = memory_info("gpu")
        found.append(GPU(known["name"].decode(errors="replace"), f"{known['major']}.{known['minor']}", free, total))
    return found


def memory_info(device) -> tuple[int, int]:
    """Bytes that are free and bytes that there are, on the GPU in use, whoever holds the rest.

    Raises DeviceError as ``library`` does, and for the CPU, whose memory is not ours to count.
    """
    check_device(device)
    if device != "gpu":
        raise DeviceError(f"memory_info: only the memory of the GPU is counted, not of device {device!r}")
    free, total = library(device).cuda.runtime.memGetInfo()
    return free, total


def pool_for(owner: Any) -> Any:
    """A pool of CuPy's beside the one that everybody uses, counted as ours as long as `owner` lives."""
    pool = _pools[owner] = library("gpu").cuda.MemoryPool()
    return pool


def free_idle_blocks() -> None:
    """Give back to the GPU what CuPy's pool keeps for later; this waits for the GPU."""
    library("gpu").get_default_memory_pool().free_all_blocks()


def peak_bytes(action: Callable[[], Any]) -> int:
    """The most that CuPy's pool holds while `action` runs, with what was in use before: it keeps what is freed meanwhile."""
    free_idle_blocks()
    action()
    return library("gpu").get_default_memory_pool().total_bytes()


def available_bytes() -> int:
    """What this process could hold on the GPU: all but what others do, or as much as CUPY_GPU_MEMORY_LIMIT allows."""
    free_idle_blocks()
    pool = library("gpu").get_default_memory_pool()
    free, total = memory_info("gpu")
    return min(free + pool.total_bytes(), pool.get_limit() or total)


def out_of_memory_message(
    error, *, batch_size: int | None = None, fitting: int | Callable[[], int | None] | None = None
) -> str:
    """What to tell whoever ran out of memory, on either device, in one line: how much was asked for, and the way out.

    error       a MemoryError, NumPy's or CuPy's
    batch_size  images in the step that failed
    fitting     the largest batch that would fit, where it is known; 0 when not even one image would. Or a function that finds
                it, asked where it was the GPU's memory, and last: it may free what is in use, which is told as well
    """
    said = shortage(error)
    if callable(fitting):
        fitting = fitting() if _is_of_gpu(error) else None
    return f"{said}; {_way_out(batch_size, fitting)}"


def shortage(error) -> str:
    """How much memory was asked for and how much there is, in one line."""
    text = " ".join(str(error).split())
    requested, allocated, limit = (_bytes(pattern, text) for pattern in (REQUESTED, ALLOCATED, LIMIT))
    if requested is None:  # NumPy names size, shape and type itself
        return f"not enough {'GPU ' if _is_of_gpu(error) else ''}memory{f' ({text})' if text else ''}"
    asked = f"not enough GPU memory: asked for {readable(requested)} more"
    if limit is not None and allocated is not None:
        return f"{asked} with {readable(allocated)} of the limit of {readable(limit)} in use"
    try:
        free, total = memory_info("gpu")
    except Exception:  # noqa: BLE001  this is said while something else has failed; less is better than nothing
        return f"{asked} with {readable(allocated)} in use" if allocated is not None else asked
    used = total - free
    ours = None if allocated is None else max(allocated, _held())  # CuPy counts only the pool that it was asked of
    others = f", {readable(used - ours)} of it not by us" if ours is not None and ours < used / 2 else ""
    return f"{asked} with {readable(used)} of {readable(total)} in use{others}"


def readable(count: float) -> str:
    """A number of bytes with its unit, in powers of 1000: '2.1 GB'."""
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:,.1f} TB"


def _held() -> int:
    """Bytes in all pools."""
    return sum(pool.total_bytes() for pool in (library("gpu").get_default_memory_pool(), *_pools.values()))


def _is_of_gpu(error) -> bool:
    return bool(REQUESTED.search(str(error)) or OUT_OF_MEMORY.search(str(error)))


def _way_out(batch_size: int | None, fitting: int | None) -> str:
    if fitting == 0 or batch_size == 1:
        return "not even one image fits: try a smaller --model"
    if fitting is not None and (batch_size is None or fitting < batch_size):
        return f"a batch of {fitting:,} would fit: --batch-size {fitting}"
    smaller = f" than {batch_size}" if batch_size else ""
    return f"try a smaller --batch-size{smaller}, or a smaller --model"


def _bytes(pattern: re.Pattern, text: str) -> int | None:
    found = pattern.search(text)
    return int(found[1].replace(",", "")) if found else None
