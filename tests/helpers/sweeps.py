"""Plans, items and tasks for sweeps; tasks are called in worker processes, which find them by import."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from s2mlp_deploy.pipeline.sweep import local_workers, sweep
from s2mlp_deploy.pipeline.sweep.item import Choice, Item
from s2mlp_deploy.pipeline.sweep.outcome import Failure, Outcome, failed
from s2mlp_deploy.pipeline.sweep.plan import Group
from s2mlp_deploy.pipeline.sweep.sweep import SweepResult
from s2mlp_deploy.system import workdir
from s2mlp_deploy.system.progress import Listener


def items(count: int) -> list[Item]:
    """Items of checkpoints that are not there, for tasks that read none."""
    group, choice = Group(checkpoints=("*.pt",)), Choice("onnx", "fp32", None, "auto")
    return [Item(f"{i:016x}", Path(f"runs/{i}/best.pt"), "0" * 64, group, choice) for i in range(count)]


def outcome(item: Item) -> Outcome:
    """An outcome as of a format that does nothing; ``seconds`` is the process that worked on it."""
    return replace(failed(item, Failure("", "", 0)), status="made", error=None, seconds=float(os.getpid()))


def kill_itself(item: Item, marks: Path) -> Outcome:
    """Be killed in the middle of the second item once, and in the middle of the third each time."""
    mark = marks / item.key
    if item.key.endswith("2") or (item.key.endswith("1") and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return outcome(item)


def make_on_a_full_disk(item: Item, output: Path) -> Outcome:
    """Make the item where files can have no more than a few bytes, as where a quota ends, if it is one at fp16."""
    from s2mlp_deploy.pipeline.sweep import task  # loads what exports take

    if item.choice.precision == "fp16":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
    try:
        return task.make(item, output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def killed_once(item: Item, output: Path, marks: Path) -> Outcome:
    """Make the item; those of one checkpoint kill their worker first, the first time."""
    from s2mlp_deploy.pipeline.sweep import task

    mark = marks / item.key
    if item.checkpoint.stem == "1" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task.make(item, output)


@dataclass(frozen=True)
class Copies:
    """A format whose bundles are copies of the one at ``pristine``; each that is begun leaves a mark in ``marks``."""

    pristine: Path
    marks: Path

    def make(self, item: Item, output: Path) -> Outcome:
        """Publish a copy as exports are published: whole or not at all."""
        os.close(tempfile.mkstemp(prefix=f"{item.key}-", dir=self.marks)[0])
        with workdir.beside(output / item.key) as place:
            shutil.copytree(self.pristine, place / "bundle")
            (place / "bundle").rename(output / item.key)
        return replace(outcome(item), bundle=str(output / item.key))

    def at(self, output: Path) -> Callable[[Item], Outcome]:
        """The task that makes copies in ``output``."""
        return partial(self.make, output=output)


def swept(copies: Copies, output: Path, workers: Any) -> SweepResult:
    """A sweep of three items."""
    return sweep.run(items(3), output, workers, Listener())


def _killed(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _before_the_first() -> None:
    local_workers._Worker.give = _killed  # type: ignore[method-assign]


def _after_the_second_is_handed_out() -> None:
    give, given = local_workers._Worker.give, list[str]()

    def counted(worker: Any, item: Any, attempt: int) -> None:
        give(worker, item, attempt)
        given.append(item.key)
        if len(given) == 2:
            _killed()

    local_workers._Worker.give = counted  # type: ignore[method-assign]


def _before_an_outcome_is_taken() -> None:
    local_workers._Worker.take = _killed  # type: ignore[method-assign]


def _before_results_are_written() -> None:
    sweep.atomic_write.write = _killed


MOMENTS = {
    "before the first item is handed out": _before_the_first,
    "after the second item was handed out": _after_the_second_is_handed_out,
    "after a bundle was published, before its outcome is taken": _before_an_outcome_is_taken,
    "after all outcomes were taken, before the results are written": _before_results_are_written,
}
"""Moments at which a driver may be killed, and what kills this process then."""


def swept_until(moment: str, copies: Copies, output: Path) -> None:
    """:func:`swept` in this process, which is killed at ``moment``."""
    MOMENTS[moment]()
    swept(copies, output, local_workers.LocalWorkers(copies.at(output), 1))
