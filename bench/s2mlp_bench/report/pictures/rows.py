"""Pictures with a row for each candidate: its name and figures in one line, what is drawn of it below them.

So names may be long, and nothing can cover anything. Vertical data coordinates are points from the upper edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np

from s2mlp_bench.profile import Profile, kinds
from s2mlp_bench.report import section
from s2mlp_bench.report.pictures import drawing
from s2mlp_bench.report.pictures.drawing import BASELINE, BUNDLE, FAINT, GRID, INK, PAPER, QUIET
from s2mlp_bench.report.pictures.legend import Mark
from s2mlp_bench.report.section import interval
from s2mlp_bench.summary import Figures, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

ROW = 2.9
"""Height of a row in units of the font size, at the least."""

REMARK = 0.3
"""The share of a line that its remark keeps, however long the name is."""

LARGE_SPREAD = 4.0
"""Where the largest value is so many times the smallest, the axis is logarithmic."""

KIND_COLOURS = {
    "FC₁, FC₂": "#004489",
    "token mixing": "#1f5796",
    "FC₃": "#3a70ab",
    "FC₄": "#7aa3cf",
    "GELU": "#ddaa33",
    "LayerNorm": "#8a8a4a",
    "quantize": "#5fa8ad",
    "shift": "#bb5567",
    "residual sums": "#8c7aa9",
    "casts": "#c9a0b4",
    "patch embedding": "#8f8f8f",
    "head": "#b5b5b5",
    "other": "#d2d2d2",
}
"""Products in blues, what is not of the blocks in greys; unlike any other colour here, so that each can be replaced."""

_POINTS = 96
"""Of a distribution's outline."""


def ratio_marks(found: Summary) -> list[Mark]:
    """The legend of :func:`ratios`."""
    shown = found.figures
    marks = []
    if any(f.kind == "bundle" and f.comparable for f in shown):
        marks.append(Mark("bundle", "o", BUNDLE))
    if any(f.kind == "baseline" and f.comparable for f in shown):
        marks.append(Mark("baseline", "o", BASELINE))
    if hollow := [f for f in shown if not f.comparable]:
        colour = BASELINE if any(f.kind == "baseline" for f in hollow) else BUNDLE
        marks.append(Mark("not comparable", "o", colour, hollow=True))
    if any(f.of_bound for f in shown):
        marks.append(Mark("products alone", "|", INK))
    return marks


LATENCY_MARKS = (Mark("p50", "o", INK), Mark("p90", "D", INK, hollow=True), Mark("p99", "|", INK))


def profile_marks(profiles: Sequence[Profile]) -> list[Mark]:
    """The colours of the layers that take time, in the order of computation's kinds."""
    return [Mark(kind, "", KIND_COLOURS[kind]) for kind in kinds(profiles)]


def ratios(axes: Axes, found: Summary) -> None:
    """How many times as fast as the first each is, with its 95% interval and the bound of a bundle."""
    values = [value for f in found.figures for value in (f.speed.low, f.speed.high, *_bound(f))]
    _scale(axes, values, unit="×")
    axes.axvline(1, color=FAINT, linewidth=0.8, zorder=1)
    lines = [
        _Line(found.short(f), _short(f), ", ".join(found.settings(f)), "1×" if f is found.figures[0] else speed(f))
        for f in found.figures
    ]
    for f, lane in zip(found.figures, _lanes(axes, lines), strict=True):
        y, colour = lane.top + min(lane.height / 2, 0.9 * drawing.font_size()), _colour(f)
        axes.plot([f.speed.low, f.speed.high], [y, y], color=colour, linewidth=2, solid_capstyle="butt", zorder=3)
        axes.plot(
            f.speed.median,
            y,
            "o",
            color=colour,
            markersize=6,
            markeredgewidth=1.4,
            zorder=4,
            markerfacecolor=colour if f.comparable else PAPER,
        )
        axes.plot(_bound(f), [y] * len(_bound(f)), "|", color=INK, markersize=9, markeredgewidth=1.6, zorder=2)


def latencies(axes: Axes, found: Summary, samples_ms: Mapping[str, Sequence[float]]) -> None:
    """Each candidate's samples as an outline of how they are distributed, with its p50, p90 and p99."""
    _scale(axes, [value for f in found.figures for value in (min(samples_ms[f.name]), f.p99_ms)])
    lines = [
        _Line(
            found.short(f),
            _short(f),
            ", ".join(found.settings(f)),
            " / ".join(section.figure(value) for value in (f.p50_ms, f.p90_ms, f.p99_ms)),
        )
        for f in found.figures
    ]
    for f, lane in zip(found.figures, _lanes(axes, lines), strict=True):
        y, colour = lane.top + lane.height - 2, _colour(f)
        x, density = _outline(axes, samples_ms[f.name])
        axes.fill_between(x, y - (lane.height - 2) * density, y, color=colour, alpha=0.3, linewidth=0, zorder=2)
        axes.plot([min(samples_ms[f.name]), f.p99_ms], [y, y], color=colour, linewidth=1, zorder=2)
        axes.plot(f.p99_ms, y, "|", color=colour, markersize=8, markeredgewidth=1.6, zorder=3)
        axes.plot(f.p90_ms, y, "D", color=colour, markersize=4.5, markerfacecolor=PAPER, zorder=4)
        axes.plot(
            f.p50_ms, y, "o", color=colour, markersize=5, zorder=5, markerfacecolor=colour if f.comparable else PAPER
        )


def profile(axes: Axes, profiles: Sequence[Profile], found: Summary) -> None:
    """Milliseconds of a batch by kind of layer, one bar a bundle."""
    _scale(axes, [0.0, *(p.total_ms for p in profiles)])
    figures = {f.name: f for f in found.figures}
    shown = [(figures[one.candidate], f"{section.figure(one.total_ms)} ms") for one in profiles]
    lines = [_Line(found.short(f), "", ", ".join(found.settings(f)), words) for f, words in shown]
    for one, lane in zip(profiles, _lanes(axes, lines), strict=True):
        left, times = 0.0, {part.kind: part.time_ms for part in one.parts}
        height = min(lane.height, 1.4 * drawing.font_size())
        for kind in kinds(profiles):
            width = times.get(kind, 0.0)
            axes.barh(lane.top + height / 2, width, height, left=left, color=KIND_COLOURS[kind], linewidth=0, zorder=3)
            left += width


def speed(f: Figures) -> str:
    """A ratio with its interval."""
    digits = 2 if f.speed.low >= 0.1 else 3
    return f"{f.speed.median:.{digits}f}× ({interval(f.speed, digits)})"


def _scale(axes: Axes, values: Sequence[float], unit: str = "") -> None:
    """An axis that holds ``values`` and, where it can, zero."""
    smallest, largest = min(values), max(values)
    if smallest > 0 and largest > LARGE_SPREAD * smallest:
        axes.set_xscale("log")
        axes.set_xlim(smallest / 1.15, largest * 1.15)
    else:
        axes.set_xlim(0, largest * 1.06)
    axes.set_ylim(drawing.size(axes)[1], 0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_yticks([])
    drawing.number_axis(axes, horizontal=True, unit=unit)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


@dataclass(frozen=True)
class _Line:
    """A row's text: candidate, remark against comparing it, settings and figures."""

    name: str
    remark: str
    settings: str
    figures: str


@dataclass(frozen=True)
class _Lane:
    """Room for a drawing below a row's text."""

    top: float
    height: float


def _lanes(axes: Axes, lines: Sequence[_Line]) -> Iterator[_Lane]:
    """Rows of the same height, with a rule between, and ``lines`` written, in which settings and figures are columns."""
    height = drawing.size(axes)[1]
    row, size = height / len(lines), drawing.font_size()
    figures = [_write(axes, 1, i * row + 0.8 * size, line.figures, ha="right") for i, line in enumerate(lines)]
    left_of_all = drawing.size(axes)[0] - max(drawing.extent(text)[0] for text in figures) - size
    for i, (line, text) in enumerate(zip(lines, figures, strict=True)):
        if i:
            axes.axhline(i * row, color=GRID, linewidth=0.7, zorder=1)
        room = drawing.size(axes)[0] - drawing.extent(text)[0] - size
        if line.settings:
            right = left_of_all / drawing.size(axes)[0]
            said = _write(axes, right, i * row + 0.8 * size, line.settings, ha="right")
            room = left_of_all - drawing.extent(said)[0] - size
        _write_name(axes, line, i * row + 0.8 * size, room)
        yield _Lane(i * row + 1.4 * size, row - 1.7 * size)


def _write_name(axes: Axes, line: _Line, y: float, room: float) -> None:
    """Write the candidate's name, and the remark against comparing it."""
    size, width = drawing.font_size(), drawing.size(axes)[0]
    said = _write(axes, 0, y, line.remark, color=QUIET) if line.remark else None
    left = _write(axes, 0, y, drawing.printable(line.name), weight="bold")
    if said:
        drawing.fit(said, max(room - drawing.extent(left)[0] - 0.6 * size, REMARK * room))
    drawing.fit(left, room - (drawing.extent(said)[0] + 0.6 * size if said else 0))
    if said:
        said.set_x((drawing.extent(left)[0] + 0.6 * size) / width)


def _write(axes: Axes, x: float, y: float, words: str, **how: Any) -> Text:
    """Text that hides the grid, ``x`` as a share of the width."""
    return axes.text(
        x,
        y,
        words,
        transform=axes.get_yaxis_transform(),
        va="center",
        zorder=6,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.5},
        **how,
    )


def _short(f: Figures) -> str:
    """A remark shortened to its first words; "wrong answers" where the logits for the same inputs differ."""
    if not f.comparable and f.distance is not None:
        return "wrong answers"
    return f.remark.split(",")[0].split(" (")[0]


def _colour(f: Figures) -> str:
    return BUNDLE if f.kind == "bundle" else BASELINE


def _bound(f: Figures) -> list[float]:
    return [f.speed.median / f.of_bound.median] if f.of_bound else []


def _outline(axes: Axes, samples: Sequence[float]) -> tuple[Any, Any]:
    """Where ``samples`` are, smoothed in the axis's own scale; the highest place is 1."""
    values = np.asarray(samples)
    low, high = axes.get_xlim()
    logarithmic = axes.get_xscale() == "log"
    if logarithmic:
        values, low, high = np.log(values), log(low), log(high)
    quarter = float(np.subtract(*np.percentile(values, [75, 25])))
    width = max(0.9 * min(float(values.std()), quarter / 1.34) * len(values) ** -0.2, 0.004 * (high - low))
    start, end = max(low, float(values.min()) - 3 * width), min(high, float(np.percentile(values, 99)) + 3 * width)
    x = np.linspace(start, end, _POINTS)
    density = np.exp(-0.5 * ((x[:, None] - values[None, :]) / width) ** 2).sum(axis=1)
    return (np.exp(x) if logarithmic else x), density / density.max()
