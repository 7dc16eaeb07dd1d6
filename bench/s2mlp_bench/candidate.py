"""A candidate: a backend that computes a model, at one point of a sweep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from s2mlp_deploy.runtime.providers import ON_GPU
from s2mlp_deploy.runtime.session import Session
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS, Interface
from s2mlp_deploy.schema.size import Size, format_size
from s2mlp_deploy.system.wording import counted

Kind: TypeAlias = Literal["bundle", "baseline", "bound"]

Device: TypeAlias = Literal["cpu", "gpu"]

CUDA = "cuda.bindings"
"""What engines for NVIDIA's GPUs import."""


DEFAULT = "default"
"""In place of a setting that was left to the runtime, the bundle or the model."""


@dataclass(frozen=True)
class Setting:
    """One setting of a point: the heading of its column in tables, its value there, and both in words."""

    heading: str
    value: str
    words: str
    given: bool


@dataclass(frozen=True)
class Point:
    """The settings of a timed candidate. None: the runtime's own threads, the model's own size, the CPU
    (or what the artifact was made for)."""

    batch: int = 1
    threads: int | None = None
    size: Size | None = None
    provider: str | None = None

    @property
    def all_settings(self) -> tuple[Setting, ...]:
        """Each setting, given or left to its default; always the same ones, in the same order."""
        size = format_size(self.size) if self.size else None
        return (
            _setting("provider", self.provider, self.provider),
            _setting("threads", self.threads, None if self.threads is None else counted(self.threads, "thread")),
            Setting("batch", str(self.batch), f"batch {self.batch}", given=self.batch > 1),
            _setting("image size", size, size),
        )

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings given, in words."""
        return tuple(setting.words for setting in self.all_settings if setting.given)


def _setting(heading: str, value: object | None, words: str | None) -> Setting:
    if value is None or words is None:
        return Setting(heading, DEFAULT, f"{DEFAULT} {heading}", given=False)
    return Setting(heading, str(value), words, given=True)


class Backend(Protocol):
    """Opens a model for timing. It is small data that names files, so that another process can open it, too."""

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that opening it imports."""
        ...

    @property
    def size_bytes(self) -> int:
        """Size of the files that are shipped."""
        ...

    def open(self, point: Point) -> Session:
        """Load it.

        Raises:
            RuntimeMissingError, BundleError: where it cannot be loaded here.
            UsageError: where it cannot run at ``point``.
        """
        ...


@dataclass(frozen=True)
class Candidate:
    """A backend at a point. ``precision`` is that of its matrix products, ``macs`` an image's multiply-adds
    (None: not known).

    ``limit`` is the largest distance of its logits from those expected (relative L2); None where it computes another
    network, which ``remark`` states. A bound is the bound ``of`` another candidate. ``golden_bundle`` is the bundle
    whose golden tensors it runs on; ``accuracy`` is the one that the bundle records, for itself or, where
    ``accuracy_inherited``, for the bundle that it was built from; ``interface`` names its inputs and outputs.
    """

    source: str
    kind: Kind
    backend: Backend
    point: Point
    precision: str
    macs: int | None
    limit: float | None
    remark: str = ""
    of: str | None = None
    golden_bundle: Path | None = None
    accuracy: float | None = None
    accuracy_inherited: bool = False
    interface: Interface = FLOAT_LOGITS

    @property
    def name(self) -> str:
        """The backend's name, and the settings that are given."""
        return ", ".join([self.source, *self.point.settings])

    @property
    def device(self) -> Device:
        """The device that runs it, as far as that is known."""
        return "gpu" if self.point.provider in ON_GPU or CUDA in self.backend.modules else "cpu"

    def wrong(self, remark: str) -> Candidate:
        """The same, known to compute something else."""
        return replace(self, limit=None, remark=remark)
