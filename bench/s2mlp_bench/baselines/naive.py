"""The widely copied code, and its export as most people would do it; of a network without a shift, its usual code.

    python -m s2mlp_bench.baselines.naive DIRECTORY BATCH HEIGHT WIDTH OUT.onnx

exports the model in ``DIRECTORY`` (``spec.json``, ``weights.pt``), so that it can be measured as a whole process.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import torch
from torch import Tensor

from s2mlp_bench.baselines.families import code_of
from s2mlp_deploy.families.registry import read_spec
from s2mlp_deploy.families.shift_reference import spatial_shift
from s2mlp_deploy.graph.layer import INPUT, OUTPUT
from s2mlp_deploy.schema.shift import Shift, overlap


def slice_assignment_shift(x: Tensor, shift: Shift) -> Tensor:
    """The widely copied statements, such as ``x[:, 1:, :, : c // 4] = x[:, : h - 1, :, : c // 4]``, for every group.

    ``x`` is (batch, height, width, channels), and is changed.
    """
    _, h, w, c = x.size()
    for group in shift.groups(c):
        to, of = overlap(group.offset, (h, w))
        x[:, to[0], to[1], group.start : group.stop] = x[:, of[0], of[1], group.start : group.stop]
    return x


def trained_shift(x: Tensor, shift: Shift) -> Tensor:
    """The usual PyTorch code for ``shift``: the popular statements where they compute it, else on a copy."""
    return slice_assignment_shift(x, shift) if shift.semantics == "inplace" else spatial_shift(x, shift)


def naive_shift(x: Tensor, shift: Shift) -> Tensor:
    """The popular statements, whatever ``shift`` was trained; for another border than theirs nobody writes them."""
    return slice_assignment_shift(x, shift) if shift.border == "keep" else spatial_shift(x, shift)


def export(
    directory: Path, batch: int, size: tuple[int, int], destination: Path, dtype: torch.dtype = torch.float32
) -> None:
    """``torch.onnx.export`` of the usual code with the weights in ``directory``, all of it in ``dtype``."""
    spec = read_spec(json.loads((directory / "spec.json").read_bytes()))
    model = code_of(spec).module(spec, naive_shift)
    model.load_state_dict(torch.load(directory / "weights.pt", weights_only=True))
    destination.parent.mkdir(parents=True)
    images = torch.zeros(batch, spec.in_channels, *size, dtype=dtype)
    torch.onnx.export(
        model.eval().to(dtype),
        (images,),
        destination,
        dynamo=True,
        verbose=False,
        input_names=[INPUT],
        output_names=[OUTPUT],
    )


def main() -> None:
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    directory, batch, height, width, destination, dtype = sys.argv[1:]
    size = int(height), int(width)
    export(Path(directory), int(batch), size, Path(destination), getattr(torch, dtype))


if __name__ == "__main__":
    main()
