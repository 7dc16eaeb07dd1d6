"""Where labels go, so that none covers another or what it names. Plain geometry, in points, upwards; nothing is random."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

DISTANCES = (5.0, 9.0, 14.0, 20.0, 28.0, 38.0, 50.0, 64.0, 80.0, 100.0, 125.0, 150.0)
DIRECTIONS = (0, 180, 45, 135, -45, -135, 90, -90, 22, 158, -22, -158, 68, 112, -68, -112)
"""In degrees, to the right first: labels are read from the left."""

ALIGNED = (0.5, 0.15, 0.85)
"""Where a label above or below is held, as a share of its width."""

GAP = 2.0
"""Between a label and any other, or a marker."""

ON_LINE = 5.0
"""What a point of a line under a label costs, as if the label were so much farther away."""

RANK = 0.2
"""What a later direction costs."""

PASSES = 5

ACROSS, PAST = 120.0, 6.0
"""What it costs that a leader crosses a label, and a marker."""


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether they are closer than :data:`GAP`."""
        return (
            self.left < other.right + GAP and other.left < self.right + GAP
            and self.bottom < other.top + GAP and other.bottom < self.top + GAP
        )  # fmt: skip

    def holds(self, x: float, y: float) -> bool:
        """Whether a point is inside."""
        return self.left <= x <= self.right and self.bottom <= y <= self.top

    def within(self, area: Box) -> bool:
        """Whether all of it is in ``area``."""
        return (
            area.left <= self.left and self.right <= area.right and area.bottom <= self.bottom and self.top <= area.top
        )

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """Its point that is closest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)


@dataclass(frozen=True)
class Label:
    """What is to be named at (x, y), and the size of its label."""

    x: float
    y: float
    width: float
    height: float
    first: tuple[int, ...] = ()
    """Directions that are better than others."""


def place(
    labels: Sequence[Label], area: Box, taken: Iterable[Box], line: Sequence[tuple[float, float]] = ()
) -> list[Box | None]:
    """A place in ``area`` for each label, as near as can be to what it names; None where none is left.

    ``taken`` are boxes that stay free, and ``line`` points that are better not covered. Earlier labels choose first; then
    each may choose again, now that it knows of all others.
    """
    markers, found = list(taken), dict[int, Box | None]()
    for _ in range(PASSES):
        before = dict(found)
        for i, label in enumerate(labels):
            others = [(labels[j], box) for j, box in found.items() if box and j != i]
            found[i] = _best(label, area, others, markers, line)
        if found == before:
            break
    return [found[i] for i in range(len(labels))]


def _best(
    label: Label,
    area: Box,
    others: Sequence[tuple[Label, Box]],
    markers: Sequence[Box],
    line: Sequence[tuple[float, float]],
) -> Box | None:
    """The cheapest place of one label among ``others`` that have theirs."""
    best: tuple[float, Box | None] = math.inf, None
    leaders = [_leader(*other) for other in others]
    for distance in DISTANCES:
        if best[0] <= distance:
            break
        for rank, box in enumerate(_around(label, distance)):
            if not box.within(area) or any(
                box.meets(other) for other in (*markers, *(written for _, written in others))
            ):
                continue
            leader = _leader(label, box)
            cost = distance + RANK * rank + ON_LINE * sum(box.holds(x, y) for x, y in line)
            cost += PAST * _crossed(leader, markers)
            cost += ACROSS * (
                _crossed(leader, [b for _, b in others]) + sum(_crossed(other, [box]) for other in leaders)
            )
            if cost < best[0]:
                best = cost, box
    return best[1]


def _around(label: Label, distance: float) -> Iterator[Box]:
    """The label with an edge or a corner ``distance`` away, the best direction first."""
    for direction in (*label.first, *DIRECTIONS):
        across, up = math.cos(math.radians(direction)), math.sin(math.radians(direction))
        bottom = label.y + distance * up - label.height * (0.0 if up > 0.6 else 1.0 if up < -0.6 else 0.5)
        for share in (0.0,) if across > 0.3 else (1.0,) if across < -0.3 else ALIGNED:
            left = label.x + distance * across - label.width * share
            yield Box(left, bottom, left + label.width, bottom + label.height)


def _crossed(leader: Sequence[tuple[float, float]], boxes: Sequence[Box]) -> int:
    return sum(any(box.holds(x, y) for x, y in leader) for box in boxes)


def _leader(label: Label, box: Box) -> list[tuple[float, float]]:
    """Points on the way from what is named to its label, beyond the marker."""
    x, y = box.nearest(label.x, label.y)
    steps = max(int(math.hypot(x - label.x, y - label.y) / 4), 1)
    return [(label.x + (x - label.x) * i / steps, label.y + (y - label.y) * i / steps) for i in range(1, steps)]
