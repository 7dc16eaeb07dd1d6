"""Time candidates in rounds, and let those go that are shown to be slower: successive halving.

After each lap, which has twice as many rounds as the one before, up to half of the candidates leave: the slower ones, and of
these only those that are shown to be slower than the fastest by more than :data:`MARGIN`. So a candidate is never dropped for noise,
and slow ones cost few rounds. The race ends when nothing is left to decide, or when its time is over.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TypeAlias

from s2mlp_deploy.system.timing import Clock, Estimate, estimate, interleave, ratio, timed_ms

MARGIN = 1.02
"""A candidate is slower where it takes that many times as long as another, beyond the interval."""

WARMUP = 3
FIRST_LAP = 8
"""Rounds; with fewer than six, no 95% interval of a median is narrower than all samples."""

MOST_ROUNDS = 2000
SEED = 0


Sampling: TypeAlias = Callable[[Callable[[], object], Clock], Callable[[], float]]
"""Makes a call, given a clock, one that returns its cost."""


@dataclass(frozen=True)
class Standing:
    """Milliseconds of each candidate in the rounds that it ran, from the first on; the i-th of all are from one round.

    ``running`` are those that were not dropped, ``laps`` the number of candidates in each lap.
    """

    samples_ms: Mapping[str, Sequence[float]]
    running: tuple[str, ...]
    laps: tuple[int, ...]

    @property
    def fastest(self) -> str:
        """The candidate with the least median of those that ran to the end."""
        return min(self.running, key=lambda name: median(self.samples_ms[name]))

    def milliseconds(self, name: str) -> Estimate:
        """The time of a batch."""
        return estimate(self.samples_ms[name])

    def times_as_long(self, name: str, other: str) -> Estimate:
        """How many times as long as ``other`` the candidate takes, round by round."""
        mine, its = self.samples_ms[name], self.samples_ms[other]
        rounds = min(len(mine), len(its))
        return ratio(mine[:rounds], its[:rounds])

    @property
    def decided(self) -> bool:
        """Whether of each candidate that runs on it is known on which side of the margin it is."""
        fastest = self.fastest
        others = (name for name in self.running if name != fastest)
        return all(self.is_slower(n, fastest) or self.times_as_long(n, fastest).high < MARGIN for n in others)

    def is_slower(self, name: str, other: str) -> bool:
        """Whether it is shown to take longer by more than :data:`MARGIN`: in all rounds beyond the interval, and in their later half.

        Each lap is a further chance for noise to show a difference; the rounds that came last have not been looked at before.
        """
        mine, its = self.samples_ms[name], self.samples_ms[other]
        half, rounds = min(len(mine), len(its)) // 2, min(len(mine), len(its))
        return self.times_as_long(name, other).low >= MARGIN <= ratio(mine[half:rounds], its[half:rounds]).median


@dataclass
class Race:
    """A race of ``calls``, which each run a candidate once, for about ``seconds`` at most.

    ``sampling`` makes a call one that returns its cost: milliseconds, unless another is given. Of whatever cost, the least wins.
    """

    calls: Mapping[str, Callable[[], object]]
    seconds: float
    clock: Clock = time.perf_counter
    announce: Callable[[str], object] = lambda text: None
    sampling: Sampling = timed_ms
    _rng: random.Random = field(default_factory=lambda: random.Random(SEED))

    def run(self) -> Standing:
        """Time all candidates until the race is decided. The first lap is always run to its end."""
        calls = {name: self.sampling(call, self.clock) for name, call in self.calls.items()}
        samples: dict[str, list[float]] = {name: [] for name in calls}
        standing = Standing(samples, tuple(calls), ())
        start = self.clock()
        rounds = FIRST_LAP
        while rounds:
            self.announce(f"{len(standing.running)} candidates, {rounds} rounds")
            before = self.clock()
            lap = interleave(
                {name: calls[name] for name in standing.running},
                rounds=rounds,
                rng=self._rng,
                warmup=WARMUP if not standing.laps else 0,
            )
            for name, values in lap.items():
                samples[name] += values
            per_round = (self.clock() - before) / rounds
            standing = _after_lap(standing)
            left = self.seconds - (self.clock() - start)
            rounds = 0 if standing.decided else _next_lap(standing, left, per_round)
        return standing


def _next_lap(standing: Standing, seconds: float, per_round: float) -> int:
    """The rounds of the next lap: twice as many as have been run, if there is time."""
    run = len(standing.samples_ms[standing.fastest])
    possible = int(seconds / per_round) if per_round > 0 else run
    return max(0, min(run, possible, MOST_ROUNDS - run))


def _after_lap(standing: Standing) -> Standing:
    """``standing`` without those that leave now."""
    fastest = standing.fastest
    by_time = sorted(standing.running, key=lambda name: standing.times_as_long(name, fastest).median)
    half = (len(by_time) + 1) // 2
    leaving = {name for name in by_time[half:] if standing.is_slower(name, fastest)}
    running = tuple(name for name in standing.running if name not in leaving)
    return Standing(standing.samples_ms, running, (*standing.laps, len(standing.running)))
