"""The pictures of a benchmark: one file with two of them side by side, and narrow ones for the report."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2mlp_bench.benchmark import Result
from s2mlp_bench.report.pictures import alternatives, drawing, legend, roofline_plot, rows, scatter
from s2mlp_bench.report.pictures.drawing import QUIET, printable
from s2mlp_bench.report.pictures.legend import Marks
from s2mlp_bench.results import output
from s2mlp_bench.summary import Summary
from s2mlp_deploy.cli import plot
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.system.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

NARROW = 358.0
"""Width of a picture in the report, in points: on a screen 390 pixels wide a point is then a pixel."""

REPORT_FONT, FILE_FONT, NOTE_FONT = 11.0, 10.0, 9.0

WIDTH, HEIGHT = 792.0, 324.0
"""Of the picture file, 11 by 4.5 inches; with many candidates it is higher."""

_MARGIN, _BETWEEN, _TITLE, _AXIS, _NOTE = 14.0, 46.0, 34.0, 36.0, 34.0
"""Around everything; between two pictures, for the numbers of the second; for titles; below axes, for numbers and what
they mean; and for notes."""

_ROOMY = 2.5
"""Rows are at most so many times as high as they must be."""

_SQUARE = 290.0
"""Height of the report's roofline."""


@dataclass(frozen=True)
class Picture:
    """A drawing of the report: a short name, what it shows for those who do not see it, sentences that belong below it,
    and itself as SVG."""

    name: str
    words: str
    notes: tuple[str, ...]
    svg: bytes


@dataclass(frozen=True)
class _Panel:
    """Axes to be: their legend, what draws on them and returns sentences for below, and what the axes are."""

    title: str
    marks: Marks
    draw: Callable[[Axes], tuple[str, ...]]
    below: str
    above: str
    rows: int


def check(path: Path) -> None:
    """Refuse, before anything is measured, what could not be drawn.

    Raises:
        UsageError: for a file that is no picture.
        RuntimeMissingError: where matplotlib is not installed.
    """
    if path.suffix.lower() not in plot.SUFFIXES:
        raise UsageError(
            f"--png {path} is not a picture's name: expected one that ends in {' or '.join(plot.SUFFIXES)}"
        )
    drawing.require()


def draw(result: Result, path: Path, *, replace: bool) -> None:
    """Write ratios and roofline side by side to ``path``, whole or not at all; latencies, where one of them is empty.

    Raises:
        UsageError, RuntimeMissingError: as :func:`check`.
        OutputError: where ``path`` is taken (without ``replace``), or cannot be written.
    """
    check(path)
    output.check_writable(path, replace=replace)
    output.write(path, content(result, path.suffix.lower()))


def content(result: Result, suffix: str) -> bytes:
    """The content of :func:`draw`'s file that ends in ``suffix``. The same measurements give the same bytes."""
    with drawing.style(FILE_FONT):
        return plot.encode(figure(result), suffix)


def figure(result: Result) -> Figure:
    """The same, to be used in a :func:`drawing.style`."""
    several = len(result.summary.figures) > 1
    panels = [_ratios(result) if several else _latencies(result)]
    if result.roofline or several:
        panels.append(_roofline(result) if result.roofline else _latencies(result))
    return _side_by_side(panels, result.summary)


def of_report(result: Result) -> list[Picture]:
    """The narrow pictures, as far as there is something to draw."""
    found = result.summary
    with drawing.style(REPORT_FONT, text_as_text=True):
        pictures = [_narrow("latencies", _latencies(result), alternatives.latencies(found))]
        if len(found.figures) > 1:
            pictures.insert(0, _narrow("ratios", _ratios(result), alternatives.ratios(found)))
        if result.roofline:
            pictures.append(_narrow("roofline", _roofline(result), alternatives.roofline(result)))
        if result.profiles:
            pictures.append(_narrow("profile", _profile(result), alternatives.profile(result)))
        if sum(f.accuracy is not None for f in found.figures) > 1:
            for against, below in (("latency", "milliseconds a batch, p50"), ("size", "size, MB")):
                pictures.append(
                    _narrow(f"accuracy-{against}", _accuracy(found, against, below), alternatives.accuracy(found))
                )
    return pictures


def _ratios(result: Result) -> _Panel:
    found = result.summary

    def on(axes: Axes) -> tuple[str, ...]:
        rows.ratios(axes, found)
        return ()

    title = f"Speed, relative to {found.label(found.figures[0])}"
    return _Panel(title, [rows.ratio_marks(found)], on, "times as fast, with 95% intervals", "", len(found.figures))


def _latencies(result: Result) -> _Panel:
    found = result.summary

    def on(axes: Axes) -> tuple[str, ...]:
        rows.latencies(axes, found, result.samples_ms)
        return ()

    return _Panel("Latency", [rows.LATENCY_MARKS], on, "milliseconds a batch", "", len(found.figures))


def _profile(result: Result) -> _Panel:
    def on(axes: Axes) -> tuple[str, ...]:
        rows.profile(axes, result.profiles, result.summary)
        return ()

    marks = rows.profile_marks(result.profiles)
    return _Panel("Where the time goes", [marks], on, "milliseconds a batch", "", len(result.profiles))


def _roofline(result: Result) -> _Panel:
    return _Panel(
        "Roofline",
        roofline_plot.marks(result),
        lambda axes: roofline_plot.draw(axes, result),
        "operations a byte",
        "Gop/s",
        0,
    )


def _accuracy(found: Summary, against: str, below: str) -> _Panel:
    marks = [scatter.accuracy_marks(found, against=against)]
    return _Panel(
        "Accuracy", marks, lambda axes: scatter.accuracy(axes, found, against=against), below, "accuracy, %", 0
    )


def _narrow(name: str, panel: _Panel, words: str) -> Picture:
    """A panel as a picture of its own; its title and its notes are the report's to write."""
    top = legend.height(panel.marks, NARROW - 2) + 6 if panel.marks else 22.0
    high = panel.rows * rows.ROW * drawing.font_size() or _SQUARE / (1 if name == "roofline" else 2)
    drawn = drawing.blank(NARROW, top + high + _AXIS)
    left = 6 if panel.rows else 42
    legend.write(drawn, panel.marks, left=1, top=0, width=NARROW - 2)
    notes = _put(drawn, panel, left=left, top=top, width=NARROW - left - 6, height=high)
    return Picture(name, printable(words), notes, plot.encode(drawn, ".svg"))


def _put(drawn: Figure, panel: _Panel, *, left: float, top: float, width: float, height: float) -> tuple[str, ...]:
    """Draw ``panel`` and label its axes: the vertical one's label upright, above it."""
    axes = drawing.axes_at(drawn, left, top, width, height)
    axes.set_xlabel(panel.below, labelpad=3, color=QUIET)
    if panel.above:
        axes.annotate(
            panel.above,
            (0, 1),
            (-36, 11),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            color=QUIET,
        )
    return panel.draw(axes)


def _side_by_side(panels: Sequence[_Panel], found: Summary) -> Figure:
    half = (WIDTH - 2 * _MARGIN - _BETWEEN) / 2
    top = _TITLE + 8 + max(legend.height(panel.marks, half) for panel in panels)
    needed = max(panel.rows for panel in panels) * rows.ROW * drawing.font_size()
    roomy = HEIGHT - top - _AXIS - _NOTE
    high = max(needed, roomy if any(not panel.rows for panel in panels) else min(roomy, _ROOMY * needed))
    drawn = drawing.blank(WIDTH if len(panels) > 1 else half + 2 * _MARGIN, top + high + _AXIS + _NOTE)
    for i, panel in enumerate(panels):
        left = _MARGIN + i * (half + _BETWEEN)
        title = _text(drawn, left, 18, printable(panel.title), size=13, weight="bold")
        drawing.fit(title, half)
        legend.write(drawn, panel.marks, left=left, top=_TITLE, width=half)
        notes = _put(drawn, panel, left=left, top=top, width=half, height=high)
        below = " ".join(notes[1:]) if i else _state(found)
        lines = textwrap.wrap(below, int(half / (0.52 * NOTE_FONT)))
        _text(drawn, left, top + high + _AXIS + _NOTE / 2, "\n".join(lines), size=NOTE_FONT, color=QUIET)
    return drawn


def _text(drawn: Figure, left: float, down: float, words: str, **how: Any) -> Text:
    width, height = drawing.page(drawn)
    return drawn.text(left / width, 1 - down / height, words, va="center", **how)


def _state(found: Summary) -> str:
    """Whether the picture's figures are reliable."""
    words = ", ".join([counted(found.rounds, "interleaved round"), *found.shared])
    if not found.complete:
        words = f"INCOMPLETE: interrupted after {words}"
    elif not found.stable:
        words = f"NOISY machine: {words}"
    return " ".join([f"{words}.", *found.shortening])
