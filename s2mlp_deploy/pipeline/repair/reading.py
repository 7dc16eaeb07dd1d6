"""Read the file to repair, and refuse one whose repair could not be compared with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from s2mlp_deploy.errors import BundleError, ModelError
from s2mlp_deploy.graph import onnx_file
from s2mlp_deploy.graph.metadata import metadata_of
from s2mlp_deploy.passes.data_movement.sizes import fed_inputs
from s2mlp_deploy.pipeline.repair import trial
from s2mlp_deploy.pipeline.repair.trial import Trial
from s2mlp_deploy.runtime.onnxruntime import Loading, OnnxSession
from s2mlp_deploy.system.hashing import sha256

PLAIN = Loading(optimization="none")
"""The graph as it stands: ONNX Runtime's fusions round otherwise."""


@dataclass(frozen=True)
class Given:
    """The file to repair. Names of ours in its metadata are left out: they would describe another graph."""

    path: Path
    model: ir.Model
    digest: str


def read(path: Path) -> Given:
    """The ONNX file at ``path``.

    Raises:
        ModelError: where it cannot be read, or does not state its inputs.
    """
    model = onnx_file.read(path)
    for value in fed_inputs(model.graph):
        if value.shape is None or len(value.shape) == 0 or value.dtype is None:
            raise ModelError(
                f"{path} does not state a shape and a type for its input {value.name}: export it with both"
            )
        if value.dtype in (ir.DataType.STRING, ir.DataType.BFLOAT16) or value.dtype.bitwidth < 8:
            raise ModelError(
                f"{path} takes {value.dtype.name} as {value.name}: expected floats, integers or truth values"
            )
    for key in metadata_of(model):
        del model.metadata_props[key]
    return Given(path, model, sha256(path))


def run_as_given(given: Given) -> tuple[Trial, ...]:
    """Trials of the file as it stands, in ONNX Runtime without its optimizations.

    Raises:
        ModelError: where ONNX Runtime cannot run it.
    """
    try:
        session = OnnxSession(given.path, PLAIN)
    except BundleError as error:
        custom = onnx_file.custom_operators(given.model)
        own = f". It holds operators that are not ONNX's own: {', '.join(sorted(custom))}" if custom else ""
        raise ModelError(
            f"{given.path} does not run in ONNX Runtime, so its repair cannot be compared with it{own} ({error})"
        ) from error
    return trial.run(given.model, session)
