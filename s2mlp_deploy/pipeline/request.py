"""The user's request for one bundle, in parts, and the export that it results in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.read import is_bundle
from s2mlp_deploy.bundle.signature import SigningKey, TrustedKey
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.base import Format
from s2mlp_deploy.formats.options import Options
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.gate.checks import Verdict
from s2mlp_deploy.quantization.settings import Float16, Float32, Int8, PrecisionOptions
from s2mlp_deploy.schema.choices import Interpolation, Resize
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS, Interface
from s2mlp_deploy.schema.precision import TRT, X86, Arithmetic, FloatType
from s2mlp_deploy.schema.report import Report
from s2mlp_deploy.schema.shift import Offset
from s2mlp_deploy.schema.size import Size

FLAGS = {
    "lowering": "--shift",
    "semantics": "--shift-semantics",
    "offsets": "--shift-directions",
    "gate": "--no-gate",
    "interface": "--input, --answer",
    "directory": "--output",
    "name": "--format",
    "publisher": "--key, --certificate",
}
"""The options of ``s2mlp-export`` whose names differ from the fields of the request."""


RequestedSemantics: TypeAlias = Literal["paper", "inplace", "auto"] | None


def flags(names: Iterable[str]) -> str:
    """The options for these fields or format options, as one types them."""
    return ", ".join(FLAGS.get(name, "--" + name.replace("_", "-")) for name in names)


def refuse_settled(names: Iterable[str], bundle: Path) -> None:
    """Refuse the fields ``names``, which were settled when the bundle of a request was exported.

    Raises:
        UsageError: where there are any.
    """
    if options := flags(names):
        raise UsageError(
            f"{options}: settled when {bundle} was exported; leave out, or give the checkpoint instead of the bundle"
        )


class _Part:
    """A part of a request; paths may be given as strings."""

    _paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self._paths:
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else Path(value))

    def given(self) -> tuple[str, ...]:
        """The fields that have another value than their default."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) != f.default)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Source(_Part):
    """A checkpoint, or the directory of an ONNX bundle, and facts about a checkpoint that its file does not record.

    Without ``semantics`` and ``offsets`` the shift is as the checkpoint's layout declares, else the paper's. ``mean`` to
    ``crop_fraction`` set how images are prepared; None: as the checkpoint records, else a default. A bundle must be signed by
    ``publisher``, where one is given. A checkpoint whose hash is not ``sha256`` is refused.
    """

    path: Path
    layout: str | None = None
    weights: str | None = None
    semantics: RequestedSemantics = None
    offsets: tuple[Offset, ...] | None = None
    image_size: Size | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: Resize | None = None
    interpolation: Interpolation | None = None
    crop_fraction: float | None = None
    labels: Path | None = None
    publisher: TrustedKey | None = None
    sha256: str | None = None

    _paths = ("path", "labels")

    @property
    def is_bundle(self) -> bool:
        """Whether the source is a bundle.

        Raises:
            BundleError: where it is a file in one.
        """
        return is_bundle(self.path)


@dataclass(frozen=True)
class GraphOptions(_Part):
    """How the checkpoint becomes a graph: the shift's lowering, free or fixed axes, and the artifact's interface."""

    lowering: str = "auto"
    dynamic_size: bool = False
    batch: int | None = None
    interface: Interface = FLOAT_LOGITS


@dataclass(frozen=True)
class FormatOptions(_Part):
    """The format by name, and options of its own by name."""

    name: str = ONNX
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvidenceOptions(_Part):
    """The evidence that the export is checked with.

    ``reference`` holds inputs and logits that the user's own model gave, ``data`` labelled images, ``golden_images`` images
    that travel in the bundle (else some of ``data``). Without ``gate`` nothing is checked, and the bundle records that.
    ``time_int8``: an int8 artifact for the GPU at hand is timed against float16.
    """

    reference: Path | None = None
    data: Path | None = None
    data_count: int = 1000
    golden_images: Path | None = None
    gate: bool = True
    allow_unverified_engine: bool = False
    time_int8: bool = True

    _paths = ("reference", "data", "golden_images")


@dataclass(frozen=True)
class OutputOptions(_Part):
    """Where the bundle goes, whether it replaces one that is there (``force``), whether it holds an SBOM, the key to ``sign`` it with, and
    whether it holds a model card, which names a ``license``."""

    directory: Path | None = None
    force: bool = False
    sbom: bool = False
    sign: SigningKey | None = None
    card: bool = False
    license: str | None = None

    _paths = ("directory",)


@dataclass(frozen=True)
class ExportRequest:
    """One bundle to make. Each part has a default but ``source``."""

    source: Source
    graph: GraphOptions = field(default_factory=GraphOptions)
    precision: PrecisionOptions = field(default_factory=Float32)
    format: FormatOptions = field(default_factory=FormatOptions)
    evidence: EvidenceOptions = field(default_factory=EvidenceOptions)
    output: OutputOptions = field(default_factory=OutputOptions)

    @property
    def destination(self) -> Path:
        """The bundle's directory."""
        path, precision = self.source.path, self.precision.row.name
        name = path.resolve().name.removesuffix(f"-{ONNX}-{precision}") if self.source.is_bundle else path.stem
        return self.output.directory or Path(f"{name}-{self.format.name}-{precision}")

    @property
    def graph_destination(self) -> Path:
        """The directory of the ONNX bundle where only another machine can build the engine: beside the engine's own place."""
        place = self.destination
        if place.name in ("", ".."):
            place = place.resolve()
        name = place.name.removesuffix(f"-{self.format.name}-{self.precision.row.name}")
        return place.with_name(f"{name}-{ONNX}-{self.precision.row.name}")

    def options_of(self, format: Format) -> Options:
        """The format's own options.

        Raises:
            UsageError: where the format has no such options.
        """
        return registry.options(format, self.format.options)

    def target_of(self, format: Format) -> str:
        """The processor that a graph for ``format`` is for: the one given, else the one that the format runs on."""
        precision = self.precision
        if isinstance(precision, Float16 | Int8) and precision.target:
            return precision.target
        if precision.row.by_processor and format.for_gpu(self.options_of(format)):
            return TRT.name
        return next(iter(format.targets_of(precision.row)), X86.name)

    def arithmetic_of(self, format: Format) -> Arithmetic:
        """The element types of the graph's products for ``format``."""
        row = self.precision.row
        return row.half if self._is_half and row.half else row.arithmetic(self.target_of(format))

    def recorded_arithmetic(self, format: Format) -> FloatType | None:
        """The arithmetic as a manifest records it; None where the precision's name says it."""
        return (
            self.arithmetic_of(format).outputs if self._is_half else self.precision.row.recorded(self.target_of(format))
        )

    @property
    def _is_half(self) -> bool:
        return isinstance(self.precision, Int8) and self.precision.half

    @property
    def dtype(self) -> str:
        """The type of logits, and of prepared images, in the artifact."""
        return self.precision.io_type if isinstance(self.precision, Float16) else self.precision.row.io_types[0]

    @property
    def synthetic(self) -> bool:
        """Whether the artifact is calibrated on noise, for measuring speed alone: nothing is checked then."""
        return isinstance(self.precision, Int8) and self.precision.synthetic

    def settled_by_a_bundle(self) -> tuple[str, ...]:
        """The given fields that a bundle's graph has settled already."""
        of_precision = [f.name for f in fields(self.precision) if getattr(self.precision, f.name) != f.default]
        of_engines = ("allow_unverified_engine", "time_int8")
        of_evidence = [name for name in self.evidence.given() if name not in of_engines]
        of_source = [name for name in self.source.given()[1:] if name != "publisher"]
        return (*of_source, *self.graph.given(), *of_evidence, *of_precision)


@dataclass(frozen=True)
class Export:
    """A published bundle, the gate's verdict (None where it did not run), and the report."""

    bundle: Bundle
    verdict: Verdict | None
    report: Report
