"""Draw the candidates of a tune: accuracy (size, where that was not measured) against time, with the Pareto front.

matplotlib is imported only here and in plot.py, and only when a picture is requested.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from s2mlp_deploy.cli import plot
from s2mlp_deploy.cli.plot import COLOURS, MARKERS
from s2mlp_deploy.pipeline.tune.report import Row, TuneReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OPTION = "--png"


def check(path: Path, *, replace: bool) -> None:
    """Refuse, before any work is done, a picture that could not be drawn or written.

    Raises:
        UsageError, OutputError, RuntimeMissingError: as :func:`s2mlp_deploy.cli.plot.check`.
    """
    plot.check(path, replace=replace, option=OPTION)


def draw(report: TuneReport, path: Path, *, replace: bool) -> None:
    """Write the picture of ``report`` to ``path``.

    Raises:
        OutputError: as :func:`check`.
    """
    plot.save(figure(report), path, replace=replace, option=OPTION)


def figure(report: TuneReport) -> Figure:
    """Each candidate a point, its colour the precision, its shape the format; the front as a line, with names."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"font.size": 9, "axes.linewidth": 0.7})
        drawn = Figure(figsize=(8.4, 5.0), dpi=150, facecolor="white")
        FigureCanvasAgg(drawn)
        axes = drawn.add_axes((0.09, 0.12, 0.68, 0.74))
        accurate = all(row.figures and row.figures.accuracy_drop is not None for row in report.timed)
        _points(axes, report.timed, accurate=accurate)
        _front(axes, report, accurate=accurate)
        _describe(axes, report, accurate=accurate)
        return drawn


def _place(row: Row, *, accurate: bool) -> tuple[float, float]:
    """Milliseconds a batch, and the points of accuracy above PyTorch's on the same images, or megabytes."""
    assert row.figures and row.milliseconds
    height = -(row.figures.accuracy_drop or 0.0) if accurate else row.figures.size_bytes / 1e6
    return row.milliseconds.median, height


def _points(axes: Axes, rows: Sequence[Row], *, accurate: bool) -> None:
    precisions = list(dict.fromkeys(sorted(row.precision for row in rows)))
    formats = list(dict.fromkeys(sorted(row.format for row in rows)))
    for row in rows:
        x, y = _place(row, accurate=accurate)
        colour = COLOURS[precisions.index(row.precision) % len(COLOURS)]
        marker = MARKERS[formats.index(row.format) % len(MARKERS)]
        face = "white" if row.outcome == "beyond a limit" else colour
        axes.plot(x, y, marker, color=colour, markerfacecolor=face, markersize=6, zorder=3)
    for i, name in enumerate(precisions):
        axes.plot([], [], "s", color=COLOURS[i % len(COLOURS)], label=name)
    for i, name in enumerate(formats):
        axes.plot([], [], MARKERS[i % len(MARKERS)], color="0.35", label=name)


def _front(axes: Axes, report: TuneReport, *, accurate: bool) -> None:
    """The front as steps, and the names of its candidates and of the one that was taken."""
    on_front = [row for row in report.timed if row.on_front]
    places = [_place(row, accurate=accurate) for row in on_front]
    axes.plot(*zip(*places, strict=True), drawstyle="steps-post", color="0.6", linewidth=1.2, zorder=2, label="front")
    for row in report.timed:
        if row.on_front or row.name == report.taken:
            taken = row.name == report.taken
            axes.annotate(
                row.name + (" (taken)" if taken else ""),
                _place(row, accurate=accurate),
                (6, 7),
                textcoords="offset points",
                size=8.5,
                weight="bold" if taken else "normal",
            )


def _describe(axes: Axes, report: TuneReport, *, accurate: bool) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel(f"ms a batch of {report.method.batch if report.method else 1}, logarithmic")
    axes.set_ylabel("accuracy above PyTorch's on the same images, points" if accurate else "size, MB")
    axes.margins(x=0.12, y=0.15)
    axes.grid(color="0.92", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    axes.set_title(
        ("Accuracy" if accurate else "Size") + f" against time on {report.machine['processor']}",
        loc="left",
        weight="bold",
    )
