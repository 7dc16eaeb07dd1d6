"""The options of ``--format coreml``."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from s2mlp_deploy.formats.options import Options

ComputeUnits: TypeAlias = Literal["all", "cpu", "cpu-and-gpu", "cpu-and-ne"]


class CoreMlOptions(Options):
    """Which processors of a Mac ``s2mlp-verify`` lets Core ML choose from; an app chooses for itself."""

    compute_units: Annotated[
        ComputeUnits,
        Field(
            description="Processors that Core ML may use where the package is verified: all, cpu, cpu-and-gpu, cpu-and-ne."
        ),
    ] = "all"


OPTIONS = {"coreml": CoreMlOptions}
