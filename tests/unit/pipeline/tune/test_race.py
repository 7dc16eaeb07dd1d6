"""Successive halving by a clock that the candidates themselves move on: what is dropped, what is kept, when it ends."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from s2mlp_deploy.pipeline.tune.race import FIRST_LAP, MARGIN, MOST_ROUNDS, Race, Standing
from s2mlp_deploy.system.timing import Estimate


class FakeTime:
    """A clock that stands still but for the calls that take time by it."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self._rng = random.Random(seed)

    def __call__(self) -> float:
        return self.now

    def taking(self, milliseconds: float, noise: float = 0.0) -> Callable[[], None]:
        """A call of so many milliseconds, give or take a share of ``noise``."""

        def call() -> None:
            self.now += milliseconds / 1e3 * (1 + noise * self._rng.uniform(-1, 1))

        return call


def race(times_ms: dict[str, float], *, noise: float = 0.05, seconds: float = 60.0, seed: int = 0) -> Standing:
    clock = FakeTime(seed)
    return Race({name: clock.taking(ms, noise) for name, ms in times_ms.items()}, seconds, clock).run()


def test_slow_candidates_leave_after_the_first_lap_and_the_fastest_stays() -> None:
    standing = race({"a": 10, "b": 20, "c": 30, "d": 40, "e": 50, "f": 10.4})
    assert standing.fastest == "a" and set(standing.running) <= {"a", "b", "f"}
    assert standing.laps[0] == 6 and list(standing.laps) == sorted(standing.laps, reverse=True)
    assert len(standing.samples_ms["e"]) == FIRST_LAP < len(standing.samples_ms["a"])
    assert standing.times_as_long("e", "a").median == pytest.approx(5, rel=0.05)


def test_at_most_half_leave_in_a_lap() -> None:
    standing = race({name: 10.0 * (i + 1) for i, name in enumerate("abcdefgh")})
    assert all(after >= before / 2 for before, after in zip(standing.laps, standing.laps[1:], strict=False))


def test_equals_are_never_dropped_and_the_race_ends_when_that_is_known() -> None:
    standing = race({"a": 10, "b": 10, "c": 10.05}, noise=0.03)
    assert set(standing.running) == {"a", "b", "c"}
    assert not any(standing.is_slower(name, standing.fastest) for name in "abc")
    assert len(standing.samples_ms["a"]) < MOST_ROUNDS
    assert all(standing.times_as_long(name, standing.fastest).high < MARGIN for name in "abc")


def test_a_difference_above_the_margin_is_found_in_noise_that_is_larger() -> None:
    for seed in range(10):
        standing = race({"a": 10, "b": 10.5}, noise=0.2, seed=seed)
        assert standing.fastest == "a" and standing.is_slower("b", "a"), seed


def test_the_time_is_kept_but_for_the_first_lap() -> None:
    standing = race({"a": 1000, "b": 1001}, noise=0.5, seconds=1.0)
    assert standing.laps == (2,) and len(standing.samples_ms["a"]) == FIRST_LAP
    longer = race({"a": 1000, "b": 1001}, noise=0.5, seconds=60.0)
    assert FIRST_LAP < len(longer.samples_ms["a"]) <= 60.0 / 2.0 + 1


def test_two_races_of_the_same_candidates_agree() -> None:
    times = {"a": 10, "b": 10.1, "c": 10.5, "d": 14}
    found = [race(times, noise=0.1, seed=seed) for seed in range(5)]
    for standing in found:
        assert standing.fastest in ("a", "b")
        level = [n for n in standing.running if not standing.is_slower(n, standing.fastest)]
        assert level == ["a", "b"]


def test_samples_of_one_round_are_compared_though_one_left_earlier() -> None:
    standing = Standing({"a": (1, 1, 1, 2, 2), "b": (2, 2, 2)}, ("a",), ())
    assert standing.times_as_long("b", "a") == Estimate(2, 2, 2)


def test_one_candidate_alone_runs_one_lap() -> None:
    standing = race({"a": 5})
    assert standing.laps == (1,) and standing.fastest == "a"
