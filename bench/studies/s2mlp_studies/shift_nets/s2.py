"""S²-MLP and S²-MLPv2 with the widely copied statements, whose source and destination overlap.

Feature maps are (batch, height, width, channels), as in the papers' pseudocode (arXiv 2106.07477 and 2108.01072).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def shift_height_first(x: Tensor) -> Tensor:
    """Move the four channel groups of ``x`` by (h+, h−, w+, w−), in place."""
    _, h, w, c = x.shape
    x[:, 1:, :, : c // 4] = x[:, : h - 1, :, : c // 4]
    x[:, : h - 1, :, c // 4 : c // 2] = x[:, 1:, :, c // 4 : c // 2]
    x[:, :, 1:, c // 2 : c * 3 // 4] = x[:, :, : w - 1, c // 2 : c * 3 // 4]
    x[:, :, : w - 1, c * 3 // 4 :] = x[:, :, 1:, c * 3 // 4 :]
    return x


def shift_width_first(x: Tensor) -> Tensor:
    """Move the four channel groups of ``x`` by (w+, w−, h+, h−), in place."""
    _, h, w, c = x.shape
    x[:, :, 1:, : c // 4] = x[:, :, : w - 1, : c // 4]
    x[:, :, : w - 1, c // 4 : c // 2] = x[:, :, 1:, c // 4 : c // 2]
    x[:, 1:, :, c // 2 : c * 3 // 4] = x[:, : h - 1, :, c // 2 : c * 3 // 4]
    x[:, : h - 1, :, c * 3 // 4 :] = x[:, 1:, :, c * 3 // 4 :]
    return x


class SpatialMixing(nn.Module):
    """Linear, GELU, the in-place shift, linear: the first half of a block of S²-MLP."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.fc2(shift_height_first(F.gelu(self.fc1(x))))
        return mixed


class SplitAttention(nn.Module):
    """The sum of ``parts`` feature maps (batch, parts, height, width, channels), weighted by channel."""

    def __init__(self, channels: int, parts: int = 3) -> None:
        super().__init__()
        self.parts = parts
        self.fc1 = nn.Linear(channels, channels, bias=False)
        self.fc2 = nn.Linear(channels, channels * parts, bias=False)
        with torch.no_grad():
            self.fc2.weight.mul_(0.1)  # so that the softmax does not saturate, as it does with a default initialisation

    def forward(self, x: Tensor) -> Tensor:
        b, k, h, w, c = x.shape
        x = x.reshape(b, k, h * w, c)
        weights = self.fc2(F.gelu(self.fc1(x.sum(1).sum(1)))).reshape(b, self.parts, c).softmax(1)
        mixed: Tensor = (weights.unsqueeze(-2) * x).sum(1)
        return mixed.reshape(b, h, w, c)


class ShiftedAttention(nn.Module):
    """Three maps from a linear layer, two of them shifted in place, brought together by attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.attention = SplitAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        c = x.shape[-1]
        x = self.fc1(x)
        x1 = shift_height_first(x[:, :, :, :c])
        x2 = shift_width_first(x[:, :, :, c : 2 * c])
        mixed: Tensor = self.fc2(self.attention(torch.stack([x1, x2, x[:, :, :, 2 * c :]], 1)))
        return mixed


class Block(nn.Module):
    """A residual block: ``mixing`` over positions, then an MLP over channels."""

    def __init__(self, channels: int, expansion: int, mixing: nn.Module) -> None:
        super().__init__()
        self.norm1, self.mixing, self.norm2 = nn.LayerNorm(channels), mixing, nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels * expansion), nn.GELU(), nn.Linear(channels * expansion, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixing(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x


class S2MLP(nn.Module):
    """S²-MLP: images (batch, 3, height, width) to logits (batch, classes)."""

    def __init__(self, *, channels: int, depth: int, patch: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(3, channels, patch, patch)
        self.blocks = nn.Sequential(*(Block(channels, 4, SpatialMixing(channels)) for _ in range(depth)))
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.embedding(x).permute(0, 2, 3, 1))
        logits: Tensor = self.head(x.mean((1, 2)))
        return logits


class S2MLPv2(nn.Module):
    """S²-MLPv2: images (batch, 3, height, width) to logits (batch, classes)."""

    def __init__(self, *, channels: tuple[int, ...], depths: tuple[int, ...], patch: int, classes: int) -> None:
        super().__init__()
        widths, steps = (3, *channels), (patch, *[2] * (len(channels) - 1))
        self.embeddings = nn.ModuleList(
            nn.Conv2d(below, c, step, step) for below, c, step in zip(widths, channels, steps, strict=False)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(c, 3, ShiftedAttention(c)) for _ in range(depth)))
            for c, depth in zip(channels, depths, strict=True)
        )
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        for embedding, blocks in zip(self.embeddings, self.stages, strict=True):
            x = blocks(embedding(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
