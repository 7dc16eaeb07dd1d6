"""Products of bytes, which ONNX Runtime before 1.25 gets wrong on processors with AMX: right here, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from helpers.formats import exported, noise
from helpers.support import run
from s2mlp_deploy.runtime import onnxruntime as ort_runtime
from s2mlp_deploy.system import machine

pytestmark = pytest.mark.slow  # exports at int8 in every format

WRONG = "multiplies bytes wrongly on this processor"


def product(left: np.ndarray, right: np.ndarray, *, constant: bool) -> np.ndarray:
    """``left`` by ``right`` in ONNX Runtime."""
    types = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8}
    a, b = (
        helper.make_tensor_value_info(name, types[str(x.dtype)], x.shape) for name, x in (("a", left), ("b", right))
    )
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "product",
        [a] if constant else [a, b],
        [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
        [onnx.numpy_helper.from_array(right, "b")] if constant else [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = ort_runtime.load(model.SerializeToString())
    found: np.ndarray = session.run(None, {"a": left} | ({} if constant else {"b": right}))[0]
    return found


@pytest.mark.parametrize("constant", [True, False], ids=["weights", "activations"])
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_products_of_bytes_are_right(kind: type, constant: bool) -> None:
    """With the versions and processors that are refused, one shape in four had wrong numbers."""
    if reason := ort_runtime.miscomputes():
        pytest.skip(reason)
    rng = np.random.default_rng(1)
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    for _ in range(60):
        m, k, n = (int(x) for x in rng.integers(1, [130, 1800, 130]))
        left = rng.integers(0, 256, (m, k)).astype(np.uint8)
        right = rng.integers(low, high + 1, (k, n)).astype(kind)
        expected = left.astype(np.int32) @ right.astype(np.int32)
        np.testing.assert_array_equal(product(left, right, constant=constant), expected, err_msg=str((m, k, n)))


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Another ONNX Runtime on another processor."""

    def patch(version: str, feature: str) -> None:
        monkeypatch.setattr(onnxruntime, "__version__", version)
        monkeypatch.setattr(machine, "features", lambda: frozenset({"avx2", feature}))

    return patch


@pytest.mark.parametrize(
    ("format", "image"),
    [
        ("onnx", False),
        ("ort", False),
        ("triton", False),
        pytest.param("web", False, marks=pytest.mark.npm("onnxruntime-web")),
        ("onnx", True),
        ("ort", True),
    ],
)
def test_they_are_refused_where_they_would_be_wrong(
    pretend: Callable[[str, str], None], checkpoint: Path, tmp_path: Path, format: str, image: bool
) -> None:
    np.save(tmp_path / "calibration.npy", noise(64))
    int8 = ("--precision", "int8", "--calibration", tmp_path / "calibration.npy", "--min-agreement", 0.5)
    options = ("--format", format, *(("--input", "image") if image else int8))
    made, out = tmp_path / "made", tmp_path / "out"
    here = ort_runtime.miscomputes() is None
    if here:
        exported(checkpoint, *options, "-o", made)
    pretend("1.24.4", "amx_int8")
    for ran in (run("export", checkpoint, *options, "-o", out), *([run("verify", made)] if here else [])):
        assert ran.code == 4 and WRONG in ran.err, ran.err
    assert not out.exists()


def test_what_has_none_is_not_refused_there(
    pretend: Callable[[str, str], None], checkpoint: Path, tmp_path: Path
) -> None:
    pretend("1.24.4", "amx_int8")
    for format in ("onnx", "ort"):
        ran = run("export", checkpoint, "--format", format, "-o", tmp_path / format)
        assert ran.code == 0, ran.err
        assert run("verify", tmp_path / format).code == 0


@pytest.mark.parametrize("place", range(9, 25))
def test_an_operator_is_found_wherever_the_parts_end_in_which_a_file_is_read(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort_runtime, "_PART_BYTES", 16)
    (tmp_path / "model").write_bytes(b"." * place + b"MatMulInteger" + b"." * 20)
    assert ort_runtime._contains(tmp_path / "model", (b"QGemm", b"MatMulInteger"))
    assert not ort_runtime._contains(tmp_path / "model", (b"QGemm", b"MatMulIntegers"))


@pytest.mark.parametrize(("version", "feature"), [("1.24.4", "avx512_vnni"), ("1.25.0", "amx_int8")])
def test_nor_are_they_elsewhere(pretend: Callable[[str, str], None], version: str, feature: str) -> None:
    pretend(version, feature)
    assert ort_runtime.miscomputes() is None
    pretend("1.24.4", "amx_int8")
    assert WRONG in (ort_runtime.miscomputes() or "")
