"""A contest in pictures: ratios with their intervals, latencies, the roofline, where the time goes, accuracy against speed.

matplotlib is used by its objects, without pyplot, so that nothing of a caller's own figures is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.annotations import Label, apart
from bench.contest import Result
from bench.roofline import Dot, Roofline
from bench.standing import Standing
from s2mlp_deploy import plot
from s2mlp_deploy.errors import RuntimeMissingError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BUNDLE, BASELINE, BOUND = "#004488", "#BB5566", "#DDAA33"
"""Paul Tol's high-contrast scheme: told apart by colour-blind people, and by their greys."""

PARTS = (
    "#004488",
    "#BB5566",
    "#DDAA33",
    "#7FB5C6",
    "#666633",
    "#997700",
    "#6699CC",
    "#EE99AA",
    "#777777",
    "#BBBBBB",
    "#000000",
)
LONGEST = 34
"""Characters of a name that a picture shows."""

MARKERS = {"fp32": "o", "fp16": "^", "bf16": "v", "int8": "s"}


def check(path: Path | None = None, *, replace: bool = False) -> None:
    """Refuse, before any work is done, what could not be drawn or written.

    Raises:
        UsageError, OutputError: where ``path`` is no picture's name, is taken, or cannot be written.
        RuntimeMissingError: where matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise RuntimeMissingError(
            "pictures need matplotlib, which is not installed: pip install 's2mlp-deploy[bench]'"
        ) from error
    if path and path.suffix.lower() not in plot.SUFFIXES:
        raise UsageError(
            f"--png {path} is not a picture's name: expected one that ends in {' or '.join(plot.SUFFIXES)}"
        )
    if path:
        plot.check(path, replace=replace)


def draw(result: Result, path: Path, *, replace: bool) -> None:
    """Ratios and, where it is known, the roofline, side by side.

    Raises:
        OutputError: as :func:`check`.
    """
    rows = len(result.standing.figures)
    parts: list[Callable[[Axes], None]] = [lambda axes: ratios(axes, result.standing)]
    if result.roofline:
        roof = result.roofline
        parts.append(lambda axes: roofline(axes, roof, result.standing))
    figure = compose(parts, width_in=6.2 * len(parts), height_in=max(4.6, 1.3 + 0.3 * rows))
    plot.save(figure, path, replace=replace)


def compose(parts: Sequence[Callable[[Axes], None]], *, width_in: float, height_in: float, size: float = 9.0) -> Figure:
    """A figure with ``parts`` side by side; ``size`` is its type's, in points."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"font.size": size, "axes.linewidth": 0.7, "text.parse_math": False})
        figure = Figure((width_in, height_in), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        for part, axes in zip(parts, np.ravel(figure.subplots(1, len(parts))), strict=True):
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_axisbelow(True)
            part(axes)
        figure.canvas.draw()  # or what is placed by its size has none
        return figure


def ratios(axes: Axes, standing: Standing) -> None:
    """How many times as fast as the first each contestant is, with its interval, and what its products alone would be."""
    figures = standing.figures
    for row, f in enumerate(figures):
        colour = BUNDLE if f.kind == "bundle" else BASELINE
        axes.plot([f.speed.low, f.speed.high], [row, row], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=3)
        face = colour if f.comparable else "white"
        axes.plot(f.speed.median, row, "o", color=colour, markerfacecolor=face, markersize=5.5, zorder=4)
        if f.of_bound:
            axes.plot(
                f.speed.median / f.of_bound.median, row, "|", color=BOUND, markersize=13, markeredgewidth=2.5, zorder=2
            )
        axes.annotate(
            f"{f.speed.median:.2f}", (f.speed.high, row), (6, 0), textcoords="offset points", va="center", size="small",
            color="0.25", zorder=5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
        )  # fmt: skip
    axes.axvline(1, color="0.75", linewidth=0.8, zorder=1)
    axes.set_yticks(range(len(figures)), [_short(standing.label(f)) for f in figures])
    axes.set_ylim(len(figures) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.92", linewidth=0.8)
    _logarithmic_if_wide(axes, [f.speed.median for f in figures])
    axes.set_title(f"times as fast as {_short(standing.label(figures[0]))}", loc="left", size="medium", weight="bold")
    notes = ["95% intervals"]
    if any(f.of_bound for f in figures):
        notes.append("yellow: its matrix products alone")
    if not all(f.comparable for f in figures):
        notes.append("hollow: another network")
    axes.set_xlabel("; ".join(notes), size="small", color="0.35", loc="right")


def latencies(axes: Axes, result: Result) -> None:
    """Each contestant's samples: the middle half as a box, its median, the 10th to 90th percentile, and the 99th as a dot."""
    standing = result.standing
    for row, f in enumerate(standing.figures):
        colour = BUNDLE if f.kind == "bundle" else BASELINE
        p10, p25, p50, p75, p90, p99 = np.percentile(result.samples_ms[f.name], [10, 25, 50, 75, 90, 99])
        axes.plot([p10, p90], [row, row], color=colour, linewidth=1.2, zorder=2)
        axes.barh(row, p75 - p25, left=p25, height=0.5, color=colour, alpha=0.35, zorder=3)
        axes.plot([p50, p50], [row - 0.25, row + 0.25], color=colour, linewidth=2.2, zorder=4)
        axes.plot(p99, row, ".", color=colour, markersize=5, zorder=4)
    axes.set_yticks(range(len(standing.figures)), [_short(standing.label(f)) for f in standing.figures])
    axes.set_ylim(len(standing.figures) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.92", linewidth=0.8)
    _logarithmic_if_wide(axes, [f.p50_ms for f in standing.figures])
    axes.set_title("milliseconds a batch", loc="left", size="medium", weight="bold")
    axes.set_xlabel(
        "box: middle half; line: 10th to 90th percentile; dot: 99th", size="small", color="0.35", loc="right"
    )


def roofline(axes: Axes, found: Roofline, standing: Standing) -> None:
    """Operations a byte against operations a second: roofs, contestants, and the kinds of their layers."""
    labels = {f.name: _short(standing.label(f)) for f in standing.figures}
    low = min([0.3, *(dot.intensity / 2 for dot in found.dots)])
    high = 4 * max(dot.intensity for dot in found.dots)
    styles = _styles(found)
    placed: list[Label] = []
    for roof in found.roofs:
        colour, line = styles[roof.precision, roof.threads]
        knee = roof.operations_per_s / roof.bytes_per_s
        xs = [low, knee, max(high, 2 * knee)]
        axes.plot(xs, [roof.at(x) / 1e9 for x in xs], color=colour, linestyle=line, linewidth=1.4, zorder=2)
        threads = "" if roof.threads is None else f", {roof.threads} thread{'s' if roof.threads > 1 else ''}"
        text = f"{roof.precision} peak{threads}: {_rate(roof.operations_per_s)}"
        axes.annotate(
            text, (xs[-1], roof.operations_per_s / 1e9), (0, 3), textcoords="offset points", ha="right", va="bottom",
            size="small", color=colour,
        )  # fmt: skip
    memory = max(roof.bytes_per_s for roof in found.roofs)
    knee = min(roof.operations_per_s for roof in found.roofs) / memory
    axes.annotate(
        f"memory: {memory / 1e9:.0f} GB/s", (knee / 2, knee * memory / 2e9), (8, -8), textcoords="offset points",
        size="small", color="0.35", ha="left", va="top",
    )  # fmt: skip
    for dot in found.dots:
        colour, _ = styles.get((dot.precision, dot.threads), ("0.4", "-"))
        big = dot.kind == "contestant"
        axes.plot(
            dot.intensity, dot.operations_per_s / 1e9, MARKERS.get(dot.precision, "o"), color=colour, zorder=5 if big else 4,
            markersize=9 if big else 4.5, markerfacecolor=colour if big else "white",
        )  # fmt: skip
        if big or _first_of_kind(found, dot):
            name = labels[dot.name] if big else dot.name
            placed.append(Label(name, dot.intensity, dot.operations_per_s / 1e9, colour, big))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, None)
    top = max(roof.operations_per_s for roof in found.roofs) / 1e9
    axes.set_ylim(min(dot.operations_per_s for dot in found.dots) / 2e9, 2.2 * top)
    _plain_logarithmic(axes.xaxis)
    _plain_logarithmic(axes.yaxis)
    axes.grid(color="0.94", linewidth=0.8)
    axes.set_title("roofline: Gop/s", loc="left", size="medium", weight="bold")
    axes.set_xlabel(
        "operations a byte moved; large: a bundle, small: a kind of its layers", size="small", color="0.35", loc="right"
    )
    apart(axes, placed)


def profile(axes: Axes, result: Result) -> None:
    """Where each bundle's time goes, in milliseconds, by ONNX Runtime's own account."""
    kinds = list(dict.fromkeys(part.kind for profile in result.profiles for part in profile.parts))
    colours = {kind: PARTS[i % len(PARTS)] for i, kind in enumerate(kinds)}
    names = {f.name: _short(result.standing.label(f)) for f in result.standing.figures}
    for row, one in enumerate(result.profiles):
        left = 0.0
        for part in one.parts:
            axes.barh(
                row, part.time_ms, left=left, height=0.62, color=colours[part.kind], edgecolor="white", linewidth=0.5
            )
            left += part.time_ms
    axes.set_yticks(range(len(result.profiles)), [names[one.contestant] for one in result.profiles])
    axes.set_ylim(len(result.profiles) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.92", linewidth=0.8)
    axes.set_title("where the time goes, ms", loc="left", size="medium", weight="bold")
    handles = [axes.barh(0, 0, color=colour, label=kind) for kind, colour in colours.items()]
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=3, frameon=False, fontsize="small",
        handlelength=1, columnspacing=1.2,
    )  # fmt: skip


def accuracy(axes: Axes, standing: Standing) -> None:
    """Accuracy against latency of those bundles that carry it; the area of a dot is the size of its file."""
    shown = [f for f in standing.figures if f.accuracy is not None]
    largest = max(f.size_bytes for f in shown)
    placed = []
    for f in shown:
        assert f.accuracy is not None
        axes.scatter(
            f.p50_ms, 100 * f.accuracy, s=60 + 340 * f.size_bytes / largest, color=BUNDLE, alpha=0.45, zorder=3
        )
        placed.append(Label(_short(standing.label(f)), f.p50_ms, 100 * f.accuracy, BUNDLE, True))
    axes.margins(0.25)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_title("accuracy, %", loc="left", size="medium", weight="bold")
    axes.set_xlabel(
        "milliseconds a batch; the larger the dot, the larger the file", size="small", color="0.35", loc="right"
    )
    apart(axes, placed)


def _styles(found: Roofline) -> dict[tuple[str, int | None], tuple[str, str]]:
    precisions = list(dict.fromkeys(roof.precision for roof in found.roofs))
    threads = list(dict.fromkeys(roof.threads for roof in found.roofs))
    colours = (BUNDLE, BASELINE, "#997700", "#000000")
    lines = ("-", "--", ":", "-.")
    return {
        (r.precision, r.threads): (
            colours[precisions.index(r.precision) % len(colours)], lines[threads.index(r.threads) % len(lines)],
        )
        for r in found.roofs
    }  # fmt: skip


def _first_of_kind(found: Roofline, dot: Dot) -> bool:
    """Layers are named once for each precision, where they are fastest."""
    same = [d for d in found.dots if (d.kind, d.name, d.precision) == (dot.kind, dot.name, dot.precision)]
    return max(same, key=lambda d: d.operations_per_s) is dot


def _logarithmic_if_wide(axes: Axes, values: Sequence[float]) -> None:
    if max(values) > 8 * min(values):
        axes.set_xscale("log")
        _plain_logarithmic(axes.xaxis)
    else:
        axes.set_xlim(left=0)
    low, high = axes.get_xlim()
    wider = 10 ** (1.12 * (log10(high) - log10(low))) * low if axes.get_xscale() == "log" else low + 1.1 * (high - low)
    axes.set_xlim(low, wider)


def _plain_logarithmic(axis: Any) -> None:
    """Plain numbers at a logarithmic axis, as many as fit."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if log10(high / low) < 1.7 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def _rate(operations_per_s: float) -> str:
    return f"{operations_per_s / 1e12:.2g} Top/s" if operations_per_s >= 1e12 else f"{operations_per_s / 1e9:.0f} Gop/s"


def _short(name: str) -> str:
    """A name that a picture can hold: what no font has as its escape, what is long with its middle left out."""
    text = "".join(c if (c.isprintable() and c.isascii()) or c in "²×–…₁₂₃₄" else ascii(c)[1:-1] for c in name)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 + 1 :]}"
