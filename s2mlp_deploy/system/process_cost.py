"""Time and peak memory of a whole process, by the operating system's own accounting.

On Linux a process starts with its parent's peak as its own, until it outgrows it: exec keeps the
mark. Importing torch makes a process large, so this file doubles as a launcher, a Python without
site packages (some 10 MB), that starts the command, waits for it and reports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple


class ProcessCost(NamedTuple):
    """Time and memory of one run of a command, its own child processes included.

    Seconds from start to exit; seconds of processor time over all cores, which a busy machine
    disturbs less; bytes of its largest resident set.
    """

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int


def measure(command: Sequence[str]) -> ProcessCost:
    """Run ``command`` to its end and account for it. Its output is kept back unless it fails.

    Raises:
        RuntimeError: where the command fails.
    """
    launched = subprocess.run(
        [sys.executable, "-I", "-S", __file__, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if launched.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{launched.stderr[-2000:]}")
    return ProcessCost(**json.loads(launched.stdout))


def _launch(command: list[str]) -> tuple[int, ProcessCost]:
    """Exit status and cost of ``command``, whose standard output goes to standard error."""
    start = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
    _, status, usage = os.wait4(child, 0)
    wall_s = time.perf_counter() - start
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    cost = ProcessCost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit_bytes)
    return os.waitstatus_to_exitcode(status), cost


if __name__ == "__main__":
    status, cost = _launch(sys.argv[1:])
    json.dump(cost._asdict(), sys.stdout)
    sys.exit(status != 0)
