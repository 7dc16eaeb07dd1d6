"""Accuracy of bundles over their latency or size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from s2mlp_bench.report.pictures import drawing
from s2mlp_bench.report.pictures.drawing import BUNDLE, GRID, PAPER
from s2mlp_bench.report.pictures.legend import SHAPES, Mark
from s2mlp_bench.report.pictures.rows import LARGE_SPREAD
from s2mlp_bench.summary import Figures, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def accuracy_marks(found: Summary, *, against: str) -> list[Mark]:
    """A marker for each bundle, or for each of its settings."""
    names = [found.label(f) if against == "latency" else found.short(f) for f in _shown(found, against)]
    return [Mark(drawing.printable(name), shape, BUNDLE) for name, shape in zip(names, cycle(SHAPES), strict=False)]


def accuracy(axes: Axes, found: Summary, *, against: str) -> tuple[str, ...]:
    """Draw the accuracy of bundles over their ``latency`` or ``size``; a bundle has one size. No notes."""
    shown = _shown(found, against)
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
    for x, y, mark in zip(values, percents, accuracy_marks(found, against=against), strict=True):
        axes.plot(x, y, mark.marker, color=BUNDLE, markersize=7, markeredgecolor=PAPER, zorder=4)
    return ()


def rule(axes: Axes) -> None:
    """Numbers on both axes, a grid, and no frame."""
    drawing.number_axis(axes, horizontal=True)
    drawing.number_axis(axes, horizontal=False)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _shown(found: Summary, against: str) -> Sequence[Figures]:
    shown = [f for f in found.figures if f.accuracy is not None]
    if against == "size":
        shown = list({f.source: f for f in reversed(shown)}.values())[::-1]
    return shown
