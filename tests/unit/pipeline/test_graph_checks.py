"""Graphs are checked before rounding, and before probabilities, which hide faults: each of these is within what the artifact's own
check allows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from helpers.support import save_checkpoint, small_spec
from s2mlp_deploy import ExportRequest, GraphOptions, OutputOptions, Source
from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.graph.builder import constant_of, set_array
from s2mlp_deploy.passes import attach_io
from s2mlp_deploy.pipeline import export_onnx
from s2mlp_deploy.pipeline.deploy import deploy
from s2mlp_deploy.quantization.settings import Float16, Float32, PrecisionOptions
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import Interface

PROBABILITIES, BYTES = Interface(output="probabilities"), Interface(input="uint8")


def altering(made: Any, name: str, change: Callable[[Array], Array]) -> Any:
    """The graph in ``made``, with another constant called ``name``."""
    model: ir.Model = made if isinstance(made, ir.Model) else made.model
    value = next(value for key, value in model.graph.initializers.items() if key == name)
    set_array(value, change(constant_of(value)))
    return made


def one_more(bias: Array) -> Array:
    """For all logits alike, which changes no probability."""
    return bias + np.float32(1)


def slightly_larger(weight: Array) -> Array:
    return weight * np.float32(1.0001)


FAULTS: dict[str, tuple[Any, str, str, Callable[[Array], Array], PrecisionOptions, Interface]] = {
    "a weight before it is rounded": (
        export_onnx,
        "lower_checkpoint",
        "stage0.blocks.0.fc3.weight",
        slightly_larger,
        Float16(),
        Interface(),
    ),
    "logits behind probabilities": (
        export_onnx,
        "lower_checkpoint",
        "head.fc.bias",
        one_more,
        Float32(),
        PROBABILITIES,
    ),
    "rounded logits behind probabilities": (
        export_onnx,
        "round_graph",
        "head.fc.bias",
        one_more,
        Float16(target="x86"),
        PROBABILITIES,
    ),
    "the head before it is rounded": (
        attach_io,
        "attach",
        "stage0.embedding.weight.folded",
        slightly_larger,
        Float16(target="x86"),
        BYTES,
    ),
}
"""The module and its function that make a fault, the constant and its change, and the artifact that would hide it."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_the_artifact_would_hide_is_refused(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, function, name, change, precision, interface = FAULTS[fault]
    make = getattr(module, function)

    def faulty(lowered: Any, *rest: Any) -> Any:
        made = make(lowered, *rest)
        return made if made is getattr(lowered, "model", None) else altering(made, name, change)

    path = save_checkpoint(tmp_path / "small.pt", small_spec(channels=8, depth=1, image_size=(8, 12)))
    monkeypatch.setattr(module, function, faulty)
    with pytest.raises(ParityError, match="relative L2"):
        deploy(
            ExportRequest(
                Source(path),
                graph=GraphOptions(interface=interface),
                precision=precision,
                output=OutputOptions(tmp_path / "out"),
            )
        )
    assert not (tmp_path / "out").exists()
