"""The settings that a manifest records for a program."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Output = Literal["logits", "probabilities"]


class Settings(BaseModel):
    """Recorded settings of a program: ``max_batch`` where the batch is free, and what its output is called."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    runtime: Literal["executorch"] = "executorch"
    runtime_version: str
    backend: Literal["xnnpack"] = "xnnpack"
    output: Output
    max_batch: Annotated[int, Field(ge=1, lt=2**16)] | None = None
