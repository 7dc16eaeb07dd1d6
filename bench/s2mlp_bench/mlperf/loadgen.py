"""The system under test that MLPerf LoadGen calls, and the orderly end of a run that fails or is interrupted.

LoadGen is C++ and handles neither exceptions nor signals. An exception raised through it, Ctrl-C included, leaves its
logging thread behind, and the process dies with the next run or at its own end. So nothing that it calls here raises:
the error is kept, LoadGen runs to its end, and only then is it raised. It cannot be stopped. But queries that are
completed without work take some microseconds each, which ends a single stream and the query of an offline run soon; and
the server scenario ends by itself once too many queries wait (``server_max_async_queries``).
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from s2mlp_bench.mlperf.answers import Answers
from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.system.dependencies import pip_install

NO_AUDIT = ""
"""Otherwise LoadGen looks for a file audit.config in the working directory, and changes the settings by it."""


def require_loadgen() -> Any:
    """The module ``mlperf_loadgen``.

    Raises:
        RuntimeMissingError: where it is not installed.
    """
    try:
        return import_module("mlperf_loadgen")
    except ImportError as error:
        raise RuntimeMissingError(
            f"--scenario needs MLPerf LoadGen, which cannot be loaded ({error}): {pip_install('loadgen')}"
        ) from error


class Samples:
    """``count`` samples for LoadGen, made of ``images`` (n, channels, height, width) in turn.

    Each one that is loaded has memory of its own, as those of a data set have, so that no cache holds them all.
    """

    def __init__(self, images: Array, count: int) -> None:
        self.count = count
        self._images = images
        self._loaded = images[:0]
        self._places: dict[int, int] = {}

    def load(self, indices: Sequence[int]) -> None:
        """Load the samples ``indices``."""
        self._places = {index: place for place, index in enumerate(indices)}
        self._loaded = self._images[self.image_indices(indices)]

    def unload(self, _: Sequence[int]) -> None:
        """Release the samples."""
        self._loaded = self._images[:0]

    def batch(self, indices: Sequence[int]) -> Array:
        """The images of loaded samples (batch, channels, height, width): in place, where they lie one after another."""
        places = [self._places[index] for index in indices]
        first, after = places[0], places[0] + len(places)
        return self._loaded[first:after] if places == list(range(first, after)) else self._loaded[places]

    def image_indices(self, indices: Sequence[int]) -> list[int]:
        """Which of the images these samples are."""
        return [index % len(self._images) for index in indices]


@dataclass(eq=False)
class System:
    """The system under test: a session that runs up to ``batch`` images at a time, in the calling thread."""

    answer: Callable[[Array], Array]
    samples: Samples
    answers: Answers
    batch: int
    failure: BaseException | None = field(default=None, init=False)
    _loadgen: Any = field(default_factory=require_loadgen, init=False)

    def stop(self, reason: BaseException) -> None:
        """Run no more queries; the first reason counts."""
        if self.failure is None:
            self.failure = reason

    def load(self, indices: Sequence[int]) -> None:
        """Load these samples before LoadGen queries them."""
        try:
            self.samples.load(indices)
        except BaseException as error:
            self.stop(error)

    def issue(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        """Run LoadGen's query of the samples ``indices``, under the identifiers ``ids``."""
        done = 0
        while done < len(ids) and self._serve(ids[done : done + self.batch], indices[done : done + self.batch]):
            done += self.batch
        self._complete(ids[done:])

    def flush(self) -> None:
        """No more queries follow."""

    def _serve(self, ids: Sequence[int], indices: Sequence[int]) -> bool:
        """Run one batch; whether its completion was reported. Logits are kept afterwards, outside the latency."""
        completed = False
        try:
            if self.failure is None:
                logits = self.answer(self.samples.batch(indices))
                self._complete(ids)
                completed = True
                self.answers.keep(self.samples.image_indices(indices), logits)
        except BaseException as error:
            self.stop(error)
        return completed

    def _complete(self, ids: Sequence[int]) -> None:
        """Report these as complete. LoadGen has no use for the logits."""
        self._loadgen.QuerySamplesComplete([self._loadgen.QuerySampleResponse(i, 0, 0) for i in ids])


@dataclass(eq=False)
class QueuedSystem(System):
    """A session in a thread of its own, which batches the queries that have arrived meanwhile."""

    _waiting: deque[tuple[int, int]] = field(default_factory=deque, init=False)
    _news: threading.Condition = field(default_factory=threading.Condition, init=False)
    _over: bool = field(default=False, init=False)
    _unanswered: list[int] = field(default_factory=list, init=False)

    def load(self, indices: Sequence[int]) -> None:
        """As :meth:`System.load`; the worker starts."""
        super().load(indices)
        self._worker = threading.Thread(target=self._work, name="s2mlp-server")
        self._worker.start()

    def issue(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        """As :meth:`System.issue`, without waiting for the logits."""
        with self._news:
            self._waiting.extend(zip(ids, indices, strict=True))
            self._news.notify()

    def flush(self) -> None:
        """Run the waiting queries. The worker ends here, within the test: later, LoadGen would log that to stderr."""
        with self._news:
            self._over = True
            self._news.notify()
        self._worker.join()
        self._complete(self._unanswered)

    def _work(self) -> None:
        while taken := self._take():
            ids, indices = zip(*taken, strict=True)
            if not self._serve(ids, indices):
                self._unanswered += ids  # until the end, which so many of them bring about

    def _take(self) -> list[tuple[int, int]]:
        """Up to a batch of waiting queries, as soon as there is one; empty at the end."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._over)
            return [self._waiting.popleft() for _ in range(min(self.batch, len(self._waiting)))]


def drive(system: System, settings: Any, directory: Path) -> None:
    """Let LoadGen test ``system``; its logs go into ``directory``, which must be there and writable.

    Raises:
        BaseException: what the session raised, as it is; KeyboardInterrupt where the run was interrupted.
    """
    loadgen = require_loadgen()
    logs = loadgen.LogSettings()
    logs.log_output.outdir = str(directory)
    logs.enable_trace = False  # hundreds of bytes for each query
    tested = loadgen.ConstructFastSUT(system.issue, system.flush)
    library = loadgen.ConstructQSL(
        system.samples.count, settings.performance_sample_count_override, system.load, system.samples.unload
    )
    try:
        with _interruptible(system.stop):
            loadgen.StartTestWithLogSettings(tested, library, settings, logs, NO_AUDIT)
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroyFastSUT(tested)
    if system.failure:
        raise system.failure


@contextmanager
def _interruptible(stop: Callable[[BaseException], None]) -> Iterator[None]:
    """Ctrl-C stops the run at the next query. Where it is not raised, in other threads or when ignored, nothing changes."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: stop(KeyboardInterrupt()))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
