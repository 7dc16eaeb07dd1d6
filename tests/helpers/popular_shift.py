"""The shift of most public code, whose statements read what they have just written."""

from __future__ import annotations

from torch import Tensor


def popular_statements(x: Tensor) -> Tensor:
    """The public statements, word for word, which change ``x``; their author took the first axis for the width."""
    _, w, h, c = x.size()
    x[:, 1:, :, : c // 4] = x[:, : w - 1, :, : c // 4]
    x[:, : w - 1, :, c // 4 : c // 2] = x[:, 1:, :, c // 4 : c // 2]
    x[:, :, 1:, c // 2 : c * 3 // 4] = x[:, :, : h - 1, c // 2 : c * 3 // 4]
    x[:, :, : h - 1, 3 * c // 4 :] = x[:, :, 1:, 3 * c // 4 :]
    return x
