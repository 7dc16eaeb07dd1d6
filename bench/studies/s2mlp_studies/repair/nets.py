"""The networks that are repaired: public code with a shift, of the sizes that people deploy, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from s2mlp_studies.repair.goals import DEEP, YOLO
from s2mlp_studies.shift_nets.detector import Detector
from s2mlp_studies.shift_nets.export import export
from s2mlp_studies.shift_nets.other_shifts import TSM, ShiftViT
from s2mlp_studies.shift_nets.s2 import S2MLP

SEED = 20210614


@dataclass(frozen=True)
class Net:
    """A network, the ``shape`` of its input with a batch of 1, and its outputs' names."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    outputs: tuple[str, ...] = ("logits",)

    def export(self, path: Path) -> Path:
        """Write it to ``path`` as ``torch.onnx.export(dynamo=True)`` does, for a batch of 1."""
        torch.manual_seed(SEED)
        model = self.make().eval().requires_grad_(False)
        return export(model, torch.zeros(self.shape), self.outputs, path, "dynamo", free_batch=False)


NETS = (
    Net(DEEP, lambda: S2MLP(channels=384, depth=36, patch=16, classes=1000), (1, 3, 224, 224)),
    Net(YOLO, lambda: Detector(channels=32, classes=80), (1, 3, 640, 640), ("boxes", "scores", "features")),
    Net("ShiftViT-like", lambda: ShiftViT(channels=96, depth=12, patch=4, classes=1000), (1, 3, 224, 224)),
    Net("TSM-like", lambda: TSM(channels=64, depth=8, frames=8, classes=400), (1, 8, 3, 112, 112)),
)
"""S²-MLP-deep as the popular code has it; convolutions with S2Attention between; shifts with zeros; shifts in time."""
