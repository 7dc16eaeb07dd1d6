"""A process that may use only so much more memory and processor time than it has, and tells how much it did."""

from __future__ import annotations

import math
import resource
import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path


@dataclass(frozen=True)
class Used:
    """What a process used: bytes in memory at the most, above those that it began with, and seconds of processor time."""

    bytes: int
    seconds: float

    @classmethod
    def read(cls, report: Path) -> Used:
        """What a confined process wrote into ``report``."""
        used, seconds = report.read_text("ascii").split()
        return cls(int(used), float(seconds))


def confine(most_bytes: int, most_seconds: int, report: Path) -> None:
    """From now on this process can take ``most_bytes`` more of addresses, and is killed after ``most_seconds`` of
    processor time, which other work on the machine does not prolong. At its end it writes into ``report`` what it used."""
    report.unlink(missing_ok=True)
    limit = _status("VmSize") + most_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + most_seconds,) * 2)
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # forget the peak until now
    Finalize(None, partial(_tell, _status("VmRSS"), time.process_time(), report), exitpriority=1)


def _tell(before: int, started: float, report: Path) -> None:
    report.write_text(f"{max(0, _status('VmHWM') - before)} {time.process_time() - started}", "ascii")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024
