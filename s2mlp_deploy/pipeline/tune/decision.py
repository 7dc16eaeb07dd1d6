"""Decide which candidate to take: the simplest of those that are not shown to be worse than the best.

A lower precision is less simple, so it is taken only where it is better than every higher one by more than the margin, beyond the
interval of the measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s2mlp_deploy.pipeline.tune.candidates import Candidate
from s2mlp_deploy.pipeline.tune.race import MARGIN, Standing
from s2mlp_deploy.pipeline.tune.request import Limits, Objective
from s2mlp_deploy.pipeline.tune.workspace import Made


@dataclass(frozen=True)
class Figures:
    """What was measured of an artifact before it was timed. ``accuracy_drop`` is in points; None: not measured."""

    size_bytes: int
    accuracy: float | None
    accuracy_drop: float | None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Miss:
    """A limit that a candidate does not keep, by its option: ``found`` and ``allowed`` in that option's unit."""

    option: str
    found: float
    allowed: float

    @property
    def excess(self) -> float:
        """How far off it is, in units of the limit."""
        return (self.found - self.allowed) / self.allowed if self.allowed else self.found


@dataclass(frozen=True)
class Decision:
    """The candidate ``taken``, the ``best`` by the objective, and those besides ``taken`` that are level with the best: no difference
    from it is shown."""

    taken: str
    best: str
    level: tuple[str, ...]


def figures_of(made: Made, memory_bytes: int | None) -> Figures:
    """The figures of an artifact that passed the gate. Its accuracy is compared with PyTorch's on the same images."""
    report, accuracy, float_accuracy = made.report, None, None
    if report.trials:
        accuracy, float_accuracy = report.trials[-1].accuracy, report.trials[-1].float_accuracy
    elif report.images:
        accuracy, float_accuracy = report.images.accuracy, report.images.accuracy_pytorch
    drop = None if accuracy is None or float_accuracy is None else round(100 * (float_accuracy - accuracy), 9)
    return Figures(made.bundle.size_bytes, report.accuracy if accuracy is None else accuracy, drop, memory_bytes)


def misses(figures: Figures, limits: Limits, drop: float | None) -> list[Miss]:
    """The limits that ``figures`` break; ``drop`` is that on accuracy."""
    pairs = (
        ("--max-accuracy-drop", figures.accuracy_drop, drop),
        ("--max-size", figures.size_bytes, limits.size_bytes),
        ("--max-memory", figures.memory_bytes, limits.memory_bytes),
    )
    return [
        Miss(option, found, most)
        for option, found, most in pairs
        if found is not None and most is not None and found > most
    ]


def decide(standing: Standing, candidates: Sequence[Candidate], sizes: Sequence[int], objective: Objective) -> Decision:
    """The decision among ``candidates``, which all keep their limits; ``sizes`` are the bytes of their artifacts."""
    by_name = {one.name: one for one in candidates}
    if objective == "size":
        bytes_of = {one.name: size for one, size in zip(candidates, sizes, strict=True)}
        best = min(bytes_of, key=lambda name: (bytes_of[name], by_name[name].complexity))
        level = [name for name in bytes_of if bytes_of[name] < MARGIN * bytes_of[best]]
    else:
        running = [name for name in standing.running if name in by_name] or list(
            by_name
        )  # the others are known to be slower
        best = Standing(standing.samples_ms, tuple(running), ()).fastest
        level = [name for name in running if not standing.is_slower(name, best)]
    taken = min(level, key=lambda name: by_name[name].complexity)
    return Decision(taken, best, tuple(name for name in by_name if name in level and name != taken))
