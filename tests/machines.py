"""Machines that we do not have: a CuPy whose driver and GPUs are as told, and distributions of CuPy that pip would list."""

import importlib.metadata
import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import pytest
import strict_cupy


class CUDARuntimeError(RuntimeError):
    """What CuPy raises when CUDA refuses."""


class FakeCuPy(ModuleType):
    """The strict stand-in, on a machine with this driver and these GPUs. What is an exception is raised when it is asked for."""

    def __init__(self, *, driver=13000, made_for=13020, gpus=1, nvrtc=(13, 0), memory=(60_000_000_000, 80_000_000_000)):
        super().__init__("cupy")
        self.__version__ = "14.2.0"
        runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            driverGetVersion=lambda: told(driver),
            runtimeGetVersion=lambda: told(made_for),
            getDeviceCount=lambda: told(gpus),
            getDeviceProperties=lambda number: {"name": f"NVIDIA T{number}00".encode(), "major": 9, "minor": 0},
            memGetInfo=lambda: told(memory),
        )
        self.cuda = SimpleNamespace(
            is_available=lambda: isinstance(gpus, int) and gpus > 0,
            runtime=runtime,
            nvrtc=SimpleNamespace(getVersion=lambda: told(nvrtc)),
            Device=nullcontext,
            get_current_stream=strict_cupy.cuda.get_current_stream,
        )

    def __getattr__(self, name):
        return getattr(strict_cupy, name)


def told(answer):
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """machine("cupy-cuda13x", driver=12040): a machine with these distributions, and a CuPy as FakeCuPy makes it."""

    def build(*distributions, cupy=None, **options):
        for name in distributions:
            folder = tmp_path / "site" / f"{name.replace('-', '_')}-14.2.0.dist-info"
            folder.mkdir(parents=True)
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 14.2.0\n")
        listed = importlib.metadata.Distribution.discover
        monkeypatch.setattr(importlib.metadata, "distributions", lambda: listed(path=[str(tmp_path / "site")]))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        module = cupy or FakeCuPy(**options)
        monkeypatch.setitem(sys.modules, "cupy", module)
        return module

    return build


@pytest.fixture
def machine_without_cupy(machine, monkeypatch):
    """As `machine`, but nothing is found under the name cupy."""

    def build(*distributions):
        machine(*distributions)
        monkeypatch.setitem(sys.modules, "cupy", None)  # so Python finds nothing, whatever is installed

    return build


@pytest.fixture
def machine_with_broken_cupy(machine, monkeypatch, tmp_path):
    """As `machine`, but the import of CuPy runs these lines."""

    def build(*distributions, source):
        machine(*distributions)
        monkeypatch.delitem(sys.modules, "cupy")
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "cupy.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path / "broken")

    return build
