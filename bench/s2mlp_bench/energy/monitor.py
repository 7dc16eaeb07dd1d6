"""Reads device sensors before, during and after timing, and reports throttling and changes of mode or clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from s2mlp_bench.energy.device import Sensor, State
from s2mlp_deploy.system.timing import Clock

FALL = 0.10
"""A clock that was higher by more than this share of itself has fallen: less comes and goes with every load."""

EVERY_S = 1.0
"""How far apart looks are at least: reading takes milliseconds."""


@dataclass(frozen=True)
class Condition:
    """One device before and after, and the throttling and noise found in all ``looks`` at it, these two included.

    ``throttled``: the reasons that held its clocks back; empty where nothing did, None without such a sensor.
    ``noise``: signs that it changed meanwhile, in words; empty where there are none.
    """

    before: State
    after: State
    looks: int
    throttled: tuple[str, ...] | None
    noise: tuple[str, ...]


class Monitor:
    """Reads the sensors' states when created, on :meth:`look`, and on :meth:`end`.

    Make it when the devices are warm and end it before they rest, as the clocks of an idle device mean nothing.
    """

    def __init__(self, sensors: Sequence[Sensor], *, clock: Clock = time.monotonic, every_s: float = EVERY_S) -> None:
        self._gauges, self._clock, self._every_s = sensors, clock, every_s
        self._states = [[sensor.read()] for sensor in sensors]
        self._last = clock()

    def look(self) -> None:
        """Read the states in between, where nothing is timed; nothing happens if that was less than ``every_s`` ago."""
        if self._clock() - self._last >= self._every_s:
            self._read()

    def end(self) -> tuple[Condition, ...]:
        """Read the states for the last time; a condition for each sensor, in their order."""
        self._read()
        return tuple(condition(states) for states in self._states)

    def _read(self) -> None:
        for sensor, states in zip(self._gauges, self._states, strict=True):
            states.append(sensor.read())
        self._last = self._clock()


def condition(states: Sequence[State]) -> Condition:
    """The condition of one device, from two or more states in the order of time."""
    before, after = states[0], states[-1]
    throttled = _throttled(states)
    noise = [f"{before.device}: held back by {words}" for words in throttled or ()]
    noise += [f"{before.device}: {words}" for words in _changes(states)]
    return Condition(before, after, len(states), throttled, tuple(noise))


def _throttled(states: Sequence[State]) -> tuple[str, ...] | None:
    """Throttling seen in a state, or counted between two states."""
    if all(state.throttling is None and state.throttle_counts is None for state in states):
        return None
    found = [words for state in states for words in state.throttling or ()]
    counted = [state.throttle_counts for state in states if state.throttle_counts is not None]
    if counted:
        found += [words for words, count in counted[-1].items() if count > counted[0].get(words, count)]
    return tuple(dict.fromkeys(found))


def _changes(states: Sequence[State]) -> Iterator[str]:
    modes = [state.power_mode for state in states if state.power_mode is not None]
    changed = [mode for mode in modes if mode != modes[0]]
    if changed:
        yield f"its power mode changed from {modes[0]} to {changed[0]}"
    highest, fall = 0.0, (0.0, 0.0)
    for mhz in (state.clock_mhz for state in states if state.busy):
        if mhz is None:
            continue
        if mhz < (1 - FALL) * highest and highest - mhz > fall[0] - fall[1]:
            fall = highest, mhz
        highest = max(highest, mhz)
    if fall[0]:
        yield f"its clock fell from {fall[0]:.0f} to {fall[1]:.0f} MHz"
