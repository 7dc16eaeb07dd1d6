"""Report progress to a listener and time each step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext


class Listener:
    """Hears how far the work is; this one ignores it."""

    def step(self, what: str) -> AbstractContextManager[object]:
        """Around a part of the work that may take a while."""
        return nullcontext()

    def warn(self, text: str) -> None:
        """Something the user should know, that does not stop the work."""


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
