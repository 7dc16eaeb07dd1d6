"""The base class of everything that users or files fill in: frozen, and strict about unknown fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class StrictModel(BaseModel):
    """Refuses unknown fields, infinities and NaN; its fields cannot be set once it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# Bounded, so that everything computed from a damaged manifest stays small too.
Count = Annotated[int, Field(ge=0, lt=2**31)]
Extent = Annotated[int, Field(ge=1, lt=2**31)]
Step = Annotated[int, Field(gt=-(2**31), lt=2**31)]
