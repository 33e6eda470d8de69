"""The command: minidense doctor. What is here, what is missing, and whether each device computes what it should."""

from __future__ import annotations

import argparse
import platform
import tarfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from . import functional as F
from .backend import DEVICES, cupy_module, library, to_device, to_numpy
from .bench.table import blas_name, cpu_name
from .command import DONE, FAILED, ended, show
from .config import Parser, nearest
from .cupy_trouble import (
    check_driver,
    check_nvrtc,
    count_gpus,
    cuda_version,
    distributions,
    driver_version,
    explain,
    refuse_several,
    version_text,
)
from .data import DATASETS, PLACES, load
from .data.datasets import find
from .errors import ConfigError, DataError, DeviceError, MinidenseError
from .gpus import gpus, readable, shortage
from .precision import precision
from .speed import reference_only
from .tensor import Tensor
from .threads import thread_count
from .version import __version__

PROGRAM = "minidense doctor"

OK = "ok"
PROBLEM = "problem"  # something is there and does not work, or was asked for and is not there
ABSENT = "absent"  # something is not there that not everybody needs

COMPUTES = {"cpu": "CPU computes", "gpu": "GPU computes"}  # what the self-test of a device is called
REMEDY = {
    "cpu": "install NumPy again: pip install --force-reinstall numpy",
    "gpu": "look for its errors: nvidia-smi -q -d ECC,ROW_REMAPPER",
}

# float32 sums of 200 terms are right to 1e-5; tensor cores take factors of 10 bits, 5e-4. A wrong tap shows in the first digit.
TOLERANCE = {"float32": 1e-4, "tf32": 2e-3}
TRIED = {"cpu": ("float32",), "gpu": ("float32", "tf32")}


@dataclass(frozen=True)
class Finding:
    """One line: OK, PROBLEM or ABSENT; about what; and what was found, with the way out where there is a problem."""

    mark: str
    about: str
    text: str

    def __str__(self):
        text = " ".join(self.text.split()).removeprefix("device 'gpu': ")  # the line says what it is about
        return f"{self.mark:8} {self.about:14} {text}"


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [options]",
        description="Say what is here and what is missing, and let each device compute a convolution and its gradients.",
        epilog="Each line begins with ok, problem or absent. A GPU or a data set that is absent is no problem unless asked for.\n"
        "Exit code: 0 no problem, 1 at least one, 2 wrong command line.\n\n"
        "examples:\n"
        "  minidense doctor\n"
        "  minidense doctor --device gpu --data cifar10",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=120),
        allow_abbrev=False,
    )
    made.add_argument(
        "--device", metavar="|".join(DEVICES), default="cpu", help="what must work; gpu: both must (default: cpu)"
    )
    made.add_argument(
        "--data", metavar="|".join(DATASETS), default="digits", help="the data set that must be found (default: digits)"
    )
    return made


def checked(given: argparse.Namespace) -> argparse.Namespace:
    """What was typed, if it makes sense. Raises ConfigError."""
    for option, value, known in (("--device", given.device, DEVICES), ("--data", given.data, DATASETS)):
        if value not in known:
            raise ConfigError(f"{option}: unknown {value!r}{nearest(value, known)}")
    return given


def examination(*, device: str = "cpu", data: str = "digits") -> Iterator[Finding]:
    """Look at everything, one finding after another; whatever goes wrong becomes a finding, too.

    device, data  what is asked for: if that is missing it is a problem, otherwise it is only absent
    """
    yield from guarded("minidense", software)
    yield from guarded("NumPy", matrix_library)
    yield from guarded("threads", threads_in_use)
    yield from guarded(COMPUTES["cpu"], self_test, "cpu")
    for name in DATASETS:
        yield from guarded(f"data {name}", data_set, name, PROBLEM if name == data else ABSENT)
    yield from gpu(PROBLEM if device == "gpu" else ABSENT)


def guarded(about: str, probe: Callable[..., Iterator[Finding]], *args: Any) -> Iterator[Finding]:
    """What a probe finds. It may raise anything: this is for machines on which something is broken."""
    try:
        yield from probe(*args)
    except Exception as error:  # noqa: BLE001
        yield Finding(PROBLEM, about, in_words(error))


def in_words(error: Exception) -> str:
    """An exception as whoever reads the list needs it."""
    if isinstance(error, MinidenseError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"{shortage(error)}; end the programs that hold it (top and nvidia-smi list them)"
    return str(explain(error) or f"{type(error).__name__}: {error}")


# -- the machine ------------------------------------------------------------------------------------------------------


def software() -> Iterator[Finding]:
    yield Finding(OK, "minidense", __version__)
    yield Finding(OK, "Python", f"{platform.python_version()} on {platform.platform()}")
    yield Finding(OK, "processor", cpu_name())


def matrix_library() -> Iterator[Finding]:
    yield Finding(OK, "NumPy", f"{numpy.__version__} with {blas_name()}")


def threads_in_use() -> Iterator[Finding]:
    yield Finding(OK, "threads", f"{thread_count()} on the CPU; --threads or MINIDENSE_THREADS sets another number")


def data_set(name: str, missing: str) -> Iterator[Finding]:
    """Where a data set is, without reading all of it; `missing` is the mark when it is nowhere."""
    about = f"data {name}"
    if name not in PLACES:
        images = load(name)
        yield Finding(OK, about, f"in the package: {len(images.train_labels):,} + {len(images.test_labels):,} images")
        return
    try:
        place = find(name, PLACES[name])
    except DataError as error:
        yield Finding(missing, about, str(error))
        return
    if place.suffix == ".gz" and not tarfile.is_tarfile(place):
        yield Finding(PROBLEM, about, f"{place} is not the archive that its name says; remove it and get it again")
    else:
        yield Finding(OK, about, f"found: {place}")


# -- the GPU ----------------------------------------------------------------------------------------------------------


def gpu(missing: str) -> Iterator[Finding]:
    """CuPy, NVRTC, the driver and the GPUs, as far as each leads to the next; `missing` is the mark of what is not there."""
    found = list(guarded("CuPy", installed_cupy, missing))
    yield from found
    if found[-1].mark != OK:
        return
    xp = cupy_module()
    yield from guarded("NVRTC", kernel_compiler, xp, missing)
    for about, probe in (("NVIDIA driver", driver), ("GPU", visible_gpus)):
        found = list(guarded(about, probe, xp, missing))
        yield from found
        if found[-1].mark != OK:
            return
    yield from guarded(COMPUTES["gpu"], self_test, "gpu")


def installed_cupy(missing: str) -> Iterator[Finding]:
    """Last, OK if CuPy can be imported; before that, a problem if it is installed more than once, which may go well or not."""
    names = distributions()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CuPy's own page about two installations; ours is a line
            xp = cupy_module()
    except DeviceError as error:
        yield Finding(PROBLEM if names else missing, "CuPy", str(error))
        return
    try:
        refuse_several()
    except DeviceError as error:
        yield Finding(PROBLEM, "CuPy", str(error))
    origin = f" ({', '.join(names)})" if names else ""
    yield Finding(OK, "CuPy", f"{xp.__version__}{origin}, made for CUDA {version_text(cuda_version(xp))}")


def kernel_compiler(xp: Any, missing: str) -> Iterator[Finding]:
    """NVRTC, which CuPy loads only when it compiles the first kernel."""
    try:
        version = check_nvrtc(xp)
    except DeviceError as error:
        yield Finding(missing, "NVRTC", str(error))
        return
    yield Finding(OK, "NVRTC", f"{version}, which compiles kernels for the GPU")


def driver(xp: Any, missing: str) -> Iterator[Finding]:
    try:
        version = check_driver(xp)
    except DeviceError as error:
        yield Finding(PROBLEM if driver_version(xp) else missing, "NVIDIA driver", str(error))
        return
    yield Finding(OK, "NVIDIA driver", f"knows CUDA up to {version_text(version)}")


def visible_gpus(xp: Any, missing: str) -> Iterator[Finding]:
    try:
        count_gpus(xp)
    except DeviceError as error:
        yield Finding(PROBLEM if error.__cause__ else missing, "GPU", str(error))  # a cause: CUDA itself has failed
        return
    for number, one in enumerate(gpus()):
        memory = f"{readable(one.free)} of {readable(one.total)} free"
        yield Finding(OK, f"GPU {number}", f"{one.name}, compute capability {one.compute_capability}, {memory}")


# -- does it compute what it should -----------------------------------------------------------------------------------


def self_test(device: str) -> Iterator[Finding]:
    """A 3×3 convolution with its gradients, as training would do it there, beside the definition in float64."""
    rng = numpy.random.default_rng(0)
    x, weight, dy = (rng.standard_normal(shape) for shape in ((2, 3, 8, 8), (4, 3, 3, 3), (2, 4, 8, 8)))
    with reference_only():
        expected = convolution(x, weight, dy, dtype=numpy.float64, device="cpu")
    library(device)  # says why, if it cannot be had
    agrees = []
    for how in TRIED[device]:
        with precision(how):
            found = convolution(x, weight, dy, dtype=numpy.float32, device=device)
        difference = max_difference(found, expected)
        if not difference <= TOLERANCE[how]:  # also where it is not a number
            yield Finding(
                PROBLEM,
                COMPUTES[device],
                f"a 3×3 convolution or its gradients are wrong in {how}: off by {difference:.0e} of the largest value. Do not train here; "
                + REMEDY[device],
            )
            return
        agrees.append(f"{difference:.0e} in {how}")
    text = f"a 3×3 convolution and its gradients agree with the definition to {' and '.join(agrees)}"
    yield Finding(OK, COMPUTES[device], text)


def convolution(x, weight, dy, *, dtype, device: str) -> list[numpy.ndarray]:
    """y, dx and dweight of a 3×3 convolution, computed on `device`."""
    images, filters = (Tensor(array.astype(dtype), device=device, requires_grad=True) for array in (x, weight))
    y = F.conv2d(images, filters, padding=1)
    y.backward(to_device(dy.astype(dtype), device))
    return [to_numpy(array) for array in (y.data, images.grad, filters.grad)]


def max_difference(found: list[numpy.ndarray], expected: list[numpy.ndarray]) -> float:
    """The largest difference, as a share of the largest value of its array; NaN where a value is NaN."""
    shares = [abs(a - b).max() / abs(b).max() for a, b in zip(found, expected, strict=True)]
    return float(numpy.max(shares))


# -- the command ------------------------------------------------------------------------------------------------------


def verdict(found: list[Finding]) -> str:
    """What it comes to, in one sentence."""
    problems = sum(finding.mark == PROBLEM for finding in found)
    if problems:
        return f"{problems} {'problem' if problems == 1 else 'problems'}: see above."
    working = {finding.about for finding in found if finding.mark == OK}
    if COMPUTES["gpu"] in working:
        return "Ready to train on the CPU and on the GPU."
    return "Ready to train on the CPU; what a GPU would need is marked absent."


def main(argv: Sequence[str] | None = None) -> int:
    """minidense doctor. Exit codes: 0 no problem, 1 at least one, 2 wrong command line, 4 cannot write, 130 interrupted."""

    def work() -> int:
        given = checked(parser().parse_args(argv))
        found = []
        for finding in examination(device=given.device, data=given.data):
            show(finding)
            found.append(finding)
        show(f"\n{verdict(found)}")
        return FAILED if any(finding.mark == PROBLEM for finding in found) else DONE

    return ended(PROGRAM, work)
