"""The twins of the GPU against their definitions: on a real GPU where there is one, and on the CPU through a shim everywhere.

The shim compiles the kernels with g++ and runs every CUDA thread as a fiber (cuda_on_cpu.py); all that launches them is the same.
"""

import numpy as np
import pytest
from cuda_on_cpu import COMPILER
from twins import assert_same, run

import minidense as md
from minidense.backend import to_device
from minidense.nn import Module
from minidense.precision import precision
from minidense.speed import REFERENCES, reference_only

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++ to run CUDA kernels on the CPU")

# float32: another order of summing, as for the twins of the CPU.
# tf32 and mixed: 2⁻¹¹ = 5e-4 and 2⁻⁹ = 2e-3 for each number that is rounded; where one falls on the other side of a ReLU's edge, a whole
# term of a sum is gained or lost. Held in the mean over an array (relative to its root mean square), where a few such terms are few.
TOLERANCE = {"float32": 1e-4, "tf32": 0.02, "mixed": 0.1}

TWINS = [(function, twin) for function in REFERENCES for twin in function.fast_paths if ".gpu." in twin.run.__module__]
CASES = [
    pytest.param(function, twin, example, id=f"{twin.run.__name__}-{number}")
    for function, twin in TWINS
    for number, example in enumerate(twin.examples())
]


def moved(value, device):
    """The same arguments on a device."""
    if isinstance(value, md.Tensor | Module):
        return value.to(device)
    if isinstance(value, np.ndarray):
        return to_device(value, device)
    if isinstance(value, list):
        return [moved(item, device) for item in value]
    return value


def arguments(example, device, dtype=np.float32):
    args, options = example(np.random.default_rng(0), dtype)
    return [moved(value, device) for value in args], options


@pytest.mark.parametrize(("function", "twin", "example"), CASES)
def test_a_twin_equals_its_definition(function, twin, example, gpu):
    args, options = arguments(example, gpu)
    assert twin.fits(*args, **options), "an example that the twin would not answer tests nothing"
    with precision("float32"):
        found = run(twin.run, args, options)
    args, options = arguments(example, "cpu", np.float64)
    with reference_only():
        expected = run(function.definition, args, options)
    assert_same(found, expected, TOLERANCE["float32"])
