"""Networks whose shift reads nothing that it has just written: zeros at the border, along time, or rolled."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def shift_with_zeros(x: Tensor, group: int) -> Tensor:
    """ShiftViT's shift (arXiv 2201.10801): four groups of ``group`` channels of (batch, channels, height, width) move."""
    out = torch.zeros_like(x)
    out[:, :group, :, :-1] = x[:, :group, :, 1:]
    out[:, group : 2 * group, :, 1:] = x[:, group : 2 * group, :, :-1]
    out[:, 2 * group : 3 * group, :-1] = x[:, 2 * group : 3 * group, 1:]
    out[:, 3 * group : 4 * group, 1:] = x[:, 3 * group : 4 * group, :-1]
    out[:, 4 * group :] = x[:, 4 * group :]
    return out


class ShiftBlock(nn.Module):
    """Shift with zeros, then an MLP of 1×1 convolutions, both added to the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.group = channels // 12
        self.norm = nn.GroupNorm(1, channels)
        self.fc1, self.fc2 = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = shift_with_zeros(x, self.group)
        x = x + self.fc2(F.gelu(self.fc1(self.norm(x))))
        return x


class ShiftViT(nn.Module):
    """Like ShiftViT: images (batch, 3, height, width) to logits (batch, classes)."""

    def __init__(self, *, channels: int, depth: int, patch: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(3, channels, patch, patch)
        self.blocks = nn.Sequential(*(ShiftBlock(channels) for _ in range(depth)))
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(self.embedding(x)).mean((2, 3)))
        return logits


def shift_in_time(x: Tensor, frames: int, share: int = 8) -> Tensor:
    """TSM's shift (arXiv 1811.08383) of (batch · frames, channels, height, width): one in ``share`` channels comes from
    the next frame, one from the last."""
    nt, c, h, w = x.shape
    x = x.view(nt // frames, frames, c, h, w)
    fold = c // share
    out = torch.zeros_like(x)
    out[:, :-1, :fold] = x[:, 1:, :fold]
    out[:, 1:, fold : 2 * fold] = x[:, :-1, fold : 2 * fold]
    out[:, :, 2 * fold :] = x[:, :, 2 * fold :]
    return out.view(nt, c, h, w)


class TemporalBlock(nn.Module):
    """A residual pair of convolutions behind a shift in time."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.conv1, self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1), nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.conv2(F.relu(self.conv1(shift_in_time(x, self.frames))))
        return x


class TSM(nn.Module):
    """Like TSM: clips (batch, frames, 3, height, width) to logits (batch, classes)."""

    def __init__(self, *, channels: int, depth: int, frames: int, classes: int) -> None:
        super().__init__()
        self.frames = frames
        self.stem = nn.Conv2d(3, channels, 4, 4)
        self.blocks = nn.Sequential(*(TemporalBlock(channels, frames) for _ in range(depth)))
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x.flatten(0, 1)))
        by_frame: Tensor = self.head(x.mean((2, 3)))
        logits = by_frame.reshape(-1, self.frames, by_frame.shape[1]).mean(1)
        return logits


class AxialBlock(nn.Module):
    """AS-MLP's block (arXiv 2107.08391): groups of channels roll along either axis of a padded map."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.reach = width // 2
        self.norm = nn.GroupNorm(1, channels)
        self.fc1, self.fc2, self.fc3 = (nn.Conv2d(channels, channels, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.fc1(self.norm(x)))
        x = x + self.fc2(F.gelu(self._rolled(y, 2))) + self.fc3(F.gelu(self._rolled(y, 3)))
        return x

    def _rolled(self, x: Tensor, axis: int) -> Tensor:
        reach, (h, w) = self.reach, (x.shape[2], x.shape[3])
        groups = F.pad(x, (reach, reach, reach, reach)).chunk(2 * reach + 1, 1)
        moved = torch.cat([torch.roll(group, i - reach, axis) for i, group in enumerate(groups)], 1)
        return moved.narrow(2, reach, h).narrow(3, reach, w)


class ASMLP(nn.Module):
    """Like AS-MLP: images (batch, 3, height, width) to logits (batch, classes)."""

    def __init__(self, *, channels: int, depth: int, patch: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(3, channels, patch, patch)
        self.blocks = nn.Sequential(*(AxialBlock(channels, 3) for _ in range(depth)))
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(self.embedding(x)).mean((2, 3)))
        return logits
