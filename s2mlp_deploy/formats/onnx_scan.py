"""Inspect a bundle's ONNX file before a runtime loads it.

A graph is data only until a runtime takes it: it may name files for its weights, operators from libraries, loops that do not
end, graphs within graphs. Nothing that this project writes needs any of that, so it is refused here, in a parser that follows
no reference. An accepted graph runs each of its nodes once, on weights whose hashes were checked; loops of other tools'
networks are accepted where the session stops one that does not end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.formats.artifact_scan import Unexpected, inspecting
from s2mlp_deploy.graph.reader import read_structure
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.precision import TARGETS

STANDARD = frozenset({"", "ai.onnx"})
"""The domain of ONNX's own operators, by both its names."""

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

OPTIMIZED = STANDARD | {MICROSOFT, "com.microsoft.nchwc", "com.ms.internal.nhwc"}
"""Those, and the domains of the operators that ONNX Runtime fuses others into."""

FUSED = frozenset(operator for target in TARGETS.values() for operator in target.operators)
"""Those of its own that graphs for some targets have (schema/precision.py), which compute and do nothing else."""

BRANCHES = frozenset({"If"})
"""Operators with graphs of which each runs once at most."""

LOOPS = BRANCHES | {"Loop", "Scan"}
"""Operators with graphs that may run for ever, where nothing stops them."""

OPENING_FILES = frozenset({"EPContext"})
"""Operators that name a file to be loaded."""

_ITEM_BYTES: dict[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.UINT8: 1,
    TensorProto.INT8: 1,
    TensorProto.UINT16: 2,
    TensorProto.INT16: 2,
    TensorProto.INT32: 4,
    TensorProto.INT64: 8,
    TensorProto.BOOL: 1,
    TensorProto.FLOAT16: 2,
    TensorProto.DOUBLE: 8,
    TensorProto.UINT32: 4,
    TensorProto.UINT64: 8,
    TensorProto.BFLOAT16: 2,
}

_OF_GRAPHS = {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}


def inspect(
    bundle: Bundle, name: str, domains: frozenset[str] = STANDARD, *, within: frozenset[str] = BRANCHES
) -> None:
    """Refuse the ONNX file called ``name`` where it could do more than compute.

    A network that no family describes may have operators of ONNX Runtime's own, and operators ``within``, which hold graphs.

    Raises:
        BundleError: with the reason.
    """
    path = bundle.directory / name
    with inspecting(path, DecodeError, OSError):
        if not name.endswith(".onnx"):  # runtimes go by that
            raise Unexpected(f"its name is {name!r}, and that of an ONNX file ends in .onnx")
        found = read_structure(path)
        model = found.model
        other = isinstance(bundle.manifest.spec, OnnxNetwork)
        _check_model(model)
        _check_graph(model.graph, domains | OPTIMIZED if other else domains, within if other else frozenset())
        for tensor, span in zip(model.graph.initializer, found.spans, strict=True):
            _check_tensor(tensor, bundle, path, span.length if span else 0)
        for tensor in _tensors_of_nodes(model.graph):
            _check_tensor(tensor, bundle, path, len(tensor.raw_data))


def target_of(bundle: Bundle) -> str | None:
    """The target whose operators of ONNX Runtime's own the graph of ``bundle`` has, so that no other runtime takes it; None for graphs
    without any, and for networks that no family describes."""
    if isinstance(bundle.manifest.spec, OnnxNetwork):
        return None
    nodes = read_structure(bundle.artifact.path).model.graph.node
    own = {node.op_type for node in nodes if node.domain == MICROSOFT}
    return next((target.name for target in TARGETS.values() if own & {*target.operators}), None)


def _check_model(model: onnx.ModelProto) -> None:
    """Refuse anything but a single graph."""
    if not model.graph.node:
        raise Unexpected("it has no graph")
    if model.functions or model.training_info:
        raise Unexpected("it has functions of its own, or a graph for training")


def _check_graph(graph: onnx.GraphProto, domains: frozenset[str], holders: frozenset[str]) -> None:
    """Refuse operators that are not in ``domains``, and graphs within but those of ``holders``."""
    if graph.sparse_initializer:
        raise Unexpected("it has sparse weights")
    for node in graph.node:
        known = node.domain in domains or (node.domain == MICROSOFT and node.op_type in FUSED)
        if not known or node.op_type in OPENING_FILES:
            raise Unexpected(f"its operator {node.op_type[:100]!r} of {node.domain[:100]!r} is none of ONNX's own")
        for attribute in node.attribute:
            held = attribute.type in _OF_GRAPHS or attribute.HasField("g") or attribute.graphs
            if held and node.op_type in holders and node.domain in STANDARD and not attribute.graphs:
                _check_graph(attribute.g, domains, holders)
            elif held:
                raise Unexpected(f"its operator {node.op_type[:100]!r} holds a graph")
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise Unexpected(f"its operator {node.op_type[:100]!r} holds sparse weights")


def _tensors_of_nodes(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """The tensors in attributes of nodes, and in the graphs that those hold."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from attribute.g.initializer
                yield from _tensors_of_nodes(attribute.g)
            yield from attribute.tensors


def _check_tensor(tensor: TensorProto, bundle: Bundle, path: Path, stored: int) -> None:
    """Refuse a tensor that lacks values, of which ``stored`` bytes lie in the file itself, or in one beside it that the manifest lists."""
    name = repr(tensor.name[:100])
    size = _ITEM_BYTES.get(tensor.data_type)
    if size is None or any(d < 0 for d in tensor.dims):
        raise Unexpected(f"the weights {name} have a type or a shape that no weights have")
    count = math.prod(tensor.dims)
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        _check_outside(tensor, count * size, bundle, path)
    elif tensor.HasField("raw_data"):
        if stored != count * size:
            raise Unexpected(f"the weights {name} are {stored} bytes, and their shape takes {count * size}")
    elif count != sum(
        map(len, (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data))
    ):
        raise Unexpected(f"the weights {name} are not as many as their shape takes, which is {count}")


def _check_outside(tensor: TensorProto, size: int, bundle: Bundle, path: Path) -> None:
    """Refuse external weights unless they lie, whole, in a file of the bundle that is the model's."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    beside = path.with_name(f"{path.name}.data")
    if location != beside.name or beside.relative_to(bundle.directory).as_posix() not in bundle.manifest.files:
        raise Unexpected(
            f"its weights are to be read from {location[:200]!r}, which is not a file of the bundle for that"
        )
    try:
        offset, length = (int(entries.get(key, default)) for key, default in (("offset", "0"), ("length", str(size))))
    except ValueError as error:
        raise Unexpected("where its weights begin and end is not said in numbers") from error
    if offset < 0 or length != size or offset + length > beside.stat().st_size:
        raise Unexpected(f"{location} does not hold the weights {tensor.name[:100]!r} where they are to be read from")
