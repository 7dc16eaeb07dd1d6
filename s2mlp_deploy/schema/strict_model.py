"""The base class of everything that is read from JSON files: frozen, and strict about unknown fields."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """Refuses unknown fields, infinities and NaN; its fields cannot be set once it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
