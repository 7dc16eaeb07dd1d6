"""A grid of names and facts, as most tables of commands are."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text


def fact(grid: Table, name: str, content: str) -> None:
    """Add a line."""
    grid.add_row(name, Text(content))  # file names and labels are text, not markup


def new_grid() -> Table:
    """An empty grid."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    return grid
