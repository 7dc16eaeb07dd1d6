"""Interleaved measurement and its ratios, on clocks that only pass when told to."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from s2mlp_deploy.system.timing import estimate, interleave, ratio, timed_ms


class FakeClock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def order_of_calls(seed: int, *, rounds: int = 6, warmup: int = 0) -> list[str]:
    calls: list[str] = []
    candidates = {name: (lambda name=name: calls.append(name)) for name in "abcde"}
    interleave(candidates, rounds=rounds, warmup=warmup, rng=random.Random(seed))
    return calls


def test_every_candidate_runs_once_a_round() -> None:
    calls = order_of_calls(0, rounds=6, warmup=2)
    assert len(calls) == 8 * 5
    for start in range(0, len(calls), 5):
        assert Counter(calls[start : start + 5]) == Counter("abcde")


def test_the_seed_fixes_an_order_that_changes_from_round_to_round() -> None:
    calls = order_of_calls(1)
    assert calls == order_of_calls(1)
    assert calls != order_of_calls(2)
    assert len({tuple(calls[i : i + 5]) for i in range(0, len(calls), 5)}) > 1


def test_samples_are_in_rounds_and_without_the_warm_up() -> None:
    count = iter(range(100))
    announced: list[str] = []
    samples = interleave(
        {"only": lambda: next(count)}, rounds=3, warmup=2, rng=random.Random(0), announce=announced.append
    )
    assert samples == {"only": (2, 3, 4)}
    assert announced == ["warm-up 1 of 2", "warm-up 2 of 2", "round 1 of 3", "round 2 of 3", "round 3 of 3"]


def test_a_timed_call_is_measured_in_milliseconds() -> None:
    clock = FakeClock()

    def call() -> None:
        clock.now += 0.25

    assert timed_ms(call, clock)() == 250.0


def test_ratios_of_interleaved_runs_survive_a_machine_that_slows_down() -> None:
    """The machine becomes four times slower; the truth stays 1.3. One after the other would be far off."""
    clock = FakeClock()
    drift = 0.0015  # by what share of its first speed the machine slows down each second

    def candidate(cost_s: float) -> Callable[[], float]:
        def call() -> None:
            clock.now += cost_s * (1 + drift * clock.now)

        return timed_ms(call, clock)

    candidates = {"slow": candidate(1.3), "fast": candidate(1.0)}
    samples = interleave(candidates, rounds=400, rng=random.Random(3))
    assert samples["fast"][-1] > 3 * samples["fast"][0]
    assert ratio(samples["slow"], samples["fast"]).median == pytest.approx(1.3, rel=0.005)

    clock.now = 0.0
    one_after_the_other = {name: [call() for _ in range(400)] for name, call in candidates.items()}
    assert not 1.2 < ratio(one_after_the_other["slow"], one_after_the_other["fast"]).median < 1.4


@pytest.mark.parametrize(
    ("count", "rank"),
    [
        (1, 1),
        (5, 1),
        (6, 1),
        (8, 1),
        (9, 2),
        (25, 8),
        (100, 40),
        (5000, 2431),
    ],  # tables of the sign test, 5%, two-sided
)
def test_the_interval_has_the_ranks_of_the_sign_test(count: int, rank: int) -> None:
    samples = list(range(1, count + 1))
    random.Random(0).shuffle(samples)
    found = estimate(samples)
    assert (found.low, found.high) == (rank, count + 1 - rank)
    assert found.median == (count + 1) / 2


def test_the_interval_covers_the_true_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = [e.low <= 1 <= e.high for e in (estimate(list(np.exp(rng.standard_normal(25)))) for _ in range(1000))]
    assert 0.93 < np.mean(covered) < 0.99


def test_ratios_refuse_samples_of_different_rounds() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0, 2.0], [1.0])
