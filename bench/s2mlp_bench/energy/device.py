"""Readings of a device: power, energy, clocks, temperature and throttling.

A figure that cannot be read is None, never zero, and ``unknown`` gives the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, TypeVar

T = TypeVar("T")
Kind: TypeAlias = Literal["cpu", "gpu", "board"]
"""What a sensor measures; a board is all of a small computer, processor and GPU together."""


@dataclass(frozen=True)
class State:
    """The readings of a sensor at one moment.

    ``scope``: the part of the machine that power and energy are measured for.
    ``energy_j``: a counter, of which only differences mean something.
    ``clock_mhz``: of the GPU's multiprocessors, or of the fastest core of a processor.
    ``throttling``: the reasons that hold the clocks back at this moment; empty where there are none.
    ``throttle_counts``: by the same reasons, counters that grow only while it holds the clocks back, in units of the device.
    ``busy``: whether the device was at work; the clock of an idle device means little.
    ``power_mode``: the user's settings: limits, modes, governors.
    """

    device: str
    scope: str
    power_w: float | None = None
    energy_j: float | None = None
    clock_mhz: float | None = None
    clock_max_mhz: float | None = None
    memory_clock_mhz: float | None = None
    memory_clock_max_mhz: float | None = None
    temperature_c: float | None = None
    throttling: tuple[str, ...] | None = None
    throttle_counts: Mapping[str, int] | None = None
    busy: bool | None = None
    power_mode: str | None = None
    unknown: tuple[str, ...] = ()

    @property
    def silent(self) -> bool:
        """Whether nothing of what a report shows could be read."""
        figures = (
            self.power_w,
            self.energy_j,
            self.clock_mhz,
            self.temperature_c,
            self.throttling,
            self.throttle_counts,
        )
        return all(figure is None for figure in figures)


class Sensor(Protocol):
    """Something that can be read again and again until it is closed."""

    name: str
    kind: Kind
    lag_s: float
    """How old a power reading can be, or over how long it is averaged, in seconds."""

    def read(self) -> State:
        """The state now; never raises."""
        ...

    def close(self) -> None:
        """Release the resources that reading needs; never raises."""
        ...


class UnreadableError(Exception):
    """There is no figure to read; ``str()`` gives the reason."""


@dataclass
class Reader:
    """Reads figures one by one, and keeps the reasons for those that cannot be read.

    ``errors`` are what a figure's source raises on purpose.
    """

    errors: tuple[type[Exception], ...]
    unknown: list[str] = field(default_factory=list)

    def __call__(self, what: str, read: Callable[[], T]) -> T | None:
        """What ``read`` returns, or None, with the reason kept as "``what``: reason"."""
        expected: tuple[type[Exception], ...] = (UnreadableError, *self.errors)
        try:
            return read()
        except expected as error:
            self.unknown.append(f"{what}: {reason(error)}")
            return None


def reason(error: Exception) -> str:
    """An error on one line, without the file that a system error names."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    elif isinstance(error, KeyError):
        text = f"no entry {error}"
    return " ".join(text.split()) or type(error).__name__
