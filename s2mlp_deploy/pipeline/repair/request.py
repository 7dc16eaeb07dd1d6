"""The user's request for a repair, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from s2mlp_deploy.pipeline.request import Export, OutputOptions, RequestedSemantics
from s2mlp_deploy.schema.report import Evidence, RepairRecord

Preferred: TypeAlias = Literal["gather", "slice", "auto"]


@dataclass(frozen=True)
class RepairRequest:
    """An ONNX file, and how to repair it.

    ``reference`` holds inputs and outputs recorded from the user's own model. ``semantics`` is that of overlapping statements;
    None: as the reference shows, else as exported. ``prefer`` names the operators to write where both kinds are exact; ``auto``
    takes Gather. With ``latency`` the file and its repair are timed.
    """

    model: Path
    reference: Path | None = None
    semantics: RequestedSemantics = None
    prefer: Preferred = "auto"
    latency: bool = False
    output: OutputOptions = field(default_factory=OutputOptions)

    @property
    def destination(self) -> Path:
        """The bundle's directory."""
        return self.output.directory or Path(f"{self.model.stem}-repaired")

    @property
    def preference(self) -> Literal["gather", "slice"]:
        """The operators to write."""
        return "gather" if self.prefer == "auto" else self.prefer


@dataclass(frozen=True)
class RepairResult:
    """What was found in the file, and the published bundle; None where there was nothing to repair.

    ``custom_operators`` are those of other domains than ONNX's own, counted: they are left alone.
    """

    record: RepairRecord
    evidence: tuple[Evidence, ...]
    custom_operators: Mapping[str, int]
    export: Export | None = None
