"""Titled tables as data, shown alike on a terminal and in a report; and how their numbers are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from s2mlp_bench.report.names import folded
from s2mlp_deploy.system.timing import Estimate

UNKNOWN = "unknown"

Cell: TypeAlias = str | None
"""None: not known, and the report marks it. Where a thing does not apply, a cell is empty."""

SENTENCE = 28
"""Cells that are longer are sentences: on a terminal they may be wrapped to this width."""

NAME = 12
"""On a narrow terminal names are folded, but to no less than this."""

_BETWEEN = 3
"""What a column takes besides its text: a blank on either side, and a rule."""


@dataclass(frozen=True)
class Section:
    """A table whose rows begin with a name: ``headings`` has one for that, too. ``notes`` are paragraphs below it.

    The first ``keys`` columns identify rows: the name, and the settings that candidates differ in.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    keys: int = 1

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headings):
                raise ValueError(f"{self.title}: {len(row)} cells under {len(self.headings)} headings: {row}")


def render(section: Section) -> RenderableType:
    """``section`` for a terminal, with its notes below."""
    return Group(_Fitted(section), *map(Text, section.notes))


@dataclass(frozen=True)
class _Fitted:
    """A table that never cuts a number: what does not fit beside the keys follows below, with the keys repeated."""

    section: Section

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        for number, widths in enumerate(_parts(self.section, options.max_width)):
            yield self._table(widths, "" if number == 0 else " (continued)")

    def _table(self, widths: Mapping[int, int], more: str) -> Table:
        table = Table(title=Text(self.section.title + more, "bold"), title_justify="left")
        for column, width in widths.items():
            heading = Text(self.section.headings[column])
            table.add_column(heading, justify="right" if column else "left", width=width, overflow="fold")
        for row in self.section.rows:
            cells = ((column, _shown(row[column])) for column in widths)
            table.add_row(*(Text(cell if column else folded(cell, widths[0])) for column, cell in cells))
        return table


def _parts(section: Section, width: int) -> list[dict[int, int]]:
    """The columns of each table, with their widths: as few tables as fit into ``width``, and those of similar widths."""
    columns = range(len(section.headings))
    whole = {column: max(cell_len(section.headings[column]), _longest(section, column)) for column in columns}
    least = {column: _least(section, column) for column in columns} | {key: whole[key] for key in range(section.keys)}
    names = range(whole[0], min(whole[0], NAME) - 1, -1)
    least[0] = min(names, key=lambda name: len(_split(section.keys, {**least, 0: name}, width)))
    count = len(_split(section.keys, least, width))
    narrow = next(n for n in range(1, width + 1) if n == width or len(_split(section.keys, least, n)) <= count)
    parts = _split(section.keys, least, narrow)
    for part in parts:
        for column in part:
            part[column] += max(min(whole[column] - part[column], width - _taken(part)), 0)
    return parts


def _split(keys: int, least: Mapping[int, int], width: int) -> list[dict[int, int]]:
    """Columns behind the first ``keys`` in tables that are no wider than ``width``, unless there is no other backend."""
    repeated = {key: least[key] for key in range(keys)}
    parts = [dict(repeated)]
    for column in range(keys, len(least)):
        if len(parts[-1]) > keys and _taken({**parts[-1], column: least[column]}) > width:
            parts.append(dict(repeated))
        parts[-1][column] = least[column]
    return parts


def _taken(widths: Mapping[int, int]) -> int:
    return 1 + sum(width + _BETWEEN for width in widths.values())


def _least(section: Section, column: int) -> int:
    """The narrowest that cuts nothing: headings are wrapped between words, and so are sentences."""
    heading = max(map(cell_len, section.headings[column].split()), default=1)
    return max(heading, min(_longest(section, column), SENTENCE))


def _longest(section: Section, column: int) -> int:
    return max((cell_len(_shown(row[column])) for row in section.rows), default=1)


def _shown(cell: Cell) -> str:
    return UNKNOWN if cell is None else cell


def figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def interval(e: Estimate, digits: int = 2) -> str:
    """An estimate's interval."""
    return f"{e.low:.{digits}f} … {e.high:.{digits}f}"
