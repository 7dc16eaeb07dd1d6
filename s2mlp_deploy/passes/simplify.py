"""onnxsim, given the graph but not the weights.

The weights are constants that nothing can be folded into, so onnxsim sees them as inputs of known
shape: it works on kilobytes, whatever the model's size, and cannot touch their values.
"""

from __future__ import annotations

import inspect

import onnx
import onnx_ir as ir

from s2mlp_deploy.errors import RuntimeMissingError, SimplifierError

_SMALL_BYTES = 1024
"""Tables, shapes and axes below this size stay constants, so that they can be folded."""


def simplify(model: ir.Model) -> ir.Model:
    """``model`` as onnxsim rewrites it. The caller judges the result like any other graph.

    Raises:
        RuntimeMissingError: where onnxsim is not installed.
        SimplifierError: where it fails, or drops or renames an input, an output or a weight.
    """
    try:
        import onnxsim  # slow to import, and only needed here
    except ImportError as error:
        raise RuntimeMissingError("exporting a checkpoint needs onnxsim: pip install onnxsim") from error

    graph = model.graph
    weights = {
        n: v.const_value for n, v in graph.initializers.items() if v.const_value and v.const_value.nbytes > _SMALL_BYTES
    }
    for name in weights:
        value = graph.initializers.pop(name)
        value.const_value = None
        graph.inputs.append(value)
    expected = [str(v.name) for v in (*graph.inputs, *graph.outputs)]
    try:
        # Where certify is known, it would write into the model's metadata if an optional package is installed.
        known = inspect.signature(onnxsim.simplify).parameters
        proto, _ = onnxsim.simplify(ir.to_proto(model), **({"certify": False} if "certify" in known else {}))
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # onnxsim and onnx's checker raise what their C++ parts throw
        raise SimplifierError(f"onnxsim failed on the graph, so nothing was exported: {error}") from error
    result: ir.Model = ir.from_proto(proto)
    found = [str(v.name) for v in (*result.graph.inputs, *result.graph.outputs)]
    if found != expected:
        changed = sorted(set(expected) ^ set(found))
        raise SimplifierError(
            f"onnxsim changed the graph's interface, so nothing was exported: {', '.join(changed[:6])}"
        )
    for value in [v for v in result.graph.inputs if v.name in weights]:
        result.graph.inputs.remove(value)
        value.const_value = weights[str(value.name)]
        result.graph.register_initializer(value)
    return result
