"""The spatial shift to train with: out of place, with the right gradient, the same in eager mode, compiled and exported.

    from s2mlp_deploy.shift import spatial_shift

    x = spatial_shift(x)  # (batch, height, width, channels), moved as in S²-MLP

Needs PyTorch and none of this package's other dependencies. docs/training.md shows how to move a model over.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2mlp_deploy.schema.shift import DIRECTIONS, Border, Offset, Semantics, Shift

FOUR_DIRECTIONS: tuple[Offset, ...] = DIRECTIONS["4"]
"""The offsets of S²-MLP: +1 and -1 along the first spatial axis, +1 and -1 along the second, a quarter of the channels each."""

Move: TypeAlias = tuple[int, int]
"""(axis, distance), the distance not 0."""


def spatial_shift(
    x: Tensor,
    offsets: Sequence[Offset] = FOUR_DIRECTIONS,
    *,
    border: Border = "keep",
    semantics: Semantics = "paper",
    channel_dim: int = -1,
) -> Tensor:
    """Move each channel group of ``x`` by its offset along the two spatial axes (arXiv 2106.07477, section 3.2).

    Args:
        x: (batch, height, width, channels), or (batch, channels, height, width) where ``channel_dim`` is 1.
        offsets: (Δh, Δw) of each of n channel groups, which are split at i·c//n.
        border: the value of a position whose source lies outside the map: its own (``keep``), ``zero``, or the one from
            the other side (``wrap``). A move by a whole map or more reaches no position inside.
        semantics: ``paper``, or ``inplace`` for the result of the popular in-place statements on one CPU thread, where
            positions read values that were just written; with the gradient of that result.
        channel_dim: -1 (or 3) for channels last, 1 for channels first.

    Returns:
        A new tensor of the same shape and type.

    Raises:
        SpecError: where the offsets are empty, a name is unknown, or ``inplace`` comes with a border other than ``keep``.
        ValueError: where ``x`` does not have four axes, or ``channel_dim`` is neither last nor first.
    """
    shift = Shift(tuple(offsets), semantics, border)
    if x.dim() != 4:
        raise ValueError(
            f"the spatial shift takes maps with 4 axes (batch, height, width, channels), and got {x.dim()}"
        )
    if channel_dim not in (-1, 3, 1):
        raise ValueError(f"channel_dim is {channel_dim}: expected -1 for channels last, or 1 for channels first")
    first_axis = 2 if channel_dim == 1 else 1
    groups = shift.groups(_length(x, channel_dim))
    moved = []
    for group, part in zip(groups, x.split_with_sizes([g.stop - g.start for g in groups], channel_dim), strict=True):
        moves = [(axis, distance) for axis, distance in enumerate(group.offset, first_axis) if distance]
        if shift.smears(group.offset):
            moved.append(_smear(part, moves))
        elif border == "wrap":
            moved.append(part.roll(group.offset, (first_axis, first_axis + 1)))
        else:
            moved.append(_move(part, torch.zeros_like(part) if border == "zero" else part, moves))
    return torch.cat(moved, channel_dim)


class SpatialShift(nn.Module):
    """:func:`spatial_shift` as a module without parameters."""

    def __init__(
        self,
        offsets: Sequence[Offset] = FOUR_DIRECTIONS,
        *,
        border: Border = "keep",
        semantics: Semantics = "paper",
        channel_dim: int = -1,
    ) -> None:
        super().__init__()
        shift = Shift(tuple(offsets), semantics, border)
        self.offsets, self.border, self.semantics, self.channel_dim = shift.offsets, border, semantics, channel_dim

    def forward(self, x: Tensor) -> Tensor:
        """``x`` shifted: a new tensor of the same shape."""
        return spatial_shift(
            x, self.offsets, border=self.border, semantics=self.semantics, channel_dim=self.channel_dim
        )

    def extra_repr(self) -> str:
        return f"{self.offsets}, border={self.border!r}, semantics={self.semantics!r}, channel_dim={self.channel_dim}"


def _move(source: Tensor, own: Tensor, moves: Sequence[Move]) -> Tensor:
    """``source`` moved; positions that nothing moves into take the value of ``own``. Both have the same shape.

    The ends of slices are written ``[:-n]``, not ``[: length - n]``: so exporters need no arithmetic on shapes, and a
    move longer than the map leaves an empty slice.
    """
    if not moves:
        return source
    (axis, n), *others = moves
    if n > 0:
        moved = _move(_cut(source, axis, None, -n), _cut(own, axis, n, None), others)
    else:
        moved = _move(_cut(source, axis, -n, None), _cut(own, axis, None, n), others)
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        return _select(moved, own, axis, n)
    return torch.cat([_cut(own, axis, None, n), moved] if n > 0 else [moved, _cut(own, axis, n, None)], axis)


def _select(moved: Tensor, own: Tensor, axis: int, n: int) -> Tensor:
    """``own`` with ``moved`` in the place of all but its first n (or last -n) positions along ``axis``.

    Equal to a cat. On CPUs inductor writes every cat to memory, one within another twice, but fuses this one into the outer.
    """
    length, behind = own.shape[axis], own.dim() - 1 - axis
    place, missing = torch.arange(length, device=own.device).view(-1, *[1] * behind), length - moved.shape[axis]
    padded = F.pad(moved, [0, 0] * behind + ([missing, 0] if n > 0 else [0, missing]))
    return torch.where(place >= n if n > 0 else place < length + n, padded, own)


def _smear(x: Tensor, moves: Sequence[Move]) -> Tensor:
    """The result of ``x[to] = x[of]`` on one buffer in ascending memory order, where ``to`` lies behind ``of``.

    Along the first axis that moves, n rows at a time: each n rows take the n rows before, as those are by then.
    """
    (axis, n), *others = moves
    if n == 1 and not others:
        return _cut(x, axis, None, 1).expand_as(x)
    first, *rest = torch.split(x, n, axis)
    rows = [first]
    for own in rest:
        rows.append(_move(_cut(rows[-1], axis, None, _length(own, axis)), own, others))
    return torch.cat(rows, axis)


def _cut(x: Tensor, axis: int, start: int | None, stop: int | None) -> Tensor:
    """``x[start:stop]`` along ``axis``."""
    return x[(slice(None),) * axis + (slice(start, stop),)]


def _length(x: Tensor, axis: int) -> int:
    """The length of ``x`` along ``axis`` as a Python integer, which torch.jit.trace would make a tensor of."""
    if not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return x.shape[axis]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the trace holds for this length alone
        return int(x.shape[axis])
