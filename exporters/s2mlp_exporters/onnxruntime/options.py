"""The options of ``--format ort``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from s2mlp_deploy.formats.options import Metavar, Options
from s2mlp_deploy.runtime.providers import Provider

Style = Literal["ort", "onnx"]


class OrtOptions(Options):
    """How ONNX Runtime optimizes the model, and in which format it saves it."""

    ort_style: Annotated[
        Style, Metavar("STYLE"), Field(description="A file for phones and minimal builds, or an optimized ONNX model.")
    ] = "ort"
    provider: Annotated[Provider, Metavar("NAME"), Field(description="The execution provider to optimize for.")] = "cpu"


OPTIONS = {"ort": OrtOptions}
