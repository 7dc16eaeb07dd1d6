"""Round a graph to float16 throughout, for processors that multiply float16 and add up in float32.

Precision is a property of the graph, not a switch of the runtime: weights and activations have the type that the file
declares. passes/io_type.py gives input and logits theirs.

Those processors are GPUs. For CPUs, passes/float16_storage.py keeps float16 for the file's size.

LayerNormalization stays one operator, whose mean and variance ONNX computes in float32 (``stash_type`` 1); decomposed,
it overflows (NVIDIA/TensorRT issue 2564).
"""

from __future__ import annotations

import onnx_ir as ir

from s2mlp_deploy.passes.precision_pass import RoundingPass, narrow


class ToFloat16(RoundingPass):
    """A copy of a graph whose weights, activations, input and logits are float16.

    Requires and ensures: as a :class:`RoundingPass`. Values beyond float16's range become infinite:
    quantization/rounding.py refuses such models before.
    """

    def rewrite(self, graph: ir.Graph) -> None:
        narrow(graph, ir.DataType.FLOAT16)
        graph.inputs[0].type = ir.TensorType(ir.DataType.FLOAT16)


class ToFloat16BetweenProducts(ToFloat16):
    """A copy of an int8 graph in which all that is not int8 is float16, the scales among it.

    Requires: as :class:`ToFloat16`; constants may be int8, and scales are values of float16.
    Ensures: as a :class:`RoundingPass`.
    """

    besides = (ir.DataType.INT8,)
