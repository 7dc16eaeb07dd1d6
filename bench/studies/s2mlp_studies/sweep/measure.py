"""Measuring sweeps: the same plan on one worker and on two, by turns, and many items that do nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from s2mlp_deploy.families.s2mlp.spec import single_stage
from s2mlp_deploy.pipeline.sweep.item import Choice, Item
from s2mlp_deploy.pipeline.sweep.local_workers import LocalWorkers
from s2mlp_deploy.pipeline.sweep.outcome import Failure, Outcome, failed
from s2mlp_deploy.pipeline.sweep.plan import Group
from s2mlp_deploy.pipeline.sweep.sweep import SweepRequest, SweepResult, run, sweep
from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.timing import Estimate, estimate, ratio
from s2mlp_studies.random_weights import save_random_of

EXPORTS = 40
WORKERS = (1, 2)

SMALL = single_stage(channels=32, depth=2, patch=4, expansion=3, classes=10, image_size=(32, 32))
"""A network whose export is small beside what a process imports for it."""


@dataclass(frozen=True)
class Swept:
    """Seconds of the sweep by number of workers, the i-th of each from one round, and the driver's milliseconds an item."""

    exports: int
    seconds: dict[int, Sequence[float]]
    driver_items: int
    driver_ms: float

    @property
    def speedup(self) -> Estimate:
        """How many times as fast two workers are as one."""
        one, two = (self.seconds[count] for count in WORKERS)
        return ratio(one, two)

    @property
    def driver(self) -> Estimate:
        """Processor time of the driver an item, in milliseconds."""
        return estimate([self.driver_ms])


def write_plan(place: Path, exports: int = EXPORTS) -> Path:
    """A plan of so many exports, of checkpoints with random weights beside it."""
    for seed in range(exports):
        save_random_of(SMALL, place / f"{seed}.pt", seed)
    plan = place / "plan.toml"
    plan.write_text(
        '[[export]]\ncheckpoints = ["*.pt"]\n[export.source]\nshift_semantics = "paper"\nimage_size = 32\n', "utf-8"
    )
    return plan


def measure_sweep(
    plan: Path,
    exports: int,
    rounds: int,
    announce: Callable[[str], None],
    sweep: Callable[[SweepRequest], SweepResult] = sweep,
) -> dict[int, Sequence[float]]:
    """Seconds of the ``sweep`` of ``plan`` by number of workers, from nothing each time; each count has a turn a round.

    Raises:
        RuntimeError: where an export fails.
    """
    found: dict[int, list[float]] = {count: [] for count in WORKERS}
    for i in range(rounds):
        for count in WORKERS if i % 2 == 0 else reversed(WORKERS):
            announce(f"round {i + 1} of {rounds}: {exports} exports on {count}")
            start = time.perf_counter()
            result = sweep(SweepRequest(plan, plan.parent / f"out-{i}-{count}", workers=count))
            found[count].append(time.perf_counter() - start)
            if result.counts["made"] != exports:
                raise RuntimeError(f"{dict(result.counts)} of {exports} exports: see {result.results}")
    return {count: tuple(seconds) for count, seconds in found.items()}


def driver_ms(place: Path, count: int) -> float:
    """Processor time of the driver an item, over ``count`` items that do nothing."""
    group, choice = Group(checkpoints=("*.pt",)), Choice("onnx", "fp32", None, "auto")
    items = [Item(f"{i:016x}", Path(f"runs/{i}/best.pt"), "0" * 64, group, choice) for i in range(count)]
    start = time.process_time()
    run(items, place, LocalWorkers(do_nothing, max(1, min(2, os.cpu_count() or 1))), Listener())
    return (time.process_time() - start) * 1e3 / count


def do_nothing(item: Item) -> Outcome:
    """The outcome of an export that made nothing."""
    return replace(failed(item, Failure("", "", 0)), status="made", error=None)
