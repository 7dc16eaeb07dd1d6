"""One timing at a time on a machine: whoever measures latency in several processes holds a lock meanwhile."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = "s2mlp-bench-slot"


@contextmanager
def held(directory: Path | None = None) -> Iterator[None]:
    """Wait for the lock in ``directory`` (else the system's for temporary files) and hold it inside ``with``.

    The system gives it back where the process ends, however that does. Windows has no such lock, and nothing waits there.
    """
    if fcntl is None:
        yield
        return
    user = os.getuid()  # each has a file of their own: those of others cannot be opened
    with open((directory or Path(tempfile.gettempdir())) / f"{NAME}-{user}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
