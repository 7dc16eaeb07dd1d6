"""What the user asks for, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from s2mlp_deploy.calibration import Method
from s2mlp_deploy.precision import IoDtype
from s2mlp_deploy.spec import DIRECTIONS, Offset, Size

SYNTHETIC = "synthetic"
"""Calibration on noise: for measuring speed, never for use."""


@dataclass(frozen=True)
class Request:
    """What to export and how; the fields are the options of ``s2mlp-export``."""

    checkpoint: Path
    format: str = "onnx"
    precision: str = "fp32"
    output: Path | None = None
    force: bool = False
    layout: str | None = None
    weights: str | None = None
    lowering: str = "auto"
    semantics: Literal["paper", "inplace", "auto"] = "paper"
    offsets: tuple[Offset, ...] = DIRECTIONS["4"]
    image_size: Size | None = None
    dynamic_size: bool = False
    batch: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    reference: Path | None = None
    data: Path | None = None
    data_count: int = 1000
    gate: bool = True
    io_dtype: IoDtype = "fp32"
    target: str | None = None
    calibration: str | Path | None = None
    calibration_count: int = 256
    calibration_method: Method = "minmax"
    max_accuracy_drop: float = 0.5
    min_agreement: float = 0.99
    quantize_ends: bool = False

    @property
    def destination(self) -> Path:
        """Where the bundle goes."""
        return self.output or Path(f"{self.checkpoint.stem}-{self.format}-{self.precision}")
