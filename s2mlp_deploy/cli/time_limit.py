"""End a command that takes too long, wherever it is: a runtime that hangs cannot be interrupted from Python."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from s2mlp_deploy.system import workdir

EXIT_CODE = 124
"""As timeout(1) ends."""


@contextmanager
def time_limit(seconds: float | None, expired: Callable[[], None]) -> Iterator[None]:
    """End the process with :data:`EXIT_CODE`, after ``expired()``, where the work inside ``with`` takes longer than ``seconds``."""
    if seconds is None:
        yield
        return

    def end() -> None:
        try:
            expired()
        finally:
            workdir.abandon()
            os._exit(EXIT_CODE)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
