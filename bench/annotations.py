"""Names beside the points of a picture, none over another: greedy, the important ones first, the same every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OFFSETS = tuple(
    (dx, dy, "left" if dx > 0 else "right" if dx < 0 else "center", "bottom" if dy > 0 else "top" if dy < 0 else "center")
    for distance in (7, 12, 18, 26, 36, 50)
    for dx, dy in (
        (distance, 0), (-distance, 0), (0, distance), (0, -distance), (distance, distance), (distance, -distance),
        (-distance, distance), (-distance, -distance),
    )
)  # fmt: skip
"""Where a name may stand, in points from its own: near first."""

_FAR = 16
"""From this offset on a thin line leads to the point."""


@dataclass(frozen=True)
class Label:
    """A name, for the point (x, y) in data coordinates; ``important`` ones are bold and placed first."""

    text: str
    x: float
    y: float
    colour: str
    important: bool


def apart(axes: Axes, labels: Sequence[Label]) -> None:
    """Write ``labels`` where they touch neither each other, nor a point, nor what is written already."""
    figure = axes.figure
    figure.canvas.draw()
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    inside = axes.get_window_extent(renderer)
    taken = [text.get_window_extent(renderer) for text in axes.texts]
    points = [axes.transData.transform((label.x, label.y)) for label in labels]
    for label in sorted(labels, key=lambda label: (not label.important, label.x, label.y)):
        best: tuple[float, Any, Any] | None = None
        for number, (dx, dy, ha, va) in enumerate(_OFFSETS):
            text = _write(axes, label, dx, dy, ha, va, far=number >= _FAR)
            box = text.get_window_extent(renderer).padded(1.5)
            covered = sum(box.overlaps(other) for other in taken) + sum(box.contains(*point) for point in points)
            outside = not (inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1)
            cost = 10 * covered + 20 * outside + number / 100
            if best is not None and cost >= best[0]:
                text.remove()
                continue
            if best is not None:
                best[1].remove()
            best = cost, text, box
            if cost < 1:
                break
        assert best is not None
        taken.append(best[2])


def _write(axes: Axes, label: Label, dx: float, dy: float, ha: str, va: str, *, far: bool) -> Any:
    line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3} if far else None
    return axes.annotate(
        label.text, (label.x, label.y), (dx, dy), textcoords="offset points", ha=ha, va=va, color=label.colour, zorder=6,
        size="small", weight="bold" if label.important else "normal", arrowprops=line, annotation_clip=False,
    )  # fmt: skip
