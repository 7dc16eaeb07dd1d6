"""The roofline as a picture: roofs, bundles and their layers, on two logarithmic axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from s2mlp_bench.benchmark import Result
from s2mlp_bench.profile import kinds
from s2mlp_bench.report import section
from s2mlp_bench.report.pictures import drawing, scatter
from s2mlp_bench.report.pictures.drawing import PAPER
from s2mlp_bench.report.pictures.legend import SHAPES, Mark
from s2mlp_bench.report.pictures.rows import KIND_COLOURS
from s2mlp_bench.roofline.roofline import Dot, Roof, Roofline, layer_dots
from s2mlp_deploy.schema.precision import ON_CPUS, ON_GPUS
from s2mlp_deploy.system.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PRECISIONS = (*ON_CPUS, *(name for name in ON_GPUS if name not in ON_CPUS))
COLOURS = dict(zip(_PRECISIONS, ("#004487", "#5fa8ac", "#aa3376", "#66ccec", "#222256"), strict=False))
"""By precision, in the table's order; unlike any other colour of the pictures, so that each can be replaced."""

DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
"""Of roofs, by number of threads."""

LARGE, SMALL = 10.0, 5.5
"""Markers of bundles and of layers."""


def marks(result: Result) -> list[list[Mark]]:
    """The legend: roofs and bundles, then kinds of layer."""
    found = result.roofline
    assert found is not None
    figures = {f.name: f for f in result.summary.figures}
    roofs = [
        Mark(_roof_name(roof, found), "", COLOURS[roof.precision], line=_dashes(roof, found)) for roof in found.roofs
    ]
    bundles = [
        Mark(drawing.printable(result.summary.label(figures[dot.name])), shape, COLOURS[dot.precision])
        for dot, shape in _bundles(found)
    ]
    drawn = {dot.name for dot in _layers(result)}
    layers = [Mark(kind, "", KIND_COLOURS[kind]) for kind in kinds(result.profiles) if kind in drawn]
    return [roofs, bundles, layers]


def draw(axes: Axes, result: Result) -> tuple[str, ...]:
    """Operations a second over operations a byte; returns the notes that belong below."""
    found = result.roofline
    assert found is not None
    bundles, layers = _bundles(found), list(_layers(result))
    _scale(axes, found, [*(dot for dot, _ in bundles), *layers])
    for roof in found.roofs:
        _draw_roof(axes, roof, found)
    for dot, shape in bundles:
        axes.plot(
            *_at(dot),
            shape,
            color=COLOURS[dot.precision],
            markersize=LARGE,
            markeredgecolor=PAPER,
            markeredgewidth=1,
            zorder=4,
        )
    for dot in layers:
        axes.plot(
            *_at(dot),
            "o",
            color=KIND_COLOURS[dot.name],
            markersize=SMALL,
            markeredgecolor=COLOURS[dot.precision],
            markeredgewidth=1,
            zorder=5,
        )
    return tuple(_notes(result, found, [dot for dot, _ in bundles], layers))


def _bundles(found: Roofline) -> list[tuple[Dot, str]]:
    """Each bundle at each of its settings, with a marker of its own."""
    return list(zip((dot for dot in found.dots if dot.kind == "candidate"), cycle(SHAPES), strict=False))


def _layers(result: Result) -> Iterator[Dot]:
    candidates = {f.name: f for f in result.summary.figures}
    for one in result.profiles:
        f = candidates[one.candidate]
        if f.precision in COLOURS:
            yield from layer_dots(one, f.precision, f.point.threads)


def _at(dot: Dot) -> tuple[float, float]:
    return dot.intensity, dot.operations_per_s / 1e9


def _scale(axes: Axes, found: Roofline, dots: Sequence[Dot]) -> None:
    x = [dot.intensity for dot in dots]
    y = [dot.operations_per_s / 1e9 for dot in dots] + [roof.operations_per_s / 1e9 for roof in found.roofs]
    ridges = [roof.operations_per_s / roof.bytes_per_s for roof in found.roofs]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(x) / 2, max(*x, *ridges) * 2)
    axes.set_ylim(min(y) / 2, max(y) * 1.6)
    scatter.rule(axes)


def _draw_roof(axes: Axes, roof: Roof, found: Roofline) -> None:
    low, high = axes.get_xlim()
    x = [low, roof.operations_per_s / roof.bytes_per_s, high]
    axes.plot(
        x,
        [roof.at(value) / 1e9 for value in x],
        color=COLOURS[roof.precision],
        linewidth=1.4,
        zorder=2,
        linestyle=_dashes(roof, found),
    )


def _dashes(roof: Roof, found: Roofline) -> Any:
    places = list(dict.fromkeys((r.device, r.threads) for r in found.roofs))
    return DASHES[places.index((roof.device, roof.threads)) % len(DASHES)]


def _roof_name(roof: Roof, found: Roofline) -> str:
    several = len({r.threads for r in found.roofs}) > 1
    threads = f", {counted(roof.threads, 'thread')}" if several and roof.threads is not None else ""
    device = f" on the {roof.device}" if len({r.device for r in found.roofs}) > 1 else ""
    operations, memory = section.figure(roof.operations_per_s / 1e9), section.figure(roof.bytes_per_s / 1e9)
    return f"{roof.precision}{device}{threads}: {operations} Gop/s, {memory} GB/s"


def _notes(result: Result, found: Roofline, bundles: Sequence[Dot], layers: Sequence[Dot]) -> Iterator[str]:
    yield (
        "Lines: peak of arithmetic and of memory. Large: bundles, by the products of their blocks. Small: their layers, ringed "
        "in the precision's colour, by the runtime's own account."
    )
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
