"""Store a graph's matrices as float16 and compute in float32, for CPUs.

Left to itself, ONNX Runtime adds up in float16 on ARM processors that can (docs/numerics.md has figures), and rounds
after every layer on all others. So float16 is for the file's size alone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PreconditionError

from s2mlp_deploy.graph.builder import constant_of, insert_cast, set_array
from s2mlp_deploy.passes.precision_pass import RoundingPass


class StoreFloat16(RoundingPass):
    """A copy of a graph whose matrices are float16, cast to float32 where they are read.

    Runtimes cast them once, when they load the file. Biases and LayerNorm's vectors, which take no room, stay float32,
    as input and logits do.

    Requires: as a :class:`RoundingPass`, and that one node reads each matrix.
    """

    def requires(self, model: ir.Model) -> None:
        """Besides, one node reads each matrix."""
        super().requires(model)
        if shared := [name for name, value in matrices(model.graph).items() if len(value.uses()) != 1]:
            raise PreconditionError(f"not one node alone reads {', '.join(shared[:4])}")

    def rewrite(self, graph: ir.Graph) -> None:
        for name, value in matrices(graph).items():
            set_array(value, constant_of(value).astype(np.float16))
            insert_cast(graph, value, ir.DataType.FLOAT, f"{name}/float32")


def matrices(graph: ir.Graph) -> dict[str, ir.Value]:
    """The checkpoint's matrices and convolutions, by name, without the ones in place of γ and the shift's constants."""
    return {
        name: value
        for name, value in graph.initializers.items()
        if name.endswith(".weight") and value.const_value is not None and value.const_value.shape.rank() > 1
    }
