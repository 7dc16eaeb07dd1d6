"""What the user asks for, and what comes of it, as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.read import is_bundle
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.base import Format
from s2mlp_deploy.formats.options import Options
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.gate.checks import Verdict
from s2mlp_deploy.schema.choices import CalibrationMethod, Interpolation, IoDtype, Resize
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS, Interface
from s2mlp_deploy.schema.precision import FP32, TRT, X86, precision
from s2mlp_deploy.schema.shift import Offset
from s2mlp_deploy.schema.size import Size

SYNTHETIC = "synthetic"
"""Calibration on noise: for measuring speed, never for use."""


OPTIONS = {
    "lowering": "--shift",
    "semantics": "--shift-semantics",
    "offsets": "--shift-directions",
    "gate": "--no-gate",
    "interface": "--input, --answer",
}
"""The options of ``s2mlp-export`` that are not called like the request's fields."""


_PATHS = ("source", "output", "labels", "golden_images", "reference", "data")


def flags(names: Iterable[str]) -> str:
    """The options for these fields or settings, as one types them."""
    return ", ".join(OPTIONS.get(name, "--" + name.replace("_", "-")) for name in names)


@dataclass(frozen=True)
class Request:
    """What to export and how; the fields are the options of ``s2mlp-export``.

    ``source`` is a checkpoint, or the directory of an ONNX bundle; it and other paths may be given as strings. ``settings`` are for the format's own
    compiler, by name. Without ``semantics`` and ``offsets`` the shift is as the checkpoint's layout declares, else the paper's.
    """

    source: Path
    format: str = ONNX
    precision: str = FP32.name
    output: Path | None = None
    force: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    layout: str | None = None
    weights: str | None = None
    lowering: str = "auto"
    semantics: Literal["paper", "inplace", "auto"] | None = None
    offsets: tuple[Offset, ...] | None = None
    image_size: Size | None = None
    dynamic_size: bool = False
    batch: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: Resize | None = None
    interpolation: Interpolation | None = None
    crop_fraction: float | None = None
    labels: Path | None = None
    golden_images: Path | None = None
    interface: Interface = FLOAT_LOGITS
    reference: Path | None = None
    data: Path | None = None
    data_count: int = 1000
    gate: bool = True
    sbom: bool = False
    allow_unverified_engine: bool = False
    io_dtype: IoDtype = "fp32"
    target: str | None = None
    calibration: str | Path | None = None
    calibration_count: int = 256
    calibration_method: CalibrationMethod = "minmax"
    max_accuracy_drop: float = 0.5
    min_agreement: float = 0.99
    quantize_ends: bool = False

    def __post_init__(self) -> None:
        for name in _PATHS:
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else Path(value))

    @property
    def from_bundle(self) -> bool:
        """Whether ``source`` is a bundle.

        Raises:
            BundleError: where it is a file in one.
        """
        return is_bundle(self.source)

    @property
    def destination(self) -> Path:
        """Where the bundle goes."""
        name = (
            self.source.resolve().name.removesuffix(f"-{ONNX}-{self.precision}")
            if self.from_bundle
            else self.source.stem
        )
        return self.output or Path(f"{name}-{self.format}-{self.precision}")

    @property
    def graph_destination(self) -> Path:
        """Where the ONNX bundle goes where only another machine can build the engine: beside the engine's own place, named after it."""
        place = self.destination
        if place.name in ("", ".."):
            place = place.resolve()
        name = place.name.removesuffix(f"-{self.format}-{self.precision}")
        return place.with_name(f"{name}-{ONNX}-{self.precision}")

    def options_of(self, format: Format) -> Options:
        """The settings as ``format``'s options.

        Raises:
            UsageError: where they are not.
        """
        return registry.options(format, self.settings)

    def target_of(self, format: Format) -> str:
        """What an int8 or fp16 graph for ``format`` is for: as asked, else what the format runs on."""
        if self.target:
            return self.target
        if precision(self.precision).by_processor and format.for_gpu(self.options_of(format)):
            return TRT.name
        return next(iter(format.targets), X86.name)

    @property
    def dtype(self) -> str:
        """The type of logits, and of prepared images, in the artifact."""
        return precision(self.io_dtype).on_gpu.inputs

    def for_graph(self) -> tuple[str, ...]:
        """The options given that say how a checkpoint becomes a graph; a bundle's graph is settled."""
        compiling = {"source", "format", "precision", "output", "force", "settings", "allow_unverified_engine", "sbom"}
        return tuple(f.name for f in fields(self) if f.name not in compiling and getattr(self, f.name) != f.default)


@dataclass(frozen=True)
class Export:
    """A published bundle and what the gate measured (None where it did not run)."""

    bundle: Bundle
    verdict: Verdict | None
    report: dict[str, Any]
