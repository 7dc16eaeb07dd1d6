"""What the toolkit is compared with: the widely copied code exported as most people would, and no shift at all.

    python -m bench.baselines PRESET CKPT OUT.onnx

runs the first one, so that it can be measured as a whole process.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor

from s2mlp_deploy.emitter import Emitter
from s2mlp_deploy.lowering import FeatureMap, Lowering
from s2mlp_deploy.reference import S2MLP
from s2mlp_deploy.spec import PRESETS, Shift, Spec


def slice_assignment_shift(x: Tensor, shift: Shift) -> Tensor:
    """The widely copied statements, word for word, on ``x`` (batch, height, width, channels)."""
    _, h, w, c = x.size()
    x[:, 1:, :, : c // 4] = x[:, : h - 1, :, : c // 4]
    x[:, : h - 1, :, c // 4 : c // 2] = x[:, 1:, :, c // 4 : c // 2]
    x[:, :, 1:, c // 2 : c * 3 // 4] = x[:, :, : w - 1, c // 2 : c * 3 // 4]
    x[:, :, : w - 1, 3 * c // 4 :] = x[:, :, 1:, 3 * c // 4 :]
    return x


def export_slice_assignments(spec: Spec, checkpoint: Path, destination: Path) -> None:
    """``torch.onnx.export`` of the slice-assignment code, batch 1, with the weights of ``checkpoint``."""
    model = S2MLP(spec, slice_assignment_shift)
    model.load_state_dict(torch.load(checkpoint, weights_only=True))
    destination.parent.mkdir()
    images = torch.zeros(1, spec.in_channels, *spec.image_size)
    torch.onnx.export(model.eval(), (images,), destination, dynamo=True, verbose=False)


class NoShift(Lowering):
    """Leaves the shift out: wrong, and the fastest that any lowering could be."""

    name = "none"

    def refusal(self, shift: Shift, *, dynamic_size: bool) -> str | None:
        return "it computes another network; it is a bound to measure against"

    def emit(self, out: Emitter, tokens: ir.Value, shift: Shift, fmap: FeatureMap, name: str) -> ir.Value:
        return tokens


def main() -> None:
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    preset, checkpoint, destination = sys.argv[1:]
    export_slice_assignments(PRESETS[preset], Path(checkpoint), Path(destination))


if __name__ == "__main__":
    main()
