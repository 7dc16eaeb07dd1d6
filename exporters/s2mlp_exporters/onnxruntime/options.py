"""The options of ``--format ort``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from s2mlp_deploy.formats.options import Metavar, Options
from s2mlp_deploy.runtime.providers import Provider

Style = Literal["ort", "onnx"]


class OrtOptions(Options):
    """How ONNX Runtime optimizes the model, and in which format it saves it."""

    ort_style: Annotated[
        Style, Metavar("STYLE"), Field(description="A file for phones and minimal builds, or an optimized ONNX model.")
    ] = "ort"
    provider: Annotated[Provider, Metavar("NAME"), Field(description="The execution provider to optimize for.")] = "cpu"
    tf32: Annotated[bool, Field(description="Round float32 products to TF32.")] = False
    device: Annotated[int | None, Metavar("N"), Field(description="The number of the GPU to check on.", ge=0)] = None

    @field_validator("tf32", "device")
    @classmethod
    def _for_cuda(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value not in (None, False) and info.data.get("provider") != "cuda":
            raise ValueError("expected --provider cuda beside it")
        return value


OPTIONS = {"ort": OrtOptions}
