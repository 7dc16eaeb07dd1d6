"""S²-MLPv2 (arXiv 2108.01072) with the structure and the key names of the most copied public code.

``INPLACE_SHIFTS`` are that code's statements; ``SAFE_SHIFTS`` compute the paper's shift out of place.
Feature maps are (batch, height, width, channels) inside the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from s2mlp_deploy.shift import FOUR_DIRECTIONS, spatial_shift

ShiftFunction = Callable[[Tensor], Tensor]


def inplace_shift1(x: Tensor) -> Tensor:
    """The widely copied statements for the first part, word for word: groups move along h+, h-, w+, w-."""
    _, h, w, c = x.size()
    x[:, 1:, :, : c // 4] = x[:, : h - 1, :, : c // 4]
    x[:, : h - 1, :, c // 4 : c // 2] = x[:, 1:, :, c // 4 : c // 2]
    x[:, :, 1:, c // 2 : c * 3 // 4] = x[:, :, : w - 1, c // 2 : c * 3 // 4]
    x[:, :, : w - 1, 3 * c // 4 :] = x[:, :, 1:, 3 * c // 4 :]
    return x


def inplace_shift2(x: Tensor) -> Tensor:
    """The same for the second part: groups move along w+, w-, h+, h-."""
    _, h, w, c = x.size()
    x[:, :, 1:, : c // 4] = x[:, :, : w - 1, : c // 4]
    x[:, :, : w - 1, c // 4 : c // 2] = x[:, :, 1:, c // 4 : c // 2]
    x[:, 1:, :, c // 2 : c * 3 // 4] = x[:, : h - 1, :, c // 2 : c * 3 // 4]
    x[:, : h - 1, :, 3 * c // 4 :] = x[:, 1:, :, 3 * c // 4 :]
    return x


INPLACE_SHIFTS: tuple[ShiftFunction, ShiftFunction] = (inplace_shift1, inplace_shift2)
SAFE_SHIFTS: tuple[ShiftFunction, ShiftFunction] = (
    spatial_shift,
    partial(spatial_shift, offsets=FOUR_DIRECTIONS[2:] + FOUR_DIRECTIONS[:2]),
)


class SplitAttention(nn.Module):
    """(batch, 3, height, width, c) to (batch, height, width, c): the parts, weighted by channel.

    The weights are a softmax over the parts, computed from the sum of all parts and positions.
    """

    def __init__(self, c: int) -> None:
        super().__init__()
        self.mlp1 = nn.Linear(c, c, bias=False)
        self.gelu = nn.GELU()
        self.mlp2 = nn.Linear(c, 3 * c, bias=False)
        self.softmax = nn.Softmax(1)

    def forward(self, parts: Tensor) -> Tensor:
        a = self.mlp2(self.gelu(self.mlp1(parts.sum((1, 2, 3)))))
        weights = self.softmax(a.unflatten(1, (3, -1)))
        return (weights[:, :, None, None] * parts).sum(1)


class S2Attention(nn.Module):
    """Linear c→3c, of which two parts are shifted and one stays; split attention; Linear c→c."""

    def __init__(self, c: int, shifts: tuple[ShiftFunction, ShiftFunction]) -> None:
        super().__init__()
        self.mlp1 = nn.Linear(c, 3 * c)
        self.split_attention = SplitAttention(c)
        self.mlp2 = nn.Linear(c, c)
        self.shifts = shifts

    def forward(self, x: Tensor) -> Tensor:
        c = x.shape[-1]
        x = self.mlp1(x)
        part1, part2 = self.shifts[0](x[..., :c]), self.shifts[1](x[..., c : 2 * c])
        parts = torch.stack([part1, part2, x[..., 2 * c :]], 1)
        return self.mlp2(self.split_attention(parts))


class PreNormResidual(nn.Module):
    """x + fn(LN(x))."""

    def __init__(self, c: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x)) + x


class S2Block(nn.Module):
    """The blocks of a stage, on (batch, channels, height, width)."""

    def __init__(self, c: int, depth: int, expansion: int, shifts: tuple[ShiftFunction, ShiftFunction]) -> None:
        super().__init__()
        self.model = nn.Sequential()
        for _ in range(depth):
            mlp = nn.Sequential(
                nn.Linear(c, c * expansion), nn.GELU(), nn.Dropout(0), nn.Linear(c * expansion, c), nn.Dropout(0)
            )
            self.model.append(nn.Sequential(PreNormResidual(c, S2Attention(c, shifts)), PreNormResidual(c, mlp)))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MeanOverPositions(nn.Module):
    """(batch, channels, height, width) to (batch, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class S2MLPv2(nn.Module):
    """S²-MLPv2: images (batch, 3, height, width) to logits (batch, classes).

    A stage is a convolution with kernel = stride = its patch size, then its blocks. ``shifts`` move the first and
    the second part; the third one stays.
    """

    def __init__(
        self,
        channels: Sequence[int],
        depth: Sequence[int],
        patch_size: Sequence[int],
        expansion: int = 3,
        classes: int = 1000,
        shifts: tuple[ShiftFunction, ShiftFunction] = SAFE_SHIFTS,
    ) -> None:
        super().__init__()
        self.stages = nn.Sequential()
        for width, c, blocks, patch in zip((3, *channels), channels, depth, patch_size, strict=False):
            self.stages.append(nn.Sequential(nn.Conv2d(width, c, patch, patch), S2Block(c, blocks, expansion, shifts)))
        self.mlp_head = nn.Sequential(MeanOverPositions(), nn.Linear(channels[-1], classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.mlp_head(self.stages(images))
