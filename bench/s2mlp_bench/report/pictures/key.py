"""What markers and colours of a picture mean, in lines above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s2mlp_bench.report.pictures import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE, PATCH = 1.45, 0.8
"""Height of a line, and of a patch of colour, in units of the font size."""

INDENT, APART = 1.2, 0.95
"""Of words from where their entry begins, and of an entry from the words before it."""


@dataclass(frozen=True)
class Mark:
    """An entry: words, and a marker of matplotlib's, or ``""`` for a patch of colour."""

    text: str
    marker: str
    colour: str
    hollow: bool = False


def height(marks: Sequence[Mark], width: float) -> float:
    """Of what :func:`write` writes."""
    return write(drawing.blank(width, 100), marks, left=0, top=0, width=width)


def write(figure: Figure, marks: Sequence[Mark], *, left: float, top: float, width: float) -> float:
    """Write ``marks`` at a place counted from the upper left corner, in as many lines as it takes; their height."""
    size, whole = drawing.font_size(), drawing.page(figure)
    x, y = left, top + LINE / 2 * size
    for mark in marks:
        text = figure.text(0, 0, mark.text, va="center")
        room = INDENT * size + drawing.extent(text)[0]
        if x > left and x + room > left + width:
            x, y = left, y + LINE * size
        text.set_position(((x + INDENT * size) / whole[0], 1 - y / whole[1]))
        _draw(figure, mark, x, y)
        x += room + APART * size
    return y + LINE / 2 * size - top if marks else 0.0


def _draw(figure: Figure, mark: Mark, x: float, y: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    size, (width, high) = drawing.font_size(), drawing.page(figure)
    if mark.marker:
        face = drawing.PAPER if mark.hollow else mark.colour
        figure.add_artist(
            Line2D(
                [(x + PATCH / 2 * size) / width], [1 - y / high], marker=mark.marker, color=mark.colour, markersize=6,
                markerfacecolor=face, markeredgewidth=1.4, linestyle="none",
            )
        )  # fmt: skip
    else:
        corner = x / width, 1 - (y + PATCH / 2 * size) / high
        figure.add_artist(
            Rectangle(corner, PATCH * size / width, PATCH * size / high, facecolor=mark.colour, linewidth=0)
        )
