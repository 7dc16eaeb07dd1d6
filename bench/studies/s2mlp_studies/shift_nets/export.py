"""Export a network with either of PyTorch's exporters, as its users do."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

Exporter: TypeAlias = Literal["dynamo", "torchscript"]


def export(
    model: nn.Module, example: Tensor, outputs: Sequence[str], path: Path, exporter: Exporter, *, free_batch: bool
) -> Path:
    """Write ``model`` to ``path``: input ``input``, of the shape of ``example``, and ``outputs`` by name."""
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            shapes = ({0: torch.export.Dim("batch")},) if free_batch else None
            torch.onnx.export(
                model, (example,), path, dynamo=True, dynamic_shapes=shapes, input_names=["input"],
                output_names=list(outputs), external_data=False, verbose=False,
            )  # fmt: skip
        else:
            axes = {name: {0: "batch"} for name in ("input", *outputs)} if free_batch else None
            torch.onnx.export(
                model, (example,), path, dynamo=False, dynamic_axes=axes, input_names=["input"],
                output_names=list(outputs), opset_version=17,
            )  # fmt: skip
    return path
