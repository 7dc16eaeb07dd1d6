"""The user's request for a tune: limits, objective, and where to look."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from s2mlp_deploy.pipeline.request import EvidenceOptions, OutputOptions, Source
from s2mlp_deploy.quantization.settings import Int8
from s2mlp_deploy.runtime.session import BATCH

Objective: TypeAlias = Literal["latency", "throughput", "size", "energy"]

ACCURACY_DROP = 0.5
"""Points of accuracy that may be lost on labelled images, unless the request says otherwise."""

BUDGET_S = 600.0


@dataclass(frozen=True)
class Limits:
    """What an artifact must keep: accuracy lost on labelled images, in points; milliseconds of a batch; bytes of its files; peak
    bytes of a process that loads and runs it. None: no limit."""

    accuracy_drop: float | None = None
    latency_ms: float | None = None
    size_bytes: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Space:
    """Where to look: names of formats, precisions and lowerings, and numbers of threads. None: wherever this machine can, but for
    what cannot win."""

    formats: tuple[str, ...] | None = None
    precisions: tuple[str, ...] | None = None
    lowerings: tuple[str, ...] | None = None
    threads: tuple[int, ...] | None = None


@dataclass(frozen=True)
class TuneRequest:
    """One bundle to find. ``int8`` has the settings of int8 candidates; its limit on accuracy follows from ``limits``.

    ``budget_s`` bounds how long candidates are made and timed. Candidates are kept in ``work`` until the bundle is published, and
    longer with ``keep``; so a tune that was interrupted goes on where it was.
    """

    source: Source
    evidence: EvidenceOptions = field(default_factory=EvidenceOptions)
    int8: Int8 = field(default_factory=Int8)
    limits: Limits = field(default_factory=Limits)
    space: Space = field(default_factory=Space)
    objective: Objective = "latency"
    budget_s: float = BUDGET_S
    output: OutputOptions = field(default_factory=OutputOptions)
    keep: bool = False

    @property
    def destination(self) -> Path:
        """The bundle's directory."""
        path = self.source.path
        return self.output.directory or Path(f"{path.resolve().name if self.source.is_bundle else path.stem}-tuned")

    @property
    def report(self) -> Path:
        """The file with the figures of all candidates."""
        return self._beside(".json")

    @property
    def work(self) -> Path:
        """The directory where candidates are kept."""
        return self._beside(".tuning")

    def _beside(self, ending: str) -> Path:
        place = self.destination if self.destination.name not in ("", "..") else self.destination.resolve()
        return place.with_name(place.name + ending)

    @property
    def accuracy_drop(self) -> float | None:
        """The points of accuracy that may be lost; None where nothing measures accuracy."""
        if self.limits.accuracy_drop is not None:
            return self.limits.accuracy_drop
        return ACCURACY_DROP if self.evidence.data else None

    @property
    def batch(self) -> int:
        """How many images run together while candidates are timed."""
        return BATCH if self.objective == "throughput" else 1
