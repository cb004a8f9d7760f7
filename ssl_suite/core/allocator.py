"""What the C library does with memory that a training step has freed."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory for the next step rather than give it back to the kernel.

    A step on a CPU frees and asks again for the same hundreds of megabytes, and each page that comes back is zeroed and
    mapped anew. Blocks above 32 MB still go back. The process holds on to its peak; on other systems nothing happens.

    Returns:
        Whether glibc took the settings.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 32 * 2**20) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
