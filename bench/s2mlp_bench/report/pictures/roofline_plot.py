"""The roofline as a picture: roofs, bundles and their layers, on two logarithmic axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import atan2, cos, degrees, hypot, log10, sin
from typing import TYPE_CHECKING, Any

from s2mlp_bench.benchmark import Result
from s2mlp_bench.report import section
from s2mlp_bench.report.pictures import drawing, scatter
from s2mlp_bench.report.pictures.drawing import PAPER, QUIET
from s2mlp_bench.report.pictures.labels import Box
from s2mlp_bench.report.pictures.scatter import Name
from s2mlp_bench.roofline.roofline import Dot, Roof, Roofline, layer_dots
from s2mlp_bench.summary import Summary
from s2mlp_deploy.schema.precision import ON_CPUS
from s2mlp_deploy.system.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = dict(zip(ON_CPUS, ("#004487", "#5fa8ac", "#ddaa34", "#aa3376", "#66ccec"), strict=False))
"""By precision, in the table's order; unlike any other colour of the pictures, so that each can be replaced."""

WORDS = dict(zip(ON_CPUS, ("#004487", "#2f7074", "#8a6510", "#88225e", "#1f6f8b"), strict=False))
"""For text, which must stand out from white more than a line must."""

MARKERS = dict(zip(ON_CPUS, "o^sDv", strict=False))

DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
"""Of roofs, by number of threads."""

LARGE, SMALL = 10.0, 4.5
"""Markers of bundles and of layers."""

TOGETHER, CLUSTER = 9.0, 40.0
"""Bundles, and layers of one kind, that are closer than so many points share their label."""


@dataclass(frozen=True)
class _Group:
    """Dots that share a label: its lines, and the dot that it stands at."""

    lines: tuple[str, ...]
    dot: Dot


def draw(axes: Axes, result: Result) -> tuple[str, ...]:
    """Operations a second over operations a byte. Sentences that must stand below it."""
    found = result.roofline
    assert found is not None
    bundles, layers = [dot for dot in found.dots if dot.kind == "candidate"], list(_layers(result))
    _scale(axes, found, [*bundles, *layers])
    for roof in found.roofs:
        _draw_roof(axes, roof, found)
    for dot in (*bundles, *layers):
        width = 1.0 if dot.kind == "candidate" else 0.6
        axes.plot(
            dot.intensity, dot.operations_per_s / 1e9, MARKERS[dot.precision], color=COLOURS[dot.precision],
            markersize=_size(dot), markeredgecolor=PAPER, markeredgewidth=width, zorder=4 if width == 1 else 5,
        )  # fmt: skip
    taken = [_box(axes, dot) for dot in (*bundles, *layers)]
    taken += _name_slope(axes, found, taken)
    names = [_roof_name(axes, roof, found) for roof in sorted(found.roofs, key=lambda roof: -roof.operations_per_s)]
    for group in _groups(axes, bundles, partial(_bundles, result.summary), TOGETHER):
        colour = WORDS[group.dot.precision]
        names.append(Name("\n".join(group.lines), *_at(axes, group.dot), colour, "bold"))
    for group in _groups(axes, layers, lambda dots: (dots[0].name,), CLUSTER):
        names.append(Name(group.lines[0], *_at(axes, group.dot), QUIET))
    left_out = scatter.write(axes, names, taken, [point for roof in found.roofs for point in _line(axes, roof)])
    return tuple(_notes(result, found, bundles, layers, left_out))


def _layers(result: Result) -> Iterator[Dot]:
    candidates = {f.name: f for f in result.summary.figures}
    for one in result.profiles:
        f = candidates[one.candidate]
        if f.precision in COLOURS:
            yield from layer_dots(one, f.precision, f.point.threads)


def _scale(axes: Axes, found: Roofline, dots: Sequence[Dot]) -> None:
    x = [dot.intensity for dot in dots]
    y = [dot.operations_per_s / 1e9 for dot in dots] + [roof.operations_per_s / 1e9 for roof in found.roofs]
    ridges = [roof.operations_per_s / roof.bytes_per_s for roof in found.roofs]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(x) / 2, max(*x, *ridges) * 5)
    axes.set_ylim(min(y) / 3, max(y) * 2.2)
    scatter.rule(axes)


def _draw_roof(axes: Axes, roof: Roof, found: Roofline) -> None:
    threads = list(dict.fromkeys(r.threads for r in found.roofs))
    low, high = axes.get_xlim()
    x = [low, roof.operations_per_s / roof.bytes_per_s, high]
    axes.plot(
        x, [roof.at(value) / 1e9 for value in x], color=COLOURS[roof.precision], linewidth=1.4, zorder=2,
        linestyle=DASHES[threads.index(roof.threads) % len(DASHES)],
    )  # fmt: skip


def _roof_name(axes: Axes, roof: Roof, found: Roofline) -> Name:
    """Above or below the right end of the level part."""
    several = len({r.threads for r in found.roofs}) > 1
    threads = f", {counted(roof.threads or 0, 'thread')}" if several else ""
    text = f"{roof.precision}{threads}: {section.figure(roof.operations_per_s / 1e9)}" + ("" if several else " Gop/s")
    scratch = axes.text(0, 0, text)
    width = drawing.extent(scratch)[0]
    scratch.remove()
    x, y = drawing.place(axes, axes.get_xlim()[1], roof.operations_per_s / 1e9)
    return Name(text, x - width / 2 - 1, y, WORDS[roof.precision], first=(90, -90), far=scatter.FAR_FROM_LINE)


def _name_slope(axes: Axes, found: Roofline, taken: Sequence[Box]) -> list[Box]:
    """Write what copying reaches along the slope, which all roofs nearly share, where no dot is; boxes that cover it."""
    rates = [roof.bytes_per_s / 1e9 for roof in found.roofs]
    ends = dict.fromkeys((section.figure(min(rates)), section.figure(max(rates))))
    text = axes.annotate(
        f"memory: {' … '.join(ends)} GB/s", (0, 0), (0, 0), xycoords="axes points", textcoords="axes points", color=QUIET,
        rotation_mode="anchor", ha="left", va="bottom", zorder=6,
    )  # fmt: skip
    width, height = drawing.extent(text)
    (low, high), bottom = axes.get_xlim(), axes.get_ylim()[0]
    start = max(low, bottom / max(rates))
    (x0, y0), (x1, y1) = (drawing.place(axes, x, x * max(rates)) for x in (start, high))
    angle = atan2(y1 - y0, x1 - x0)
    text.set_rotation(degrees(angle))
    room = int(hypot(x1 - x0, y1 - y0) / 2)
    for along in range(14, max(room, 15), 6):
        x, y = x0 + along * cos(angle) - 3 * sin(angle), y0 + along * sin(angle) + 3 * cos(angle)
        boxes = _tilted(x, y, width, height, angle)
        if not any(box.meets(other) for box in boxes for other in taken):
            break
    text.set_position((x, y))
    return boxes


def _tilted(x: float, y: float, width: float, height: float, angle: float) -> list[Box]:
    """Squares along a text that starts at (x, y)."""
    found, half = [], height / 2
    for i in range(int(width / 6) + 1):
        a = x + 6 * i * cos(angle) - half * sin(angle)
        b = y + 6 * i * sin(angle) + half * cos(angle)
        found.append(Box(a - half, b - half, a + half, b + half))
    return found


def _bundles(found: Summary, dots: Sequence[Dot]) -> tuple[str, ...]:
    """A line for each bundle, with all of its settings."""
    figures, settings = {f.name: f for f in found.figures}, dict[str, list[str]]()
    for dot in dots:
        f = figures[dot.name]
        settings.setdefault(drawing.printable(found.short(f)), []).append(", ".join(found.settings(f)))
    several = {name: len(each) > 1 for name, each in settings.items()}
    return tuple(
        (name + ": " + "; ".join(each)) if several[name] else ", ".join(filter(None, (name, *each)))
        for name, each in settings.items()
    )


def _groups(
    axes: Axes, dots: Sequence[Dot], lines: Callable[[Sequence[Dot]], tuple[str, ...]], distance: float
) -> Iterator[_Group]:
    """Neighbours that share a label; layers only with their kind."""
    groups: list[list[Dot]] = []
    for dot in dots:
        near = [
            g for g in groups if (dot.kind == "candidate" or g[0].name == dot.name) and _near(axes, dot, g, distance)
        ]
        groups = [g for g in groups if g not in near] + [[*(d for g in near for d in g), dot]]
    for group in groups:
        middle = sorted(group, key=lambda dot: dot.operations_per_s)[len(group) // 2]
        yield _Group(lines(group), middle)


def _near(axes: Axes, dot: Dot, group: Sequence[Dot], distance: float) -> bool:
    x, y = _at(axes, dot)
    return any(hypot(x - a, y - b) < distance for a, b in (_at(axes, other) for other in group))


def _at(axes: Axes, dot: Dot) -> tuple[float, float]:
    return drawing.place(axes, dot.intensity, dot.operations_per_s / 1e9)


def _size(dot: Dot) -> float:
    return LARGE if dot.kind == "candidate" else SMALL


def _box(axes: Axes, dot: Dot) -> Box:
    (x, y), half = _at(axes, dot), _size(dot) / 2
    return Box(x - half, y - half, x + half, y + half)


def _line(axes: Axes, roof: Roof) -> list[tuple[float, float]]:
    """The roof, a point every few."""
    low, high = (log10(limit) for limit in axes.get_xlim())
    x = [10 ** (low + (high - low) * i / 100) for i in range(101)]
    return [drawing.place(axes, value, roof.at(value) / 1e9) for value in x]


def _notes(
    result: Result, found: Roofline, bundles: Sequence[Dot], layers: Sequence[Dot], left_out: Sequence[str]
) -> Iterator[str]:
    yield "Large: bundles, by the products of their blocks. Small: their layers, by the runtime's own account."
    if shares := [p.share(part) for p in result.profiles for part in p.parts if part.kind == "shift"]:
        ends = dict.fromkeys((f"{min(shares):.0%}", f"{max(shares):.0%}"))
        yield f"Not drawn: the shift, which computes nothing and takes {' to '.join(ends)} of the time."
    above = [
        dot for dot in layers if (roof := found.roof(dot)) and dot.operations_per_s > 1.05 * roof.at(dot.intensity)
    ]
    if not all(found.above(dot) for dot in above):
        yield "What is above the slope finds its data in caches."
    if any(found.above(dot) for dot in (*bundles, *above)):
        yield "What is above the level shows that the peak is higher than what was measured."
    yield from scatter.unnamed(left_out)
