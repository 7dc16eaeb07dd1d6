"""Simplify a graph with onnxsim, which receives the graph without the weights.

The weights are constants that nothing can be folded into, so onnxsim sees them as inputs of known
shape: it works on kilobytes, whatever the model's size, and cannot touch their values.
"""

from __future__ import annotations

import inspect

import onnx
import onnx_ir as ir
from onnx_ir.passes import FunctionalPass, PassResult, PostconditionError

from s2mlp_deploy.errors import RuntimeMissingError, SimplifierError
from s2mlp_deploy.graph.builder import set_array
from s2mlp_deploy.passes.preconditions import require_float32
from s2mlp_deploy.schema.array import Array

_SMALL_BYTES = 1024
"""Tables, shapes and axes below this size stay constants, so that they can be folded."""


class Simplify(FunctionalPass):
    """Copy a graph as onnxsim rewrites it, with the weights of the original. The gate checks it like any other graph.

    Requires: a float32 graph, each of whose constants has a value.
    Ensures: each constant still has a value; inputs and outputs are those of the original.
    """

    def requires(self, model: ir.Model) -> None:
        """The graph is float32."""
        require_float32(model)

    def call(self, model: ir.Model) -> PassResult:
        """Simplify ``model``.

        Raises:
            RuntimeMissingError: where onnxsim is not installed.
            SimplifierError: where it fails, or drops or renames an input, an output or a weight.
        """
        model = model.clone()
        weights = _take_weights(model.graph)
        result: ir.Model = ir.from_proto(_simplified(ir.to_proto(model)))
        expected, found = _interface(model.graph), _interface(result.graph)
        if found != expected:
            changed = sorted(set(expected) ^ set(found))
            raise SimplifierError(
                f"onnxsim changed the graph's interface, so nothing was exported: {', '.join(changed[:6])}"
            )
        _give_weights(result.graph, weights)
        return PassResult(result, modified=True)

    def ensures(self, model: ir.Model) -> None:
        """Each constant has a value."""
        if empty := [name for name, value in model.graph.initializers.items() if value.const_value is None]:
            raise PostconditionError(f"{', '.join(empty[:4])} have no value")


def _simplified(proto: onnx.ModelProto) -> onnx.ModelProto:
    try:
        import onnxsim  # slow to import, and only needed here
    except ImportError as error:
        raise RuntimeMissingError("exporting a checkpoint needs onnxsim: pip install onnxsim") from error
    try:
        # Where certify is known, it would write into the model's metadata if an optional package is installed.
        known = inspect.signature(onnxsim.simplify).parameters
        simplified: onnx.ModelProto
        simplified, _ = onnxsim.simplify(proto, **({"certify": False} if "certify" in known else {}))
        onnx.checker.check_model(simplified, full_check=True)
    except Exception as error:  # onnxsim and onnx's checker re-raise exceptions of their C++ parts
        raise SimplifierError(f"onnxsim failed on the graph, so nothing was exported: {error}") from error
    return simplified


def _interface(graph: ir.Graph) -> list[str]:
    return [str(value.name) for value in (*graph.inputs, *graph.outputs)]


def _take_weights(graph: ir.Graph) -> dict[str, Array]:
    """Make the large initializers inputs of ``graph``; returns their arrays by name."""
    tensors = {n: v.const_value for n, v in graph.initializers.items() if v.const_value is not None}
    weights = {name: tensor.numpy() for name, tensor in tensors.items() if tensor.nbytes > _SMALL_BYTES}
    for name in weights:
        value = graph.initializers.pop(name)
        value.const_value = None
        graph.inputs.append(value)
    return weights


def _give_weights(graph: ir.Graph, weights: dict[str, Array]) -> None:
    """Make the inputs that are called as ``weights`` initializers again."""
    for value in [v for v in graph.inputs if v.name in weights]:
        graph.inputs.remove(value)
        set_array(value, weights[str(value.name)])
        graph.register_initializer(value)
