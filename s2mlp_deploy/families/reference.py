"""The base class and layers that the families' reference modules share.

A reference module holds the checkpoint's own tensors; :func:`activations` runs it layer by layer in any floating-point
type, so that float64 logits need memory for one layer in float64, not for the whole model.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class ReferenceModel(nn.Module):
    """A network as its paper defines it: images (batch, channels, height, width) to logits (batch, classes)."""

    @abstractmethod
    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """(name, module) in the order of computation, with the names of :meth:`Spec.layer_maps`.

        The first takes images as (batch, height, width, channels), the last one gives the logits.
        """

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 2, 3, 1)
        for _, layer in self.layers():
            x = layer(x)
        return x


class StageEmbedding(nn.Conv2d):
    """The convolution that opens a stage, from and to (batch, height, width, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x.permute(0, 3, 1, 2))
        return out.permute(0, 2, 3, 1).contiguous()


class Head(nn.Module):
    """Feature map (batch, height, width, channels) to logits: mean over positions, linear; a norm before or between."""

    def __init__(self, norm: nn.Module | None, fc: nn.Linear, *, norm_after_mean: bool = False) -> None:
        super().__init__()
        self.norm = norm or nn.Identity()
        self.fc = fc
        self.norm_after_mean = norm_after_mean

    def forward(self, x: Tensor) -> Tensor:
        mean = self.norm(x.mean((1, 2))) if self.norm_after_mean else self.norm(x).mean((1, 2))
        logits: Tensor = self.fc(mean)
        return logits


def activations(model: ReferenceModel, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """(name, output) of every layer, the logits last, computed in the dtype of ``images``.

    Feature maps are (batch, height, width, channels), logits (batch, classes).
    """
    x = images.permute(0, 2, 3, 1)
    with torch.inference_mode():
        for name, layer in model.layers():
            if next(layer.parameters()).dtype != images.dtype:
                layer = copy.deepcopy(layer).to(images.dtype)
            x = layer(x)
            yield name, x


def logits(model: ReferenceModel, images: Tensor) -> Tensor:
    """Logits (batch, classes), computed in the dtype of ``images`` (batch, 3, height, width)."""
    *_, (_, out) = activations(model, images)
    return out
