"""What a process holds on to while it repeats something: memory, open files, threads and files it left behind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2mlp_deploy.system import memory


@dataclass(frozen=True)
class Held:
    """What this process holds: resident bytes after the allocator has given back what is free, and numbers of things."""

    rss_bytes: int
    open_files: int
    threads: int
    temporary: int

    @classmethod
    def now(cls) -> Held:
        """Counted by Linux."""
        memory.release()
        status = Path("/proc/self/status").read_text("ascii").splitlines()
        rss = next(line for line in status if line.startswith("VmRSS:"))
        counted = (len(os.listdir(place)) for place in ("/proc/self/fd", "/proc/self/task", tempfile.gettempdir()))
        return cls(int(rss.split()[1]) * 1024, *counted)


@dataclass(frozen=True)
class Growth:
    """What one more repetition adds: bytes by a line through all measurements, and things that are there in the end and
    were not at the start."""

    bytes_each: float
    open_files: int
    threads: int
    temporary: int

    @property
    def things(self) -> tuple[int, int, int]:
        return self.open_files, self.threads, self.temporary


def growth(work: Callable[[int], object], *, warmup: int, times: int, every: int = 1) -> Growth:
    """How what this process holds grows over ``times`` calls of ``work`` with their number, after ``warmup`` calls that
    load libraries and fill caches; it is looked at ``every`` so many calls."""
    for number in range(warmup):
        work(number)
    held = [Held.now()]
    for number in range(times):
        work(number)
        if (number + 1) % every == 0:
            held.append(Held.now())
    slope, _ = np.polyfit(np.arange(len(held)) * every, [h.rss_bytes for h in held], 1)
    first, last = held[0], held[-1]
    return Growth(
        float(slope),
        last.open_files - first.open_files,
        last.threads - first.threads,
        last.temporary - first.temporary,
    )
