"""Interleaved measurement: every candidate once a round, in an order that is drawn anew each round.

A machine drifts: clocks throttle, neighbours come and go. Candidates in the same round run under nearly
the same conditions, so ratios are formed within a round and only then summarised.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Clock: TypeAlias = Callable[[], float]
"""Seconds since any fixed moment."""

_TAIL = Fraction(1, 40)
"""The share that the 95% interval leaves out on each side."""


def interleave(
    candidates: Mapping[str, Callable[[], T]],
    *,
    rounds: int,
    rng: random.Random,
    warmup: int = 0,
    announce: Callable[[str], None] = lambda text: None,
) -> dict[str, tuple[T, ...]]:
    """The samples of each candidate in each of ``rounds`` rounds, after ``warmup`` rounds that are dropped.

    The i-th samples of all candidates are from the same round. ``announce`` is called with the number of each round.
    """
    samples: dict[str, list[T]] = {name: [] for name in candidates}
    for i in range(-warmup, rounds):
        announce(f"round {i + 1} of {rounds}" if i >= 0 else f"warm-up {i + warmup + 1} of {warmup}")
        for name in rng.sample(list(candidates), len(candidates)):
            sample = candidates[name]()
            if i >= 0:
                samples[name].append(sample)
    return {name: tuple(values) for name, values in samples.items()}


def timed_ms(call: Callable[[], object], clock: Clock) -> Callable[[], float]:
    """A candidate that runs ``call`` and returns how many milliseconds it took by ``clock``."""

    def candidate() -> float:
        start = clock()
        call()
        return (clock() - start) * 1e3

    return candidate


@dataclass(frozen=True)
class Estimate:
    """A median, and the ends of its 95% confidence interval (of all samples, where they are fewer than six)."""

    median: float
    low: float
    high: float


def estimate(samples: Sequence[float]) -> Estimate:
    """The median of ``samples`` with an interval that assumes nothing about their distribution.

    The median lies below the k-th smallest of n samples with the probability that fewer than k of n
    fair coins show heads; k is the largest number for which that is at most 2.5%.
    """
    n = len(samples)
    k, binomial = 0, 1
    below = binomial  # of 2ⁿ ways in which coins fall, those with at most k heads; integers, which do not overflow
    while below <= _TAIL * 2**n:
        k += 1
        binomial = binomial * (n - k + 1) // k
        below += binomial
    ordered = sorted(samples)
    outer = max(k, 1)
    return Estimate(median(ordered), ordered[outer - 1], ordered[n - outer])


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """The estimate of ``numerators / denominators``, formed round by round."""
    return estimate([a / b for a, b in zip(numerators, denominators, strict=True)])
