"""Read an ONNX file that another tool wrote."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx_ir.passes.common import InlinePass

from s2mlp_deploy.errors import ModelError
from s2mlp_deploy.system.untrusted_input import check_regular

LEAST_OPSET = 11
"""Before it, Slice, Pad and others had their operands as attributes."""

CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
"""How files of weights end, which people give in place of an ONNX file."""

STANDARD = frozenset({"", "ai.onnx"})
"""The domain of ONNX's own operators, by both its names."""


def read(path: Path) -> ir.Model:
    """The model in the file at ``path``, with functions inlined. Weights beside it stay where they are until they are needed.

    Raises:
        ModelError: where it is no ONNX file, or a damaged one, or lacks weights.
    """
    proto = _parse(path)
    opset = next((imported.version for imported in proto.opset_import if imported.domain in STANDARD), 0)
    if opset < LEAST_OPSET:
        raise ModelError(f"{path} has operators of version {opset}: export it with opset {LEAST_OPSET} or later")
    _check_weights(proto, path)
    try:
        model = ir.from_proto(proto)
        ir.external_data.set_base_dir(model.graph, path.parent.resolve())
        InlinePass()(model)
    except Exception as error:  # onnx_ir raises many types on graphs that are none
        raise ModelError(f"{path} is a damaged ONNX file: {_first_line(error)}. Export it again") from error
    return model


def custom_operators(model: ir.Model) -> Counter[str]:
    """The operators that are not ONNX's own, with their domains, and how many nodes of each there are."""
    nodes = (node for node in model.graph.all_nodes() if node.domain not in STANDARD)
    return Counter(f"{node.domain}::{node.op_type}" for node in nodes)


def _parse(path: Path) -> onnx.ModelProto:
    expected = "expected a file that torch.onnx.export or another exporter wrote"
    try:
        check_regular(path)
        content = path.read_bytes()
    except IsADirectoryError as error:
        raise ModelError(f"{path} is a directory: give the .onnx file in it") from error
    except ValueError as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}. {expected[0].upper()}{expected[1:]}") from error
    proto = onnx.ModelProto()
    if path.suffix in CHECKPOINTS:
        expected += "; a checkpoint goes to s2mlp-export, or through the exporter of the code that it comes from"
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise ModelError(f"{path} is not an ONNX file, or a damaged one: {expected}") from error
    if not proto.graph.node or not proto.graph.output:
        raise ModelError(f"{path} holds no ONNX graph: {expected}")
    return proto


def _check_weights(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse weights that are not whole, in the file or in one beside it."""
    folder = path.parent.resolve()
    for tensor in _tensors(proto.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location, name = entries.get("location", ""), repr(tensor.name[:100])
        file = (folder / location).resolve()
        if not location or not file.is_relative_to(folder):
            raise ModelError(
                f"{path} takes its weights {name} from {location[:200]!r}, outside its folder: copy that file beside it, and export it "
                "with names of files alone"
            )
        if not file.is_file():
            raise ModelError(
                f"{path} takes its weights {name} from {location[:200]!r}, which is missing: copy it beside the model"
            )
        try:
            offset, length = int(entries.get("offset", "0")), int(entries.get("length", "0"))
            length = length or math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth // 8
        except (ValueError, TypeError) as error:
            raise ModelError(f"{path} does not say where its weights {name} begin and end: export it again") from error
        if offset < 0 or length < 0 or offset + length > file.stat().st_size:
            raise ModelError(f"{file} does not hold the weights {name}, which end beyond it: copy it again")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
