"""The legend above a picture: the meaning of its markers, lines and colours, laid out by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s2mlp_bench.report.pictures import drawing

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

SHAPES = "os^DvP<>Xp*hd"
"""Markers that distinguish candidates; where there are more candidates, shapes repeat."""

HANDLE, BETWEEN = 1.1, 0.35
"""Width of a symbol, and the space between lines, in units of the font size."""


@dataclass(frozen=True)
class Mark:
    """An entry: words, and a marker of matplotlib's, a line of the style ``line``, or else a patch of colour."""

    text: str
    marker: str
    colour: str
    hollow: bool = False
    line: Any = None


Marks = Sequence[Sequence[Mark]]
"""Groups of entries, one below the other."""


def height(groups: Marks, width: float) -> float:
    """Height of what :func:`write` writes, in points."""
    return write(drawing.blank(width, 100), groups, left=0, top=0, width=width)


def write(figure: Figure, groups: Marks, *, left: float, top: float, width: float) -> float:
    """Write ``groups`` at a place counted from the upper left corner, each in as many columns as fit; their height."""
    down = top + BETWEEN * drawing.font_size()  # text is higher than the box that matplotlib reserves for it
    for marks in groups:
        if marks:
            down += _write_group(figure, marks, left, down, width) + BETWEEN * drawing.font_size()
    return down - top


def _write_group(figure: Figure, marks: Sequence[Mark], left: float, top: float, width: float) -> float:
    for columns in range(len(marks), 0, -1):
        legend = _legend(figure, marks, columns, left, top)
        for text in legend.get_texts():
            drawing.fit(text, width - 2 * HANDLE * drawing.font_size())
        box = legend.get_window_extent()
        across, high = box.width * 72 / figure.dpi, box.height * 72 / figure.dpi
        if across <= width or columns == 1:
            break
        legend.remove()
    return high


def _legend(figure: Figure, marks: Sequence[Mark], columns: int, left: float, top: float) -> Legend:
    whole, high = drawing.page(figure)
    return figure.legend(
        handles=[_handle(mark) for mark in marks],
        labels=[mark.text for mark in marks],
        ncols=columns,
        loc="upper left",
        bbox_to_anchor=(left / whole, 1 - top / high),
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=HANDLE,
        handletextpad=0.5,
        columnspacing=1.2,
        labelspacing=BETWEEN,
    )


def _handle(mark: Mark) -> Artist:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    if mark.line is not None:
        return Line2D([], [], color=mark.colour, linestyle=mark.line, linewidth=1.4)
    if mark.marker:
        face = drawing.PAPER if mark.hollow else mark.colour
        return Line2D(
            [],
            [],
            marker=mark.marker,
            color=mark.colour,
            markersize=6,
            markerfacecolor=face,
            markeredgewidth=1.4,
            linestyle="none",
        )
    return Rectangle((0, 0), 1, 1, facecolor=mark.colour, linewidth=0)
