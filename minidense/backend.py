"""Which library owns an array: NumPy on the CPU, CuPy on the GPU. The only file outside fast/ that imports CuPy."""

import importlib
import sys
from typing import Any

import numpy

from .cupy_trouble import failed_import, not_cupy, refuse_unusable
from .errors import DeviceError

DEVICES = ("cpu", "gpu")


def array_module(*arrays) -> Any:
    """The library that owns these arrays, numpy or cupy: written ``xp`` where it is used.

    Raises DeviceError when some of the arrays are on the GPU and some are not.
    """
    cupy = sys.modules.get("cupy")
    if cupy is None:  # nobody imported CuPy, so no array can be CuPy's
        return numpy
    on_gpu = [isinstance(a, cupy.ndarray) for a in arrays]
    if all(on_gpu) and on_gpu:
        return cupy
    if any(on_gpu):
        raise DeviceError(
            f"arrays on two devices at once: {', '.join(map(_describe, arrays))}. Move one side with .to('cpu') or .to('gpu')"
        )
    return numpy


def device_of(array) -> str:
    """'cpu' or 'gpu'."""
    return "cpu" if array_module(array) is numpy else "gpu"


def library(device) -> Any:
    """The array library of a device, imported only now.

    Raises DeviceError, in one line that says why and the way out, when the device is unknown, CuPy is not installed or
    cannot be imported, the driver is missing or too old, or no GPU is visible.
    """
    check_device(device)
    if device == "cpu":
        return numpy
    cupy = cupy_module()
    if not cupy.cuda.is_available():
        refuse_unusable(cupy)
    return cupy


def cupy_module() -> Any:
    """CuPy, imported only now, whether or not a GPU answers. Raises DeviceError when it is not there or cannot be imported."""
    try:
        cupy = importlib.import_module("cupy")
    except Exception as error:  # a NumPy that does not fit raises ValueError, a library that is damaged OSError
        raise failed_import(error) from error
    if not hasattr(cupy, "ndarray"):
        sys.modules.pop("cupy", None)  # or array_module would ask it whose an array is
        raise not_cupy(cupy)
    return cupy


def check_device(device) -> None:
    """Raises DeviceError when there is no device of this name."""
    if device not in DEVICES:
        raise DeviceError(f"unknown device {device!r}: choose one of {', '.join(DEVICES)}")


def to_device(array, device):
    """The same numbers on `device`; the array itself when it is there already. Raises DeviceError as ``library`` does."""
    check_device(device)
    if device_of(array) == device:
        return array
    return library(device).asarray(array) if device == "gpu" else to_numpy(array)


def to_numpy(array) -> numpy.ndarray:
    """The same numbers as a NumPy array; from the GPU this waits for the device and copies."""
    return array if array_module(array) is numpy else array.get()


def synchronise(device) -> None:
    """Wait until the device has done all it was asked: call it before reading a clock."""
    if device == "gpu":
        library("gpu").cuda.get_current_stream().synchronize()


def _describe(array) -> str:
    return f"{tuple(array.shape)} on the {device_of(array)}"
