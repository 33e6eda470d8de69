"""Why there is no GPU to compute on, and what to do about it: one line each, on machines that we do not have."""

import importlib.util
import re
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
from machines import CUDARuntimeError

import minidense as md
from minidense import cupy_trouble
from minidense.backend import array_module, cupy_module, library, to_device
from minidense.cupy_trouble import explain
from minidense.gpus import gpus, memory_info, out_of_memory_message, readable


def trouble():
    """What library("gpu") says: one line, however CuPy puts it."""
    with pytest.raises(md.DeviceError) as raised:
        library("gpu")
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith("device 'gpu'")
    return text


# -- what keeps library("gpu") from answering -------------------------------------------------------------------------


def test_a_gpu_that_answers_is_no_trouble(machine):
    cupy = machine("cupy-cuda13x")
    assert library("gpu") is cupy


def test_what_works_is_not_searched_for_trouble(machine, monkeypatch):
    """library("gpu") is asked at every step; two installations that work are left to CuPy's warning and to the doctor."""
    machine("cupy-cuda12x", "cupy-cuda13x")
    monkeypatch.setattr(cupy_trouble, "distributions", lambda: pytest.fail("it looked"))
    library("gpu")


def test_a_missing_cupy_says_what_to_install(machine_without_cupy):
    machine_without_cupy()
    said = trouble()
    assert "needs CuPy, which is not installed. Use device 'cpu', or: pip install" in said
    assert '"cupy-cuda12x[ctk]"' in said
    assert '"cupy-cuda13x[ctk]"' in said


def test_a_cupy_whose_files_are_gone_is_not_called_missing(machine_without_cupy):
    """pip would answer "already satisfied": its uninstall of one CuPy takes files of the other."""
    machine_without_cupy("cupy-cuda13x")
    said = trouble()
    assert "pip lists cupy-cuda13x 14.2.0, but its files are gone" in said
    assert 'pip install --force-reinstall "cupy-cuda13x[ctk]"' in said


WRAPPED = '''
try:
    raise ImportError("libcudart.so.13: cannot open shared object file:\\nNo such file or directory")
except ImportError as error:
    raise ImportError("""
================================================================
Failed to import CuPy.

If you installed CuPy via wheels ...
""") from error
'''


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (WRAPPED, "ImportError: libcudart.so.13: cannot open shared object file: No such file or directory. Use"),
        ('raise ValueError("numpy.dtype size changed")', "ValueError: numpy.dtype size changed. Use"),
        ("import fastrlock_that_is_missing", "ModuleNotFoundError: No module named 'fastrlock_that_is_missing'. Use"),
    ],
    ids=["library", "numpy", "dependency"],
)
def test_a_cupy_that_cannot_be_imported_gives_its_own_reason(source, reason, machine_with_broken_cupy):
    machine_with_broken_cupy("cupy-cuda12x", source=source)
    said = trouble()
    assert f"cupy-cuda12x 14.2.0 is installed but cannot be imported beside NumPy {np.__version__}: {reason}" in said
    assert said.endswith('pip install --force-reinstall "cupy-cuda12x[ctk]"')


def test_a_cupy_that_pip_does_not_know_may_be_broken_too(machine_with_broken_cupy):
    machine_with_broken_cupy(source=WRAPPED)
    assert "CuPy is installed but cannot be imported" in trouble()


def test_something_else_named_cupy_is_shown_and_forgotten(machine_with_broken_cupy):
    machine_with_broken_cupy(source="")
    assert re.search(r"what Python finds as cupy, \S+cupy\.py, is not CuPy.*Move it away, then: pip install", trouble())
    assert array_module(np.ones(1)) is np  # and does not ask that module for its arrays


def test_an_emptied_folder_named_cupy_is_shown(machine):
    rest = ModuleType("cupy")
    rest.__path__ = ["here/cupy"]
    machine("cupy-cuda13x", cupy=rest)
    said = trouble()
    assert "as cupy, here/cupy, is not CuPy, or only what is left of it" in said
    assert "--force-reinstall" in said


@pytest.mark.parametrize("broken", [True, False], ids=["import fails", "no driver"])
def test_two_installations_are_named_when_something_fails(broken, machine, machine_with_broken_cupy):
    if broken:
        machine_with_broken_cupy("cupy-cuda12x", "cupy-cuda13x", source=WRAPPED)
    else:
        machine("cupy-cuda12x", "cupy-cuda13x", gpus=0, driver=0)
    said = trouble()
    assert "installed 2 times, one over the other: cupy-cuda12x 14.2.0 and cupy-cuda13x 14.2.0" in said
    assert "pip uninstall -y cupy-cuda12x cupy-cuda13x. Then: pip install" in said


@pytest.mark.parametrize("driver", [0, CUDARuntimeError("cudaErrorInsufficientDriver")], ids=["0", "raises"])
def test_a_missing_driver_is_named(driver, machine):
    machine("cupy-cuda13x", driver=driver, gpus=CUDARuntimeError("cudaErrorInsufficientDriver: ..."))
    said = trouble()
    assert "there is no NVIDIA driver here" in said
    assert "docker run --gpus all" in said
    with pytest.raises(md.DeviceError, match="there is no NVIDIA driver here"):
        to_device(np.ones(1), "gpu")


def test_a_driver_that_is_too_old_names_both_versions_and_what_fits(machine):
    machine("cupy-cuda13x", driver=12040, gpus=CUDARuntimeError("cudaErrorInsufficientDriver: ..."))
    said = trouble()
    assert "knows CUDA up to 12.4, and cupy-cuda13x 14.2.0 is made for CUDA 13.2. Update the driver, or" in said
    assert said.endswith('pip uninstall -y cupy-cuda13x, then pip install "cupy-cuda12x[ctk]"')


def test_a_driver_that_is_too_old_for_all_of_us_can_only_be_updated(machine):
    machine("cupy-cuda12x", driver=11080, made_for=12090, gpus=CUDARuntimeError("cudaErrorInsufficientDriver: ..."))
    said = trouble()
    assert said.endswith(
        "up to 11.8, and cupy-cuda12x 14.2.0 is made for CUDA 12.9. Update the driver: minidense needs CUDA 12 or later"
    )


def test_an_older_minor_version_of_the_driver_will_do(machine):
    assert cupy_trouble.check_driver(machine("cupy-cuda13x", driver=13000, made_for=13020)) == 13000


@pytest.mark.parametrize("count", [0, CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")])
def test_a_hidden_gpu_shows_the_variable_that_hides_it(count, machine, monkeypatch):
    machine("cupy-cuda13x", gpus=count)
    assert "no GPU is visible; nvidia-smi lists" in trouble()
    for value in ("", "-1", "7"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert f"no GPU is visible, because CUDA_VISIBLE_DEVICES is {value!r}. Unset it" in trouble()


def test_a_cuda_that_cannot_start_gives_its_own_reason(machine):
    machine("cupy-cuda13x", gpus=CUDARuntimeError("cudaErrorSystemDriverMismatch: system has unsupported driver"))
    said = trouble()
    assert "CUDA cannot start: cudaErrorSystemDriverMismatch: system has unsupported driver. See whether" in said


def test_a_driver_that_came_later_asks_for_a_new_start(machine):
    machine("cupy-cuda13x", gpus=1).cuda.is_available = lambda: False  # CuPy remembers its first answer
    assert trouble().endswith("Start it again")


def test_distributions_are_those_that_bring_cupy(machine):
    machine("cupy-cuda13x", "cupy", "amd-cupy", "cupy-rocm-7-0", "cupy-xarray", "numpy", "cupyx-tools")
    assert list(cupy_trouble.distributions()) == ["amd-cupy", "cupy", "cupy-cuda13x", "cupy-rocm-7-0"]


def test_importing_minidense_looks_for_no_distribution():
    code = (
        "import sys, importlib; before = set(sys.modules); import minidense; "
        "assert not {'cupy', 'importlib.metadata'} & (set(sys.modules) - before)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="needs CuPy")
def test_the_real_cupy_has_what_we_ask_it_for():
    """With or without a GPU: the names exist, and CUDA's errors are of the kind that we expect."""
    cupy = cupy_module()
    assert cupy_trouble.cuda_version(cupy) >= 12000
    assert list(cupy_trouble.distributions()) != []
    runtime = cupy.cuda.runtime
    if cupy_trouble.driver_version(cupy) == 0:
        with pytest.raises(runtime.CUDARuntimeError):
            runtime.getDeviceCount()
        assert "no NVIDIA driver" in trouble()
    assert callable(runtime.getDeviceProperties)
    assert callable(runtime.memGetInfo)
    error = cupy.cuda.memory.OutOfMemoryError(2_100_000_000, 500, 4_000_000_000)
    assert "asked for 2.1 GB more with 500 bytes of the limit of 4.0 GB in use" in out_of_memory_message(error)


# -- what CuPy says later ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said_by_cupy", "words"),
    [
        ('Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file', "NVRTC, which compiles kernels, is missing (libnvrtc.so.13)"),
        ("CuPy failed to load libnvrtc.so.12: OSError: libnvrtc.so.12: cannot open shared object file", "NVRTC, which"),
        ("CuPy failed to load nvrtc64_120_0.dll: FileNotFoundError: Could not find module", "(nvrtc64_120_0.dll)"),
        ("nvrtc: error: failed to open libnvrtc-builtins.so.13.0.\n  Make sure that it is installed correctly.", "NVRTC, which"),
        ('Failure finding "libcublasLt.so.13": No such file', "a library of CUDA is missing (libcublasLt.so.13)"),
        ("libcurand.so.10: cannot open shared object file: No such file or directory", "(libcurand.so.10)"),
        ('k.cu(1): catastrophic error: could not open source file "vector_types.h" (no directories)', "(vector_types.h)"),
        ('x.cu(2): catastrophic error: cannot open source file "cuda_fp16.h"', "a header of CUDA"),
    ],
)  # fmt: skip
def test_a_missing_part_of_cuda_is_named_with_the_way_to_get_it(said_by_cupy, words, machine):
    machine("cupy-cuda13x")
    said = str(explain(RuntimeError(said_by_cupy)))
    assert words in said
    assert said.endswith('It comes with: pip install "cupy-cuda13x[ctk]"')


def test_a_missing_part_may_come_of_two_installations(machine):
    machine("cupy-cuda12x", "cupy-cuda13x")
    assert "installed 2 times" in str(explain(RuntimeError('Failure finding "libnvrtc.so.13"')))


def test_a_missing_part_of_an_unknown_cupy_gets_both_ways(machine):
    machine()
    assert '"cupy-cuda12x[ctk]" or "cupy-cuda13x[ctk]"' in str(
        explain(RuntimeError('Failure finding "libnvrtc.so.13"'))
    )


@pytest.mark.parametrize(
    "said_by_cupy",
    [
        "nvrtc: error: invalid value for --gpu-architecture (-arch)",
        "cudaErrorNoKernelImageForDevice: no kernel image is available for execution on the device",
        "CUDA_ERROR_NO_BINARY_FOR_GPU: no kernel image is available",
    ],
)
def test_a_gpu_that_is_too_old_is_told_what_fits(said_by_cupy, machine):
    machine("cupy-cuda13x")
    said = str(explain(RuntimeError(said_by_cupy)))
    assert "7.5" in said
    assert said.endswith('pip uninstall -y cupy-cuda13x, then pip install "cupy-cuda12x[ctk]"')


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered"),
        OSError("failed to open notes.txt"),
        OSError("libfftw3.so.3: cannot open shared object file"),
        RuntimeError('k.cu(3): error: identifier "foo" is undefined'),
        MemoryError(),
    ],
)
def test_other_errors_are_left_alone(error):
    assert explain(error) is None


# -- memory -----------------------------------------------------------------------------------------------------------

OUT = "Out of memory allocating {:,} bytes (allocated so far: {:,} bytes{})."


def test_memory_is_that_of_the_gpu(machine):
    machine(memory=(3, 80))
    assert memory_info("gpu") == (3, 80)
    with pytest.raises(md.DeviceError, match="only the memory of the GPU"):
        memory_info("cpu")
    with pytest.raises(md.DeviceError, match="unknown device 'tpu'"):
        memory_info("tpu")


def test_every_visible_gpu_is_described(machine):
    machine(gpus=2)
    assert [(gpu.name, gpu.compute_capability, gpu.total) for gpu in gpus()] == [
        ("NVIDIA T000", "9.0", 80_000_000_000),
        ("NVIDIA T100", "9.0", 80_000_000_000),
    ]


def test_too_little_gpu_memory_says_how_much_was_asked_for(machine):
    machine(memory=(900_000_000, 79_200_000_000))
    error = MemoryError(OUT.format(2_100_000_000, 77_000_000_000, ""))
    assert out_of_memory_message(error) == (
        "not enough GPU memory: asked for 2.1 GB more with 78.3 GB of 79.2 GB in use; "
        "try a smaller --batch-size, or a smaller --model"
    )
    assert out_of_memory_message(error, batch_size=256, fitting=1920 // 10).endswith(
        "; a batch of 192 would fit: --batch-size 192"
    )


def test_memory_that_others_hold_is_told(machine):
    machine(memory=(900_000_000, 79_200_000_000))
    assert "78.3 GB of 79.2 GB in use, 77.3 GB of it not by us;" in out_of_memory_message(
        MemoryError(OUT.format(2_100_000_000, 1_000_000_000, ""))
    )


def test_a_limit_of_ones_own_is_told(machine):
    machine()
    error = MemoryError(OUT.format(1000, 999, ", limit set to: 1,500 bytes"))
    assert "asked for 1.0 kB more with 999 bytes of the limit of 1.5 kB in use" in out_of_memory_message(error)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OUT.format(2_100_000_000, 5, ""), "not enough GPU memory: asked for 2.1 GB more with 5 bytes in use;"),
        ("Out of memory allocating 1,024 bytes.", "asked for 1.0 kB more;"),
        ("Unable to allocate 9 TiB for an array", "not enough memory (Unable to allocate 9 TiB for an array);"),
        ("cudaErrorMemoryAllocation: out of\nmemory", "not enough GPU memory (cudaErrorMemoryAllocation: out of memory);"),
        ("", "not enough memory;"),
    ],
)  # fmt: skip
def test_whatever_is_known_is_told(text, words, machine):
    machine(memory=CUDARuntimeError("cudaErrorUnknown"))
    assert words in out_of_memory_message(MemoryError(text))


@pytest.mark.parametrize(
    ("options", "way_out"),
    [
        ({"batch_size": 64}, "try a smaller --batch-size than 64, or a smaller --model"),
        ({"batch_size": 64, "fitting": 64}, "try a smaller --batch-size than 64, or a smaller --model"),
        ({"batch_size": 64, "fitting": 0}, "not even one image fits: try a smaller --model"),
        ({"batch_size": 1}, "not even one image fits: try a smaller --model"),
        ({"fitting": 2000}, "a batch of 2,000 would fit: --batch-size 2000"),
    ],
)
def test_the_way_out_is_one_that_helps(options, way_out):
    assert out_of_memory_message(MemoryError(), **options) == f"not enough memory; {way_out}"


def test_bytes_are_readable():
    counts = (0, 999, 1000, 999_949, 999_950, 2_100_000_000, 78_300_000_000, 1e15)
    assert [readable(count) for count in counts] == [
        "0 bytes", "999 bytes", "1.0 kB", "999.9 kB", "1.0 MB", "2.1 GB", "78.3 GB", "1,000.0 TB",
    ]  # fmt: skip
