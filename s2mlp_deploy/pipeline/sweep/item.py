"""The work items of a sweep: one export each, known by a key that follows from the content of all that decides it."""

from __future__ import annotations

import functools
import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from s2mlp_deploy.errors import InputError, PlanError, UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.base import Compiler
from s2mlp_deploy.pipeline import request_checks
from s2mlp_deploy.pipeline.request import (
    EvidenceOptions,
    ExportRequest,
    FormatOptions,
    GraphOptions,
    OutputOptions,
    Source,
)
from s2mlp_deploy.pipeline.sweep.fingerprint import Fingerprints
from s2mlp_deploy.pipeline.sweep.plan import Group, Plan, in_plan
from s2mlp_deploy.quantization.settings import OPTIONS, PrecisionOptions
from s2mlp_deploy.schema.manifest import Interface
from s2mlp_deploy.schema.precision import PRECISIONS
from s2mlp_deploy.system.hashing import sha256
from s2mlp_deploy.system.version import __version__

if TYPE_CHECKING:
    from s2mlp_deploy.pipeline.sweep.outcome import Failure, Outcome

KEY_DIGITS = 16


@dataclass(frozen=True)
class Choice:
    """One of the exports that a group makes of each checkpoint; ``target`` is None where it follows the format."""

    format: str
    precision: str
    target: str | None
    lowering: str


@dataclass(frozen=True)
class Item:
    """One export: a checkpoint, its SHA-256 when the sweep began, and what to make of it."""

    key: str
    checkpoint: Path
    sha256: str
    group: Group
    choice: Choice

    def request(self, destination: Path) -> ExportRequest:
        """The request for the bundle at ``destination``."""
        return _request(self.group, self.choice, self.checkpoint, self.sha256, destination)

    @property
    def reads(self) -> tuple[Path, ...]:
        """The files and folders that a process must see to work on it."""
        return (self.checkpoint, *self.group.files)

    def moved(self, places: Mapping[Path, Path]) -> Item:
        """The same, with the checkpoint and the group's files where ``places`` has them."""
        return replace(self, checkpoint=places[self.checkpoint], group=self.group.moved(places))

    @property
    def on_gpu(self) -> bool:
        """Whether the export takes a GPU: to compile the engine, or to check it."""
        target = registry.find(self.choice.format)
        return target.for_gpu(self.request(Path()).options_of(target))

    def failed(self, failure: Failure, attempts: int = 1) -> Outcome:
        """The outcome of an item that could not be made."""
        from s2mlp_deploy.pipeline.sweep import outcome  # which names items

        return outcome.failed(self, failure, attempts)

    @property
    def name(self) -> str:
        """The item in a few words."""
        choice = self.choice
        parts = (choice.format, choice.precision, choice.target, choice.lowering if choice.lowering != "auto" else None)
        return f"{self.checkpoint.name} {' '.join(part for part in parts if part)}"


def items_of(plan: Plan, place: Path) -> tuple[Item, ...]:
    """The items of ``plan``, which was read from the file ``place``, in its order. All its checkpoints are read, to hash them.

    Raises:
        PlanError: where a pattern matches no file, exports cannot be made as stated, or two items have one key.
        InputError: where a file that is named cannot be read.
    """
    groups = [(group, _checkpoints(group, place), _choices(group, i, place)) for i, group in enumerate(plan.export, 1)]
    digests = _digests({checkpoint for _, checkpoints, _ in groups for checkpoint in checkpoints})
    prints = Fingerprints()
    found: dict[str, Item] = {}
    for group, checkpoints, choices in groups:
        for checkpoint, choice in product(checkpoints, choices):
            digest = digests[checkpoint]
            key = _key(_request(group, choice, checkpoint, digest), prints)
            item = Item(key, checkpoint, digest, group, choice)
            if other := found.get(key):
                raise PlanError(f"{place}: {_twice(other, item)}")
            found[key] = item
    return tuple(found.values())


def _checkpoints(group: Group, place: Path) -> list[Path]:
    """The files that the group's patterns match, each once, in the order of patterns and then of names."""
    matched: dict[Path, None] = {}
    for pattern in group.checkpoints:
        files = [
            Path(name) for name in sorted(glob.glob(os.path.join(place.resolve().parent, pattern), recursive=True))
        ]
        if not files:
            raise PlanError(f"{place}: no file matches the checkpoints {pattern!r}, seen from the plan's folder")
        if directories := [file for file in files if file.is_dir()]:
            raise PlanError(
                f"{place}: the checkpoints {pattern!r} match {directories[0]}, which is a directory: match files alone, as in */*.pt"
            )
        matched.update(dict.fromkeys(files))
    return list(matched)


def _choices(group: Group, number: int, place: Path) -> list[Choice]:
    """The exports that the group makes of each checkpoint, each of which its format can be made with."""
    if group.allow_unverified_engine and not any(map(_is_compiled, group.formats)):
        raise PlanError(
            f"{place}, [[export]] number {number}: allow_unverified_engine, and none of the formats makes an engine"
        )
    choices = [
        Choice(format, precision, target, lowering)
        for precision in group.precisions
        for target in _targets(group, precision)
        for format in group.formats
        for lowering in group.lowerings
    ]
    for choice in choices:
        _check(group, choice, f"{place}, [[export]] number {number}")
    return choices


def _targets(group: Group, precision: str) -> tuple[str | None, ...]:
    return group.targets if group.targets and PRECISIONS[precision].targets else (None,)


def _check(group: Group, choice: Choice, where: str) -> None:
    try:
        request_checks.checked(_request(group, choice, Path("checkpoint"), ""))
    except UsageError as error:
        raise PlanError(
            f"{where}: {in_plan(str(error))}. Give exports that go together a table [[export]] of their own"
        ) from error


@functools.cache
def _is_compiled(format: str) -> bool:
    return isinstance(registry.find(format), Compiler)


def _request(
    group: Group, choice: Choice, checkpoint: Path, digest: str, destination: Path | None = None
) -> ExportRequest:
    facts, judged = group.source, group.judgement
    return ExportRequest(
        Source(
            checkpoint,
            facts.layout,
            facts.weights,
            facts.shift_semantics,
            facts.shift_directions,
            facts.image_size,
            facts.mean,
            facts.std,
            facts.resize,
            facts.interpolation,
            facts.crop_fraction,
            facts.labels,
            sha256=digest or None,
        ),
        GraphOptions(
            choice.lowering, group.dynamic_size, group.batch, Interface(input=group.input, output=group.answer)
        ),
        _precision(group, choice),
        FormatOptions(choice.format, group.options.get(choice.format, {})),
        EvidenceOptions(
            judged.reference,
            judged.data,
            judged.data_count,
            judged.golden_images,
            allow_unverified_engine=group.allow_unverified_engine and _is_compiled(choice.format),
        ),
        OutputOptions(destination, sbom=group.sbom, card=group.card, license=group.license),
    )


def _precision(group: Group, choice: Choice) -> PrecisionOptions:
    calibration, judged = group.calibration, group.judgement
    given: dict[str, Any] = {
        "io_dtype": group.io_dtype,
        "target": choice.target,
        "max_accuracy_drop": judged.max_accuracy_drop,
        "min_agreement": judged.min_agreement,
    }
    if calibration:
        given |= {
            "calibration": calibration.data,
            "calibration_count": calibration.count,
            "calibration_method": calibration.method,
            "quantize_ends": calibration.quantize_ends,
        }
    kind = OPTIONS[choice.precision]
    return kind(**{field.name: given[field.name] for field in fields(kind) if field.name in given})


def _digests(checkpoints: set[Path]) -> dict[Path, str]:
    """The SHA-256 of each file; several are read at a time."""

    def digest(path: Path) -> str:
        try:
            return sha256(path)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(checkpoints, pool.map(digest, checkpoints), strict=True))


def _key(request: ExportRequest, prints: Fingerprints) -> str:
    """The hash of everything that decides the bundle: the checkpoint's bytes, the request, the files that it names, this release."""
    parts: dict[str, Any] = {
        "release": __version__,
        "checkpoint": request.source.sha256,
        "source": dict(_stated(request.source, prints, without={"path", "sha256", "publisher"})),
        "graph": dict(_stated(request.graph, prints)),
        "precision": [request.precision.row.name, dict(_stated(request.precision, prints))],
        "format": dict(_stated(request.format, prints)),
        "evidence": dict(_stated(request.evidence, prints)),
        "sbom": request.output.sbom,
    }
    if request.output.card:
        parts["card"] = {"license": request.output.license}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:KEY_DIGITS]


def _stated(
    part: Any, prints: Fingerprints, without: frozenset[str] | set[str] = frozenset()
) -> Iterator[tuple[str, Any]]:
    """The fields of a part of a request, with files as their fingerprints."""
    assert is_dataclass(part)
    for field in fields(part):
        if field.name not in without:
            value = getattr(part, field.name)
            is_file = isinstance(value, Path) or (field.name == "layout" and str(value).endswith(".toml"))
            yield field.name, prints.of(Path(value)) if is_file else _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return dict(value) if isinstance(value, Mapping) else value


def _twice(one: Item, other: Item) -> str:
    if one.checkpoint == other.checkpoint:
        return f"{other.name} is to be made twice, with the same options: state it once"
    return f"{one.checkpoint} and {other.checkpoint} hold the same bytes, so their exports would be the same: leave one of them out"
