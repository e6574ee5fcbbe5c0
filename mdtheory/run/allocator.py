"""Let the C library keep the memory that tensors free: page faults are half the time of a task step
on a CPU.
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc
TOP_PAD = 64 * 2**20


def keep_freed_memory() -> bool:
    """Serve large tensors from the heap, and never give it back: True where that could be set
    (glibc), else False.

    By default glibc maps every block of some megabytes anew and the kernel clears its pages again
    and again. A program calls this once, at its start; a library must not, since the peak resident
    memory grows (1.5 to 2.7 GB were seen).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(
        mallopt(option, value) == 1
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, TOP_PAD))
    )
