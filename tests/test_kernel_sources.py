"""The kernels as text: they compile for the GPUs of the time, their barriers are all needed, they stay inside their arrays.

And the checks can fail: a barrier taken out and a guard taken out are noticed.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import test_kernels as numerics
from cuda_on_cpu import COMPILER, ORDERS, thread_order

from minidense.backend import to_device, to_numpy
from minidense.fast.gpu import launch
from minidense.fast.gpu.classifier import product
from minidense.functional import cross_entropy
from minidense.precision import PRECISIONS, precision
from minidense.tensor import Tensor

ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
FILES = sorted(path.name for path in launch.KERNELS.glob("*.cu"))
# Files without feature maps are the same text in every precision.
WAYS = [(file, how) for file in FILES for how in PRECISIONS if file not in ("images.cu", "step.cu") or how == "float32"]
NVRTC = importlib.util.find_spec("cuda.bindings") if importlib.util.find_spec("cuda") else None
NVCC = shutil.which("nvcc")
needs_compiler = pytest.mark.usefixtures("kernels")


# -- compilation ------------------------------------------------------------------------------------------------------


def compiled_by_nvrtc(file, how, architecture):
    """What the compiler that CuPy uses says, with the options that CuPy adds."""
    from cuda.bindings import nvrtc

    options = [
        *launch.options(how),
        f"-arch={architecture}",
        "--device-as-default-execution-space",
        "--ptxas-options=-v",
    ]
    encoded = [option.encode() for option in options]
    _, program = nvrtc.nvrtcCreateProgram(launch.source(file).encode(), file.encode(), 0, [], [])
    (error,) = nvrtc.nvrtcCompileProgram(program, len(encoded), encoded)
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * size
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(program)
    return error == nvrtc.nvrtcResult.NVRTC_SUCCESS, log.decode()


def compiled_by_nvcc(file, how, architecture, folder):
    path = folder / file
    path.write_text(launch.source(file))
    command = [
        NVCC,
        "-cubin",
        f"-arch={architecture}",
        *launch.options(how),
        "-Xptxas",
        "-v",
        str(path),
        "-o",
        str(folder / "out"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode == 0, result.stderr


def complaints(log):
    """Warnings, errors, and kernels that spill registers into memory."""
    spills = [
        line
        for line in log.splitlines()
        if "spill" in line and " 0 bytes spill stores, 0 bytes spill loads" not in line
    ]
    return spills + [line for line in log.splitlines() if re.search(r"\b(warning|error)\b", line)]


@pytest.mark.skipif(not (NVRTC or NVCC), reason='needs NVRTC (pip install "minidense[kernels]") or nvcc')
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("file", "how"), WAYS)
def test_compiles_without_warnings_and_spills(file, how, architecture, tmp_path):
    done, log = (
        compiled_by_nvrtc(file, how, architecture) if NVRTC else compiled_by_nvcc(file, how, architecture, tmp_path)
    )
    assert done, log
    assert not complaints(log)
    for name in launch.names(file):
        assert f"'{name}'" in log, "the compiler has not seen this kernel"


def test_complaints_are_heard():
    assert complaints("ptxas info : 8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads")
    assert complaints("norm.cu(3): warning #177-D: variable was declared but never referenced")
    assert not complaints("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\nUsed 40 registers")


def test_line_numbers_are_those_of_the_files():
    """A compiler's complaint about line n of a file means line n of that file."""
    for file in FILES:
        lines = (launch.KERNELS / file).read_text(encoding="utf-8").splitlines()
        _, _, rest = launch.source(file).partition(f'"{file}"\n')
        number = int(re.search(rf'#line (\d+) "{file}"', launch.source(file))[1])
        assert rest.splitlines()[0] == lines[number - 1]
        assert launch.source(file).isascii()


# -- barriers ---------------------------------------------------------------------------------------------------------


def check_classifier(rng):
    """step.cu: products and the loss, against NumPy."""
    a, b = rng.standard_normal((20, 40), np.float32), rng.standard_normal((40, 33), np.float32)
    np.testing.assert_allclose(to_numpy(product(to_device(a, "gpu"), to_device(b, "gpu"))), a @ b, rtol=1e-4, atol=1e-4)
    logits, labels = rng.standard_normal((20, 7), np.float32), rng.integers(0, 7, 20)
    expected = -np.log((np.exp(logits) / np.exp(logits).sum(1, keepdims=True))[np.arange(20), labels]).mean()
    found = cross_entropy(Tensor(logits, device="gpu"), to_device(labels, "gpu"))
    np.testing.assert_allclose(found.item(), expected, rtol=1e-5)


def check_pointwise(rng, monkeypatch):
    numerics.test_pointwise(100, 100, 132, 128, "float32", None, "gpu", rng, monkeypatch)


CHECKS = {
    "step.cu": lambda rng, monkeypatch: check_classifier(rng),
    "norm.cu": lambda rng, monkeypatch: numerics.test_moments_and_norms(3, 4100, "float32", None, "gpu", rng),
    "pointwise.cu": check_pointwise,
    "spatial.cu": lambda rng, monkeypatch: numerics.test_spatial(
        2, 8, 8, 24, 12, "float32", None, "gpu", rng, monkeypatch
    ),
}
BARRIER = "__syncthreads();"
SHARED = (
    (launch.KERNELS / "tile.cuh").read_text(encoding="utf-8").count(BARRIER)
)  # in sums that only the convolutions take
BARRIERS = [
    (file, number)
    for file in CHECKS
    for number in range(0 if file in ("pointwise.cu", "spatial.cu") else SHARED, launch.source(file).count(BARRIER))
]


def passes(file, rng, monkeypatch):
    with precision("float32"):
        for order in ORDERS:
            try:
                with thread_order(order):
                    CHECKS[file](rng, monkeypatch)
            except AssertionError:
                return False
    return True


@needs_compiler
@pytest.mark.parametrize(("file", "number"), BARRIERS)
def test_a_missing_barrier_is_noticed(file, number, strict_gpu, rng, monkeypatch, planted):
    text = launch.source(file)
    places = [match.start() for match in re.finditer(re.escape(BARRIER), text)]
    planted(file, text[: places[number]] + text[places[number] + len(BARRIER) :])
    assert not passes(file, rng, monkeypatch)


@needs_compiler
@pytest.mark.parametrize("file", CHECKS)
def test_with_all_barriers_nothing_is_noticed(file, strict_gpu, rng, monkeypatch):
    assert passes(file, rng, monkeypatch)


@pytest.fixture
def planted(monkeypatch):
    """Run other text in place of a file of kernels."""

    def plant(file, text):
        source = launch.source
        monkeypatch.setattr(launch, "source", lambda name: text if name == file else source(name))
        for cache in (launch.kernel, launch.module):
            cache.cache_clear()

    yield plant
    for cache in (launch.kernel, launch.module):
        cache.cache_clear()


# -- bounds -----------------------------------------------------------------------------------------------------------


def sanitizer():
    """The address sanitizer's library, which has to be there before Python is; None where g++ has none."""
    if COMPILER is None or sys.platform != "linux":
        return None
    path = subprocess.run(
        [COMPILER, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return path if os.path.isabs(path) else None


def sanitized(*arguments):
    """Run Python with kernels that are watched. CompletedProcess."""
    tests = Path(__file__).parent
    environment = {
        **os.environ,
        "LD_PRELOAD": sanitizer(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "MINIDENSE_TEST_SANITIZER": "1",
        "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)]),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTEST_ADDOPTS": "",
    }
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=tests.parent
    )


needs_sanitizer = pytest.mark.skipif(sanitizer() is None, reason="needs g++ with the address sanitizer")


@needs_sanitizer
def test_every_kernel_stays_inside_its_arrays():
    """What test_kernels.py and, of each five, one case of test_gpu_twins.py launch, in the forward order."""
    tests = Path(__file__).parent
    chosen = "not tf32 and not reversed and not shuffled and not no_bit and (order or twin_equals)"
    files = [str(tests / name) for name in ("test_kernels.py", "test_gpu_twins.py")]
    result = sanitized("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *files)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert " passed" in result.stdout


@needs_sanitizer
def test_a_write_out_of_bounds_is_noticed():
    """One guard taken out of one kernel."""
    code = """
import sys
import numpy, strict_cupy
sys.modules["cupy"] = strict_cupy
import minidense as md
from minidense.fast.gpu import launch
text, guard = launch.source("images.cu"), "if (i < count) y[i]"
assert text.count(guard) == 1
launch.source = lambda file: text.replace(guard, "y[i]")
md.functional.relu(md.Tensor(numpy.ones((1, 1, 3, 100)), device="gpu", dtype="float32"))
"""
    result = sanitized("-c", code)
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr
    assert "images.cu" in result.stderr
