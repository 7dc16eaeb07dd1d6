"""ONNX files are read without a copy of their weights, and everything else of them as onnx reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from s2mlp_deploy.graph.reader import load, read_structure


def model_of(*initializers: TensorProto) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node("Identity", ["x"], ["y"], name="y")
    graph = helper.make_graph([node], "g", [value], [out], list(initializers))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    helper.set_model_props(made, {"s2mlp.labels": "null"})
    return made


def weights() -> list[TensorProto]:
    rng = np.random.default_rng(0)
    arrays = {
        "float32": rng.standard_normal((700, 3)).astype(np.float32),
        "float16": rng.standard_normal(5).astype(np.float16),
        "int8": np.arange(-128, 127, dtype=np.int8).reshape(5, 51),
        "shape": np.array([-1, 3], np.int64),
        "number": np.array(0.5, np.float32),
        "nothing": np.zeros((0, 4), np.float32),
    }
    raw = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    return [*raw, helper.make_tensor("listed", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])]


def test_weights_and_all_else_are_as_onnx_reads_them(tmp_path: Path) -> None:
    onnx.save(model_of(*weights()), tmp_path / "model.onnx")
    found, wanted = load(tmp_path / "model.onnx"), ir.load(tmp_path / "model.onnx")
    assert list(found.graph.initializers) == list(wanted.graph.initializers)
    for name, value in wanted.graph.initializers.items():
        own = found.graph.initializers[name]
        assert own.const_value is not None and value.const_value is not None
        assert (own.dtype, own.const_value.dtype) == (value.dtype, value.const_value.dtype)
        np.testing.assert_array_equal(own.const_value.numpy(), value.const_value.numpy())
    assert found.metadata_props == wanted.metadata_props and found.graph.inputs[0].shape == wanted.graph.inputs[0].shape
    assert ir.to_proto(found).graph.node == ir.to_proto(wanted).graph.node


def test_weights_lie_in_the_file_and_not_in_memory(tmp_path: Path) -> None:
    onnx.save(model_of(*weights()), tmp_path / "model.onnx")
    found = read_structure(tmp_path / "model.onnx")
    content = (tmp_path / "model.onnx").read_bytes()
    for tensor, span, wanted in zip(found.model.graph.initializer, found.spans, weights(), strict=True):
        assert not tensor.raw_data
        assert (span is None) is (wanted.name == "listed")
        if span is not None:
            assert content[span.offset : span.offset + span.length] == wanted.raw_data
    array = load(tmp_path / "model.onnx").graph.initializers["float32"].const_value
    assert array is not None and not array.numpy().flags.owndata and not array.numpy().flags.writeable


def test_weights_in_a_file_beside_it_are_found_there(tmp_path: Path) -> None:
    model = ir.from_proto(model_of(*weights()))
    ir.save(model, tmp_path / "model.onnx", external_data="model.onnx.data")
    found = load(tmp_path / "model.onnx").graph.initializers["float32"].const_value
    assert found is not None
    np.testing.assert_array_equal(found.numpy(), numpy_helper.to_array(weights()[0]))


def test_graphs_and_weights_that_are_stated_in_parts_are_merged_as_protobuf_merges_them(tmp_path: Path) -> None:
    one, other = model_of(*weights()[:2]), onnx.ModelProto()
    other.graph.initializer.append(weights()[2])
    (tmp_path / "model.onnx").write_bytes(one.SerializeToString() + other.SerializeToString())
    found = read_structure(tmp_path / "model.onnx")
    assert [t.name for t in found.model.graph.initializer] == ["float32", "float16", "int8"]
    assert [span.length for span in found.spans if span] == [8400, 10, 255]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no model at all",
        b"\x3a\xff\xff\xff\xff\x0f",  # a graph of 4 GB
        b"\x3a\x04\x2a\x10ab",  # an initializer that is longer than its graph
        b"\x3b",  # a group, which ONNX files have none of
        b"\xff" * 12,  # a number without an end
        b"\x39\x00",  # 8 bytes, of which there is one
    ],
)
def test_a_file_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(DecodeError):
        read_structure(tmp_path / "model.onnx")


def test_every_prefix_of_a_file_is_refused_or_has_whole_fields(tmp_path: Path) -> None:
    whole = model_of(*weights()[2:]).SerializeToString()
    for end in range(0, len(whole), 7):
        (tmp_path / "model.onnx").write_bytes(whole[:end])
        try:
            found = read_structure(tmp_path / "model.onnx")
        except DecodeError:
            continue
        assert all(span is None or span.offset + span.length <= end for span in found.spans)
