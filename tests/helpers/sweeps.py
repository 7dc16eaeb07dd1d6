"""Plans, items and tasks for sweeps; tasks are called in worker processes, which find them by import."""

from __future__ import annotations

import os
import resource
import signal
from dataclasses import replace
from pathlib import Path

from s2mlp_deploy.pipeline.sweep.item import Choice, Item
from s2mlp_deploy.pipeline.sweep.outcome import Failure, Outcome, failed
from s2mlp_deploy.pipeline.sweep.plan import Group


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
