"""The closed sets of words that the command line, requests and manifests take, as ``Literal`` types.

This module imports nothing, so that ``--help`` can list the words at once.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

ShiftLowering: TypeAlias = Literal["auto", "slice", "conv", "gather", "pad"]
"""How the graph expresses the shift (graph/spatial_shift/)."""

Resize: TypeAlias = Literal["shorter", "shorter-then-crop", "squash"]
Interpolation: TypeAlias = Literal["bilinear", "bicubic", "lanczos", "hamming", "box", "nearest"]

InputKind: TypeAlias = Literal["float", "uint8", "image"]
OutputKind: TypeAlias = Literal["logits", "probabilities", "top5"]
IoDtype: TypeAlias = Literal["fp32", "fp16"]

Target: TypeAlias = Literal["x86", "arm", "trt", "cuda", "litert", "litert-micro"]
CalibrationMethod: TypeAlias = Literal["minmax", "percentile", "mse", "entropy"]
