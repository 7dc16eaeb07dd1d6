"""Draw error against depth: one line a bundle, each with its tolerance.

matplotlib is imported only here and only when a picture is requested. It is used by its objects, without
pyplot, so that nothing of a caller's own figures is touched.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2mlp_deploy.errors import RuntimeMissingError, UsageError
from s2mlp_deploy.system import atomic_write
from s2mlp_deploy.system.dependencies import pip_install

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")

COLOURS = ("#004488", "#BB5566", "#DDAA33", "#000000", "#7FB5C6", "#666633")
"""Paul Tol's high-contrast scheme first: distinct for colour-blind people, and in grey."""

MARKERS = ("o", "s", "^", "D", "v", "P")
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""File metadata, without anything that differs from one run to the next."""

_AXES_HEIGHT_IN = 4.1
_CROWDED = 12
"""With more layers than this, words stand upright below the axis."""

_LABEL_POINTS = 12.5
"""The least distance between two labels at the right edge."""

_EXACT = 1e-9
"""The place of a layer without error: a logarithmic axis has no zero, and float32 cannot come closer."""


@dataclass(frozen=True)
class Curve:
    """One bundle: each layer's relative L2 in the order of computation, and the tolerance of its logits.

    ``in_float`` are the layers of an int8 bundle that hold something left in float to keep the accuracy.
    ``input`` names the traced input.
    """

    name: str
    layers: tuple[tuple[str, float], ...]
    limit: float
    in_float: frozenset[str] = frozenset()
    input: str = "noise"


def check(path: Path, *, replace: bool, option: str = "--plot") -> None:
    """Refuse, before any work is done, a picture that could not be drawn or written; ``option`` named it.

    Raises:
        UsageError: for a file that is no picture.
        OutputError: where ``path`` is taken (without ``replace``), or cannot be written.
        RuntimeMissingError: where matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{option} {path} is not a picture's name: expected one that ends in {' or '.join(SUFFIXES)}")
    atomic_write.check(path, replace=replace, option=option)
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise RuntimeMissingError(
            f"{option} needs matplotlib, which is not installed: {pip_install('plot')}"
        ) from error


def save(figure: Figure, path: Path, *, replace: bool, option: str = "--plot") -> None:
    """Write ``figure`` to ``path``, whole or not at all. The same figure gives the same bytes.

    Raises:
        OutputError: as :func:`check`.
    """
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        content = encode(figure, path.suffix.lower())
    atomic_write.check(path, replace=replace, option=option)
    atomic_write.write(path, content, option=option)


def encode(figure: Figure, suffix: str) -> bytes:
    """``figure`` as a file that ends in ``suffix`` holds it: the same bytes every time, in the style that is set."""
    import matplotlib as mpl

    content = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "s2mlp"}):
        figure.savefig(content, format=suffix[1:], metadata=_METADATA[suffix])
    return content.getvalue()


def figure(curves: Sequence[Curve], title: str) -> Figure:
    """Error against depth; all ``curves`` are of one model, whose name in words is ``title``."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"font.size": 9, "axes.linewidth": 0.7})
        return _figure(curves, title)


def _figure(curves: Sequence[Curve], title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name, _ in curves[0].layers]
    axes_width = max(5.6, 0.24 * len(names))
    notes = _notes(curves)
    crowded = len(names) > _CROWDED
    left, right, bottom, top = 0.8, 1.75, (1.1 if crowded else 0.7) + 0.16 * len(notes), 0.72
    width, height = left + axes_width + right, bottom + _AXES_HEIGHT_IN + top
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left / width, bottom / height, axes_width / width, _AXES_HEIGHT_IN / height))
    low, high = _range(curves)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylabel("relative L2 distance from the float64 reference")
    axes.grid(axis="y", color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _name_layers(axes, names, crowded=crowded)
    for i, curve in enumerate(curves):
        _draw(axes, curve, COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
    _label_ends(axes, curves)
    figure.text(left / width, 1 - 0.27 / height, "Error against depth", size=12, weight="bold", va="center")
    figure.text(left / width, 1 - 0.51 / height, title, color="0.3", va="center")
    figure.text(left / width, 0.12 / height, "\n".join(notes), size=8, color="0.3", va="bottom")
    return figure


def _range(curves: Sequence[Curve]) -> tuple[float, float]:
    """The axis's range: whole decades around all values drawn."""
    values = [_shown(error) for curve in curves for _, error in curve.layers if isfinite(error)]
    values += [_shown(curve.limit) for curve in curves]
    return 10.0 ** floor(log10(min(values)) - 0.05), 10.0 ** (floor(log10(max(values)) + 0.1) + 1)


def _shown(error: float) -> float:
    return max(error, _EXACT)


def _draw(axes: Axes, curve: Curve, colour: str, marker: str) -> None:
    """The line, its tolerance, and crosses at the upper edge for layers whose values are not finite."""
    axes.axhline(_shown(curve.limit), color=colour, linewidth=1, linestyle=(0, (5, 3)))
    errors = [_shown(error) if isfinite(error) else float("nan") for _, error in curve.layers]
    axes.plot(errors, color=colour, linewidth=1.6, zorder=3)
    top = axes.get_ylim()[1]
    for x, ((name, error), y) in enumerate(zip(curve.layers, errors, strict=True)):
        if isfinite(error):
            face = "white" if name in curve.in_float else colour
            axes.plot(x, y, marker, color=colour, markerfacecolor=face, markersize=5, zorder=4)
        else:
            axes.plot(x, top, "x", color=colour, markersize=7, markeredgewidth=1.8, zorder=4, clip_on=False)


def _label_ends(axes: Axes, curves: Sequence[Curve]) -> None:
    """Label the lines at the right edge, instead of a legend; labels that are close are pushed apart."""
    low, high = (log10(limit) for limit in axes.get_ylim())
    wanted = []
    for i, curve in enumerate(curves):
        colour = COLOURS[i % len(COLOURS)]
        last = curve.layers[-1][1]
        wanted.append((log10(_shown(last)) if isfinite(last) else high, curve.name, colour, "bold"))
        wanted.append((log10(_shown(curve.limit)), f"{curve.name} tolerance {curve.limit:g}", colour, "normal"))
    wanted.sort(key=lambda label: label[0])
    gap = _LABEL_POINTS / 72 / _AXES_HEIGHT_IN * (high - low)
    places = _apart([place for place, *_ in wanted], gap)
    for place, (_, text, colour, weight) in zip(places, wanted, strict=True):
        axes.annotate(
            text,
            (1, 10**place),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=_darker(colour),
            weight=weight,
            size=8.5,
            annotation_clip=False,
        )


def _darker(colour: str) -> str:
    """``colour`` (#RRGGBB) for text, which must stand out from white more than a line must."""
    return "#" + "".join(f"{int(colour[i : i + 2], 16) * 7 // 10:02X}" for i in (1, 3, 5))


def _apart(places: list[float], gap: float) -> list[float]:
    """Ascending ``places``, moved as little as it takes for neighbours to be ``gap`` apart."""
    clusters: list[list[float]] = []
    for place in places:
        clusters.append([place])
        while len(clusters) > 1 and _spread(clusters[-1], gap)[0] - _spread(clusters[-2], gap)[-1] < gap:
            clusters[-2:] = [clusters[-2] + clusters[-1]]
    return [place for cluster in clusters for place in _spread(cluster, gap)]


def _spread(cluster: list[float], gap: float) -> list[float]:
    middle = sum(cluster) / len(cluster)
    return [middle + (i - (len(cluster) - 1) / 2) * gap for i in range(len(cluster))]


def _name_layers(axes: Axes, names: Sequence[str], *, crowded: bool) -> None:
    """Blocks by number, everything else in words; stages below them where there are several."""
    parts = [name.split("/") for name in names]
    labels = [part[-1].removeprefix("block") for part in parts]
    axes.set_xticks(range(len(names)), labels, size=8)
    axes.tick_params(axis="x", length=2)
    for text, label in zip(axes.get_xticklabels(), labels, strict=True):
        if crowded and not label.isdigit():
            text.set_rotation(90)
    below = (0.74 if crowded else 0.34) / _AXES_HEIGHT_IN
    stages = [part[0] for part in parts if len(part) > 1]
    if len(set(stages)) == 1:
        words = "layers in the order of computation; numbers are blocks"
        axes.text(0.5, -below, words, ha="center", va="top", transform=axes.transAxes)
        return
    for stage in dict.fromkeys(stages):
        where = [x for x, part in enumerate(parts) if part[0] == stage]
        middle = (where[0] + where[-1]) / 2
        axes.text(
            middle,
            -below,
            stage.replace("stage", "stage "),
            ha="center",
            va="top",
            transform=axes.get_xaxis_transform(),
        )
        if where[0]:
            axes.axvline(where[0] - 0.5, color="0.8", linewidth=0.8)


def _notes(curves: Sequence[Curve]) -> list[str]:
    """The caption: sentences for everything that the curves do not show."""
    inputs = {kind: [curve.name for curve in curves if curve.input == kind] for kind in (c.input for c in curves)}
    kinds = [f"{kind} ({', '.join(names)})" if len(inputs) > 1 else kind for kind, names in inputs.items()]
    notes = [f"Traced on one golden input: {', '.join(kinds)}. Tolerances are those of the logits."]
    if any(curve.in_float for curve in curves):
        notes.append("Hollow: layers of this block were left in float to keep the accuracy.")
    if any(not isfinite(error) for curve in curves for _, error in curve.layers):
        notes.append("× at the upper edge: values that are not finite.")
    if any(error < _EXACT for curve in curves for _, error in curve.layers):
        notes.append(f"A layer that is closer than {_EXACT:.0e} is drawn there.")
    return notes
