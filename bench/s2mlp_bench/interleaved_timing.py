"""Timing in rounds: every candidate once a round, in an order drawn anew, after a warm-up that ends when times have settled."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from s2mlp_deploy.cli import signals
from s2mlp_deploy.system.timing import Clock

NOTHING = "(nothing)"
"""A session that does nothing, timed like the others: what measuring itself takes."""

SETTLED = 0.02
"""The warm-up ends when the medians of two windows in a row differ by no more than this share, for everyone."""

WINDOW, LONGEST_WARMUP = 5, 30

FEWEST_ROUNDS = 6
"""With fewer, no 95% interval of a median is narrower than all samples."""


@dataclass(frozen=True)
class Schedule:
    """How long to measure: until both ``seconds`` and ``rounds`` are reached. ``seed`` draws the orders."""

    seconds: float = 10.0
    rounds: int = 30
    seed: int = 0


@dataclass(frozen=True)
class Record:
    """Milliseconds a batch by candidate, in the order of the rounds; the i-th of all are from one round.

    ``complete`` is False where measuring was interrupted.
    """

    samples_ms: dict[str, tuple[float, ...]]
    warmup_rounds: int
    complete: bool


def nothing(clock: Clock) -> float:
    """A candidate that does nothing."""
    start = clock()
    return (clock() - start) * 1e3


@dataclass
class InterleavedTiming:
    """Times every runner once a round, in an order that is drawn anew each round."""

    runners: dict[str, Callable[[Clock], float]]
    schedule: Schedule
    clock: Clock = time.perf_counter
    started: Callable[[], object] = lambda: None
    """Is called between the warm-up and the first round that counts."""
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.schedule.seed)

    def run(self) -> Record:
        """Warm up until times have settled, then measure; samples from before an interruption are kept."""
        samples: dict[str, list[float]] = {name: [] for name in self.runners}
        complete, warmup = True, 0
        try:
            warmup = self._warm_up()
            self.started()
            start = self.clock()
            count = 0
            while count < self.schedule.rounds or self.clock() - start < self.schedule.seconds:
                for name, milliseconds in self._round().items():
                    samples[name].append(milliseconds)
                count += 1
        except KeyboardInterrupt:
            signals.take()
            complete = False
        return Record({name: tuple(values) for name, values in samples.items()}, warmup, complete)

    def _warm_up(self) -> int:
        rounds: list[dict[str, float]] = []
        while len(rounds) < LONGEST_WARMUP and not _settled(rounds):
            rounds.append(self._round())
        return len(rounds)

    def _round(self) -> dict[str, float]:
        """A whole round or none: an interruption in the middle would leave some with a sample more."""
        order = self._rng.sample(list(self.runners), len(self.runners))
        return {name: self.runners[name](self.clock) for name in order}


def _settled(rounds: Sequence[dict[str, float]]) -> bool:
    if len(rounds) < 2 * WINDOW:
        return False
    return all(abs(now - before) <= SETTLED * before for before, now in _medians_of_two_windows(rounds))


def _medians_of_two_windows(rounds: Sequence[dict[str, float]]) -> Iterator[tuple[float, float]]:
    for name in rounds[0]:
        if name != NOTHING:
            times: list[Any] = [r[name] for r in rounds[-2 * WINDOW :]]
            yield median(times[:WINDOW]), median(times[WINDOW:])
