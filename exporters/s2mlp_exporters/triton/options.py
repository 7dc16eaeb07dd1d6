"""The options of ``--format triton``."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from s2mlp_deploy.formats.options import CommaSeparated, Metavar, Options

Size = Annotated[int, Field(ge=1, lt=2**16)]
Backend = Literal["onnxruntime", "tensorrt"]


def _place(text: str) -> str:
    """``text``, which is N, cpu:N or gpu:N."""
    if not re.fullmatch("(?:(?:cpu|gpu):)?[0-9]{1,5}", text) or not 0 < int(text.rpartition(":")[2]) < 2**16:
        raise ValueError("expected cpu:N or gpu:N")
    return text


class TritonOptions(Options):
    """How Triton is to serve the model."""

    triton_backend: Annotated[Backend, Metavar("NAME"), Field(description="The backend that runs the model.")] = (
        "onnxruntime"
    )
    instances: Annotated[
        str,
        Metavar("WHERE:N"),
        AfterValidator(_place),
        Field(
            description="How often the model is loaded, and where: cpu:N or gpu:N; else cpu:1, or gpu:1 with tensorrt."
        ),
    ] = "1"
    max_batch: Annotated[
        int | None,
        Metavar("N"),
        Field(ge=1, lt=2**16, description="The largest batch, where the graph takes any; else 8."),
    ] = None
    preferred_batch: Annotated[
        tuple[Size, ...],
        CommaSeparated,
        Metavar("N,N"),
        Field(description="The batch sizes that are made where that is possible."),
    ] = ()
    queue_delay_us: Annotated[
        int, Metavar("N"), Field(ge=0, lt=2**31, description="Microseconds that a request waits for others.")
    ] = 0

    perf_data: Annotated[
        bool,
        Field(description="Also write golden inputs for perf_analyzer, and a configuration for Model Analyzer."),
    ] = False

    @property
    def kind(self) -> Literal["cpu", "gpu"]:
        """The processor that the model runs on."""
        named = self.instances.rpartition(":")[0]
        return "gpu" if named == "gpu" or (not named and self.triton_backend == "tensorrt") else "cpu"


OPTIONS = {"triton": TritonOptions}
