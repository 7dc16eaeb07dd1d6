"""The form of all studies' tables: a bold title on the left, and ratios with their intervals."""

from __future__ import annotations

from rich.table import Table

from s2mlp_deploy.system.timing import Estimate


def new_table(title: str, *headings: str) -> Table:
    """A table whose first column has names, and others, aligned to the right, one of ``headings`` each."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def with_interval(e: Estimate, digits: int = 2) -> str:
    """The median and its interval, as rich shows them in a cell."""
    return f"{e.median:.{digits}f} [{e.low:.{digits}f}, {e.high:.{digits}f}]".replace("[", r"\[")
