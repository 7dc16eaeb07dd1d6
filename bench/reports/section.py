"""Titled tables, as the report shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Cell: TypeAlias = str | None
"""None: not known, and the report says so. Where a thing does not apply, a cell is empty."""


@dataclass(frozen=True)
class Section:
    """A table whose rows begin with a name: ``headings`` has one for that, too. ``notes`` are paragraphs below it."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headings):
                raise ValueError(f"{self.title}: {len(row)} cells under {len(self.headings)} headings: {row}")
