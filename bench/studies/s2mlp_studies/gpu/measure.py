"""The report on one device, step after step, each in a process of its own, all within a budget of time.

    tests marked gpu ─▶ parity ─▶ peaks ─▶ a race of each model

What cannot be run, or has no time left, is a row with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.timing import Clock
from s2mlp_studies.gpu import candidates, marked_tests, parity, peaks, race, step
from s2mlp_studies.gpu.device import Device, gpu_name
from s2mlp_studies.gpu.sheet import Row

SECONDS = 360.0
"""Of the whole report."""

TESTS, PARITY, PEAKS = 0.2, 0.25, 0.08
"""The most that these steps may take of it; what they leave is for the races."""

BATCHES = (1, 128, 32)
"""In the order of their importance: where time is short, the last has the least of it."""


@dataclass(frozen=True)
class Plan:
    """The report to make: on which ``device``, in how many ``seconds``; of which models by name, whose checkpoints ``checkpoint`` gives;
    parity of ``subject``, and the tests of the clone at ``root``."""

    device: Device
    models: Sequence[str]
    checkpoint: Callable[[str], Path]
    subject: parity.Subject
    root: Path
    seconds: float = SECONDS
    batches: Sequence[int] = BATCHES
    rounds: int = 15


@dataclass(frozen=True)
class Report:
    """All rows, the GPU by name with its driver, and the time that they took in seconds."""

    device: str
    gpu: str
    rows: Sequence[Row]
    seconds: float
    budget_seconds: float

    def of(self, *about: str) -> list[Row]:
        """The rows whose subject begins with ``about``."""
        return [row for row in self.rows if row.about[: len(about)] == about]

    @property
    def figured(self) -> bool:
        """Whether anything was raced."""
        return any(row.figures for row in self.of("race"))

    @property
    def document(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows]}


@dataclass
class Budget:
    """The time that is left of so many ``seconds``."""

    seconds: float
    clock: Clock = time.monotonic
    start: float = field(init=False)

    def __post_init__(self) -> None:
        self.start = self.clock()

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.start

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(0.0, self.seconds - self.spent)

    def share(self, share: float) -> float:
        """Seconds for a step that may take ``share`` of all, where so many are left."""
        return min(share * self.seconds, self.left)


def measure(plan: Plan, listener: Listener, clock: Clock = time.monotonic) -> Iterator[Report]:
    """Run every step of ``plan``: the report after each, so that one that ends the machine's time leaves those before it."""
    budget, gpu = Budget(plan.seconds, clock), gpu_name()
    rows: list[Row] = []
    with TemporaryDirectory() as directory:
        for found in _steps(plan, budget, Path(directory), listener):
            rows += found
            yield Report(plan.device.provider, gpu, tuple(rows), budget.spent, plan.seconds)


def _steps(plan: Plan, budget: Budget, scratch: Path, listener: Listener) -> Iterator[list[Row]]:
    name, subject = plan.device.provider, plan.subject
    with listener.step("tests marked gpu"):
        yield [marked_tests.run_marked(plan.root, budget.share(TESTS))]
    with listener.step("parity of every lowering and precision"):
        wanted, arguments = parity.planned(plan.device), (name, subject.checkpoint, subject.images)
        yield step.measure("parity", arguments, wanted, scratch / "parity", budget.share(PARITY))
    with listener.step("what the device can do at most"):
        yield step.measure("peaks", (name,), peaks.planned(), scratch / "peaks", budget.share(PEAKS))
    for index, model in enumerate(plan.models):
        with listener.step(f"a race of {model}"):
            batches, share = ",".join(map(str, plan.batches)), 1 / (len(plan.models) - index)
            yield _race(plan, model, batches, scratch, lambda share=share: budget.left * share)  # type: ignore[misc]


def _race(plan: Plan, model: str, batches: str, scratch: Path, seconds: Callable[[], float]) -> list[Row]:
    wanted = race.planned(model, plan.batches)
    obstacles = {name: candidates.obstacle(plan.device, name) for name in candidates.CONTENDERS}
    if all(obstacles.values()):
        nothing = "there was nothing to watch"
        return [Row(about, not_run=obstacles.get(about[-1]) or nothing) for about in wanted]
    arguments = (plan.device.provider, model, plan.checkpoint(model), batches, plan.rounds)
    return step.measure("race", arguments, wanted, scratch / model, seconds())


def operations_per_s(row: Row) -> float | None:
    """The rate of a row of the race by its products, without copies where that is known."""
    figures: Mapping[str, Any] = row.figures
    operations, ms = figures.get("operations"), compute_ms(row)
    return None if operations is None or ms is None else operations / ms * 1e3


def compute_ms(row: Row) -> float | None:
    """Milliseconds of a batch: without copies, where the session times them apart; None where it was not run."""
    return row.figures.get("compute_p50_ms") or row.figures.get("p50_ms")
