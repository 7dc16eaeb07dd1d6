"""How latency and memory grow with image size, batch and depth: what to measure, what was measured, and how fast it grows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, prod
from typing import Literal, TypeAlias

from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.system.timing import Estimate, estimate, ratio
from s2mlp_studies.scale import growth
from s2mlp_studies.scale.footprint import Footprint
from s2mlp_studies.scale.growth import Growth

S2MLP, MIXER = "S²-MLP", "MLP-Mixer"
"""The models."""

Over: TypeAlias = Literal["image size", "batch", "depth"]
OVER: tuple[Over, ...] = ("image size", "batch", "depth")
"""What grows, while the other two stay."""

Quantity: TypeAlias = Literal["latency", "peak memory", "memory to run", "multiply-adds", "parameters"]
QUANTITIES: tuple[Quantity, ...] = ("latency", "peak memory", "memory to run", "multiply-adds", "parameters")
"""What grows with it. ``memory to run`` is what running took on top of a loaded model."""

LONG_MS = 500.0
"""What takes less runs twice in its turn, and the second time counts. The models run unequally often, so that one
would find its weights in the processor's caches where another has to fetch them; that takes some milliseconds."""


@dataclass(frozen=True)
class Setting:
    """One setting of a measurement: an image size, a batch, and the share of its blocks that it keeps."""

    size: Size
    batch: int
    depth: Fraction


@dataclass(frozen=True)
class Plan:
    """The plan, which ends when both ``rounds`` and ``min_seconds`` are reached. ``seed`` draws orders and inputs."""

    sizes: tuple[Size, ...]
    batches: tuple[int, ...] = (1, 2, 4, 8)
    depths: tuple[Fraction, ...] = (Fraction(1, 4), Fraction(1, 2), Fraction(1))
    threads: int = 1
    rounds: int = 10
    min_seconds: float = 0.0
    seed: int = 0

    @property
    def base(self) -> Setting:
        """The smallest image and batch, and the most blocks; every other setting departs from it in one thing."""
        return Setting(min(self.sizes, key=prod), min(self.batches), max(self.depths))

    def sweep(self, over: Over) -> tuple[Setting, ...]:
        """The settings in which ``over`` grows."""
        if over == "image size":
            return tuple(replace(self.base, size=size) for size in sorted(self.sizes, key=prod))
        if over == "batch":
            return tuple(replace(self.base, batch=batch) for batch in sorted(self.batches))
        return tuple(replace(self.base, depth=depth) for depth in sorted(self.depths))

    @property
    def settings(self) -> tuple[Setting, ...]:
        """All settings, each once."""
        return tuple(dict.fromkeys(setting for over in OVER for setting in self.sweep(over)))


@dataclass(frozen=True)
class Point:
    """One model at one setting. ``macs`` are of the whole batch; samples are milliseconds a batch, in the order of rounds."""

    model: str
    setting: Setting
    positions: int
    blocks: int
    parameters: int
    macs: int
    footprint: Footprint
    samples_ms: tuple[float, ...]

    @property
    def latency_ms(self) -> Estimate:
        """Milliseconds a batch."""
        return estimate(self.samples_ms)

    def extent(self, over: Over) -> int:
        """Where it stands when ``over`` grows; for image sizes, how many positions the first feature map has."""
        return {"image size": self.positions, "batch": self.setting.batch, "depth": self.blocks}[over]

    def value(self, quantity: Quantity) -> float | None:
        """The ``quantity``: milliseconds, bytes, or a number; None where it is not known."""
        return {
            "latency": self.latency_ms.median,
            "peak memory": self.footprint.peak_bytes,
            "memory to run": self.footprint.running_bytes,
            "multiply-adds": self.macs,
            "parameters": self.parameters,
        }[quantity]


@dataclass(frozen=True)
class Scaling:
    """All measurements of ``spec`` with ``lowering``; without an MLP-Mixer, ``no_mixer`` is the reason."""

    spec: S2MLPSpec
    plan: Plan
    lowering: str
    points: tuple[Point, ...]
    no_mixer: str | None

    @property
    def base_spec(self) -> S2MLPSpec:
        """``spec`` with the blocks that all but depth is measured with."""
        return shortened(self.spec, self.plan.base.depth)

    @property
    def models(self) -> tuple[str, ...]:
        """The models that were measured."""
        return (S2MLP,) if self.no_mixer else (S2MLP, MIXER)

    def sweep(self, model: str, over: Over) -> tuple[Point, ...]:
        """The points of ``model`` while ``over`` grows, smallest first."""
        known = {(point.model, point.setting): point for point in self.points}
        return tuple(known[model, setting] for setting in self.plan.sweep(over))

    def growth(self, model: str, over: Over, quantity: Quantity) -> Growth | None:
        """How the ``quantity`` of ``model`` grows with ``over``; None where that cannot be known."""
        points = self.sweep(model, over)
        x = [point.extent(over) for point in points]
        if quantity == "latency":
            return growth.of_rounds(x, [point.samples_ms for point in points], seed=self.plan.seed)
        y = [value for point in points if (value := point.value(quantity)) is not None]
        if len(y) < len(x):
            return None
        measured = quantity in ("peak memory", "memory to run")
        return growth.of_values(x, y) if measured else growth.of_counts(x, y)

    def mixer_over_s2mlp(self, setting: Setting) -> Estimate:
        """The MLP-Mixer's time in units of the S²-MLP's, round by round."""
        known = {(point.model, point.setting): point.samples_ms for point in self.points}
        return ratio(known[MIXER, setting], known[S2MLP, setting])


def default_sizes(spec: S2MLPSpec) -> tuple[Size, ...]:
    """The model's own image size, and four more with twice as many positions each, as nearly as whole patches allow."""
    strides = [stage.embedding.stride for stage in spec.stages if stage.embedding.padding == (0, 0)]
    unit = prod(height for height, _ in strides), prod(width for _, width in strides)
    rows, columns = (length / step for length, step in zip(spec.image_size, unit, strict=True))
    grown = (2 ** (i / 2) for i in range(1, 5))
    larger = [(round(rows * f) * unit[0], round(columns * f) * unit[1]) for f in grown]
    return tuple(dict.fromkeys([spec.image_size, *larger]))


def shortened(spec: S2MLPSpec, depth: Fraction) -> S2MLPSpec:
    """``spec`` with the first blocks of each stage: this share of them, rounded up."""
    return replace(spec, stages=tuple(replace(stage, depth=ceil(depth * stage.depth)) for stage in spec.stages))
