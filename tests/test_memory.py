"""Memory kept from step to step."""

import platform
import subprocess
import sys

import pytest

ALLOCATE = """
import resource, torch
from selfsup.train.device import keep_memory
if {keep}:
    assert keep_memory()
for _ in range(10):
    torch.ones(40_000_000), torch.ones(10_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(40_000_000), torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_memory_is_asked_for_once():
    def faults(keep: bool) -> int:
        command = [sys.executable, "-c", ALLOCATE.format(keep=keep)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert faults(keep=False) > 20 * max(faults(keep=True), 50)
