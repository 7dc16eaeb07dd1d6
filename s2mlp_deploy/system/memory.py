"""Return freed memory to the operating system between stages, and read how much there is."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

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


def available_bytes() -> int | None:
    """The memory that this process and new ones can take, within the limit of its container; None where Linux does not say."""
    free = kibibytes("/proc/meminfo", "MemAvailable")
    if free is None:
        return None
    group = _number("/sys/fs/cgroup/memory.max"), _number("/sys/fs/cgroup/memory.current")
    within = max(0, group[0] - group[1]) if group[0] is not None and group[1] is not None else free << 10
    return min(free << 10, within)


def kibibytes(path: str, name: str) -> int | None:
    """The value of ``name`` in Linux's file ``path``; None elsewhere."""
    try:
        lines = Path(path).read_text("utf-8").splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)
    except (OSError, ValueError):
        return None


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text("utf-8"))
    except (OSError, ValueError):  # "max" is no limit
        return None
