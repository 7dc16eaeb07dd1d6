"""The options of ``--format web``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from s2mlp_deploy.formats.options import Metavar, Options


class WebOptions(Options):
    """Where ONNX Runtime Web is, and which of its backends the page has."""

    ort_web: Annotated[
        Path | None,
        Metavar("DIR"),
        Field(description="The folder dist of onnxruntime-web; else the one in node_modules."),
    ] = None
    webgpu: Annotated[
        bool,
        Field(description="Ship what WebGPU needs, too (17 MB): the page uses it where its answers are right."),
    ] = False


OPTIONS = {"web": WebOptions}
