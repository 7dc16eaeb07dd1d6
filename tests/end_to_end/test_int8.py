"""int8 through the command: calibration data, accuracy control, refusals, and the real thing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch
from PIL import Image

from helpers.fashion_mnist import needs_dataset, read, run_alone
from helpers.support import PAPER_CHECKPOINT, TEST_IMAGES, Ran, run, save_checkpoint, small_spec
from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.checkpoint.load import load_checkpoint
from s2mlp_deploy.data.labelled_data import LabelledData
from s2mlp_deploy.errors import DataError, UsageError
from s2mlp_deploy.families.s2mlp.reference import S2MLP
from s2mlp_deploy.gate.evaluation import EvaluationSet
from s2mlp_deploy.gate.io_adapter import IoAdapter
from s2mlp_deploy.pipeline import resolve_preprocessing
from s2mlp_deploy.pipeline.deploy import deploy
from s2mlp_deploy.pipeline.request import ExportRequest, OutputOptions, Source
from s2mlp_deploy.quantization import accuracy
from s2mlp_deploy.quantization.evaluation_split import split_images
from s2mlp_deploy.quantization.settings import Float16, Int8, PrecisionOptions
from s2mlp_deploy.quantization.task import QuantizationTask
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import Preprocessing
from s2mlp_deploy.system.progress import Listener

SHAPE = (3, 20, 28)
TARGETS = ("x86", "arm", "trt", "litert")


def noise(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, *SHAPE)).astype(np.float32)


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    """64 prepared inputs for the small checkpoint: 48 calibrate, 16 judge."""
    np.save(tmp_path / "calibration.npy", noise(64))
    return tmp_path / "calibration.npy"


def int8_export(source: Path, *options: object) -> Ran:
    return run("export", source, "--precision", "int8", "--min-agreement", 0.9, *options)


def pictures(directory: Path, count: int, *, subfolders: bool = False) -> Path:
    rng = np.random.default_rng(1)
    for i in range(count):
        folder = directory / str(i % 7) if subfolders else directory
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (23, 31, 3), np.uint8)).save(folder / f"{i:03d}.png")
    return directory


def report(bundle: Path) -> dict[str, Any]:
    return dict(json.loads((bundle / "report.json").read_text()))


# What int8 asks for.


def test_calibration_images_are_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    ran = int8_export(checkpoint, "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "")
    assert "--precision int8 needs --calibration" in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_options_of_int8_are_refused_at_other_precisions(precision: str, checkpoint: Path, tmp_path: Path) -> None:
    ran = run("export", checkpoint, "--precision", precision, "--calibration", "synthetic", "-o", tmp_path / "out")
    assert ran.code == 2 and ": only for --precision int8" in ran.err
    assert not (tmp_path / "out").exists()


def test_a_target_is_for_graphs_that_differ_by_target(checkpoint: Path, tmp_path: Path) -> None:
    ran = run("export", checkpoint, "--precision", "fp32", "--target", "x86", "-o", tmp_path / "out")
    assert ran.code == 2 and "--target is for --precision fp16 and int8" in ran.err
    assert not (tmp_path / "out").exists()


def test_no_option_for_int8_is_ignored_when_only_other_precisions_are_made(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the bundles would go
    for option in (("--quantize-ends",), ("--min-agreement", "0.9"), ("--calibration-method", "mse")):
        ran = run("export", checkpoint, "--precision", "fp32", "--precision", "fp16", *option)
        assert ran.code == 2 and f"{option[0]}: only for --precision int8" in ran.err
    assert not list(tmp_path.glob("*-onnx-*"))


def test_a_target_that_the_format_does_not_take_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not take int8 graphs for --target openvino: expected x86 or arm or trt"):
        deploy(
            ExportRequest(
                Source(checkpoint),
                precision=Int8(target="openvino", calibration="synthetic"),
                output=OutputOptions(tmp_path / "out"),
            )
        )
    assert run("export", checkpoint, "--precision", "int8", "--target", "riscv").code == 2


def test_synthetic_calibration_is_for_benchmarks_only(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = int8_export(checkpoint, "--calibration", "synthetic", "-o", out, "--json")
    assert ran.code == 0, ran.err
    (export,) = ran.json["exports"]
    assert export["manifest"]["verdict"] == "for benchmarks only"
    assert export["manifest"]["tolerance"] is None and export["passed"] is None
    assert export["manifest"]["quantization"]["target"] == "x86"
    verified = run("verify", out)
    assert verified.code == 3 and "synthetic calibration" in verified.err


# Calibration data.


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors"])
def test_prepared_inputs_come_as_a_file_of_any_of_three_kinds(suffix: str, checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / f"inputs.{suffix}"
    if suffix == "npy":
        np.save(path, noise(64))
    elif suffix == "npz":
        np.savez(path, input=noise(64), labels=np.arange(64))
    else:
        safetensors.numpy.save_file({"input": noise(64), "logits": np.zeros((64, 7))}, path)
    ran = int8_export(checkpoint, "--calibration", path, "-o", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    quantization = ran.json["exports"][0]["manifest"]["quantization"]
    assert quantization == {"target": "x86", "method": "minmax", "calibration_images": 48, "float_layers": []}
    assert run("verify", tmp_path / "out").code == 0


@pytest.mark.parametrize("subfolders", [False, True])
def test_images_come_in_a_folder_with_or_without_subfolders(subfolders: bool, checkpoint: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "images", 70, subfolders=subfolders)
    ran = int8_export(checkpoint, "--calibration", folder, "--calibration-count", 64, "-o", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["exports"][0]["manifest"]["quantization"]["calibration_images"] == 48


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
def test_the_calibration_method_is_in_the_manifest(
    method: str, checkpoint: Path, calibration: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = int8_export(checkpoint, "--calibration", calibration, "--calibration-method", method, "-o", out, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["exports"][0]["manifest"]["quantization"]["method"] == method


def unusable(directory: Path) -> dict[str, tuple[Path, str]]:
    """Calibration data that cannot be used, and what the message says."""
    empty = directory / "empty"
    empty.mkdir()
    broken = pictures(directory / "broken", 20)
    (broken / "007.png").write_bytes(b"not an image")
    arrays = {
        "shape": noise(64).transpose(0, 1, 3, 2),
        "integers": np.zeros((64, *SHAPE), np.uint8),
        "nan": np.where(np.arange(28) == 3, np.nan, noise(64)),
        "few": noise(15),
        "few_are_left": noise(20),
        "the_same_again": np.repeat(noise(4), 20, axis=0),
        "constant": np.broadcast_to(noise(64)[:, :, :1, :1], (64, *SHAPE)),
    }
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array)
    (directory / "text.npy").write_text("hello")
    os.mkfifo(directory / "pipe.npy")
    return {
        "empty folder": (empty, "holds no images"),
        "unreadable image": (broken, "007.png is not an image that can be read"),
        "wrong shape": (directory / "shape.npy", r"input [64, 3, 28, 20] float32"),
        "not floating-point": (directory / "integers.npy", "uint8: expected finite floating-point inputs"),
        "not finite": (directory / "nan.npy", "expected finite"),
        "fewer than 16": (directory / "few.npy", "at least 16"),
        "fewer than 16 to judge on": (directory / "few_are_left.npy", "at least 16"),
        "four images again and again": (directory / "the_same_again.npy", "at least 16"),
        "constant images": (directory / "constant.npy", "is constant"),
        "no array": (directory / "text.npy", "cannot read"),
        "a pipe": (directory / "pipe.npy", "it is a pipe"),
        "no file": (directory / "missing.npy", "cannot read"),
        "no folder": (directory / "missing", "cannot read"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "empty folder",
        "unreadable image",
        "wrong shape",
        "not floating-point",
        "not finite",
        "fewer than 16",
        "fewer than 16 to judge on",
        "four images again and again",
        "constant images",
        "no array",
        "a pipe",
        "no file",
        "no folder",
    ],
)
def test_unusable_calibration_data_is_bad_input_and_nothing_is_published(
    case: str, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    path, message = unusable(tmp_path / "data")[case]
    ran = int8_export(checkpoint, "--calibration", path, "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (3, ""), ran.err
    assert message in ran.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "small.pt"]


# Calibration and judging never share an image.


def split(inputs: Array, data: Array | None, directory: Path) -> tuple[Array, EvaluationSet]:
    source = load_checkpoint(save_checkpoint(directory / "split.pt", small_spec()))
    np.save(directory / "split.npy", inputs)
    labelled = None if data is None else LabelledData(data, np.arange(len(data)) % 7)
    preprocessing = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)
    task = QuantizationTask(
        Int8(directory / "split.npy", calibration_count=1000),
        "x86",
        S2MLP.of(source.spec, source.weights),
        IoAdapter(preprocessing, source.spec.image_size),
        labelled,
    )
    found = split_images(task, source.spec, warn=Listener().warn)
    assert found.evaluation is not None
    return found.calibration, found.evaluation


def as_set(images: Array) -> set[bytes]:
    return {x.tobytes() for x in images}


def test_without_labelled_images_every_fourth_calibration_image_judges(tmp_path: Path) -> None:
    inputs = noise(67)
    calibrating, judges = split(inputs, None, tmp_path)
    np.testing.assert_array_equal(judges.images, inputs[3::4])
    np.testing.assert_array_equal(calibrating, np.delete(inputs, np.s_[3::4], axis=0))
    assert judges.labels is None and judges.float_logits.shape == (16, 7)


def test_an_image_that_calibration_holds_twice_does_not_judge_itself(tmp_path: Path) -> None:
    inputs = np.concatenate([noise(70), noise(70)[::-1], noise(70)])
    calibrating, judges = split(inputs, None, tmp_path)
    assert not as_set(calibrating) & as_set(judges.images)
    assert len(calibrating) + len(judges.images) == 70


def test_the_same_images_for_both_are_shared_out_in_turn(tmp_path: Path) -> None:
    inputs = noise(64)
    calibrating, judges = split(inputs, inputs, tmp_path)
    assert len(calibrating) == len(judges.images) == 32
    assert as_set(calibrating) | as_set(judges.images) == as_set(inputs)
    assert judges.labels is not None
    where = [int(np.flatnonzero((inputs == x).all((1, 2, 3)))[0]) for x in judges.images]
    np.testing.assert_array_equal(judges.labels, np.array(where) % 7)  # each kept its own label


@pytest.mark.parametrize("seed", range(8))
def test_however_two_sets_overlap_no_image_is_in_both(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    pool = noise(90)
    inputs, data = (pool[rng.choice(90, int(rng.integers(60, 140)))] for _ in range(2))
    calibrating, judges = split(inputs, data, tmp_path)
    assert not as_set(calibrating) & as_set(judges.images)
    assert as_set(calibrating) <= as_set(inputs) and as_set(judges.images) <= as_set(data)


def test_sets_that_do_not_overlap_are_used_whole(tmp_path: Path) -> None:
    calibrating, judges = split(noise(40), noise(30, seed=1), tmp_path)
    assert (len(calibrating), len(judges.images)) == (40, 30)


def test_too_few_images_left_to_judge_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="calibration leaves 15 images to evaluate the int8 model on"):
        split(noise(63), None, tmp_path)
    with pytest.raises(DataError, match="calibration leaves 15 images to evaluate the int8 model on"):
        split(noise(30), noise(30), tmp_path)


def test_through_the_command_one_folder_may_be_both(tmp_path: Path) -> None:
    ran = run(
        "export",
        PAPER_CHECKPOINT,
        "--precision",
        "int8",
        "--calibration",
        TEST_IMAGES,
        "--data",
        TEST_IMAGES,
        "--max-accuracy-drop",
        1,
        "-o",
        tmp_path / "out",
        "--json",
    )
    assert ran.code == 0, ran.err
    (export,) = ran.json["exports"]
    assert export["manifest"]["quantization"]["calibration_images"] == 100
    (trial,) = export["report"]["trials"]  # one image of a hundred is one point
    assert trial["passed"] and trial["float_layers"] == []
    assert abs(trial["float_accuracy"] - trial["accuracy"]) < 0.0101
    assert run("verify", tmp_path / "out").code == 0


# The real thing.


@pytest.mark.parametrize("target", TARGETS)
def test_the_bundled_checkpoint_keeps_its_classes_in_every_recipe(target: str, tmp_path: Path) -> None:
    export = deploy(
        ExportRequest(
            Source(PAPER_CHECKPOINT),
            precision=Int8(target=target, calibration=TEST_IMAGES),
            output=OutputOptions(tmp_path / "out"),
        )
    )
    (trial,) = export.report.trials
    assert trial.passed and trial.agreement >= 0.99 and trial.accuracy is None
    quantization = export.bundle.manifest.quantization
    assert quantization is not None
    assert (quantization.target, quantization.calibration_images, quantization.float_layers) == (target, 150, ())
    assert export.verdict is not None and export.verdict.distances["images"].relative_l2 < 0.05
    float_bytes = 4 * 453_802
    assert (tmp_path / "out" / "model.onnx").stat().st_size < 0.36 * float_bytes
    verified = run("verify", tmp_path / "out")
    assert verified.code == 0, verified.err


@pytest.mark.parametrize("options", [("--batch", 2), ("--dynamic-size",), ("--quantize-ends",)], ids=lambda o: o[0])
def test_other_options_of_an_export_go_together_with_int8(
    options: tuple[object, ...], checkpoint: Path, calibration: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = int8_export(checkpoint, "--calibration", calibration, "-o", out, *options)
    assert ran.code == 0, ran.err
    names = {i.name for i in onnx.load(out / "model.onnx").graph.initializer}
    assert ("logits/weight_q" in names) == ("--quantize-ends" in options)
    assert run("verify", out).code == 0


# Accuracy control.


def with_outliers(path: Path, *layers: tuple[int, str, str]) -> Path:
    """The bundled checkpoint, with one hidden channel that takes huge values which nothing reads.

    ``layers`` are (block, layer whose output explodes, layer whose input that is).
    """
    content = torch.load(PAPER_CHECKPOINT, weights_only=False)
    state = content["model"]
    for block, source, reader in layers:
        prefix = f"stages.0.blocks.{block}"
        state[f"{prefix}.{source}.weight"][5] *= 3000
        state[f"{prefix}.{reader}.weight"][:, 5] = 0
    torch.save(content, path)
    return path


def test_layers_that_8_bits_ruin_stay_in_float_and_accuracy_holds(tmp_path: Path) -> None:
    hard = with_outliers(tmp_path / "hard.pt", (1, "fc3", "fc4"), (4, "fc3", "fc4"), (2, "fc1", "fc2"))
    out = tmp_path / "out"
    ran = run(
        "export",
        hard,
        "--precision",
        "int8",
        "--calibration",
        TEST_IMAGES,
        "--data",
        TEST_IMAGES,
        "--max-accuracy-drop",
        1,
        "-o",
        out,
        "--json",
    )
    assert ran.code == 0, ran.err
    (export,) = ran.json["exports"]
    kept = export["manifest"]["quantization"]["float_layers"]
    ruined = {"stage0/block01/fc4", "stage0/block04/fc4", "stage0/block02/fc2"}
    assert len(kept) == 3 and set(kept) == ruined
    trials = report(out)["trials"]
    assert [len(t["float_layers"]) for t in trials] == list(range(len(kept) + 1))
    assert [t["passed"] for t in trials] == [False] * len(kept) + [True]
    assert trials[0]["float_accuracy"] - trials[0]["accuracy"] > 0.01
    assert trials[-1]["float_accuracy"] - trials[-1]["accuracy"] < 0.0101
    assert trials[-1]["float_layers"] == kept
    names = {i.name for i in onnx.load(out / "model.onnx").graph.initializer}
    for layer in ruined:
        assert (f"{layer}/weight_q" in names) == (layer not in kept)
    assert run("verify", out).code == 0


def test_layers_stay_in_float_for_the_gates_sake_too_where_every_class_is_kept(tmp_path: Path) -> None:
    hard = with_outliers(tmp_path / "hard.pt", (1, "fc3", "fc4"))
    export = deploy(
        ExportRequest(Source(hard), precision=Int8(calibration=TEST_IMAGES), output=OutputOptions(tmp_path / "out"))
    )
    first, last = export.report.trials
    assert first.agreement >= 0.99 and first.relative_l2 > 0.1 and not first.passed
    assert last.relative_l2 < 0.1 and last.float_layers == ("stage0/block01/fc4",) and last.passed
    assert export.verdict is not None and export.verdict.passed


def test_what_cannot_be_rescued_is_refused_with_a_table_of_what_was_tried(tmp_path: Path) -> None:
    # Two thousand classes that random weights hardly tell apart: some image changes its class at any noise.
    close = save_checkpoint(tmp_path / "close.pt", small_spec(classes=2000))
    np.save(tmp_path / "inputs.npy", noise(256))
    ran = run(
        "export",
        close,
        "--precision",
        "int8",
        "--calibration",
        tmp_path / "inputs.npy",
        "--min-agreement",
        1,
        "-o",
        tmp_path / "out",
    )
    assert (ran.code, ran.out) == (1, "")
    assert (
        "int8 cannot keep --min-agreement 1.0 and a relative L2 of 0.1, not even with 4 of 8 layers left in float"
        in ran.err
    )
    assert "nothing was published" in ran.err
    assert all(f"{count} in float: same class" in ran.err for count in range(5))
    assert "--precision fp16" in ran.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["close.pt", "inputs.npy"]


def test_an_accuracy_drop_that_is_exactly_the_limit_is_within_it() -> None:
    labels = np.zeros(200, int)
    images = np.zeros((200, *SHAPE), np.float32)

    def trial(right: int, float_right: int, limit: float) -> bool:
        logits = 1 + 1e-3 * np.eye(2)[(np.arange(200) >= float_right).astype(int)]
        judges = EvaluationSet(images, logits, labels)
        actual = 1 + 1e-3 * np.eye(2)[(np.arange(200) >= right).astype(int)]
        return accuracy.assess((), actual, judges, Int8(max_accuracy_drop=limit)).passed

    for right in range(100, 199):
        assert trial(right, right + 1, 0.5)
        assert not trial(right, right + 2, 0.5)
        assert trial(right + 1, right, 0.0)


# All 10,000 images.


def prepared_training_images(count: int) -> Array:
    pixels = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)[:: 60_000 // count][:count]
    preprocessing = resolve_preprocessing.preprocessing_for(load_checkpoint(PAPER_CHECKPOINT), Source(PAPER_CHECKPOINT))
    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    return (pixels[:, None].astype(np.float32) * np.float32(preprocessing.scale) - mean) / std


@needs_dataset
@pytest.mark.parametrize(
    ("precision", "target"),
    [("int8", "x86"), *(pytest.param(*case, marks=pytest.mark.thorough) for case in [("int8", "trt"), ("fp16", None)])],
)
def test_all_10_000_test_images_keep_their_accuracy(precision: str, target: str | None, tmp_path: Path) -> None:
    options: PrecisionOptions = Float16()
    if precision == "int8":
        np.save(tmp_path / "training.npy", prepared_training_images(341))  # a fourth judges: 256 calibrate
        options = Int8(tmp_path / "training.npy", calibration_count=341, target=target)
    wanted = ExportRequest(Source(PAPER_CHECKPOINT), precision=options, output=OutputOptions(tmp_path / "out"))
    bundle: Bundle = deploy(wanted, Listener()).bundle
    quantization = bundle.manifest.quantization
    assert quantization is None or (quantization.calibration_images, quantization.float_layers) == (256, ())
    classes = run_alone(tmp_path / "out" / "model.onnx", read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28))
    expected = np.load(PAPER_CHECKPOINT.with_suffix(".predictions.npy"))
    labels = read("t10k-labels-idx1-ubyte.gz", 8)
    drop = 100 * ((expected == labels).mean() - (classes == labels).mean())
    assert drop <= (0.2 if precision == "int8" else 0.02)
    assert (classes == expected).mean() >= (0.993 if precision == "int8" else 0.9995)


# float16 between the products


def test_an_int8_graph_for_tensorrt_may_be_float16_between_the_products(tmp_path: Path, calibration: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "small.pt", small_spec())
    options = ("--target", "trt", "--calibration", calibration, "--between", "fp16", "-o", tmp_path / "half")
    ran = int8_export(checkpoint, *options)
    assert ran.code == 0, ran.err
    manifest = json.loads((tmp_path / "half" / "manifest.json").read_text())
    assert (manifest["precision"], manifest["arithmetic"]) == ("int8", "float16")
    assert manifest["input"]["dtype"] == manifest["output"]["dtype"] == "float32"
    types = {tensor.data_type for tensor in onnx.load(tmp_path / "half" / "model.onnx").graph.initializer}
    assert types <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.INT64}
    assert run("verify", tmp_path / "half").code == 0


def test_values_beyond_float16_between_the_products_are_refused_with_their_layers(
    tmp_path: Path, calibration: Path
) -> None:
    content = torch.load(save_checkpoint(tmp_path / "small.pt", small_spec(depth=1)))
    content["model"]["stages.0.blocks.0.fc4.weight"] *= 1e5
    torch.save(content, tmp_path / "huge.pt")
    options = ("--target", "trt", "--calibration", calibration, "--between", "fp16", "-o", tmp_path / "half")
    ran = int8_export(tmp_path / "huge.pt", *options)
    assert ran.code == 1 and "float16 ends at 65504, beyond which lie the values of" in ran.err, ran.err
    assert "stage0/block00/fc4 (" in ran.err and not (tmp_path / "half").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--precision", "int8", "--target", "x86"), "--target trt, and this one is for x86"),
        (("--precision", "fp32"), "--between: only for --precision int8"),
    ],
    ids=["x86", "fp32"],
)
def test_float16_between_products_is_refused_elsewhere(
    options: tuple[str, ...], reason: str, tmp_path: Path, calibration: Path
) -> None:
    checkpoint = save_checkpoint(tmp_path / "small.pt", small_spec())
    given = (*options, *(("--calibration", calibration) if "int8" in options else ()))
    ran = run("export", checkpoint, *given, "--between", "fp16", "-o", tmp_path / "half")
    assert ran.code == 2 and reason in " ".join(ran.err.split())
    assert not (tmp_path / "half").exists()
