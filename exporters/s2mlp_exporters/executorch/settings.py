"""The settings that a manifest records for a program."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from s2mlp_deploy.schema.strict_model import StrictModel

Output = Literal["logits", "probabilities"]


class Settings(StrictModel):
    """Recorded settings of a program: ``max_batch`` where the batch is free, and what its output is called."""

    runtime: Literal["executorch"] = "executorch"
    runtime_version: str
    backend: Literal["xnnpack"] = "xnnpack"
    output: Output
    max_batch: Annotated[int, Field(ge=1, lt=2**16)] | None = None
