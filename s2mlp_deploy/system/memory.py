"""Return freed memory to the operating system between stages."""

from __future__ import annotations

import ctypes
import gc
import sys

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 512 * 1024


def release() -> None:
    """Return freed memory to the system, and from now on large blocks as soon as they are freed.

    glibc keeps what the reference and the graph have freed, and then everything that a runtime frees
    while it loads a model: together more than the model itself. Elsewhere nothing happens.
    """
    gc.collect()  # graphs are reference cycles
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt"):
            libc.malloc_trim(0)
            libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
