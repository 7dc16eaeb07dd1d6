"""Engines from the command line: what each option becomes, and what the commands say where there is no GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from helpers.support import Ran, run, save_checkpoint, small_spec
from s2mlp_exporters.tensorrt.runtime import Gpu, find_gpu

no_gpu = pytest.mark.skipif(isinstance(find_gpu(), Gpu), reason="this machine has a GPU")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "small.pt", small_spec())


def rtx(source: Path, output: Path, *options: object) -> Ran:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu12")
    return run("export", source, "--format", "trt-rtx", *options, "-o", output)


@no_gpu
def test_an_engine_that_cannot_run_here_is_refused_and_the_message_names_the_option(
    checkpoint: Path, tmp_path: Path
) -> None:
    ran = rtx(checkpoint, tmp_path / "engine")
    assert (ran.code, ran.out) == (1, "") and "--allow-unverified-engine" in ran.err
    assert list(tmp_path.iterdir()) == [checkpoint]


@no_gpu
def test_with_the_option_it_is_published_as_pending_and_says_so(checkpoint: Path, tmp_path: Path) -> None:
    ran = rtx(checkpoint, tmp_path / "engine", "--allow-unverified-engine")
    assert ran.code == 0, ran.err
    assert "PENDING A DEVICE" in ran.out and "PASSED" not in ran.out and " kernels, " in ran.out
    assert json.loads((tmp_path / "engine" / "manifest.json").read_text())["verdict"] == "pending a device"
    verified = run("verify", tmp_path / "engine")
    assert verified.code == 4 and "needs an NVIDIA GPU" in verified.err


@no_gpu
def test_json_says_that_nothing_was_judged(checkpoint: Path, tmp_path: Path) -> None:
    (found,) = rtx(checkpoint, tmp_path / "engine", "--allow-unverified-engine", "--json").json["exports"]
    assert found["passed"] is None and found["manifest"]["verdict"] == "pending a device"
    assert str(tmp_path) not in json.dumps(found["report"])


@no_gpu
def test_every_option_reaches_the_builder(checkpoint: Path, tmp_path: Path) -> None:
    ran = rtx(
        checkpoint,
        tmp_path / "engine",
        "--allow-unverified-engine",
        "--dynamic-size",
        "--shift",
        "slice",
        "--batch",
        "2:3:5",
        "--size-profile",
        "4x8:20x28:24x36",
        "--workspace-mib",
        77,
        "--compute-capability",
        "SM89,sm86",
        "--tf32",
    )
    assert ran.code == 0, ran.err
    engine = json.loads((tmp_path / "engine" / "manifest.json").read_text())["engine"]
    assert engine["smallest"] == ["2", "3", "4", "8"] and engine["largest"] == ["5", "3", "24", "36"]
    assert engine["usual"] == ["3", "3", "20", "28"]
    assert set(engine["built_for"]) == {"sm86", "sm89"}
    assert {"tf32=true", "workspace_mib=77"} <= set(engine["options"])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--format", "trt-rtx", "--opt-level", 3], "--opt-level"),
        (["--format", "trt-rtx", "--timing-cache", "cache"], "--timing-cache"),
        (["--format", "trt-rtx", "--version-compatible"], "--version-compatible"),
        (["--format", "trt-rtx", "--hardware-compatible"], "--hardware-compatible"),
        (["--format", "trt", "--compute-capability", "sm86"], "--compute-capability"),
        (["--format", "onnx", "--workspace-mib", 1], "--workspace-mib"),
        (["--format", "ort", "--batch", "1:2:3"], "--batch"),
        (["--batch", "1:2:3"], "--batch"),
        (["--format", "onnx", "--allow-unverified-engine"], "--allow-unverified-engine"),
        (["--format", "trt-rtx", "--batch", "3:2:1"], "--batch"),
        (["--format", "trt-rtx", "--ort-style", "ort"], "--ort-style"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_an_option_that_a_format_does_not_have_is_refused_by_name(
    checkpoint: Path, tmp_path: Path, options: list[object], named: str
) -> None:
    if named == "--batch" and "trt-rtx" in options:
        pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu12")
        options = [*options, "--allow-unverified-engine"]
    ran = run("export", checkpoint, *options, "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "") and named in ran.err
    assert list(tmp_path.iterdir()) == [checkpoint]


@pytest.mark.parametrize("again", [False, True], ids=["first try", "second try"])
def test_without_tensorrt_the_way_on_is_told_in_order_of_use(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.chdir(tmp_path)
    for _ in range(2 if again else 1):
        ran = run("export", checkpoint, "--format", "trt", "--workspace-mib", 64)
    assert (ran.code, ran.out) == (4, "")
    steps = ("small-onnx-fp32 to the device", "s2mlp-export small-onnx-fp32 --format trt --workspace-mib 64", "trt-rtx")
    places = [ran.err.index(step) for step in steps]
    assert places == sorted(places)
    assert run("verify", tmp_path / "small-onnx-fp32").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small-onnx-fp32", "small.pt"]


def contents(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["", "--force"])
@pytest.mark.parametrize("other", ["checkpoint", "options"])
def test_a_bundle_that_was_not_named_is_neither_replaced_nor_taken_to_the_device(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str, force: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    source = (
        save_checkpoint(tmp_path / "other" / "small.pt", small_spec(), seed=5) if other == "checkpoint" else checkpoint
    )
    assert run("export", source, "--batch", 4).code == 0
    before = contents(tmp_path / "small-onnx-fp32")
    ran = run("export", checkpoint, "--format", "trt", *force)
    assert (ran.code, ran.out) == (3, "") and contents(tmp_path / "small-onnx-fp32") == before
    message = ran.err.splitlines()[-1]
    parts = ("TensorRT cannot be loaded", "pip install", "small-onnx-fp32 was made from another checkpoint", "with -o")
    assert [message.index(part) for part in parts] == sorted(message.index(part) for part in parts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "small-onnx-fp32", "small.pt"]


def test_a_bundle_that_is_the_same_as_the_one_to_take_to_the_device_is_that_one(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.chdir(tmp_path)
    assert run("export", checkpoint, "--batch", 4).code == 0
    before = contents(tmp_path / "small-onnx-fp32")
    ran = run("export", checkpoint, "--format", "trt", "--batch", 4, "--force")
    assert ran.code == 4 and "Copy the verified ONNX bundle small-onnx-fp32" in ran.err
    assert contents(tmp_path / "small-onnx-fp32") == before


@pytest.mark.parametrize(
    ("output", "place"),
    [
        ("out/engine", "out/engine-onnx-fp32"),
        ("out/mine-trt-fp32", "out/mine-onnx-fp32"),
        ("../engine", "../engine-onnx-fp32"),
    ],
)
def test_the_bundle_to_take_to_the_device_lies_beside_the_place_that_was_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, place: str
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert run("export", checkpoint).code == 0
    before = contents(Path("small-onnx-fp32"))
    ran = run("export", checkpoint, "--format", "trt", "-o", output, "--force")
    assert ran.code == 4 and f"ONNX bundle {place} to the device" in ran.err
    assert run("verify", place).code == 0
    assert contents(Path("small-onnx-fp32")) == before


def test_the_missing_package_is_named_before_any_work(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    ran = run("export", checkpoint, "--format", "trt", "-o", tmp_path / "engine")
    assert ran.err.startswith("warning: --format trt cannot be built on this machine: TensorRT cannot be loaded")


@no_gpu
def test_what_cannot_be_judged_here_is_refused_before_any_work(checkpoint: Path, tmp_path: Path) -> None:
    ran = rtx(checkpoint, tmp_path / "engine")
    assert ran.code == 1 and " …" not in ran.err
