"""Describe a repair: its record in the report, and its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

import onnx_ir as ir

from s2mlp_deploy.bundle.network_golden import NetworkGolden
from s2mlp_deploy.formats.onnx import FILE
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.passes.data_movement import Repair
from s2mlp_deploy.pipeline.repair.reading import Given
from s2mlp_deploy.runtime.session import Description
from s2mlp_deploy.schema.manifest import Manifest, Source
from s2mlp_deploy.schema.onnx_network import GoldenSource, OnnxNetwork
from s2mlp_deploy.schema.precision import BF16, FP16, FP32, INT8, Precision
from s2mlp_deploy.schema.report import OverlappingStatement, RepairedRegion, RepairRecord
from s2mlp_deploy.schema.shift import Semantics
from s2mlp_deploy.schema.tolerance import Tolerance
from s2mlp_deploy.system.version import __version__


@dataclass(frozen=True)
class Claim:
    """What a repaired network is held to: golden tensors, where their outputs come from, and the largest distance from them.

    ``shift`` is the semantics of its overlapping statements; None where it has none.
    """

    golden: NetworkGolden
    source: GoldenSource
    tolerance: Tolerance
    shift: Semantics | None


_QUANTIZED = ("QuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv")

SCATTER = "ScatterND"


def record(given: Given, made: Repair, prefer: str, restored: Mapping[str, Semantics]) -> RepairRecord:
    """The record of ``made``; ``restored`` has the semantics of the statements that are not as exported."""
    counted = [_nodes(model) for model in (given.model, made.model)]
    scattered = [
        sum(node.op_type == SCATTER for node in model.graph.all_nodes()) for model in (given.model, made.model)
    ]
    return RepairRecord(
        prefer=prefer,
        nodes=(counted[0], counted[1]),
        scatter_nds=(scattered[0], scattered[1]),
        regions=tuple(RepairedRegion(r.name, r.inputs, r.outputs, dict(r.before), dict(r.after)) for r in made.regions),
        left_alone={alone.node: alone.reason for alone in made.left_alone},
        statements=tuple(
            OverlappingStatement(s.name, s.scope, s.shape, s.axis, s.offset, restored.get(s.name, "paper"), s.reason)
            for s in made.statements
        ),
    )


def _nodes(model: ir.Model) -> int:
    """Nodes but for constants, which an exporter may write as either nodes or initializers."""
    return sum(node.op_type != "Constant" for node in model.graph.all_nodes())


def draft(given: Given, made: Repair, description: Description, claim: Claim, prefer: str) -> Manifest:
    """The manifest but for hashes and the verdict."""
    row, weights = precision_of(made.model), made.model.graph.initializers.values()
    network = OnnxNetwork(
        inputs=description.inputs,
        outputs=description.outputs,
        parameters=sum(v.const_value.size for v in weights if v.const_value is not None),
        shift=claim.shift,
        golden=claim.source,
    )
    return Manifest(
        tool_version=__version__,
        format=ONNX,
        precision=row.name,
        arithmetic=row.on_gpu.outputs if row.by_processor else None,
        lowering=prefer,
        spec=network,
        source=Source(
            sha256=given.digest,
            layout=OnnxNetwork.family,
            dtypes=tuple(sorted({v.dtype.name.lower() for v in weights if v.dtype is not None})),
        ),
        preprocessing=None,
        input=network.inputs[0],
        output=network.outputs[0],
        opset=made.model.graph.opset_imports[""],
        quantization=None,
        engine=None,
        versions={name: version(name) for name in ("numpy", "onnx", "onnx-ir")},
        artifact=FILE,
        graph=(),
        files={},
        tolerance=claim.tolerance,
        verdict="not judged",
    )


def precision_of(model: ir.Model) -> Precision:
    """The precision of the graph's products, by the types of its weights."""
    if any(node.op_type in _QUANTIZED for node in model.graph.all_nodes()):
        return INT8
    types = {value.dtype for value in (*model.graph.initializers.values(), *model.graph.inputs)}
    if ir.DataType.FLOAT16 in types:
        return FP16
    return BF16 if ir.DataType.BFLOAT16 in types else FP32
