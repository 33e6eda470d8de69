"""Freed memory stays inside freed_memory_kept() and goes back to the system after it."""

import os
import platform
import subprocess
import sys

import numpy
import pytest

from minidense.memory import USERS_OWN, freed_memory_kept

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library has these settings")

SCRIPT = """
import resource
import numpy
from minidense.memory import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    # 3 MB: without large pages, which NumPy asks for from 4 MB on, so that there is something to count
    arrays = [numpy.ones(3 << 18, numpy.float32) for _ in range(40)]
    del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

with freed_memory_kept():
    faults()
    with freed_memory_kept():
        pass
    kept = faults()
    inside = resident()
print(kept, inside - resident())
"""


def run(**variables):
    clean = {name: value for name, value in os.environ.items() if name not in USERS_OWN}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=clean | variables, capture_output=True, text=True, check=True
    )
    return map(int, done.stdout.split())


@glibc
def test_memory_is_kept_inside_and_given_back_after():
    faults, given_back = run()
    assert faults < 1000  # of the 29,297 pages that the arrays take
    assert given_back > 100e6  # of 120 MB


@glibc
def test_what_the_user_set_is_left_alone():
    faults, _ = run(MALLOC_MMAP_THRESHOLD_="1000000")
    assert faults > 25_000


def test_it_can_be_entered_anywhere():
    with freed_memory_kept(), freed_memory_kept():
        assert numpy.ones(10).sum() == 10
