"""Exports whose system calls are watched, fail or kill, by strace."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from helpers import processes
from helpers.support import Ran

CALLS = "mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,fsync,fdatasync,chmod,fchmod,fchmodat,flock"
"""Calls that change what directories hold, or make it last; how often files are written is left to random moments."""


def straced(log: Path, arguments: list[object], env: dict[str, str], *injections: str) -> Ran:
    """``s2mlp-export ARGUMENTS`` with faults in its system calls; ``log`` gets those of :data:`CALLS`."""
    options = [word for injection in injections for word in ("-e", f"inject={injection}")]
    go = log.with_name("go")
    go.unlink(missing_ok=True)
    running = processes.start("export", log.with_name("said"), *arguments, env=env, before=partial(wait_for, go))
    process = running.process.pid
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(process), "-o", str(log), "-e", f"trace={CALLS}", *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    attached = tracer.stderr.readline()
    assert "attached" in attached, attached
    go.touch()
    code = running.wait()
    tracer.communicate(timeout=600)
    return Ran(code, "", running.text)


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def moments(log: Path, place: Path) -> Iterator[tuple[str, int]]:
    """Each traced call from the first at ``place`` on, as (name, how manieth of its name in its process)."""
    counts: dict[tuple[str, str], int] = {}
    begun = False
    for line in log.read_text().splitlines():
        if call := re.match(r"(\d+) +(\w+)\(", line):
            key = call[1], call[2]
            counts[key] = counts.get(key, 0) + 1
            begun = begun or str(place) in line
            if begun:
                yield call[2], counts[key]
