"""A step of the report in a process of its own: a GPU that fails, or a compiler that does not end, takes only that step with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from s2mlp_studies.gpu.sheet import Row, Sheet, complete


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status (None: it was stopped), and the end of what it wrote to stderr."""

    status: int | None
    complaint: str

    @property
    def reason(self) -> str:
        """Why nothing more came of it, in words."""
        if self.status is None:
            return "the time for this step was over"
        return f"the step ended with status {self.status}: {self.complaint or 'it wrote no reason'}"


def run(
    command: Sequence[str], seconds: float, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run ``command`` for at most so many ``seconds``, with all the processes that it starts, in this process's environment or another."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=cwd,
        env=environment,
    )
    try:
        _, errors = process.communicate(timeout=max(seconds, 0))
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Ended(None, "")
    lines = errors.decode(errors="replace").strip().splitlines()
    return Ended(process.returncode, " ".join(lines[-1:])[-300:])


def measure(
    module: str, arguments: Sequence[object], planned: Sequence[tuple[str, ...]], sheet: Path, seconds: float
) -> list[Row]:
    """The rows that ``python -m s2mlp_studies.gpu.MODULE SHEET UNTIL ARGUMENTS…`` writes to ``sheet``: all that are ``planned``.

    UNTIL is a moment of time.monotonic, which the processes of a machine share: starting one takes seconds.
    """
    words = (str(sheet), f"{time.monotonic() + seconds:.1f}", *map(str, arguments))
    ended = run([sys.executable, "-m", f"s2mlp_studies.gpu.{module}", *words], seconds)
    return complete(planned, Sheet(sheet).read(), ended.reason if ended.status else "the time for this step was over")
