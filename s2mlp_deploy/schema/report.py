"""The report (``report.json``): the figures measured when a bundle was made.

Figures in it are shown to people and never trusted: the manifest holds no hash of it, and :func:`parse_report` ignores
a report that is damaged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from s2mlp_deploy.schema.shift import Reading, Semantics

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Distance:
    """How far ``samples`` rows of logits are from the reference; the worst row counts.

    ``relative_l2`` is ‖actual − expected‖ / ‖expected‖. ``margin`` is the largest gap between the
    reference's first and second class, in units of ‖expected‖, among rows whose first class differs. Outputs that are no
    logits have no ``top1_agreement``.
    """

    samples: int
    relative_l2: float
    cosine: float
    max_abs: float
    top1_agreement: float | None
    margin: float = 0.0


@dataclass(frozen=True)
class Execution:
    """How an artifact ran on a GPU.

    ``provider`` is ONNX Runtime's execution provider, ``gpu`` the name of the GPU with the number ``device``, empty where the driver
    does not give it. ``cuda_graph`` says whether each shape's work is recorded once and replayed as a CUDA graph, ``without_graph``
    why not. ``clock`` is what times its copies and its computation.
    """

    provider: str
    device: int
    gpu: str
    tf32: bool
    cuda_graph: bool
    without_graph: str | None
    clock: str

    @property
    def why_inexact(self) -> str | None:
        """Why numbers may be off, where that is known."""
        return (
            "float32 products were rounded to TF32, which keeps 10 bits of fraction: leave out --tf32"
            if self.tf32
            else None
        )

    def __str__(self) -> str:
        name = f"GPU {self.device}" + (f" ({self.gpu})" if self.gpu else "")
        graph = "CUDA graphs" if self.cuda_graph else f"no CUDA graph: {self.without_graph}"
        return f"{self.provider}, {name}, TF32 {'on' if self.tf32 else 'off'}, {graph}"


@dataclass(frozen=True)
class Evidence:
    """Figures measured under each semantics of the shift, and the semantics that they support.

    A network without a shift has one figure, under ``none``. ``quantity`` is ``relative L2`` (smaller is better) or ``accuracy`` (larger is better).
    ``supports`` is None where neither explains the evidence, or where it cannot distinguish them.
    """

    kind: Literal["reference", "images"]
    quantity: Literal["relative L2", "accuracy"]
    measured: Mapping[Reading, float]
    samples: int
    supports: Reading | None
    reason: str

    def __str__(self) -> str:
        what = "images" if self.kind == "images" else "recorded samples"
        return f"{self.quantity} over {self.samples} {what}: {self.figures}"

    @property
    def figures(self) -> str:
        """The measured value of each semantics."""
        form = "{:.2%}" if self.quantity == "accuracy" else "{:.2g}"
        return ", ".join(form.format(v) if s == "none" else f"{s} {form.format(v)}" for s, v in self.measured.items())


@dataclass(frozen=True)
class LeftOut:
    """A tensor of the checkpoint that is not a weight of the model, and why."""

    key: str
    shape: tuple[int, ...]
    why: str


@dataclass(frozen=True)
class LabelledFolder:
    """How the subfolders of ``--data`` were read as classes.

    ``respelled`` subfolders are called like labels but for Unicode form, case, blanks and underscores. ``left_out``
    counts files that were not read, by kind; ``empty`` does so for the subfolders in which nothing was. Of the classes
    ``without_images`` there is no image.
    """

    named_by: Literal["index", "label", "order"]
    classes: Mapping[str, int]
    respelled: tuple[str, ...]
    left_out: Mapping[str, int]
    empty: Mapping[str, Mapping[str, int]]
    without_images: tuple[int, ...]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class ImageAccuracy(_Part):
    """Figures measured on the ``count`` images of an evaluation set; accuracies are None without labels."""

    count: int = 0
    accuracy: Share | None = None
    accuracy_pytorch: Share | None = None
    top1_agreement: Share | None = None


@dataclass(frozen=True)
class Trial:
    """One set of layers left in float, and its figures on the evaluation set.

    ``agreement`` is the share of images with the float model's class; accuracies are shares, too, and
    None without labels. ``relative_l2`` is the distance on the images that the gate will check.
    """

    float_layers: tuple[str, ...]
    agreement: Share
    accuracy: Share | None
    float_accuracy: Share | None
    relative_l2: float
    passed: bool


class SourceBundle(_Part):
    """The ONNX bundle that an engine was built from: its model's hash, its accuracy where its report has one, and its signature's
    state where it has one, which does not cover the engine."""

    sha256: str
    images: ImageAccuracy | None = None
    signature: Literal["not checked", "valid"] | None = None


class EngineReport(BaseModel):
    """Figures recorded while compiling; formats may add figures of their own.

    ``not_delegated`` counts the operators, by name, that the backend left to the runtime's own kernels, and ``delegated`` those
    that an NPU takes.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    kernels: int = 0
    shift_kernels: int = 0
    moved_bytes: int = 0
    shift_moved_bytes: int = 0
    not_delegated: Mapping[str, int] | None = None
    delegated: int | None = None


@dataclass(frozen=True)
class RepairedRegion:
    """A subgraph that only moved data: its inputs and outputs, and its operators ``before`` and ``after``, counted."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    before: Mapping[str, int]
    after: Mapping[str, int]


@dataclass(frozen=True)
class OverlappingStatement:
    """An assignment of a slice to an overlapping slice of the same buffer, and the ``semantics`` that was written for it.

    ``reason`` says why ``inplace`` cannot be restored; None where it can.
    """

    node: str
    scope: str
    shape: tuple[int | str, ...]
    axis: int
    offset: int
    semantics: Semantics
    reason: str | None = None


class RepairRecord(_Part):
    """The repair of an ONNX file: ``nodes`` and ``scatter_nds`` before and after, and what was left alone, by node.

    ``compared`` are the shapes of the inputs on which its bits are those of the file. ``milliseconds`` are medians of runs
    that took turns, and ``times_faster`` has their ratio, with its interval.
    """

    prefer: str
    nodes: tuple[int, int]
    scatter_nds: tuple[int, int]
    regions: tuple[RepairedRegion, ...]
    left_alone: Mapping[str, str] = {}
    statements: tuple[OverlappingStatement, ...] = ()
    compared: tuple[Mapping[str, tuple[int, ...]], ...] = ()
    milliseconds: tuple[float, float] | None = None
    times_faster: tuple[float, float, float] | None = None
    rounds: int | None = None


class Report(_Part):
    """``report.json``. ``seconds`` is the duration of each step; ``built_from`` is for engines of an earlier bundle.

    ``distances`` are those of the artifact in its runtime, which ``execution`` describes where that is a GPU; of one that is pending
    a device, where ``recomputed``, those of what its files say, else those of its graph.
    """

    data: LabelledFolder | None = None
    built_from: SourceBundle | None = None
    evidence: tuple[Evidence, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    distances: Mapping[str, Distance] = {}
    recomputed: bool = False
    execution: Execution | None = None
    pytorch_distances: Mapping[str, Distance] = {}
    images: ImageAccuracy | None = None
    trials: tuple[Trial, ...] = ()
    engine: EngineReport | None = None
    repair: RepairRecord | None = None
    size_bytes: int = 0
    seconds: Mapping[str, float] = {}
    machine: Mapping[str, str | int] = {}

    def as_dict(self) -> dict[str, Any]:
        """The fields that were measured, for JSON."""
        return self.model_dump(mode="json", exclude_unset=True)

    def to_json(self) -> str:
        """The report as it stands in the bundle: indented, keys in the order of this class."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"

    @property
    def own_accuracy(self) -> float | None:
        """The share of labelled images that the artifact itself classified right; None where it was not measured."""
        if self.trials:
            return self.trials[-1].accuracy
        return self.images.accuracy if self.images else None

    @property
    def accuracy(self) -> float | None:
        """The same, else that of the ONNX bundle that the artifact was built from."""
        if self.own_accuracy is not None:
            return self.own_accuracy
        return self.built_from.images.accuracy if self.built_from and self.built_from.images else None


def parse_report(text: bytes) -> Report | None:
    """The report in ``text``; None where it is damaged."""
    try:
        return Report.model_validate_json(text)
    except ValidationError:
        return None
