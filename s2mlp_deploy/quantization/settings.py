"""The requested precision of an export, with the options that belong to it alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

from s2mlp_deploy.schema import precision as rows
from s2mlp_deploy.schema.choices import CalibrationMethod, IoDtype
from s2mlp_deploy.schema.precision import Precision

SYNTHETIC = "synthetic"
"""Calibration on noise: for measuring speed, never for use."""


@dataclass(frozen=True)
class Float32:
    """Weights and activations in float32."""

    row: ClassVar[Precision] = rows.FP32


@dataclass(frozen=True)
class Float16:
    """float16 weights; ``target`` decides whether products are float16, too (schema/precision.py).

    ``io_dtype`` is the type of input and logits. Without ``target`` the graph is for the processor that the format runs on.
    """

    io_dtype: IoDtype = "fp32"
    target: str | None = None

    row: ClassVar[Precision] = rows.FP16

    @property
    def io_type(self) -> str:
        """The element type of input and logits."""
        return rows.precision(self.io_dtype).on_gpu.inputs


@dataclass(frozen=True)
class BFloat16:
    """Weights and activations in bfloat16."""

    row: ClassVar[Precision] = rows.BF16


@dataclass(frozen=True)
class Int8:
    """int8 matrix products, calibrated on images of the kind that the model will see.

    Attributes:
        calibration: A folder of images, a file of prepared inputs, or :data:`SYNTHETIC`. A checkpoint needs one of them.
        calibration_count: How many of them are used at most.
        calibration_method: How ranges follow from the values that occur.
        max_accuracy_drop: Accuracy that may be lost on labelled images, in points.
        min_agreement: Without labels, the share of images that must keep their class.
        quantize_ends: Whether the embeddings and the classifier are quantized, too.
        target: The processor that the graph is for; None for the one that the format runs on.
        between: The type of scales and of all that lies between the products.
    """

    calibration: str | Path | None = None
    calibration_count: int = 256
    calibration_method: CalibrationMethod = "minmax"
    max_accuracy_drop: float = 0.5
    min_agreement: float = 0.99
    quantize_ends: bool = False
    target: str | None = None
    between: IoDtype = "fp32"

    row: ClassVar[Precision] = rows.INT8

    @property
    def half(self) -> bool:
        """Whether the graph computes in float16 between the products."""
        return rows.precision(self.between).on_gpu.sums_in_float16

    @property
    def synthetic(self) -> bool:
        """Whether the artifact is calibrated on noise."""
        return self.calibration == SYNTHETIC


PrecisionOptions: TypeAlias = Float32 | Float16 | BFloat16 | Int8

_OF_THEIR_OWN: tuple[type[PrecisionOptions], ...] = (Float32, Float16, BFloat16, Int8)


def _options(row: Precision) -> type[PrecisionOptions]:
    """The class for ``row``: its own, or one without options where only the table knows it."""
    own = (kind for kind in _OF_THEIR_OWN if kind.row is row)
    return next(own, None) or dataclass(frozen=True)(type(row.name, (Float32,), {"row": row}))


OPTIONS: Mapping[str, type[PrecisionOptions]] = {name: _options(row) for name, row in rows.PRECISIONS.items()}
"""The class for each name of ``--precision``."""
