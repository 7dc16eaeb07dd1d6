"""Points with their names beside them: accuracy against latency and size, and what the roofline needs, too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import hypot
from typing import TYPE_CHECKING

from s2mlp_bench.report.pictures import drawing, labels
from s2mlp_bench.report.pictures.drawing import BUNDLE, GRID, INK, PAPER
from s2mlp_bench.report.pictures.labels import Box, Label
from s2mlp_bench.report.pictures.rows import LARGE_SPREAD
from s2mlp_bench.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

FAR, FAR_FROM_LINE = 13.0, 7.0
"""Names of points, and of lines, that are farther away have a leader."""

WIDEST = 0.6
"""Of a name, as a share of the axes."""


@dataclass(frozen=True)
class Name:
    """What stands beside (x, y), points from the lower left corner of the axes; ``first`` are directions in degrees that are
    better than others. It has a leader where it is more than ``far`` away."""

    text: str
    x: float
    y: float
    colour: str = INK
    weight: str = "normal"
    first: tuple[int, ...] = ()
    far: float = FAR


def accuracy(axes: Axes, found: Summary, *, against: str) -> tuple[str, ...]:
    """Accuracy of the bundles that carry it over their ``latency`` or ``size``; a bundle has one size. What must be said below."""
    shown = [f for f in found.figures if f.accuracy is not None]
    if against == "size":
        shown = list({f.source: f for f in reversed(shown)}.values())[::-1]
    values = [f.p50_ms if against == "latency" else f.size_bytes / 1e6 for f in shown]
    percents = [100 * f.accuracy for f in shown if f.accuracy is not None]
    spread = max(max(percents) - min(percents), 0.5)
    axes.set_ylim(min(percents) - 0.6 * spread, max(percents) + 0.6 * spread)
    if max(values) > LARGE_SPREAD * min(values):
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 1.6, max(values) * 1.6)
    else:
        axes.set_xlim(0, max(values) * 1.25)
    rule(axes)
    axes.plot(values, percents, "o", color=BUNDLE, markersize=7, markeredgecolor=PAPER, zorder=4)
    places = [drawing.place(axes, x, y) for x, y in zip(values, percents, strict=True)]
    names = [found.label(f) if against == "latency" else found.short(f) for f in shown]
    taken = [Box(x - 4.5, y - 4.5, x + 4.5, y + 4.5) for x, y in places]
    left_out = write(axes, [Name(drawing.printable(n), x, y) for n, (x, y) in zip(names, places, strict=True)], taken)
    return unnamed(left_out)


def unnamed(left_out: Sequence[str]) -> tuple[str, ...]:
    """A sentence about names without room, if there are any."""
    return (f"No room for the names of {'; '.join(left_out)}.",) if left_out else ()


def rule(axes: Axes) -> None:
    """Numbers on both axes, a grid, and no frame."""
    drawing.number_axis(axes, horizontal=True)
    drawing.number_axis(axes, horizontal=False)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def write(
    axes: Axes, names: Sequence[Name], taken: Iterable[Box], line: Sequence[tuple[float, float]] = ()
) -> tuple[str, ...]:
    """Write ``names`` where there is room, with a leader where that is far away; those for which there is none."""
    width, height = drawing.size(axes)
    texts = [_text(axes, name, width) for name in names]
    asked = [Label(n.x, n.y, *drawing.extent(text), n.first) for n, text in zip(names, texts, strict=True)]
    left_out = []
    for name, text, box in zip(names, texts, labels.place(asked, Box(2, 2, width, height), taken, line), strict=True):
        if box is None:
            text.remove()
            left_out += name.text.split("\n")
            continue
        text.set_position((box.left, (box.bottom + box.top) / 2))
        near = box.nearest(name.x, name.y)
        if hypot(near[0] - name.x, near[1] - name.y) > name.far:
            axes.annotate(
                "", near, (name.x, name.y), xycoords="axes points", textcoords="axes points", zorder=4,
                arrowprops={"arrowstyle": "-", "color": name.colour, "linewidth": 0.6, "shrinkA": 2, "shrinkB": 1},
            )  # fmt: skip
    return tuple(left_out)


def _text(axes: Axes, name: Name, width: float) -> Annotation:
    text = axes.annotate(
        name.text, (0, 0), (0, 0), xycoords="axes points", textcoords="axes points", color=name.colour, weight=name.weight,
        ha="left", va="center", zorder=6, linespacing=1.15,
    )  # fmt: skip
    drawing.fit(text, WIDEST * width)
    return text
