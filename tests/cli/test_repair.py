"""``s2mlp-repair``: what it prints, writes and refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from helpers import looping
from helpers.shift_nets import NETS, recorded
from helpers.support import Ran, run

NET = NETS["s2mlp"]
MODEL = NET.file("dynamo", "free")


def repair(*arguments: object) -> Ran:
    return run("repair", *arguments)


def save(path: Path, nodes: list[onnx.NodeProto], **changes: object) -> Path:
    """A graph of ``nodes`` from ``x`` (batch, 4) to ``y``."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor("w", TensorProto.FLOAT, [4, 4], np.arange(16, dtype=np.float32))],
    )
    opsets = [helper.make_opsetid("", int(str(changes.get("opset", 17)))), helper.make_opsetid("mine", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def product(*, to: str = "y") -> onnx.NodeProto:
    return helper.make_node("MatMul", ["x", "w"], [to], "product")


def test_the_table_shows_what_changed_and_each_statement(tmp_path: Path) -> None:
    ran = repair(MODEL, "--reference", NET.recording, "--latency", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "statements that shift in place" in ran.out and "ScatterND" in ran.out and "ms a batch" in ran.out
    assert ran.out.count("blocks.0.mixing") == 4 and ran.out.count("blocks.1.mixing") == 4
    assert "PASSED" in ran.out and "SAME BITS with the statements as exported" in ran.out


def test_without_evidence_the_export_is_kept_with_a_warning(tmp_path: Path) -> None:
    ran = repair(MODEL, "-o", tmp_path / "out", "--json")
    assert ran.code == 0 and "8 statements shift in place" in ran.err
    assert {s["semantics"] for s in ran.json["repair"]["statements"]} == {"paper"}
    assert ran.json["manifest"]["spec"]["golden"] == "model"


def test_in_place_on_request_alone_says_that_nothing_shows_it(tmp_path: Path) -> None:
    ran = repair(MODEL, "--shift-semantics", "inplace", "-o", tmp_path / "out", "--json")
    assert ran.code == 0 and "nothing but --shift-semantics" in ran.err
    assert ran.json["manifest"]["spec"]["golden"] == "itself"
    assert run("verify", tmp_path / "out").code == 0


def test_a_request_that_the_recording_contradicts_is_refused(tmp_path: Path) -> None:
    ran = repair(MODEL, "--reference", NET.recording, "--shift-semantics", "paper", "-o", tmp_path / "out")
    assert ran.code == 1 and "trained with inplace semantics" in ran.err
    assert not (tmp_path / "out").exists()


def test_in_place_where_nothing_overlaps_is_refused(tmp_path: Path) -> None:
    ran = repair(NETS["tsm"].file("dynamo", "free"), "--shift-semantics", "inplace", "-o", tmp_path / "out")
    assert ran.code == 2 and "no overlapping statement" in ran.err


def test_auto_needs_evidence(tmp_path: Path) -> None:
    ran = repair(MODEL, "--shift-semantics", "auto", "-o", tmp_path / "out")
    assert ran.code == 2 and "--reference" in ran.err


def reference(tmp_path: Path, **changes: np.ndarray | None) -> Path:
    tensors = {name: tensor.numpy() for name, tensor in recorded(NET).items()}
    path = tmp_path / "reference.safetensors"
    save_file({name: array for name, array in {**tensors, **changes}.items() if array is not None}, path)
    return path


BAD_REFERENCES = {
    "lacks input": {"input": None, "images": np.zeros((2, 3, 20, 28), np.float32)},
    "holds images, which the network does not have": {"images": np.zeros((2, 3), np.float32)},
    "holds no output": {"logits": None},
    "holds input [2, 3, 28, 20] float32: expected": {"input": np.zeros((2, 3, 28, 20), np.float32)},
    "NaN or infinite": {"logits": np.full((2, 7), np.nan, np.float32)},
}


@pytest.mark.parametrize("message", BAD_REFERENCES)
def test_a_recording_of_another_form_is_refused(message: str, tmp_path: Path) -> None:
    ran = repair(MODEL, "--reference", reference(tmp_path, **BAD_REFERENCES[message]), "-o", tmp_path / "out")
    assert ran.code == 3 and message in ran.err, ran.err
    assert not (tmp_path / "out").exists()


def test_a_recording_that_fits_neither_is_refused_with_the_usual_cause(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    other = reference(tmp_path, logits=rng.standard_normal((2, 7), np.float32))
    ran = repair(MODEL, "--reference", other, "-o", tmp_path / "out")
    assert ran.code == 1 and "neither semantics" in ran.err and "torch.set_num_threads(1)" in ran.err
    assert not (tmp_path / "out").exists()


def test_without_data_movement_nothing_is_written_unless_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = save(tmp_path / "plain.onnx", [product()])
    ran = repair(model)
    assert ran.code == 0 and "no data movement to repair" in " ".join(ran.out.split())
    assert [path.name for path in tmp_path.iterdir()] == ["plain.onnx"]
    assert repair(model, "-o", "out").code == 0 and run("verify", "out").code == 0


def test_the_bundle_is_called_after_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert repair(NETS["tsm"].file("dynamo", "fixed")).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["tsm-dynamo-fixed-repaired"]
    again = repair(NETS["tsm"].file("dynamo", "fixed"))
    assert again.code == 3 and "--force" in again.err


def moved(name: str) -> onnx.NodeProto:
    return helper.make_node("Transpose", [name], ["y"], "transposed", perm=[0, 1])


def test_custom_operators_are_listed_and_left_alone(tmp_path: Path) -> None:
    """ONNX Runtime has those of com.microsoft itself."""
    nodes = [product(to="z"), helper.make_node("Gelu", ["z"], ["y"], "own", domain="com.microsoft")]
    model = save(tmp_path / "model.onnx", nodes)
    proto = onnx.load(model)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(proto, model)
    ran = repair(model, "-o", tmp_path / "out")
    assert ran.code == 0 and "com.microsoft::Gelu (1 node)" in ran.out, ran.err
    assert run("verify", tmp_path / "out").code == 0


def test_functions_of_the_models_own_are_repaired_too(tmp_path: Path) -> None:
    """As exporters write them for modules: one that moves two of the four columns, called twice, and once by another function."""
    node, opsets = helper.make_node, [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    constants = {"from": [0], "to": [2], "axis": [1], "places": [[0, 1], [0, 2]], "turned": [1, 0]}
    inside = [
        node("Constant", [], [name], value=numpy_helper.from_array(np.array(value)))
        for name, value in constants.items()
    ]
    inside += [
        node("Transpose", ["a"], ["columns"], perm=[1, 0]),
        node("Slice", ["columns", "from", "to", "from"], ["first"]),
        node("Slice", ["places", "axis", "to", "axis"], ["rows"]),
        node("ScatterND", ["columns", "rows", "first"], ["moved"]),
        node("Transpose", ["moved"], ["b"], perm=[1, 0]),
    ]
    shift = helper.make_function("mine", "Shift", ["a"], ["b"], inside, opsets)
    twice = [node("Shift", ["a"], ["c"], domain="mine"), node("Neg", ["c"], ["b"])]
    outer = helper.make_function("mine", "Outer", ["a"], ["b"], twice, opsets)
    calls = [product(to="z"), node("Shift", ["z"], ["s"], domain="mine"), node("Outer", ["s"], ["y"], domain="mine")]
    proto = onnx.load(save(tmp_path / "model.onnx", calls))
    proto.functions.extend([shift, outer])
    onnx.save(proto, tmp_path / "model.onnx")
    ran = repair(tmp_path / "model.onnx", "-o", tmp_path / "out", "--json")
    assert ran.code == 0 and ran.json["repair"]["scatter_nds"] == [2, 0], ran.err
    assert ran.json["custom_operators"] == {} and run("verify", tmp_path / "out").code == 0


def test_what_no_bundle_can_hold_is_refused(tmp_path: Path) -> None:
    """ONNX Runtime has those of ai.onnx.ml itself, and s2mlp-verify refuses them."""
    scale = helper.make_node("Scaler", ["z"], ["y"], "own", domain="ai.onnx.ml", offset=[0.0], scale=[2.0])
    model = save(tmp_path / "model.onnx", [product(to="z"), scale])
    proto = onnx.load(model)
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    onnx.save(proto, model)
    ran = repair(model, "-o", tmp_path / "out")
    assert ran.code == 3 and "cannot hold this network" in ran.err and "'Scaler' of 'ai.onnx.ml'" in ran.err, ran.err
    assert not (tmp_path / "out").exists()


def test_a_network_is_repaired_outside_of_its_loop(tmp_path: Path) -> None:
    model = looping.save(tmp_path / "looping.onnx", 5)
    ran = repair(model, "-o", tmp_path / "out", "--json")
    assert ran.code == 0 and ran.json["repair"]["scatter_nds"] == [1, 0], ran.err
    assert ran.json["repair"]["left_alone"] == {"loop": "Loop holds a subgraph"}
    operators = [node.op_type for node in onnx.load(tmp_path / "out" / "model.onnx").graph.node]
    assert operators.count("Loop") == 1 and "Transpose" not in operators
    for style in ("ort", "onnx"):
        done = run("export", tmp_path / "out", "--format", "ort", "--ort-style", style, "-o", tmp_path / style)
        assert done.code == 0 and run("verify", tmp_path / style).code == 0, done.err


def test_what_takes_no_loop_refuses_it_by_name(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    assert repair(looping.save(tmp_path / "looping.onnx", 5), "-o", tmp_path / "out").code == 0
    done = run("export", tmp_path / "out", "--format", "openvino", "-o", tmp_path / "openvino")
    assert done.code == 3 and "openvino cannot hold this network: its operator Loop holds a graph" in done.err, done.err
    assert not (tmp_path / "openvino").exists()


def test_what_onnxruntime_cannot_run_is_refused_by_name(tmp_path: Path) -> None:
    nodes = [product(to="z"), helper.make_node("Deform", ["z"], ["y"], "own", domain="mine")]
    ran = repair(save(tmp_path / "model.onnx", nodes), "-o", tmp_path / "out")
    assert ran.code == 3 and "mine::Deform" in ran.err and "cannot be compared" in ran.err


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "cut.onnx").write_bytes(MODEL.read_bytes()[:-1000])
    torch.save({"weight": torch.zeros(3)}, tmp_path / "checkpoint.onnx")
    for name in ("text.onnx", "empty.onnx", "cut.onnx", "checkpoint.onnx", "missing.onnx", "."):
        ran = repair(tmp_path / name, "-o", tmp_path / "out")
        assert ran.code == 3, (name, ran.err)
        assert "Traceback" not in ran.err and not (tmp_path / "out").exists()


def test_a_checkpoint_is_refused_with_where_it_goes(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(3)}, tmp_path / "model.pt")
    ran = repair(tmp_path / "model.pt")
    assert ran.code == 3 and "a checkpoint goes to s2mlp-export" in ran.err


def test_a_file_that_onnxruntime_optimized_for_this_processor_is_taken_with_a_warning(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "model.onnx"), 3
    onnxruntime.InferenceSession(str(MODEL), options, providers=["CPUExecutionProvider"])
    if not any(node.domain == "com.microsoft.nchwc" for node in onnx.load(tmp_path / "model.onnx").graph.node):
        pytest.skip("this processor's convolutions have no layout of their own")
    ran = repair(tmp_path / "model.onnx", "-o", tmp_path / "out")
    assert ran.code == 0 and "optimized by ONNX Runtime for one kind of processor" in " ".join(ran.err.split()), ran.err


def test_an_old_opset_is_refused(tmp_path: Path) -> None:
    ran = repair(save(tmp_path / "model.onnx", [product()], opset=9), "-o", tmp_path / "out")
    assert ran.code == 3 and "opset 11" in ran.err


def with_weights_outside(path: Path) -> Path:
    onnx.save_model(onnx.load(MODEL), path, save_as_external_data=True, location="weights.bin", size_threshold=256)
    return path


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    """Small ones, too: torch.onnx.export moves weights from 256 bytes on."""
    ran = repair(with_weights_outside(tmp_path / "model.onnx"), "-o", tmp_path / "out")
    assert ran.code == 0 and run("verify", tmp_path / "out").code == 0, ran.err


def test_weights_that_are_inputs_too_stay_both(tmp_path: Path) -> None:
    model = onnx.load(MODEL)
    for weight in [weight for weight in model.graph.initializer if weight.data_type == TensorProto.FLOAT]:
        model.graph.input.append(helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims)))
    onnx.save(model, tmp_path / "model.onnx")
    ran = repair(tmp_path / "model.onnx", "-o", tmp_path / "out", "--json")
    assert ran.code == 0 and ran.json["repair"]["scatter_nds"][1] == 0, ran.err
    assert [value["name"] for value in ran.json["manifest"]["spec"]["inputs"]] == ["input"]
    assert run("verify", tmp_path / "out").code == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [("missing", "which is missing"), ("cut", "end beyond it"), ("outside", "outside its folder")],
)
def test_weights_that_are_not_whole_or_elsewhere_are_refused(damage: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    model = with_weights_outside(tmp_path / "folder/model.onnx")
    weights = tmp_path / "folder/weights.bin"
    if damage == "missing":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    else:
        weights.rename(tmp_path / "weights.bin")
        proto = onnx.load(model, load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "../weights.bin"
        onnx.save(proto, model)
    ran = repair(model, "-o", tmp_path / "out")
    assert ran.code == 3 and message in ran.err, ran.err


def test_float16_stays_float16(tmp_path: Path) -> None:
    model = onnx.load(NETS["shiftvit"].file("dynamo", "free"))
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
            )
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
                array = onnx.numpy_helper.to_array(attribute.t).astype(np.float16)
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(array, attribute.t.name))
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    onnx.save(model, tmp_path / "half.onnx")
    ran = repair(tmp_path / "half.onnx", "-o", tmp_path / "out", "--json")
    assert ran.code == 0 and ran.json["manifest"]["precision"] == "fp16", ran.err
    assert ran.json["repair"]["scatter_nds"][1] == 0 and run("verify", tmp_path / "out").code == 0


def test_errors_are_json_too(tmp_path: Path) -> None:
    ran = repair(tmp_path / "missing.onnx", "--json")
    assert ran.code == 3 and ran.json["error"]["kind"] == "ModelError"
