"""A convolutional detector with shifted attention inside, as YOLO variants have it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2mlp_studies.shift_nets.s2 import ShiftedAttention


class Convolution(nn.Module):
    """Convolution, batch norm, SiLU: (batch, channels, height, width)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(self.conv(x)))


class Attention(nn.Module):
    """:class:`ShiftedAttention` of a map (batch, channels, height, width)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shifted = ShiftedAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.shifted(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return mixed


class Detector(nn.Module):
    """Images (batch, 3, height, width), multiples of 16, to boxes (batch, 4, places), scores (batch, classes, places) and
    the last feature map; places are the positions of two maps, at strides 8 and 16."""

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__()
        c = channels
        self.stem = nn.Sequential(Convolution(3, c, 3, 2), Convolution(c, c, 3, 2), Convolution(c, 2 * c, 3, 2))
        self.down = Convolution(2 * c, 4 * c, 3, 2)
        self.attention = Attention(4 * c)
        self.fuse = Convolution(6 * c, 2 * c, 1)
        self.boxes = nn.ModuleList([nn.Conv2d(2 * c, 4, 1), nn.Conv2d(4 * c, 4, 1)])
        self.scores = nn.ModuleList([nn.Conv2d(2 * c, classes, 1), nn.Conv2d(4 * c, classes, 1)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine = self.stem(x)
        coarse = self.attention(self.down(fine))
        wide = F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        maps = [self.fuse(torch.cat([fine, wide], 1)), coarse]
        boxes = torch.cat([head(y).flatten(2) for head, y in zip(self.boxes, maps, strict=True)], 2)
        scores = torch.cat([head(y).flatten(2) for head, y in zip(self.scores, maps, strict=True)], 2)
        return boxes, scores.sigmoid(), coarse
