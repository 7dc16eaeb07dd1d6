"""Other ways to write the same float16 graph for CUDA, to be counted and timed before one becomes what an export writes.

ONNX Runtime's CUDA provider runs Gemm as two kernels: one that copies the bias, and the product. As MatMul and Add, the bias in front of a
GELU becomes one kernel with it (BiasGelu), by ONNX Runtime's own fusion, which serves CPU and CUDA alike. Another of its fusions would make the
pair a Gemm again first, so the session leaves that out. Its SkipLayerNormalization takes three axes; tokens have two here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from s2mlp_bench.backends import OnnxBackend
from s2mlp_bench.candidate import Point
from s2mlp_deploy.runtime.onnxruntime import RESTING, Loading, OnnxSession
from s2mlp_deploy.runtime.opening import open_session

GEMM_AGAIN = ("MatMulAddFusion",)
"""ONNX Runtime's optimizers that are left out, by its names."""


class GemmAsMatMulAndAdd(ir.passes.InPlacePass):
    """Writes each Gemm(x, W, b), which has no factors, as Add(MatMul(x, W or its transpose), b). Runtimes transpose weights ahead."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        gemms = [node for node in model.graph if node.op_type == "Gemm" and len(node.inputs) == 3]
        for node in gemms:
            x, weight, bias = node.inputs
            assert x is not None and weight is not None and bias is not None
            stored = node.attributes.get("transB")
            transpose = [ir.node("Transpose", [weight], {"perm": [1, 0]})] if stored and stored.as_int() else []
            matrix = transpose[0].outputs[0] if transpose else weight
            product = ir.node("MatMul", [x, matrix], name=f"{node.name}/product")
            total = ir.node("Add", [product.outputs[0], bias], name=node.name)
            old, new = node.outputs[0], total.outputs[0]
            new.type, new.shape, new.name = old.type, old.shape, old.name
            old.name = f"{old.name}/gemm"
            model.graph.insert_before(node, [*transpose, product, total])
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
        return ir.passes.PassResult(model, modified=bool(gemms))


def write_variant(path: Path, destination: Path) -> Path:
    """Write the ONNX file at ``path`` without a Gemm to ``destination``."""
    model = ir.load(path)
    GemmAsMatMulAndAdd()(model)
    ir.save(model, destination)
    return destination


@dataclass(frozen=True)
class WithoutGemm(OnnxBackend):
    """Such a file in ONNX Runtime, which does not make Gemms of it again."""

    def open(self, point: Point) -> OnnxSession:
        loading = Loading(point.provider or "cpu", config=RESTING, threads=point.threads)
        return open_session(self.path, replace(loading, without=GEMM_AGAIN))
