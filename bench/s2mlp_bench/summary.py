"""Summarize samples: figures of each candidate, its ratio to the first, and whether the machine was stable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from s2mlp_bench.candidate import Kind, Point
from s2mlp_bench.cold_start import ColdStart
from s2mlp_bench.interleaved_timing import FEWEST_ROUNDS, NOTHING, Record
from s2mlp_bench.report import names
from s2mlp_bench.report.section import Cell
from s2mlp_bench.runner import Runner
from s2mlp_deploy.runtime.session import Times
from s2mlp_deploy.system.timing import Estimate, ratio

SPREAD = 0.10
"""Half of a candidate's times lie within this share of its median on a machine that is quiet enough."""

DRIFT = 0.05
"""How far the second half's median may be from the first half's."""


@dataclass(frozen=True)
class Figures:
    """One candidate: milliseconds a batch, and how many times as fast as the first it is, image for image, round by round.

    ``comparable`` is False where it computes another network, which ``remark`` states. ``of_bound`` is the share of its
    time that its matrix products take alone, and ``on_device`` the parts of its time by the device's own clock, by which it is
    ``device_speed`` times as fast as the first, copies left out;
    ``distance`` that of its worst logits from those expected. None: not known. ``accuracy_inherited`` states
    that ``accuracy`` was measured on the bundle that this engine was built from.
    """

    name: str
    source: str
    kind: Kind
    point: Point
    precision: str
    remark: str
    comparable: bool
    distance: float | None
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    minimum_ms: float
    images_per_s: float
    operations_per_s: float | None
    speed: Estimate
    of_bound: Estimate | None
    on_device: Times | None
    size_bytes: int
    cold: ColdStart | None
    accuracy: float | None
    accuracy_inherited: bool = False
    device_speed: Estimate | None = None

    @property
    def compute_ms(self) -> float:
        """Milliseconds of a batch: without copies, where the device has a clock of its own."""
        return self.on_device.compute_ms if self.on_device else self.p50_ms

    @property
    def differs(self) -> bool:
        """Whether a difference from the first candidate is shown."""
        return not self.speed.low <= 1 <= self.speed.high


@dataclass(frozen=True)
class Summary:
    """All bundles and baselines; what measuring itself takes; and signs that the machine was not quiet
    (none: stable)."""

    figures: tuple[Figures, ...]
    overhead_ms: float
    rounds: int
    warmup_rounds: int
    complete: bool
    noise: tuple[str, ...]

    @property
    def swept(self) -> tuple[str, ...]:
        """The settings in which candidates differ; in tables each has a column."""
        points = zip(*(f.point.all_settings for f in self.figures), strict=True)
        return tuple(same[0].heading for same in points if len({setting.value for setting in same}) > 1)

    @property
    def shared(self) -> tuple[str, ...]:
        """The settings that all candidates have in common, in words; tables name them once."""
        first = self.figures[0].point.all_settings
        return tuple(setting.words for setting in first if setting.given and setting.heading not in self.swept)

    @property
    def prefix(self) -> str:
        """The shared beginning of all bundles' names; tables and pictures leave it out, and note that."""
        prefix = names.shared_prefix([f.source for f in self.figures if f.kind == "bundle"])
        sources = {f.source for f in self.figures}
        shortened = {names.without(prefix, source) for source in sources}
        return prefix if len(shortened) == len(sources) else ""

    @property
    def shortening(self) -> tuple[str, ...]:
        """A sentence about what names leave out, if they do."""
        return (f'Names leave out what all bundles\' names begin with, "{self.prefix}".',) if self.prefix else ()

    def short(self, f: Figures) -> str:
        """A candidate's name beside the others, without its settings."""
        return names.without(self.prefix, f.source)

    def settings(self, f: Figures) -> tuple[str, ...]:
        """The settings in which candidates differ, in words."""
        return tuple(setting.words for setting in f.point.all_settings if setting.heading in self.swept)

    def label(self, f: Figures) -> str:
        """A candidate's name in a sentence, without what all share."""
        return ", ".join([self.short(f), *self.settings(f)])

    def keys(self, f: Figures) -> list[Cell]:
        """The first cells of a candidate's row: its name, and a cell for each of :attr:`swept`."""
        return [self.short(f), *(s.value for s in f.point.all_settings if s.heading in self.swept)]

    def remarks(self, figures: Iterable[Figures]) -> list[tuple[str, str]]:
        """The remarks on ``figures``, by name; once for all settings where they are the same."""
        said: dict[str, set[str]] = {}
        for f in self.figures:
            said.setdefault(f.source, set()).add(f.remark)
        named = ((self.short(f) if len(said[f.source]) == 1 else self.label(f), f.remark) for f in figures)
        return list(dict.fromkeys((name, remark) for name, remark in named if remark))

    @property
    def stable(self) -> bool:
        """Whether the machine was quiet enough for the figures to be repeated."""
        return not self.noise


def summarize(
    runners: Sequence[Runner], record: Record, cold: Mapping[tuple[str, Point], ColdStart], noise: Sequence[str] = ()
) -> Summary:
    """The summary of ``runners`` from at least one whole round; ``noise`` is what is known from elsewhere."""
    samples = {runner.candidate.name: _Samples.of(runner, record) for runner in runners}
    shown = [runner for runner in runners if runner.candidate.kind != "bound"]
    bounds = {r.candidate.of: samples[r.candidate.name] for r in runners if r.candidate.kind == "bound"}
    first = samples[shown[0].candidate.name]
    figures = tuple(
        _figures(
            runner,
            samples[runner.candidate.name],
            first,
            bounds.get(runner.candidate.name),
            cold.get((runner.candidate.source, runner.candidate.point)),
        )
        for runner in shown
    )
    found = [*noise, *(text for f in figures for text in _noise(f.name, record.samples_ms[f.name]))]
    overhead_ms, rounds = median(record.samples_ms[NOTHING]), len(first.batch_ms)
    return Summary(figures, overhead_ms, rounds, record.warmup_rounds, record.complete, tuple(found))


def compute_samples_ms(runner: Runner, record: Record) -> list[float]:
    """Milliseconds of each batch by the device's own clock, copies left out, in the order of the rounds; empty without one."""
    return [part.compute_ms for part in _parts(runner, record)]


def _parts(runner: Runner, record: Record) -> list[Times]:
    """Those of the rounds that count."""
    rounds = len(record.samples_ms[runner.candidate.name])
    return runner.parts[record.warmup_rounds :][:rounds]


@dataclass(frozen=True)
class _Samples:
    """Milliseconds of each batch: as called, and on the device alone where that has a clock."""

    batch: int
    batch_ms: Sequence[float]
    device_ms: Sequence[float]

    @classmethod
    def of(cls, runner: Runner, record: Record) -> _Samples:
        c = runner.candidate
        return cls(c.point.batch, record.samples_ms[c.name], compute_samples_ms(runner, record))

    def speed(self, first: _Samples) -> Estimate:
        """How many times as fast as the ``first``, image for image."""
        return ratio(_per_image(first.batch_ms, first.batch), _per_image(self.batch_ms, self.batch))

    def device_speed(self, first: _Samples) -> Estimate | None:
        """The same by the device's own clock; None where one of both has none."""
        if not (self.device_ms and first.device_ms):
            return None
        return ratio(_per_image(first.device_ms, first.batch), _per_image(self.device_ms, self.batch))

    def share_of(self, whole: _Samples) -> Estimate:
        """Its time in units of the ``whole``'s, both by the device's own clock where they have one."""
        if self.device_ms and whole.device_ms:
            return ratio(self.device_ms, whole.device_ms)
        return ratio(self.batch_ms, whole.batch_ms)


def _per_image(samples: Sequence[float], batch: int) -> list[float]:
    return [value / batch for value in samples]


def _figures(
    runner: Runner, samples: _Samples, first: _Samples, bound: _Samples | None, cold: ColdStart | None
) -> Figures:
    c, batch_ms = runner.candidate, samples.batch_ms
    p50, p90, p99 = (float(value) for value in np.percentile(batch_ms, [50, 90, 99]))
    return Figures(
        name=c.name,
        source=c.source,
        kind=c.kind,
        point=c.point,
        precision=c.precision,
        remark=c.remark,
        comparable=c.limit is not None,
        distance=runner.distance,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        mean_ms=float(np.mean(batch_ms)),
        minimum_ms=min(batch_ms),
        images_per_s=1e3 * c.point.batch / p50,
        operations_per_s=None if c.macs is None else 2e3 * c.macs * c.point.batch / p50,
        speed=samples.speed(first),
        of_bound=bound.share_of(samples) if bound else None,
        on_device=_on_device(runner.parts),
        size_bytes=c.backend.size_bytes,
        cold=cold,
        accuracy=c.accuracy,
        accuracy_inherited=c.accuracy_inherited,
        device_speed=samples.device_speed(first),
    )


def _on_device(parts: Sequence[Times]) -> Times | None:
    if not parts:
        return None
    return Times(
        *(median(getattr(part, name) for part in parts) for name in ("to_device_ms", "compute_ms", "to_host_ms"))
    )


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
