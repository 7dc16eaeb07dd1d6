"""The outcome of one work item, as a line of ``results.jsonl``."""

from __future__ import annotations

import os
import signal
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.read import read_manifest, read_report
from s2mlp_deploy.errors import Error, InternalError, OutputError, RuntimeMissingError
from s2mlp_deploy.pipeline.sweep.item import Item
from s2mlp_deploy.pipeline.sweep.plan import in_plan

Status: TypeAlias = Literal["made", "there", "failed"]
"""``there``: made by an earlier run."""

ERROR = 1
"""The exit code for a fault that is none of errors.py."""


@dataclass(frozen=True)
class Failure:
    """An error, as ``s2mlp-export --json`` shows it: ``exit_code`` is that of the command for this item alone."""

    kind: str
    message: str
    exit_code: int


@dataclass(frozen=True)
class Evaluated:
    """Labelled images that the bundle was measured on after it was made, and those whose class it named."""

    images: int
    right: int

    @property
    def accuracy(self) -> float:
        """The share that was right."""
        return self.right / self.images


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a batch, with the 95% interval of the median over so many rounds, on a processor."""

    median_ms: float
    low_ms: float
    high_ms: float
    rounds: int
    batch: int
    processor: str


@dataclass(frozen=True)
class Outcome:
    """What became of an item.

    ``relative_l2`` is the largest distance from the reference over the golden cases, ``limit`` the tolerance. ``same_class`` and
    ``accuracy`` are shares of the images that the export was judged on; None: not measured. ``seconds`` is the time that making it took.
    """

    key: str
    checkpoint: str
    sha256: str
    format: str
    precision: str
    target: str | None
    lowering: str
    status: Status
    bundle: str | None = None
    size_bytes: int | None = None
    relative_l2: float | None = None
    limit: float | None = None
    same_class: float | None = None
    accuracy: float | None = None
    seconds: float | None = None
    evaluation: Evaluated | None = None
    latency: Latency | None = None
    attempts: int = 1
    warnings: tuple[str, ...] = ()
    error: Failure | None = None

    def as_dict(self) -> dict[str, Any]:
        """The outcome for JSON."""
        return asdict(self)

    @staticmethod
    def of_json(content: dict[str, Any]) -> Outcome:
        """The outcome that :meth:`as_dict` gave."""
        kinds = {"evaluation": Evaluated, "latency": Latency, "error": Failure}
        nested = {name: kind(**content[name]) for name, kind in kinds.items() if content[name]}
        return Outcome(**{**content, "warnings": tuple(content["warnings"]), **nested})


def failed(item: Item, failure: Failure, attempts: int = 1, warnings: tuple[str, ...] = ()) -> Outcome:
    """The outcome of an item that could not be made."""
    return replace(_named(item, "failed"), error=failure, attempts=attempts, warnings=warnings)


def failure_of(error: Exception) -> Failure:
    """``error`` as it stands in a line of results. That of a runtime, or of a format from elsewhere, is a fault to report."""
    if isinstance(error, Error):
        return Failure(type(error).__name__, in_plan(str(error)), error.exit_code)
    if isinstance(error, MemoryError):
        message = "this machine has not enough memory for it: try fewer --workers"
        return Failure("MemoryError", message, RuntimeMissingError.exit_code)
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return Failure("OSError", f"{where}{error.strerror or error}", OutputError.exit_code)
    message = f"{type(error).__name__}: {error}. Please report this"
    return Failure(InternalError.__name__, message, InternalError.exit_code)


def death(code: int | None, attempts: int) -> Failure:
    """The failure of an item whose worker ended with ``code`` in the middle of it, each time it was tried."""
    how, number = f"ended with exit code {code}", code if code is not None else ERROR
    if code is not None and code < 0:
        how, number = f"was ended by {signal.Signals(-code).name}", 128 - code
    hint = ", as the system does where memory runs out: try fewer --workers" if code == -9 else ""
    return Failure("WorkerDied", f"its worker process {how} in {attempts} attempts{hint}", number)


def published(item: Item, directory: Path, status: Status, warnings: tuple[str, ...] = ()) -> Outcome:
    """The outcome of an item whose bundle is at ``directory``.

    Raises:
        BundleError: where its manifest is damaged.
    """
    bundle = Bundle(directory, read_manifest(directory))
    report, tolerance = read_report(bundle), bundle.manifest.tolerance
    outcome = replace(_named(item, status), bundle=str(directory), warnings=warnings)
    if report is None:
        return outcome
    images = report.trials[-1].agreement if report.trials else report.images.top1_agreement if report.images else None
    return replace(
        outcome,
        size_bytes=report.size_bytes,
        relative_l2=max((d.relative_l2 for d in report.distances.values()), default=None),
        limit=tolerance.relative_l2 if tolerance else None,
        same_class=images,
        accuracy=report.accuracy,
        seconds=round(sum(report.seconds.values()), 3),
    )


def _named(item: Item, status: Status) -> Outcome:
    choice = item.choice
    return Outcome(
        item.key,
        str(item.checkpoint),
        item.sha256,
        choice.format,
        choice.precision,
        choice.target,
        choice.lowering,
        status,
    )
