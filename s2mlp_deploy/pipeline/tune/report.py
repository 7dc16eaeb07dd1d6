"""The report of a tune: every candidate with its figures and its outcome."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from s2mlp_deploy.pipeline.tune.candidates import Excluded
from s2mlp_deploy.pipeline.tune.decision import Figures, Miss
from s2mlp_deploy.system.timing import Estimate

Outcome: TypeAlias = Literal[
    "taken", "level", "slower", "larger", "more energy", "beyond a limit", "refused", "not tried"
]

VERSION = 1


@dataclass(frozen=True)
class Row:
    """One candidate. ``times_as_long`` compares it with the fastest of its race, round by round; ``reason`` is why it was not taken.

    ``on_front`` says that no other timed candidate is as fast and loses less accuracy (is smaller, where that was not measured).
    """

    name: str
    build: str
    format: str
    precision: str
    flags: tuple[str, ...]
    threads: int | None
    outcome: Outcome
    reason: str = ""
    lowering: str | None = None
    figures: Figures | None = None
    milliseconds: Estimate | None = None
    times_as_long: Estimate | None = None
    rounds: int = 0
    millijoules: Estimate | None = None
    misses: tuple[Miss, ...] = ()
    on_front: bool = False


@dataclass(frozen=True)
class Method:
    """How candidates were timed, and how many of them in each lap of each race."""

    batch: int
    input: str
    cores: int
    laps: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class TuneReport:
    """All candidates, those left out, and the decision in words. ``taken`` is None where none keeps the limits."""

    tool_version: str
    source_sha256: str
    objective: str
    limits: Mapping[str, float | None]
    taken: str | None
    decision: str
    rows: tuple[Row, ...]
    excluded: tuple[Excluded, ...]
    method: Method | None
    machine: Mapping[str, str | int]
    packages: Mapping[str, str]
    seconds: float

    @property
    def row(self) -> Row | None:
        """The candidate that was taken."""
        return next((row for row in self.rows if row.name == self.taken), None)

    @property
    def timed(self) -> tuple[Row, ...]:
        """The candidates with times, the fastest first."""
        return tuple(sorted((row for row in self.rows if row.milliseconds), key=_median))

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {"schema_version": VERSION, **asdict(self)}

    def to_json(self) -> str:
        """The report as its file holds it."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"


def _median(row: Row) -> float:
    assert row.milliseconds
    return row.milliseconds.median


def front(rows: Sequence[Row]) -> frozenset[str]:
    """The names of the Pareto front of latency and lost accuracy; of latency and size where accuracy was not measured for all."""
    timed = [row for row in rows if row.milliseconds and row.figures]
    accurate = all(row.figures and row.figures.accuracy_drop is not None for row in timed)
    found: set[str] = set()
    best: float | None = None
    for row in sorted(timed, key=lambda row: (_median(row), _cost(row, accurate=accurate))):
        cost = _cost(row, accurate=accurate)
        if best is None or cost < best:
            found.add(row.name)
            best = cost
    return frozenset(found)


def _cost(row: Row, *, accurate: bool) -> float:
    assert row.figures
    return (row.figures.accuracy_drop or 0.0) if accurate else row.figures.size_bytes
