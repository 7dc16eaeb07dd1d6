"""The spatial shift as data: the offset of each channel group, the semantics of the assignment, and the border rule.

Feature maps are ``(batch, height, width, channels)``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from s2mlp_deploy.errors import SpecError
from s2mlp_deploy.schema.size import Size

Offset: TypeAlias = tuple[int, int]
"""(Δh, Δw): how far a channel group moves along the first and the second spatial axis."""

Semantics: TypeAlias = Literal["paper", "inplace"]
"""The semantics of the shift: the paper's definition, or the result of its popular pseudocode on a CPU."""

Reading: TypeAlias = Semantics | Literal["none"]
"""How evidence is read: under a semantics of the shift, or under none where the network has no shift."""

Border: TypeAlias = Literal["keep", "zero", "wrap"]
"""The value of a position whose source lies outside the map: its own, zero, or the one from the other side."""

DIRECTIONS: dict[str, tuple[Offset, ...]] = {
    "4": ((1, 0), (-1, 0), (0, 1), (0, -1)),
    "8": ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)),
    "horizontal": ((0, 1), (0, -1)),
    "vertical": ((1, 0), (-1, 0)),
}
"""The direction sets of the paper's ablation; ``4`` is the model itself."""


_DIRECTION = re.compile(r"(?=.)(?:h([+-])([1-9]\d{0,2})?)?(?:w([+-])([1-9]\d{0,2})?)?")


def direction_name(offset: Offset) -> str:
    """``h+``, ``w-2``, ``h+w-``, …: the axis, the sign, and the distance beyond 1; ``0`` for a group that stays."""
    return (
        "".join(
            f"{axis}{'-' if d < 0 else '+'}{abs(d) if abs(d) > 1 else ''}"
            for axis, d in zip("hw", offset, strict=True)
            if d
        )
        or "0"
    )


def parse_directions(text: str) -> tuple[Offset, ...]:
    """The offsets of a set of :data:`DIRECTIONS`, or of directions in order with commas between, as in ``w+,w-,h+,h-``.

    Raises:
        ValueError: where ``text`` is neither.
    """
    if text in DIRECTIONS:
        return DIRECTIONS[text]
    offsets = []
    for part in text.split(","):
        match = _DIRECTION.fullmatch(part.strip())
        if not match and part.strip() != "0":
            raise ValueError(
                f"{part.strip()[:40]!r} is not a direction: expected {', '.join(DIRECTIONS)}, or the direction of each group as "
                "in h+,h-,w+,w- (h is the height, the first spatial axis; 0 stays)"
            )
        h_sign, h, w_sign, w = match.groups() if match else (None,) * 4
        offsets.append((_signed(h_sign, h), _signed(w_sign, w)))
    return tuple(offsets)


def _signed(sign: str | None, distance: str | None) -> int:
    return 0 if sign is None else int(f"{sign}{distance or 1}")


def overlap(offset: Offset, size: Size) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a map of ``size`` moved by ``offset`` lands inside itself: (to, of), each (rows, columns)."""
    to, of = [], []
    for delta, length in zip(offset, size, strict=True):
        low, high = min(max(delta, 0), length), max(length + min(delta, 0), 0)
        to.append(slice(low, max(high, low)))
        of.append(slice(low - delta, max(high, low) - delta))
    return (to[0], to[1]), (of[0], of[1])


@dataclass(frozen=True)
class Group:
    """Channels ``start:stop``, which move by ``offset``."""

    start: int
    stop: int
    offset: Offset


@dataclass(frozen=True)
class Shift:
    """The spatial shift: one offset for each of n equal channel groups, split at i·c//n.

    Under ``paper`` a position takes the value that lies ``offset`` before it; where that would be
    outside the map, ``border`` decides, and the paper's rule is to keep its own. Under ``inplace`` the
    same assignment runs in ascending memory order on one buffer, so that offsets pointing forward in
    memory read what they have just written: the border's value smears over the map.
    """

    offsets: tuple[Offset, ...] = DIRECTIONS["4"]
    semantics: Semantics = "paper"
    border: Border = "keep"

    def __post_init__(self) -> None:
        if not self.offsets:
            raise SpecError("a shift needs at least one offset, and got none")
        if self.semantics not in ("paper", "inplace"):
            raise SpecError(f"unknown shift semantics {self.semantics!r}: expected paper or inplace")
        if self.border not in get_args(Border):
            raise SpecError(f"unknown border {self.border!r}: expected {', '.join(get_args(Border))}")
        if self.semantics not in self.possible_semantics:
            raise SpecError(
                f"border {self.border} goes with paper semantics only: assignments in place write no border, so it keeps its "
                "values under them"
            )

    @property
    def possible_semantics(self) -> tuple[Semantics, ...]:
        """The semantics that are possible with this border: in-place assignment implies ``keep``."""
        return get_args(Semantics) if self.border == "keep" else ("paper",)

    def groups(self, channels: int) -> tuple[Group, ...]:
        """The channel groups of a map with ``channels`` channels."""
        n = len(self.offsets)
        edges = [i * channels // n for i in range(n + 1)]
        return tuple(Group(a, b, o) for a, b, o in zip(edges, edges[1:], self.offsets, strict=False))

    def smears(self, offset: Offset) -> bool:
        """Whether a group with this offset reads values that the same assignment overwrote."""
        return self.semantics == "inplace" and offset > (0, 0)

    @property
    def mirrored(self) -> Shift:
        """The same shift with the axes exchanged: what moved along the height moves along the width."""
        return replace(self, offsets=tuple((dw, dh) for dh, dw in self.offsets))

    @property
    def directions(self) -> str:
        """The name of this set of offsets, or the offsets themselves."""
        for name, offsets in DIRECTIONS.items():
            if offsets == self.offsets:
                return name
        return ",".join(map(direction_name, self.offsets))
