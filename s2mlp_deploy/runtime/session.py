"""The interface of a loaded artifact, as protocols that each runtime implements.

Every session runs images. Some also rank classes, describe the artifact, trace values inside the graph, time or profile
themselves: each of these is a protocol of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.report import Execution
from s2mlp_deploy.schema.tensor_entry import TensorEntry

BATCH = 8
"""Images that run together where the batch is free: more need more memory and win nothing."""


@dataclass(frozen=True)
class Placement:
    """Where a session runs, as far as the user chooses; None where the artifact's record, else the runtime, decides.

    Attributes:
        provider: The execution provider of ONNX Runtime, a name of ``--provider``.
        threads: Threads of the processor.
        device: The number of the GPU, from 0.
        tf32: Whether float32 products on a GPU may be rounded to TF32, with 10 bits of fraction instead of 23.
    """

    provider: str | None = None
    threads: int | None = None
    device: int | None = None
    tf32: bool | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """The options that were given, as the commands call them."""
        return tuple(f"--{name}" for name, value in vars(self).items() if value is not None)


HERE = Placement()
"""Where the artifact's record, or its runtime, wants it."""


class Session(Protocol):
    """An artifact, loaded and ready to run."""

    def run(self, images: Array) -> Array:
        """The artifact's first output for ``images``.

        Logits (batch, classes) of float32 (batch, channels, height, width), unless its interface
        (manifest.Interface) differs.
        """
        ...


@runtime_checkable
class RankingSession(Session, Protocol):
    """A session of an artifact that may give the best classes alone."""

    def rank(self, images: Array) -> tuple[Array, Array]:
        """Scores (batch, best) in falling order, and their classes (batch, best)."""
        ...


@runtime_checkable
class TensorSession(Protocol):
    """A session of a network with any inputs and outputs."""

    def compute(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """All outputs, by name, for all ``inputs``, by name."""
        ...


@dataclass(frozen=True)
class Description:
    """An artifact's declared inputs and outputs, whose free axes have any name, and its metadata."""

    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    metadata: Mapping[str, str]


@runtime_checkable
class DescribedSession(Session, Protocol):
    """A session that returns the interface and metadata that the artifact declares."""

    def describe(self) -> Description:
        """Inputs, outputs and metadata, as they stand in the artifact."""
        ...


@runtime_checkable
class GpuSession(Session, Protocol):
    """A session on a GPU that knows how it runs there."""

    def execution(self) -> Execution:
        """The GPU, and how it is used."""
        ...


def execution_of(session: Session) -> Execution | None:
    """How ``session`` runs on a GPU; None where it does not, or does not say."""
    return session.execution() if isinstance(session, GpuSession) else None


def description_of(session: Session) -> Description | None:
    """The interface and metadata that the artifact in ``session`` declares; None where its runtime shows neither."""
    return session.describe() if isinstance(session, DescribedSession) else None


@runtime_checkable
class TracingSession(Session, Protocol):
    """A session that can trace values inside the graph."""

    def trace(self, images: Array, names: tuple[str, ...]) -> Mapping[str, Array]:
        """The values called ``names``: feature maps as tokens (batch · height · width, channels)."""
        ...


@dataclass(frozen=True)
class Times:
    """Milliseconds of one batch on the device, by its own clock: copy in, compute, copy out."""

    to_device_ms: float
    compute_ms: float
    to_host_ms: float


@dataclass(frozen=True)
class Kernel:
    """One run of one operator: microseconds, and the bytes of activations that it read and wrote.

    ``node`` is the name in the graph, where the runtime keeps it.
    """

    node: str
    operator: str
    duration_us: float
    read_bytes: int
    written_bytes: int


@runtime_checkable
class ProfilingSession(Session, Protocol):
    """A session that measures the time of each operator."""

    def profile(self, images: Array, runs: int) -> tuple[Kernel, ...]:
        """Every operator's runs on ``images``, ``runs`` times all over, in the order of computation."""
        ...


@runtime_checkable
class TimedSession(Session, Protocol):
    """A session whose device measures copies and computation by its own clock."""

    def time(self, images: Array) -> Times:
        """The times of one batch; the first run with a shape includes preparation, so it is no measurement."""
        ...


def run_in_batches(session: Session, images: Array, batch: int | None) -> Array:
    """Logits of any number of ``images`` from a session whose batch is fixed (or None: any).

    The last batch is filled up with copies of its last image, whose logits are dropped.
    """
    if batch is None:
        return session.run(images)
    logits = []
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        fill = np.repeat(chunk[-1:], batch - len(chunk), axis=0)
        logits.append(session.run(np.concatenate([chunk, fill]))[: len(chunk)])
    return np.concatenate(logits)
