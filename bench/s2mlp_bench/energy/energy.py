"""Measure the energy an image takes. The candidate runs alone for it, since a counter cannot separate candidates that take turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, TypeAlias

from s2mlp_bench.energy.device import Sensor
from s2mlp_deploy.system.timing import Clock

Source: TypeAlias = Literal["counter", "samples"]

SAMPLE_S = 0.1
"""How often power is sampled where there is no counter."""


@dataclass(frozen=True)
class Energy:
    """Energy of ``images`` images in ``seconds``, by the difference of a counter or the mean of ``samples`` of power.

    It is all that ``scope`` took, whoever it was for. ``idle_w`` is its power right before, when nothing ran, and
    ``joules_per_image_above_idle`` leaves that out; both are None where the idle power could not be measured.
    """

    device: str
    scope: str
    source: Source
    samples: int | None
    seconds: float
    images: int
    joules_per_image: float
    joules_per_image_above_idle: float | None
    mean_w: float
    idle_w: float | None


@dataclass(frozen=True)
class Pace:
    """The clock, the way to wait, and the seconds between two samples of power."""

    clock: Clock = time.perf_counter
    sleep: Callable[[float], object] = time.sleep
    sample_s: float = SAMPLE_S


@dataclass(frozen=True)
class _Spent:
    """Mean power over a stretch of time in which something was done ``count`` times."""

    watts: float
    seconds: float
    count: int
    samples: int | None = None


def measure_energy(
    call: Callable[[], object],
    *,
    images: int,
    sensor: Sensor,
    seconds: float,
    pace: Pace | None = None,
) -> Energy | None:
    """The energy of ``call``, which runs ``images`` images, repeated for ``seconds``; None without energy or power.

    The idle power is measured before for as long. A counter moves in steps of up to 0.1 s, so some seconds are needed.
    """
    pace = pace or Pace()
    clock, sleep, sample_s = pace.clock, pace.sleep, pace.sample_s
    state = sensor.read()
    sources: list[tuple[Source, Callable[[Callable[[], int]], _Spent | None]]] = []
    if state.energy_j is not None:
        sources.append(("counter", lambda does: _by_counter(sensor, does, clock)))
    if state.power_w is not None:  # for a counter that stands still, too: it does not work
        sources.append(("samples", lambda does: _by_samples(sensor, does, clock, sample_s)))

    def rest() -> int:
        sleep(seconds)
        return 0

    for source, spend in sources:
        sleep(sensor.lag_s)
        idle = spend(rest)
        _repeat(call, sensor.lag_s, clock)
        busy = spend(lambda: _repeat(call, seconds, clock))
        if busy is not None:
            per_image = busy.seconds / (busy.count * images)
            return Energy(
                state.device,
                state.scope,
                source,
                busy.samples,
                busy.seconds,
                busy.count * images,
                busy.watts * per_image,
                None if idle is None else (busy.watts - idle.watts) * per_image,
                busy.watts,
                None if idle is None else idle.watts,
            )
    return None


def _repeat(call: Callable[[], object], seconds: float, clock: Clock) -> int:
    """Call until ``seconds`` are over, at least once; how often."""
    start = clock()
    count = 0
    while not count or clock() - start < seconds:
        call()
        count += 1
    return count


def _by_counter(sensor: Sensor, does: Callable[[], int], clock: Clock) -> _Spent | None:
    before = sensor.read().energy_j
    start = clock()
    count = does()
    elapsed = clock() - start
    after = sensor.read().energy_j
    if before is None or after is None or after <= before:
        return None
    return _Spent((after - before) / elapsed, elapsed, count)


def _by_samples(sensor: Sensor, does: Callable[[], int], clock: Clock, sample_s: float) -> _Spent | None:
    with _Sampler(sensor, sample_s) as sampler:
        start = clock()
        count = does()
        elapsed = clock() - start
    if not sampler.watts:
        return None
    return _Spent(sum(sampler.watts) / len(sampler.watts), elapsed, count, len(sampler.watts))


class _Sampler:
    """Reads power in a thread of its own until the block ends; nobody else may read the sensor then."""

    def __init__(self, sensor: Sensor, every_s: float) -> None:
        self.watts: list[float] = []
        self._gauge, self._every_s = sensor, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="power samples", daemon=True)

    def __enter__(self) -> _Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            watts = self._gauge.read().power_w
            if watts is not None:
                self.watts.append(watts)
