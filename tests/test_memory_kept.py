"""Freed memory that a process keeps costs no page faults when it is used again."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
from qaq.host.hardware import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def make_again_and_again():
    before = faults()
    for _ in range(8):
        bytearray(1) * (64 << 20)
    return faults() - before

fresh = make_again_and_again()
known = keep_freed_memory()
make_again_and_again()
print(int(known), fresh, make_again_and_again())
"""


def test_arrays_made_again_and_again_are_faulted_in_once():
    output = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    ).stdout
    known, fresh, kept = map(int, output.split())
    if not known:
        pytest.skip("mallopt belongs to glibc, which this system does not use")
    assert fresh > 8 * 16  # huge pages are 2 MiB, so 32 an array at least
    assert kept < fresh / 8
