"""The GPUs there are, their memory, and what to say when it is not enough."""

import re
from dataclasses import dataclass

from .backend import check_device, library
from .errors import DeviceError

# CuPy: "Out of memory allocating 1,024 bytes (allocated so far: 512 bytes, limit set to: 2,048 bytes)."
REQUESTED = re.compile(r"allocating ([\d,]+) bytes")
ALLOCATED = re.compile(r"allocated so far: ([\d,]+) bytes")
LIMIT = re.compile(r"limit set to: ([\d,]+) bytes")


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


def out_of_memory_message(error, *, batch_size: int | None = None, fitting: int | None = None) -> str:
    """What to tell whoever ran out of memory, on either device, in one line: how much was asked for, and the way out.

    error       a MemoryError, NumPy's or CuPy's
    batch_size  images in the step that failed
    fitting     the largest batch that would fit, where it is known; 0 when not even one image would
    """
    return f"{shortage(error)}; {_way_out(batch_size, fitting)}"


def shortage(error) -> str:
    """How much memory was asked for and how much there is, in one line."""
    text = " ".join(str(error).split())
    requested, allocated, limit = (_bytes(pattern, text) for pattern in (REQUESTED, ALLOCATED, LIMIT))
    if requested is None:  # NumPy names size, shape and type itself
        of_gpu = "GPU " if "cudaErrorMemoryAllocation" in text or "CUDA_ERROR_OUT_OF_MEMORY" in text else ""
        return f"not enough {of_gpu}memory{f' ({text})' if text else ''}"
    asked = f"not enough GPU memory: asked for {readable(requested)} more"
    if limit is not None and allocated is not None:
        return f"{asked} with {readable(allocated)} of the limit of {readable(limit)} in use"
    try:
        free, total = memory_info("gpu")
    except Exception:  # noqa: BLE001  this is said while something else has failed; less is better than nothing
        return f"{asked} with {readable(allocated)} in use" if allocated is not None else asked
    used = total - free
    others = f", {readable(used - allocated)} of it not by us" if allocated is not None and allocated < used / 2 else ""
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
