"""What keeps CuPy from computing here: each in one line that says what is wrong and the way out.

Nothing here imports CuPy; backend.py hands over the module, or the exception that came instead.
"""

import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy

from .errors import DeviceError

INSTALL_HINT = (
    'pip install "cupy-cuda12x[ctk]" or "cupy-cuda13x[ctk]", whichever the driver supports (nvidia-smi prints it)'
)
EXTRAS = {12: '"cupy-cuda12x[ctk]"', 13: '"cupy-cuda13x[ctk]"'}  # by the CUDA that their CuPy is made for

# How CuPy, its loader and NVRTC say that a library of CUDA is not there, and how they call it.
NOT_FOUND = re.compile(
    r"(?:Failure finding|failed to (?:load|open)) [\"']?(?P<a>[\w.-]+)|(?P<b>[\w.-]+): cannot open shared object"
)
CUDA_LIBRARY = re.compile(r"(?:lib)?(?:nvrtc|nvJitLink|cudart|cublas|cufft|curand|cusolver|cusparse)", re.IGNORECASE)
NO_HEADER = re.compile(r"(?:could not|cannot) open source file \"(.+?)\"")
OUT_OF_MEMORY = re.compile(r"cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY")
OLD_GPU = re.compile(r"--gpu-architecture|cudaErrorNoKernelImageForDevice|CUDA_ERROR_NO_BINARY_FOR_GPU")


def distributions() -> dict[str, str]:
    """Every installed distribution that brings a module ``cupy``, and its version. Looks at all that is installed."""
    metadata = importlib.import_module(
        "importlib.metadata"
    )  # not at the top: a tenth of the time of `import minidense`
    found = {}
    for one in metadata.distributions():
        name = (one.metadata["Name"] or "").lower()
        if re.fullmatch(r"cupy|cupy-(cuda|rocm).*|amd-cupy", name):
            found[name] = one.version
    return dict(sorted(found.items()))


def refuse_several() -> None:
    """Raises DeviceError when CuPy is installed more than once: one has then written over files of the other.

    CuPy only warns, and may even work, so this is for when something has failed.
    """
    names = distributions()
    if len(names) > 1:
        raise DeviceError(
            f"device 'gpu': CuPy is installed {len(names)} times, one over the other: {_listed(names)}. "
            f"Remove all: pip uninstall -y {' '.join(names)}. Then: {INSTALL_HINT}"
        )


def failed_import(error: Exception) -> DeviceError:
    """What to raise when the import of CuPy has ended with `error`."""
    names = distributions()
    gone = isinstance(error, ModuleNotFoundError) and error.name == "cupy"
    if gone and not names:
        return DeviceError(f"device 'gpu' needs CuPy, which is not installed. Use device 'cpu', or: {INSTALL_HINT}")
    try:
        refuse_several()
    except DeviceError as several:
        return several
    if gone:
        return DeviceError(
            f"device 'gpu': pip lists {_listed(names)}, but its files are gone. Use device 'cpu', or: {_again(names)}"
        )
    reason = error.__cause__ or error  # CuPy wraps the reason in a page of advice
    return DeviceError(
        f"device 'gpu': {_listed(names) or 'CuPy'} is installed but cannot be imported beside NumPy {numpy.__version__}: "
        f"{type(reason).__name__}: {_one_line(reason)}. Use device 'cpu', or: {_again(names)}"
    )


def not_cupy(module: Any) -> DeviceError:
    """What to raise when the module that Python finds as ``cupy`` is something else, or the rest of an uninstalled one."""
    where = getattr(module, "__file__", None) or ", ".join(getattr(module, "__path__", ["?"]))
    return DeviceError(
        f"device 'gpu': what Python finds as cupy, {where}, is not CuPy, or only what is left of it. "
        f"Move it away, then: {_again(distributions())}"
    )


def refuse_unusable(cupy: Any) -> None:
    """For when no GPU answers. Raises DeviceError that says why: the installation, the driver, or no GPU in sight."""
    refuse_several()
    check_driver(cupy)
    count_gpus(cupy)
    raise DeviceError(
        "device 'gpu': driver and GPU are there, but this process found none when it started. Start it again"
    )


def driver_version(cupy: Any) -> int:
    """The newest CUDA that the NVIDIA driver knows, 1000 · major + 10 · minor; 0 when there is no driver."""
    try:
        return cupy.cuda.runtime.driverGetVersion()
    except cupy.cuda.runtime.CUDARuntimeError:
        return 0


def cuda_version(cupy: Any) -> int:
    """The CUDA that this CuPy is made for, counted in the same way."""
    return cupy.cuda.runtime.runtimeGetVersion()


def check_driver(cupy: Any) -> int:
    """The driver's version as ``driver_version`` counts. Raises DeviceError without a driver, or with one too old for this CuPy."""
    driver, needed = driver_version(cupy), cuda_version(cupy)
    if driver == 0:
        raise DeviceError(
            "device 'gpu': there is no NVIDIA driver here (nvidia-smi is its command). Use device 'cpu', or a machine "
            "with an NVIDIA GPU and its driver; a container must be started with its GPUs (docker run --gpus all)"
        )
    # Within a major version any driver will do: CUDA's minor version compatibility.
    if driver // 1000 < needed // 1000:
        names = distributions()
        extra = EXTRAS.get(driver // 1000)
        instead = (
            f", or take the CuPy that fits: pip uninstall -y {' '.join(names) or 'cupy'}, then pip install {extra}"
            if extra
            else f": minidense needs CUDA {min(EXTRAS)} or later"
        )
        raise DeviceError(
            f"device 'gpu': the NVIDIA driver is too old: it knows CUDA up to {version_text(driver)}, and "
            f"{_listed(names) or 'this CuPy'} is made for CUDA {version_text(needed)}. Update the driver{instead}"
        )
    return driver


def count_gpus(cupy: Any) -> int:
    """How many GPUs this process may use. Raises DeviceError when there are none, or when CUDA cannot start."""
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if "cudaErrorNoDevice" not in str(error):
            raise DeviceError(
                f"device 'gpu': CUDA cannot start: {_one_line(error)}. See whether nvidia-smi works; "
                "after an update of the driver the machine must be started again"
            ) from error
        count = 0
    if count == 0:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise DeviceError(
            "device 'gpu': the NVIDIA driver is there but no GPU is visible; nvidia-smi lists those that exist"
            if visible is None
            else f"device 'gpu': no GPU is visible, because CUDA_VISIBLE_DEVICES is {visible!r}. "
            "Unset it, or name a GPU that nvidia-smi lists: CUDA_VISIBLE_DEVICES=0"
        )
    return count


def check_nvrtc(cupy: Any) -> str:
    """The version of NVRTC, which needs no GPU. Raises DeviceError when it is missing."""
    with in_our_words():
        major, minor = cupy.cuda.nvrtc.getVersion()
    return f"{major}.{minor}"


def explain(error: BaseException) -> DeviceError | None:
    """CuPy's exception in our words where something is missing on this machine; None where it is about anything else.

    CuPy loads the libraries of CUDA when it first needs them, so what is missing shows only then: NVRTC, say, when the
    first kernel is compiled.
    """
    text = _one_line(error)
    library = NOT_FOUND.search(text)
    name = (library["a"] or library["b"]) if library else ""
    if CUDA_LIBRARY.match(name):
        part = "NVRTC, which compiles kernels," if "nvrtc" in name.lower() else "a library of CUDA"
        return _incomplete(f"{part} is missing ({name})")
    if header := NO_HEADER.search(text):
        return _incomplete(f"a header of CUDA, which CuPy's own kernels are compiled with, is missing ({header[1]})")
    if OLD_GPU.search(text):
        return DeviceError(
            f"device 'gpu': this CuPy has no code for this GPU ({text[:200]}). CUDA 13 needs compute capability 7.5 or "
            f"later; for an older GPU: pip uninstall -y {' '.join(distributions()) or 'cupy'}, then pip install {EXTRAS[12]}"
        )
    return None


@contextmanager
def in_our_words() -> Iterator[None]:
    """CuPy's exceptions inside come out as DeviceError where ``explain`` knows them, and as MemoryError where memory was lacking."""
    try:
        yield
    except DeviceError:
        raise
    except Exception as error:
        if OUT_OF_MEMORY.search(str(error)) and not isinstance(error, MemoryError):
            raise MemoryError(_one_line(error)) from error
        known = explain(error)
        if known is None:
            raise
        raise known from error


def version_text(version: int) -> str:
    """'12.4' for CUDA's 12040."""
    return f"{version // 1000}.{version % 1000 // 10}"


def _incomplete(what: str) -> DeviceError:
    try:
        refuse_several()
    except DeviceError as several:
        return several
    extras = [extra for cuda, extra in EXTRAS.items() if f"cupy-cuda{cuda}x" in distributions()]
    return DeviceError(f"device 'gpu': {what}. It comes with: {f'pip install {extras[0]}' if extras else INSTALL_HINT}")


def _again(names: dict[str, str]) -> str:
    return f'pip install --force-reinstall "{next(iter(names))}[ctk]"' if names else INSTALL_HINT


def _listed(names: dict[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in names.items())


def _one_line(error: object) -> str:
    return " ".join(str(error).split()).rstrip(".")
