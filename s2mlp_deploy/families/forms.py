"""Convert weights that code bases keep in another form: the same numbers, in another shape or order.

A linear layer may be kept as a 1×1 convolution, [out, in, 1, 1], or one of width 1 over positions, [out, in, 1]. A patch embedding may be a linear layer on flattened
patches, [out, height · width · channels], whose columns stand in the order in which the code flattens a patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal, TypeAlias

from s2mlp_deploy.schema.size import Size

if TYPE_CHECKING:
    from torch import Tensor

PatchOrder: TypeAlias = Literal["channels-first", "channels-last"]
"""How a patch is flattened: (channel, row, column), as nn.Unfold and flatten do, or (row, column, channel)."""


@dataclass(frozen=True)
class Form:
    """A weight seen as one of shape ``view``, whose axes are then put in the order ``axes``."""

    view: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight as this project keeps it."""
        return tuple(self.view[axis] for axis in self.axes)

    def apply(self, weight: Tensor) -> Tensor:
        """``weight`` as this project keeps it."""
        return weight.reshape(self.view).permute(self.axes).contiguous()


def pointwise(shape: tuple[int, ...]) -> Form | None:
    """A convolution of one position as a linear layer [out, in]; None where ``shape`` is that of another weight."""
    return Form(shape[:2], (0, 1)) if shape[2:] in ((1,), (1, 1)) else None


def patches(shape: tuple[int, ...], size: Size, order: PatchOrder) -> Form | None:
    """A linear layer on patches of ``size`` as a convolution [out, channels, height, width]; None for others."""
    if len(shape) != 2 or not all(shape) or shape[1] % prod(size):
        return None
    channels = shape[1] // prod(size)
    if order == "channels-first":
        return Form((shape[0], channels, *size), (0, 1, 2, 3))
    return Form((shape[0], *size, channels), (0, 3, 1, 2))
