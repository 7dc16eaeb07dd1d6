"""Processes of this machine that work through items; each lives on from item to item, so that imports are paid once.

A worker that dies takes no item with it: the item is tried again in a new process, and then counted as failed. Workers end with
the process that started them, however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic

from s2mlp_deploy.pipeline.sweep.work import (  # what loads NumPy comes later: it must know the number of threads first
    R,
    Work,
)
from s2mlp_deploy.system import workdir

MOST_ATTEMPTS = 2

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables for the threads of a process; those that the user has set stay."""

_context = multiprocessing.get_context("spawn")


@dataclass
class _Worker(Generic[R]):
    process: BaseProcess
    connection: Connection
    item: Work[R] | None = None
    attempt: int = 0

    def give(self, item: Work[R], attempt: int) -> None:
        self.item, self.attempt = item, attempt
        with suppress(OSError):  # it has died, which the loop finds by itself
            self.connection.send(item)

    def take(self) -> R | None:
        """The outcome that it sends; None where it has died."""
        try:
            outcome: Any = self.connection.recv()
        except (EOFError, OSError):
            return None
        self.item = None
        found: R = replace(outcome, attempts=self.attempt)
        return found

    def end(self) -> int | None:
        """End the process, and return its exit code: negative for a signal."""
        self.connection.close()
        self.process.kill()
        self.process.join()
        return self.process.exitcode


@dataclass
class LocalWorkers(Generic[R]):
    """``count`` processes that run ``task``, each with its share of this machine's cores."""

    task: Callable[[Any], R]
    count: int
    _workers: list[_Worker[R]] = field(default_factory=list)

    def run(self, items: Iterable[Work[R]]) -> Iterator[R]:
        """The outcomes of ``items``, in the order in which they come."""
        waiting = iter(items)
        again: deque[tuple[Work[R], int]] = deque()
        try:
            while True:
                self._hand_out(waiting, again)
                busy = {worker.connection: worker for worker in self._workers if worker.item}
                if not busy:
                    return
                for ready in wait(list(busy)):
                    worker = busy[ready]  # type: ignore[index]
                    if outcome := worker.take() or self._lost(worker, again):
                        yield outcome
        finally:
            for worker in self._workers:
                worker.end()

    def _hand_out(self, waiting: Iterator[Work[R]], again: deque[tuple[Work[R], int]]) -> None:
        """Give each worker that rests an item; new workers are started while there are items for them."""
        while idle := next((w for w in self._workers if not w.item), len(self._workers) < self.count):
            item, attempt = again.popleft() if again else (next(waiting, None), 1)
            if item is None:
                return
            if not isinstance(idle, _Worker):
                idle = _start(self.task, self.count)
                self._workers.append(idle)
            idle.give(item, attempt)

    def _lost(self, worker: _Worker[R], again: deque[tuple[Work[R], int]]) -> R | None:
        """Put the item of a worker that has died back; its outcome where that was the last attempt."""
        from s2mlp_deploy.pipeline.sweep.outcome import death

        worker.process.join()
        code, item = worker.end(), worker.item
        self._workers.remove(worker)
        assert item
        if worker.attempt == MOST_ATTEMPTS:
            return item.failed(death(code, worker.attempt), worker.attempt)
        again.append((item, worker.attempt + 1))
        return None


def _start(task: Callable[[Any], R], count: int) -> _Worker[R]:
    ours, theirs = _context.Pipe()
    threads = max(1, (os.cpu_count() or 1) // count)
    process = _context.Process(target=_work, args=(theirs, threads), name="s2mlp-sweep", daemon=True)
    process.start()
    theirs.close()
    with suppress(OSError):
        ours.send(task)
    return _Worker(process, ours)


def _work(connection: Connection, threads: int) -> None:
    """The life of a worker: it takes the task, and then items until there are no more."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group, and the first process ends the others
    os.dup2(2, 1)  # runtimes print, and results go to the first process's stdout alone
    for name in THREADS:
        os.environ.setdefault(name, str(threads))
    threading.Thread(target=_end_with_parent, name="s2mlp-parent", daemon=True).start()
    with suppress(EOFError):
        task = connection.recv()
        while True:
            connection.send(task(connection.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    workdir.abandon()
    os._exit(1)
