"""What the samples of a race say: figures of each entry, its ratio to the first, and whether the machine held still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from bench.cold import Cold
from bench.contest import NOTHING, Entry, Record
from s2mlp_deploy.timing import Estimate, ratio

SPREAD = 0.10
"""Half of an entry's times lie within this share of its median on a machine that is quiet enough."""

DRIFT = 0.05
"""How far the second half's median may be from the first half's."""

FEWEST_ROUNDS = 6
"""With fewer, no 95% interval of a median is narrower than all samples."""


@dataclass(frozen=True)
class Figures:
    """One entry: milliseconds a batch, and how many times as fast as the first it is, round by round."""

    name: str
    bundle: str
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    minimum_ms: float
    images_per_s: float
    speed: Estimate
    size_bytes: int
    cold: Cold | None

    @property
    def differs(self) -> bool:
        """Whether a difference from the first entry is shown."""
        return not self.speed.low <= 1 <= self.speed.high


@dataclass(frozen=True)
class Standing:
    """All entries; what measuring itself takes; and what speaks against the machine having been quiet (nothing: stable)."""

    figures: tuple[Figures, ...]
    overhead_ms: float
    rounds: int
    warmup_rounds: int
    complete: bool
    noise: tuple[str, ...]

    @property
    def stable(self) -> bool:
        """Whether the machine was quiet enough for the figures to be repeated."""
        return not self.noise


def standing(entries: Sequence[Entry], record: Record, cold: Sequence[Cold | None]) -> Standing:
    """The standing of ``entries`` from at least one whole round."""
    first = record.samples_ms[entries[0].name]
    figures = tuple(
        _figures(entry, record.samples_ms[entry.name], first, start) for entry, start in zip(entries, cold, strict=True)
    )
    noise = tuple(text for entry in entries for text in _noise(entry.name, record.samples_ms[entry.name]))
    return Standing(
        figures, median(record.samples_ms[NOTHING]), len(first), record.warmup_rounds, record.complete, noise
    )  # fmt: skip


def _figures(entry: Entry, samples: Sequence[float], first: Sequence[float], cold: Cold | None) -> Figures:
    p50, p90, p99 = (float(value) for value in np.percentile(samples, [50, 90, 99]))
    return Figures(
        entry.name, entry.bundle.directory.name, p50, p90, p99, float(np.mean(samples)), min(samples), 1e3 * entry.batch / p50, ratio(first, samples),
        entry.bundle.size_bytes, cold,
    )  # fmt: skip


def _noise(name: str, samples: Sequence[float]) -> list[str]:
    found = []
    low, middle, high = (float(value) for value in np.percentile(samples, [25, 50, 75]))
    if (high - low) / middle > SPREAD:
        found.append(f"{name}: the middle half of its times spreads over {(high - low) / middle:.0%} of the median")
    half = len(samples) // 2
    if half >= FEWEST_ROUNDS:
        drift = median(samples[half:]) / median(samples[:half]) - 1
        if abs(drift) > DRIFT:
            found.append(f"{name}: {drift:+.0%} from the first half to the second")
    return found
