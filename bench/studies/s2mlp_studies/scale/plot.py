"""A picture of latency against the number of positions: measured points, fitted lines, and their exponents.

matplotlib is imported only here and only when a picture is drawn, and used by its objects, without pyplot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log10
from typing import TYPE_CHECKING

from s2mlp_deploy.cli import plot
from s2mlp_deploy.cli.lines import model_line
from s2mlp_deploy.schema.size import format_size
from s2mlp_deploy.system.wording import counted
from s2mlp_studies.scale.growth import Growth
from s2mlp_studies.scale.scaling import MIXER, S2MLP, Point, Scaling

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {S2MLP: "#004488", MIXER: "#BB5566"}
"""Paul Tol's high-contrast scheme, as in the toolkit's other pictures."""

MARKERS = {S2MLP: "o", MIXER: "s"}

_LABEL_SHARE = 0.22
"""Height of a label at the right edge, as a share of the axes."""

_AXES = (0.095, 0.22, 0.65, 0.62)
_WIDTH_IN, _HEIGHT_IN = 8.6, 5.6
_CHARACTER_IN = 0.11
"""Width of a character below the axis, with what keeps words apart."""

_ASIDE = {S2MLP: -0.004, MIXER: 0.004}
"""How far points are moved aside, in units of the axis, so that two intervals at one size do not cover each other."""

_FEW = 10.0
"""Where the slowest takes less than so many times the fastest, more times are named at the left edge."""


def picture(found: Scaling, suffix: str) -> bytes:
    """The content of a file that ends in ``suffix``; the same measurements give the same bytes."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"font.size": 11, "axes.linewidth": 0.8})
        return plot.encode(figure(found), suffix)


def figure(found: Scaling) -> Figure:
    """Latency over positions, both logarithmic; two image sizes or more were measured."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), dpi=150, facecolor="white")
    FigureCanvasAgg(drawn)
    axes = drawn.add_axes(_AXES)
    axes.set_xscale("log")
    axes.set_yscale("log")
    sweeps = {model: found.sweep(model, "image size") for model in found.models}
    labels = []
    for model, points in sweeps.items():
        grown = found.growth(model, "image size", "latency")
        assert grown is not None
        _draw(axes, model, points, grown)
        labels.append((_at(grown, points[-1].positions), _label(model, grown), COLOURS[model]))
    _scale(axes, [point for points in sweeps.values() for point in points])
    _label_ends(axes, labels)
    _words(drawn, found)
    return drawn


def _draw(axes: Axes, model: str, points: Sequence[Point], grown: Growth) -> None:
    """Medians with their intervals, and the line through them."""
    ends = [points[0].positions, points[-1].positions]
    axes.plot(ends, [_at(grown, x) for x in ends], color=COLOURS[model], linewidth=1.8, zorder=3)
    medians = [point.latency_ms.median for point in points]
    below = [point.latency_ms.median - point.latency_ms.low for point in points]
    above = [point.latency_ms.high - point.latency_ms.median for point in points]
    aside = (ends[1] / ends[0]) ** _ASIDE[model]
    axes.errorbar(
        [point.positions * aside for point in points],
        medians,
        (below, above),
        fmt=MARKERS[model],
        color=COLOURS[model],
        markersize=6,
        markerfacecolor="white",
        markeredgewidth=1.6,
        elinewidth=1.6,
        capsize=3.5,
        zorder=4,
    )


def _at(grown: Growth, positions: float) -> float:
    return float(grown.factor * positions**grown.exponent)


def _label(model: str, grown: Growth) -> str:
    interval = "" if grown.low is None or grown.high is None else f"\n[{grown.low:.3f}, {grown.high:.3f}]"
    return f"{model}\nexponent {grown.exponent:.3f}{interval}"


def _scale(axes: Axes, points: Sequence[Point]) -> None:
    """A tick for each image size, and times in plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    labels = {point.positions: f"{point.positions}\n{format_size(point.setting.size)}" for point in points}
    shown = _spaced(labels)
    axes.set_xticks(list(labels), [label if positions in shown else "" for positions, label in labels.items()])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("positions M, and image size")
    axes.set_ylabel("milliseconds a batch")
    times = [point.latency_ms.median for point in points]
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 4, 5, 7) if max(times) < _FEW * min(times) else (1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _spaced(labels: Mapping[int, str]) -> set[int]:
    """Of ascending positions with their labels, those that leave each other room, the first and the last among them."""
    first, last = min(labels), max(labels)
    scale_in = _WIDTH_IN * _AXES[2] / 1.1 / log10(last / first)  # the axis reaches a little further than the points

    def clear(a: int, b: int) -> bool:
        widths_in = [_CHARACTER_IN * max(map(len, labels[positions].splitlines())) for positions in (a, b)]
        return log10(b / a) * scale_in >= sum(widths_in) / 2

    shown = [first]
    for positions in sorted(labels):
        if clear(shown[-1], positions) and (positions == last or clear(positions, last)):
            shown.append(positions)
    return {*shown, last}


def _label_ends(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """At the right edge, instead of a legend, in the order of the lines' ends and apart."""
    low, high = (log10(limit) for limit in axes.get_ylim())
    ordered = sorted(labels)
    shares = [(log10(end) - low) / (high - low) for end, *_ in ordered]
    middle = sum(shares) / len(shares)
    if any(b - a < _LABEL_SHARE for a, b in pairwise(shares)):
        shares = [middle + (i - (len(shares) - 1) / 2) * _LABEL_SHARE for i in range(len(shares))]
    for share, (_, text, colour) in zip(shares, ordered, strict=True):
        axes.annotate(
            text,
            (1, share),
            (8, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            color=colour,
            weight="bold",
            annotation_clip=False,
        )


def _words(drawn: Figure, found: Scaling) -> None:
    base, count = found.plan.base, len(found.points[0].samples_ms)
    threads = counted(found.plan.threads, "thread")
    model = model_line(found.base_spec).partition(", shift")[0]
    note = f"ONNX Runtime on the CPU; medians of {count} interleaved rounds; bars and brackets: 95% intervals."
    if MIXER in found.models:
        note += (
            "\nThe S²-MLP is one file at every size; each size of the MLP-Mixer is another model with other weights."
        )
    drawn.text(0.02, 0.945, "Latency against image size", size=15, weight="bold", va="center")
    drawn.text(0.02, 0.89, f"{model}; batch {base.batch}, {threads}", size=10, color="0.3", va="center")
    drawn.text(0.02, 0.02, note, size=10, color="0.3", va="bottom")
