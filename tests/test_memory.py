"""Memory kept from step to step."""

import platform
import subprocess
import sys

import pytest

ALLOCATE = """
import resource, torch
from selfsup.train.device import keep_memory

def faults():
    for _ in range(3):
        torch.ones(12_000_000), torch.ones(10_000_000)  # more than the 32 MiB up to which glibc may keep memory itself
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(12_000_000), torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
assert keep_memory()
print(first, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_memory_is_asked_for_once():
    command = [sys.executable, "-c", ALLOCATE]
    before, kept = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert before > 20 * max(kept, 50)
