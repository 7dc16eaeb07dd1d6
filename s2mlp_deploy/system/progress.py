"""Report progress to a listener and time each step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext


class Listener:
    """Listener for the progress of the work; this base class ignores every event."""

    def step(self, what: str) -> AbstractContextManager[object]:
        """Context manager around a step of the work that may take a while."""
        return nullcontext()

    def warn(self, text: str) -> None:
        """Report a problem that does not stop the work."""


class Progress:
    """Passes steps and warnings on to a listener; ``seconds`` holds each step's duration."""

    def __init__(self, listener: Listener, clock: Callable[[], float] = time.perf_counter) -> None:
        self._listener, self._clock = listener, clock
        self.seconds: dict[str, float] = {}
        self.warn = listener.warn

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Announce and time the work done inside."""
        start = self._clock()
        with self._listener.step(what):
            yield
        self.seconds[what] = round(self._clock() - start, 3)
