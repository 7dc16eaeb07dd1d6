"""The definition of the spatial shift in PyTorch, which every lowering is tested against."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from s2mlp_deploy.schema.shift import Offset, Shift, overlap

ShiftFunction: TypeAlias = Callable[[Tensor, Shift], Tensor]


def spatial_shift(x: Tensor, shift: Shift) -> Tensor:
    """Move each channel group of ``x`` (batch, height, width, channels) by its offset.

    Paper, section 3.2. A position whose source lies outside the map keeps its own value, or follows ``shift.border``.
    """
    out = torch.zeros_like(x) if shift.border == "zero" else x.clone()
    for group in shift.groups(x.shape[-1]):
        source, target = x[..., group.start : group.stop], out[..., group.start : group.stop]
        if shift.smears(group.offset):
            _smear(target, group.offset)
        elif shift.border == "wrap":
            target[:] = source.roll(group.offset, (1, 2))
        else:
            to, of = overlap(group.offset, (x.shape[1], x.shape[2]))
            target[:, to[0], to[1]] = source[:, of[0], of[1]]
    return out


def _smear(x: Tensor, offset: Offset) -> None:
    """The assignment ``x[to] = x[of]`` on one buffer, position after position in memory order.

    PyTorch leaves overlapping copies undefined; its CPU kernels run in this order on one thread.
    One row (or column) at a time does the same, since a row never reads from itself here.
    """
    dh, dw = offset
    _, height, width, _ = x.shape
    (to_h, to_w), (_, of_w) = overlap(offset, (height, width))
    if dh:
        for h in range(*to_h.indices(height)):
            x[:, h, to_w] = x[:, h - dh, of_w]
    else:
        for w in range(*to_w.indices(width)):
            x[:, :, w] = x[:, :, w - dw]
