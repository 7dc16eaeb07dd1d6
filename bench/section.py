"""Titled tables as data, shown alike on a terminal and in a report; and how their numbers are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s2mlp_deploy.timing import Estimate

UNKNOWN = "unknown"

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


def render(section: Section) -> RenderableType:
    """``section`` for a terminal, with its notes below."""
    table = Table(title=section.title, title_justify="left", title_style="bold")
    for index, heading in enumerate(section.headings):
        if index:
            table.add_column(Text(heading), justify="right")
        else:
            table.add_column(Text(heading), overflow="fold")
    for row in section.rows:
        table.add_row(*(Text(UNKNOWN if cell is None else cell) for cell in row))
    return Group(table, *map(Text, section.notes))


def figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def interval(e: Estimate, digits: int = 2) -> str:
    """An estimate's interval."""
    return f"{e.low:.{digits}f} … {e.high:.{digits}f}"
