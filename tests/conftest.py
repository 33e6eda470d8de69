"""What all tests share: a generator of their own, and the devices there are."""

import signal
import sys
import zlib

import cuda_on_cpu
import numpy as np
import pytest
import strict_cupy
from machines import machine, machine_with_broken_cupy, machine_without_cupy  # noqa: F401  fixtures for all

try:
    import cupy

    gpu_is_here = cupy.cuda.is_available()
except ImportError:
    gpu_is_here = False


@pytest.fixture
def rng(request):
    """A generator seeded by the test's name: the same numbers every time, others for every test."""
    seed = zlib.crc32(request.node.nodeid.encode())
    print(f"seed {seed}")
    return np.random.default_rng(seed)


@pytest.fixture(params=["cpu", "strict gpu", *(["gpu"] if gpu_is_here else [])])
def device(request, monkeypatch):
    """'cpu', a stand-in for the GPU that refuses NumPy functions and implicit conversion, and the real one where there is one."""
    if request.param == "strict gpu":
        monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    return request.param.removeprefix("strict ")


@pytest.fixture(params=["strict gpu", *(["gpu"] if gpu_is_here else [])])
def gpu(request, monkeypatch):
    """Device 'gpu': the stand-in, and the real one where there is one."""
    if request.param == "strict gpu":
        monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    return "gpu"


@pytest.fixture
def strict_gpu(monkeypatch):
    """Device 'gpu', played by the stand-in."""
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    return "gpu"


@pytest.fixture
def kernels(request):
    """Kernels can run: on the real GPU, or through g++ on the stand-in."""
    parameters = getattr(getattr(request.node, "callspec", None), "params", {})
    if cuda_on_cpu.COMPILER is None and "gpu" not in (parameters.get("gpu"), parameters.get("device")):
        pytest.skip("needs g++ to run CUDA kernels on the CPU")


@pytest.fixture(autouse=True)
def listening():
    """Ctrl-C means what it means at a terminal, also where the tests were started to ignore it (nohup, a shell's &)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
