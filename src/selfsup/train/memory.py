"""Memory that a step frees is what the next step asks for."""

from __future__ import annotations

import ctypes
import platform

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of malloc.h
KEPT = 2**30  # bytes: larger blocks, and what is free beyond so many, go back to the system


def keep_memory() -> bool:
    """Let this process keep the memory that it frees, up to 1 GiB; return whether the C library (glibc) can.

    Otherwise the system clears and takes back the pages of every large tensor of every step, which is up to a third of
    the time of a small network on a CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    large = mallopt(MMAP_THRESHOLD, KEPT) or mallopt(MMAP_THRESHOLD, 2**25)  # glibc before 2.35 takes no more
    return bool(large and mallopt(TRIM_THRESHOLD, KEPT))
