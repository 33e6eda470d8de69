"""Which library owns an array: NumPy on the CPU, CuPy on the GPU. The only file outside fast/ that imports CuPy."""

import importlib
import sys
from typing import Any

import numpy

from .errors import DeviceError

DEVICES = ("cpu", "gpu")
INSTALL_HINT = (
    'pip install "minidense[cuda12]" or "minidense[cuda13]", whichever the driver supports (nvidia-smi prints it)'
)


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

    Raises DeviceError when the device is unknown, CuPy is not installed, or no GPU answers.
    """
    check_device(device)
    if device == "cpu":
        return numpy
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise DeviceError(
            f"device 'gpu' needs CuPy, which is not installed. Use device 'cpu', or: {INSTALL_HINT}"
        ) from error
    if not cupy.cuda.is_available():
        raise DeviceError(
            "device 'gpu': CuPy is installed but finds no usable GPU or driver (see nvidia-smi). Use device 'cpu'"
        )
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
