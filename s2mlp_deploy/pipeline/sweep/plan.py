"""The plan of a sweep: a TOML file (docs/sweep.md) with groups of checkpoints and the exports to make of each."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, model_validator

from s2mlp_deploy.errors import PlanError
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.pipeline.api import in_fields
from s2mlp_deploy.pipeline.request import RequestedSemantics
from s2mlp_deploy.quantization.settings import SYNTHETIC
from s2mlp_deploy.schema.choices import (
    CalibrationMethod,
    InputKind,
    Interpolation,
    IoDtype,
    OutputKind,
    Resize,
    ShiftLowering,
    Target,
)
from s2mlp_deploy.schema.precision import FP32, PRECISIONS, having
from s2mlp_deploy.schema.shift import Offset, parse_directions
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.schema.strict_model import Extent, StrictModel
from s2mlp_deploy.system import untrusted_input

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _beside_the_plan(value: Any, info: ValidationInfo) -> Any:
    return info.context / value if isinstance(value, str) and info.context is not None else value


def _calibration(value: Any, info: ValidationInfo) -> Any:
    return value if value == SYNTHETIC else _beside_the_plan(value, info)


def _layout(value: Any, info: ValidationInfo) -> Any:
    is_file = isinstance(value, str) and value.endswith(".toml")
    return str(_beside_the_plan(value, info)) if is_file else value


def _size(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


def _numbers(value: Any) -> Any:
    return (value,) if isinstance(value, int | float) else value


def _directions(value: Any) -> Any:
    return parse_directions(value) if isinstance(value, str) else value


PlanPath = Annotated[Path, BeforeValidator(_beside_the_plan)]
"""A path, relative to the plan's own folder."""

Numbers = Annotated[tuple[float, ...], BeforeValidator(_numbers), Field(min_length=1)]


class SourceFacts(StrictModel):
    """``[export.source]``: facts about the checkpoints that their files do not record."""

    layout: Annotated[str, BeforeValidator(_layout)] | None = None
    weights: str | None = None
    shift_semantics: RequestedSemantics = None
    shift_directions: Annotated[tuple[Offset, ...], BeforeValidator(_directions)] | None = None
    image_size: Annotated[Size, BeforeValidator(_size)] | None = None
    mean: Numbers | None = None
    std: Numbers | None = None
    resize: Resize | None = None
    interpolation: Interpolation | None = None
    crop_fraction: float | None = None
    labels: PlanPath | None = None


class Judgement(StrictModel):
    """``[export.judgement]``: the evidence that the exports are checked with, and the limits of int8."""

    reference: PlanPath | None = None
    data: PlanPath | None = None
    data_count: Extent = 1000
    golden_images: PlanPath | None = None
    max_accuracy_drop: Annotated[float, Field(ge=0)] = 0.5
    min_agreement: Annotated[float, Field(ge=0, le=1)] = 0.99


class Calibration(StrictModel):
    """``[export.calibration]``: the images that int8's ranges are taken from, and how."""

    data: Annotated[Path | Literal["synthetic"], BeforeValidator(_calibration)]
    count: Extent = 256
    method: CalibrationMethod = "minmax"
    quantize_ends: bool = False


class Evaluation(StrictModel):
    """``[export.evaluation]``: labelled images that each bundle is measured on after it was made, ``count`` of them or all, divided
    among the workers."""

    data: PlanPath
    count: Extent | None = None


class Group(StrictModel):
    """``[[export]]``: checkpoints, and the exports to make of each: every format, precision, target and lowering with every other.

    ``targets`` apply to the precisions whose graph depends on the target; without any, the target follows the format.
    ``options`` are those of each format, by name. ``latency`` says that bundles are timed after they were made, one at a time on a machine.
    """

    checkpoints: Annotated[tuple[str, ...], Field(min_length=1)]
    formats: Annotated[tuple[str, ...], Field(min_length=1)] = (ONNX,)
    precisions: Annotated[tuple[str, ...], Field(min_length=1)] = (FP32.name,)
    targets: tuple[Target, ...] = ()
    lowerings: Annotated[tuple[ShiftLowering, ...], Field(min_length=1)] = ("auto",)
    batch: Extent | None = None
    dynamic_size: bool = False
    input: InputKind = "float"
    answer: OutputKind = "logits"
    io_dtype: IoDtype = "fp32"
    sbom: bool = False
    card: bool = False
    license: str | None = None
    allow_unverified_engine: bool = False
    source: SourceFacts = SourceFacts()
    judgement: Judgement = Judgement()
    calibration: Calibration | None = None
    evaluation: Evaluation | None = None
    latency: bool = False
    options: Mapping[str, dict[str, Any]] = Field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files and folders, besides checkpoints, that the exports are made with."""
        facts, judged = self.source, self.judgement
        layout = Path(facts.layout) if facts.layout and facts.layout.endswith(".toml") else None
        images = self.calibration.data if self.calibration else None
        named = (facts.labels, layout, judged.reference, judged.data, judged.golden_images, images)
        return tuple(dict.fromkeys(path for path in named if isinstance(path, Path)))

    def moved(self, places: Mapping[Path, Path]) -> Group:
        """The same, with each of :attr:`files` where ``places`` has it."""

        def update(table: StrictModel | None, *names: str) -> StrictModel | None:
            if table is None:
                return None
            known = {name: getattr(table, name) for name in names}
            return table.model_copy(
                update={name: places[path] for name, path in known.items() if isinstance(path, Path)}
            )

        source = update(self.source, "labels")
        assert isinstance(source, SourceFacts)
        if source.layout and source.layout.endswith(".toml"):
            source = source.model_copy(update={"layout": str(places[Path(source.layout)])})
        judged = update(self.judgement, "reference", "data", "golden_images")
        return self.model_copy(
            update={"source": source, "judgement": judged, "calibration": update(self.calibration, "data")}
        )

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> Group:
        """Refuse a statement that has no effect on any export of the group."""
        if unknown := [name for name in self.precisions if name not in PRECISIONS]:
            raise ValueError(f"unknown precision {unknown[0]!r}: expected {', '.join(PRECISIONS)}")
        rows = [PRECISIONS[name] for name in self.precisions]
        io_type = PRECISIONS[self.io_dtype].on_gpu.inputs
        if not any(io_type in row.io_types for row in rows):
            raise ValueError(
                f"io_dtype {self.io_dtype} is for the precisions {having(lambda row: io_type in row.io_types)}"
            )
        if self.targets and not any(row.targets for row in rows):
            raise ValueError(f"targets are for the precisions {having(lambda row: row.targets)}: leave them out")
        if self.calibration and not any(row.calibrated for row in rows):
            raise ValueError(f"calibration is for the precisions {having(lambda row: row.calibrated)}: leave it out")
        if idle := self.options.keys() - set(self.formats):
            raise ValueError(f"options of the format {min(idle)!r}, which is not among the formats")
        return self


class Plan(StrictModel):
    """A whole plan."""

    export: Annotated[tuple[Group, ...], Field(min_length=1)]


def read_plan(path: Path) -> Plan:
    """The plan in the file at ``path``; paths in it become absolute.

    Raises:
        PlanError: where it cannot be read, or is no plan.
    """
    try:
        untrusted_input.check_regular(path)
        content = tomllib.loads(untrusted_input.read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PlanError(f"cannot read the plan {path}: {reason}. Expected TOML with a table [[export]]") from error
    try:
        return Plan.model_validate(content, context=path.resolve().parent)
    except ValidationError as error:
        raise PlanError(f"{path}: {_described(error)}") from error


def _described(error: ValidationError) -> str:
    """The first fault, misspelt keys before all: its place, as it stands in the file, what was found and what was expected."""
    faults = error.errors()
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    place = [str(part) for part in first["loc"]]
    if place[:1] == ["export"] and len(place) > 1:
        place[:2] = [f"[[export]] number {int(place[1]) + 1}"]
    where = ", ".join([place[0], ".".join(place[1:])]) if len(place) > 1 else "".join(place)
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key. Expected {', '.join(_keys(first['loc'][:-1]))}"
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "tuple_type":
        reason = (
            "expected tables [[export]], in double brackets" if where == "export" else 'expected a list, as in ["onnx"]'
        )
    reason = reason[0].lower() + reason[1:]
    return f"{where}: {reason}" if where else reason


_TABLES: Mapping[str, type[StrictModel]] = {
    "source": SourceFacts,
    "judgement": Judgement,
    "calibration": Calibration,
    "evaluation": Evaluation,
}


def _keys(place: tuple[int | str, ...]) -> tuple[str, ...]:
    """The keys of the table at ``place``."""
    if not place:
        return tuple(Plan.model_fields)
    kind = _TABLES.get(str(place[-1]), Group)
    return tuple(kind.model_fields)


_KEYS = {
    "-o": "-o",
    "--force": "--force",
    "--format": "formats",
    "--precision": "precisions",
    "--target": "targets",
    "--shift": "lowerings",
    "--allow-unverified-engine": "allow_unverified_engine = true",
    "--dynamic-size": "dynamic_size = true",
}
"""The keys of a plan that options of ``s2mlp-export`` stand for, where these have other names."""


def in_plan(message: str) -> str:
    """``message`` with options of ``s2mlp-export`` as the keys of a plan."""
    return in_fields(message, _KEYS)
