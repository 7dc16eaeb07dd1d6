"""Keep native libraries from printing to standard error, where they offer no setting for that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_turn = Lock()
"""Standard error is the process's, so threads take turns."""


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Standard error, that of native code included, leads nowhere meanwhile; one thread at a time is within."""
    with _turn:
        try:
            kept = os.dup(2)
        except OSError:  # standard error is closed
            yield
            return
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
