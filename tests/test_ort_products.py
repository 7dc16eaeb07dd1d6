"""The other kernel for int8 products: where it is put, that it computes the same, and where it must not go."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from exporters import ort_products
from s2mlp_deploy import Request, deploy
from s2mlp_deploy.onnx_session import Loading, OnnxSession, load
from s2mlp_deploy.spec import Spec
from support import run, save_checkpoint, small_spec, with_biases

FUSED = {"session.save_model_format": "ONNX"}


def fused(directory: Path, spec: Spec, *options: object) -> Path:
    """The int8 graph of a small model as ONNX Runtime optimizes it, with QGemms."""
    checkpoint = save_checkpoint(directory / "small.pt", spec)
    images = np.random.default_rng(1).standard_normal((64, 3, *spec.image_size), dtype=np.float32)
    np.save(directory / "images.npy", images)
    int8 = ("--precision", "int8", "--calibration", directory / "images.npy", "--min-agreement", 0.5)
    ran = run("export", checkpoint, *int8, *options, "-o", directory / "bundle")
    assert ran.code == 0, ran.err
    load(directory / "bundle" / "model.onnx", Loading("cpu", "extended", FUSED, save_to=directory / "fused.onnx"))
    return directory / "fused.onnx"


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in ir.load(path).graph)


def logits(path: Path, images: np.ndarray) -> np.ndarray:
    return OnnxSession(path, Loading(optimization="none")).run(images)


@pytest.mark.parametrize("biases", [True, False], ids=["biases", "no biases"])
def test_every_product_of_a_block_gets_it_and_computes_the_same(tmp_path: Path, biases: bool) -> None:
    spec = small_spec(depth=3) if biases else with_biases(small_spec(depth=3), frozenset())
    before = fused(tmp_path, spec)
    assert ort_products.rewrite(before, tmp_path / "after.onnx") == 12
    was, now = operators(before), operators(tmp_path / "after.onnx")
    assert was["QGemm"] == now["MatMulIntegerToFloat"] == 12
    assert was - Counter(QGemm=12) == now - Counter(MatMulIntegerToFloat=12)
    images = np.random.default_rng(2).standard_normal((5, 3, *spec.image_size), dtype=np.float32)
    # The bias is rounded to float32 instead of int32: now and then an activation lands on the next integer.
    difference = logits(tmp_path / "after.onnx", images) - logits(before, images)
    assert np.linalg.norm(difference) < 2e-3 * np.linalg.norm(logits(before, images))


def test_a_product_computes_what_its_formula_says(tmp_path: Path) -> None:
    before = fused(tmp_path, small_spec(depth=1))
    ort_products.rewrite(before, tmp_path / "after.onnx")
    graph = ir.load(tmp_path / "after.onnx").graph
    product = next(node for node in graph if node.op_type == "MatMulIntegerToFloat")
    x, *constants = product.inputs
    w, x_scale, w_scale, x_zero, w_zero, bias = (c.const_value.numpy() for c in constants if c and c.const_value)
    assert x is not None and not w_zero.any() and w.dtype == np.int8
    graph.outputs.clear()
    graph.outputs.extend([x, product.outputs[0]])
    for value, dtype in zip(graph.outputs, (ir.DataType.UINT8, ir.DataType.FLOAT), strict=True):
        value.type, value.shape = ir.TensorType(dtype), None
    model = ir.load(tmp_path / "after.onnx")
    ir.save(ir.Model(graph, ir_version=model.ir_version), tmp_path / "tap.onnx")
    images = np.random.default_rng(3).standard_normal((2, 3, 20, 28), dtype=np.float32)
    read, written = load(tmp_path / "tap.onnx", Loading(optimization="none")).run(None, {"input": images})
    exact = (read.astype(np.int64) - x_zero) @ w.astype(np.int64) * (x_scale.astype(np.float64) * w_scale) + bias
    np.testing.assert_allclose(written, exact, rtol=1e-5, atol=1e-5)


def change(path: Path, how: str) -> Path:
    """A copy of the fused graph whose first product differs in one point."""
    model = ir.load(path)
    graph = model.graph
    node = next(n for n in graph if n.op_type == "QGemm")
    if how == "a quantized result":
        node.resize_inputs(9)
        for index, same in ((7, 1), (8, 2)):
            node.replace_input_with(index, node.inputs[same])
    elif how == "weights stored the other way":
        node.attributes["transB"] = ir.AttrInt64("transB", 0)
    elif how == "transposed input":
        node.attributes["transA"] = ir.AttrInt64("transA", 1)
    elif how == "a factor":
        node.attributes["alpha"] = ir.AttrFloat32("alpha", 0.5)
    elif how == "weights that are computed":
        weight = node.inputs[3]
        assert weight is not None
        same = ir.node("Identity", [weight])
        same.outputs[0].type = weight.type
        graph.insert_before(node, same)
        node.replace_input_with(3, same.outputs[0])
    else:
        node.domain = "somebody.else"
    ir.save(model, path.with_name("changed.onnx"))
    return path.with_name("changed.onnx")


@pytest.mark.parametrize(
    "how",
    ["a quantized result", "weights stored the other way", "transposed input", "a factor", "weights that are computed",
     "another domain"],
)  # fmt: skip
def test_a_product_that_is_a_little_different_is_left_alone(tmp_path: Path, how: str) -> None:
    changed = change(fused(tmp_path, small_spec(depth=1)), how)
    assert ort_products.rewrite(changed, tmp_path / "after.onnx") == 3
    assert operators(tmp_path / "after.onnx")["QGemm"] == 1


def test_only_int8_for_x86_gets_it(tmp_path: Path) -> None:
    fused(tmp_path, small_spec(depth=1), "--target", "arm")
    engine = deploy(
        Request(
            tmp_path / "bundle", "ort", "int8", output=tmp_path / "engine", settings={"ort_style": "onnx"}
        )
    )  # fmt: skip
    assert not operators(engine.bundle.artifact.path)["MatMulIntegerToFloat"]
