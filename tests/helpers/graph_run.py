"""Run graphs that are in memory in ONNX Runtime."""

from __future__ import annotations

import onnx_ir as ir
import onnxruntime

from s2mlp_deploy.schema.array import Array


def run_graph(model: ir.Model, **inputs: Array) -> Array:
    """The first output of ``model``."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    first: Array = session.run(None, inputs)[0]
    return first
