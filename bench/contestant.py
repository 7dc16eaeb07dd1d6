"""What takes part in a race: a way to compute a model, at one point of a sweep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from s2mlp_deploy.manifest import FLOAT_LOGITS, Interface
from s2mlp_deploy.sessions import Session
from s2mlp_deploy.spec import Size, format_size

Kind: TypeAlias = Literal["bundle", "baseline", "bound"]

ON_GPU = ("cuda", "directml", "tensorrt")
"""Providers of ONNX Runtime that run on a GPU."""

CUDA = "cuda.bindings"
"""What engines for NVIDIA's GPUs import."""


@dataclass(frozen=True)
class Point:
    """The settings that something is timed with. None: the runtime's own threads, the model's own size, the CPU
    (or what the artifact was made for)."""

    batch: int = 1
    threads: int | None = None
    size: Size | None = None
    provider: str | None = None

    @property
    def settings(self) -> tuple[str, ...]:
        """What is set, in words."""
        parts = [self.provider] if self.provider else []
        if self.threads is not None:
            parts.append(f"{self.threads} thread{'s' if self.threads > 1 else ''}")
        if self.batch > 1:
            parts.append(f"batch {self.batch}")
        if self.size:
            parts.append(format_size(self.size))
        return tuple(parts)


class Way(Protocol):
    """A way to compute a model. It is small data that names files, so that another process can open it, too."""

    @property
    def modules(self) -> tuple[str, ...]:
        """What opening it imports."""
        ...

    @property
    def size_bytes(self) -> int:
        """What it is shipped as."""
        ...

    def open(self, point: Point) -> Session:
        """Load it.

        Raises:
            RuntimeMissingError, BundleError: where it cannot be loaded here.
            UsageError: where it cannot run at ``point``.
        """
        ...


@dataclass(frozen=True)
class Contestant:
    """A way at a point. ``precision`` is that of its matrix products, ``macs`` an image's multiply-adds.

    ``limit`` is how far its answers may be from those expected (relative L2); None where it does not answer the
    same question, and ``remark`` says so. A bound is the bound ``of`` another contestant. ``asks`` is the bundle whose
    golden tensors it is asked; ``accuracy`` is what the bundle carries of it, ``interface`` what it takes and gives.
    """

    source: str
    kind: Kind
    way: Way
    point: Point
    precision: str
    macs: int
    limit: float | None
    remark: str = ""
    of: str | None = None
    asks: Path | None = None
    accuracy: float | None = None
    interface: Interface = FLOAT_LOGITS

    @property
    def name(self) -> str:
        """What it is, and the settings where they are set."""
        return ", ".join([self.source, *self.point.settings])

    @property
    def device(self) -> Literal["cpu", "gpu"]:
        """What runs it, as far as that is known."""
        return "gpu" if self.point.provider in ON_GPU or CUDA in self.way.modules else "cpu"

    def wrong(self, remark: str) -> Contestant:
        """The same, known to compute something else."""
        return replace(self, limit=None, remark=remark)
