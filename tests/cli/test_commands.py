"""The commands: what they print and where, what their options change, and how they end."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
import torch
from PIL import Image

import s2mlp_deploy
from helpers.support import PAPER_CHECKPOINT, TEST_IMAGES, Ran, random_model, run, save_checkpoint, small_spec
from s2mlp_deploy.bundle.read import read_bundle, read_manifest
from s2mlp_deploy.cli import entry_points
from s2mlp_deploy.cli import export as export_command
from s2mlp_deploy.cli.lines import readable_size
from s2mlp_deploy.formats import registry
from s2mlp_deploy.gate import reference_logits
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.precision import PRECISIONS
from s2mlp_deploy.schema.shift import DIRECTIONS
from s2mlp_deploy.system import wording
from s2mlp_deploy.system.dependencies import pip_install
from s2mlp_deploy.system.hashing import sha256
from s2mlp_exporters.onnxruntime.options import OrtOptions

COMMANDS = ("inspect", "export", "verify", "doctor")
RUNTIMES = (
    "torch",
    "onnxruntime",
    "onnxsim",
    "PIL",
    "tensorrt",
    "tensorrt_rtx",
    "openvino",
    "ai_edge_litert",
    "executorch",
    "coremltools",
    "polygraphy",
)


def strict_json(text: str) -> Any:
    """``text`` as one JSON document, without the constants that only Python reads."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def start(
    command: str, *arguments: object, before: str = "", env: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """``s2mlp-COMMAND`` in a process of its own; the Python code ``before`` runs first."""
    code = f"{before}\nimport sys\nfrom s2mlp_deploy.cli.{command} import main\nsys.argv[0] = 's2mlp-{command}'\nmain()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        **{"stdout": subprocess.PIPE, **options},
    )


def finish(process: subprocess.Popen[str]) -> Ran:
    out, err = process.communicate(timeout=600)
    return Ran(process.returncode, out or "", err)


def export(tmp_path: Path, source: Path, *options: object) -> Manifest:
    """The manifest of a bundle that is exported to ``tmp_path / "bundle"`` and verifies."""
    ran = run("export", source, *options, "-o", tmp_path / "bundle")
    assert ran.code == 0, ran.err
    verified = run("verify", tmp_path / "bundle")
    assert verified.code == 0, verified.err
    return read_bundle(tmp_path / "bundle").manifest


def jittor_name(key: str) -> str:
    """A canonical key under the name that the layout jittor-mlp has for it."""
    key = re.sub(r"stages\.(\d+)\.embedding", r"stages.\1.0", key)
    key = re.sub(r"stages\.(\d+)\.blocks\.(\d+)", r"stages.\1.1.model.\2", key)
    for ours, theirs in {
        "norm1": "0.norm",
        "fc1": "0.fn.0",
        "fc2": "0.fn.3",
        "norm2": "1.norm",
        "fc3": "1.fn.0",
        "fc4": "1.fn.3",
        "head.fc": "mlp_head.1",
    }.items():
        key = key.replace(ours, theirs)
    return key


# Without the runtimes


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_runtime(command: str) -> None:
    blocked = f"import sys; sys.modules.update(dict.fromkeys({RUNTIMES}))"
    ran = finish(start(command, "--help", before=blocked))
    assert (ran.code, ran.err) == (0, "")
    assert f"Usage: s2mlp-{command}" in ran.out
    assert "--debug" not in ran.out
    assert f"\n  s2mlp-{command} best" in ran.out or command in ("repair", "sweep", "doctor")
    assert finish(start(command, "-h", before=blocked)) == ran


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns_and_has_words_for_what_options_take(command: str) -> None:
    ran = run(command, "--help")
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80 and not re.search(r"[<\[](?!OPTIONS)|INTEGER|TEXT|FLOAT|PATH", ran.out)
    options = [line for line in lines if line.startswith("  -")]
    assert any("--version" in line for line in options) and any("-h, --help" in line for line in options)


def literal_values(annotation: Any) -> list[str]:
    """The words of every ``Literal`` in a type."""
    inner = get_args(annotation)
    return list(inner) if get_origin(annotation) is Literal else [word for a in inner for word in literal_values(a)]


def test_help_shows_every_choice_in_sections() -> None:
    text = " ".join(run("export", "--help").out.split())
    parameters = inspect.signature(export_command.export, eval_str=True).parameters.values()
    fields = [f for model in registry.built_in_options().values() for f in model.model_fields.values()]
    types = [*(parameter.annotation for parameter in parameters), *(field.annotation for field in fields)]
    choices = {choice for kind in types for choice in literal_values(kind)}
    assert {"gather", "inplace", "lanczos", "top5", "xnnpack"} <= choices
    assert all(re.search(rf"\b{choice}\b", text) for choice in (*PRECISIONS, *choices))
    assert all(re.search(rf"\b{name}\b", text) for name in DIRECTIONS)
    assert (
        "may be repeated. One of coreml, executorch, litert, onnx, openvino, ort, triton, trt, trt-rtx, web. "
        "Default: onnx." in text
    )
    titles = [line for line in run("export", "--help").out.splitlines() if re.fullmatch(r"\S.*:", line)]
    assert titles[1:] == [
        "Arguments:",
        "Artifact:",
        "Checks:",
        "Output:",
        "Checkpoint:",
        "Images:",
        "With --precision int8:",
        "With --format coreml:",
        "With --format executorch or triton:",
        "With --format litert:",
        "With --format ort, trt or trt-rtx:",
        "With --format web:",
        "General:",
    ]


def test_the_providers_to_choose_are_those_that_there_are() -> None:
    from s2mlp_deploy.runtime.providers import PROVIDERS

    assert get_args(OrtOptions.model_fields["provider"].annotation) == tuple(PROVIDERS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_version_is_told_whatever_else_is_missing(command: str) -> None:
    assert run(command, "--version") == Ran(0, f"s2mlp-deploy {s2mlp_deploy.__version__}\n", "")


def test_help_imports_no_runtime_where_there_is_one() -> None:
    report = "import atexit, sys; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))"
    for command in COMMANDS:
        ran = finish(start(command, "--help", before=report))
        assert ran.code == 0
        assert not {*RUNTIMES, "onnx", "numpy"} & set(ran.err.split()), command


def test_a_missing_package_is_named_with_what_to_install(checkpoint: Path, tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['torch'] = None"
    ran = finish(start("export", checkpoint, "-o", tmp_path / "bundle", before=blocked))
    assert (ran.code, ran.out) == (4, "")
    assert "needs the package torch" in ran.err and pip_install("export") in ran.err
    assert "Traceback" not in ran.err and not (tmp_path / "bundle").exists()
    examined = finish(start("doctor", "--json", before=blocked))
    (ability,) = (a for a in strict_json(examined.out)["abilities"] if a["name"] == "export a checkpoint")
    assert (examined.code, ability["available"], ability["missing"]) == (0, False, ["torch"])


# Output


def test_inspect_prints_one_json_document_and_nothing_else(checkpoint: Path) -> None:
    ran = run("inspect", checkpoint, "--json")
    assert (ran.code, ran.err) == (0, "")
    found = strict_json(ran.out)
    spec = small_spec()
    assert (found["parameters"], found["macs"]) == (spec.parameters(), spec.macs())
    assert found["spec"]["image_size"] == found["recorded"]["image_size"] == [20, 28]
    assert (found["layout"], found["weights"], found["prefix"]) == ("canonical", "model", "")
    assert (found["sha256"], found["dtypes"], found["warnings"]) == (sha256(checkpoint), ["float32"], [])


def test_export_prints_one_json_document_and_its_progress_elsewhere(checkpoint: Path, tmp_path: Path) -> None:
    ran = run("export", checkpoint, "-o", tmp_path / "bundle", "--json")
    assert ran.code == 0
    (made,) = strict_json(ran.out)["exports"]
    assert made["passed"] is True
    assert made["bundle"] == str(tmp_path / "bundle")
    assert made["manifest"] == json.loads((tmp_path / "bundle" / "manifest.json").read_bytes())
    assert all(line.endswith(" …") for line in ran.err.splitlines()) and "reading the checkpoint" in ran.err


def test_verify_and_doctor_print_one_json_document(bundle: Path) -> None:
    ran = run("verify", bundle, "--json")
    assert ran.code == 0 and strict_json(ran.out)["passed"] is True
    ran = run("doctor", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert {a["name"]: a["available"] for a in strict_json(ran.out)["abilities"]}["export a checkpoint"] is True


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "message"),
    [
        (("verify", "nowhere", "--json"), 3, "BundleError", "nowhere does not exist"),
        (("inspect", "no.pt", "--json"), 3, "CheckpointError", "no.pt"),
        (("export", "no.pt", "--format", "tflite", "--json"), 2, "UsageError", "no exporter for format 'tflite'"),
        (("export", "no.pt", "--json", "--shift", "roll"), 2, "UsageError", "--shift"),
        (("export", "--json"), 2, "UsageError", "Missing argument"),
        (("doctor", "--json", "--nothing"), 2, "UsageError", "--nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_an_error_is_json_too_and_on_stderr_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, kind: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run(*arguments)
    told = strict_json(ran.out)
    assert (
        told == {"error": {"kind": kind, "message": told["error"]["message"], "exit_code": code}} and ran.code == code
    )
    assert message in told["error"]["message"] and ran.err.splitlines()[-1] == f"error: {told['error']['message']}"
    text = run(*(a for a in arguments if a != "--json"))
    assert (text.code, text.out, text.err) == (code, "", ran.err)


def test_what_was_published_before_an_error_is_in_its_document(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    ran = run("export", checkpoint, "--format", "onnx", "--format", "trt", "--json")
    told = strict_json(ran.out)
    assert ran.code == told["error"]["exit_code"] == 4 and told["error"]["kind"] == "RuntimeMissingError"
    assert [made["bundle"] for made in told["exports"]] == ["small-onnx-fp32"]


def test_what_is_not_finite_is_null_in_json(bundle: Path) -> None:
    model = onnx.load(bundle / "model.onnx")
    bias = next(t for t in model.graph.initializer if tuple(t.dims) == (7,))
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(7, np.nan, np.float32), bias.name))
    onnx.save(model, bundle / "model.onnx")
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest["files"]["model.onnx"] = sha256(bundle / "model.onnx")
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    ran = run("verify", bundle, "--json")
    assert ran.code == 1
    found = strict_json(ran.out)
    assert found["passed"] is False and found["distances"]["noise"]["relative_l2"] is None


def test_several_exports_are_compared_side_by_side_in_the_table_and_in_json(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(80):
        colours = rng.integers(0, 256, (5, 7, 3), np.uint8)
        pixels = colours.repeat(4, axis=0).repeat(4, axis=1)  # one a patch, so that classes differ
        x = (pixels.transpose(2, 0, 1)[None] / np.float32(255) - 0.5) / 0.25
        label = int(reference_logits.run(random_model(small_spec()), x.astype(np.float32)).argmax())
        (tmp_path / "images" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / str(label) / f"{i}.png")
    options = (
        "--format",
        "onnx",
        "--format",
        "ort",
        "--precision",
        "fp32",
        "--precision",
        "int8",
        "--data",
        "images",
        "--calibration",
        "images",
        "--max-accuracy-drop",
        100,
    )
    ran = run("export", checkpoint, *options, "--json")
    assert ran.code == 0, ran.err
    rows = strict_json(ran.out)["comparison"]
    names = [f"small-{form}-{precision}" for form in ("onnx", "ort") for precision in ("fp32", "int8")]
    assert [row["bundle"] for row in rows] == names
    for row in rows:
        assert 0 <= row["accuracy"] <= 1 and 0.5 < row["same_class"] <= 1, row
        assert 0 < row["relative_l2"] < 0.5 and 0.9 < row["cosine"] <= 1, row
        assert row["size_bytes"] == read_bundle(tmp_path / row["bundle"]).size_bytes
        assert row["size_ratio"] == row["size_bytes"] / rows[0]["size_bytes"] and row["latency"] is None
    assert [row["relative_l2"] > 1e-4 for row in rows] == [False, True] * 2
    text = run("export", checkpoint, *options, "--force").out
    table = text[text.index("side by side") :]
    for row in rows:
        (line,) = (line for line in table.splitlines() if row["bundle"] in line)
        for figure in (f"{row['size_ratio']:.3f}", f"{row['cosine']:.6f}", f"{row['accuracy']:.2%}"):
            assert figure in line
    assert max(map(len, table.splitlines())) <= 100


def test_what_was_not_judged_is_compared_by_size_alone(checkpoint: Path, tmp_path: Path) -> None:
    (row,) = strict_json(run("export", checkpoint, "--no-gate", "-o", tmp_path / "bundle", "--json").out)["comparison"]
    assert {name for name, value in row.items() if value is None} == {
        "relative_l2",
        "cosine",
        "same_class",
        "accuracy",
        "latency",
    }


def test_the_tables_name_what_was_found(checkpoint: Path, tmp_path: Path) -> None:
    shown = run("inspect", checkpoint).out
    for part in ("small.pt", "canonical, under 'model'", "3,699", "4x4 convolution", "an image of 20x28"):
        assert part in shown
    made = run("export", checkpoint, "-o", tmp_path / "bundle").out
    for part in ("bundle", "model.onnx", "paper semantics", "['batch', 3, 20, 28]", "PASSED"):
        assert part in made
    assert "export a checkpoint" in run("doctor").out


def test_one_thing_is_not_several(checkpoint: Path, tmp_path: Path) -> None:
    assert [wording.counted(n, noun) for n, noun in ((1, "class"), (0, "class"), (1200, "image"))] == [
        "1 class",
        "0 classes",
        "1,200 images",
    ]
    spec = small_spec(depth=1)
    shown = run("inspect", save_checkpoint(tmp_path / "one.pt", spec)).out
    assert "1 block of 13 and 39 channels" in shown and "1 stage, 1 block," in shown


def test_what_was_not_judged_says_why_and_noise_is_not_called_images(checkpoint: Path, tmp_path: Path) -> None:
    ran = run("export", checkpoint, "--no-gate", "-o", tmp_path / "ungated")
    assert "NOT JUDGED: without its gate" in ran.out
    ran = run("export", checkpoint, "--precision", "int8", "--calibration", "synthetic", "-o", tmp_path / "noise")
    assert "NOT JUDGED: calibrated on noise" in ran.out
    assert re.search(r"minmax over \d+ samples of noise", ran.out) and " images" not in ran.out.split("int8")[-1]


def test_a_layout_that_shifts_in_place_is_warned_about_on_stderr_until_the_semantics_are_chosen(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "jittor.pt", small_spec(), rename=jittor_name)
    warning = "warning: layout jittor-mlp: its public code shifts in place"
    ran = run("export", source, "-o", tmp_path / "paper", "--json")
    assert ran.code == 0
    assert ran.err.count(warning) == 1 and "warning" not in ran.out
    assert strict_json(ran.out)["exports"][0]["manifest"]["spec"]["shift_semantics"] == "paper"
    ran = run("export", source, "--shift-semantics", "inplace", "-o", tmp_path / "inplace", "--json")
    assert ran.code == 0 and "warning" not in ran.err
    assert strict_json(ran.out)["exports"][0]["manifest"]["spec"]["shift_semantics"] == "inplace"
    (told,) = run("inspect", source, "--json").json["warnings"]
    assert told.startswith("layout jittor-mlp")


def test_class_names_of_another_number_are_warned_about_and_left_out(tmp_path: Path) -> None:
    model = random_model(small_spec())
    torch.save({"model": model.state_dict(), "img_size": [20, 28], "class_names": ["a", "b"]}, tmp_path / "model.pt")
    ran = run("export", tmp_path / "model.pt", "-o", tmp_path / "bundle", "--json")
    assert "warning: the checkpoint records 2 class names, and the model has 7 classes" in ran.err
    assert strict_json(ran.out)["exports"][0]["manifest"]["labels"] is None


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_narrow_encoding_is_no_obstacle(checkpoint: Path, tmp_path: Path, encoding: str) -> None:
    narrow: dict[str, Any] = {"env": {"PYTHONIOENCODING": encoding}, "encoding": encoding, "errors": "replace"}
    ran = finish(start("doctor", **narrow))
    assert (ran.code, ran.err) == (0, "")
    assert r"\u2713 export a checkpoint" in ran.out
    assert "Default: onnx." in " ".join(finish(start("export", "--help", **narrow)).out.split())
    made = finish(start("export", checkpoint, "-o", tmp_path / "bundle", **narrow))
    assert made.code == 0 and "PASSED" in made.out and "Traceback" not in made.err


def test_a_reader_that_goes_away_is_not_answered_with_a_traceback() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    process = start("doctor", "--json", stdout=theirs)
    os.close(theirs)
    ran = finish(process)
    assert (ran.code, ran.err) == (1, "")


# Bundles where a checkpoint could be, and their files


def test_inspect_shows_what_a_bundles_manifest_says_without_torch(bundle: Path) -> None:
    blocked = "import sys; sys.modules.update(torch=None, onnxruntime=None)"
    ran = finish(start("inspect", bundle, before=blocked))
    assert (ran.code, ran.err) == (0, "")
    manifest = read_bundle(bundle).manifest
    for part in (
        manifest.source.sha256,
        "layout canonical",
        "paper semantics",
        "verdict passed",
        "files unchanged",
    ):
        assert part in " ".join(ran.out.split())
    assert run("inspect", bundle, "--json").json == {
        "bundle": str(bundle),
        "signature": "unsigned",
        "manifest": manifest.model_dump(mode="json"),
    }


def test_inspect_refuses_options_that_are_settled_in_a_bundle(bundle: Path) -> None:
    ran = run("inspect", bundle, "--image-size", 32, "--weights", "model")
    assert (ran.code, ran.out) == (2, "") and "--weights, --image-size: settled when" in ran.err


@pytest.mark.parametrize("command", ["inspect", "export", "verify"])
@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "golden.safetensors", "report.json"])
def test_a_file_of_a_bundle_is_answered_with_its_directory(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, command: str, name: str
) -> None:
    ran = run(command, bundle / name)
    assert (ran.code, ran.out) == (3, "") and ran.err.endswith(f"give the bundle's directory, {bundle}\n")
    monkeypatch.chdir(bundle)
    assert run(command, name).err.endswith("give the bundle's directory, .\n")


def test_a_checkpoint_beside_a_bundles_files_is_a_checkpoint(bundle: Path, checkpoint: Path) -> None:
    assert run("inspect", checkpoint.rename(bundle / "small.pt")).code == 0


def test_the_size_of_other_files_is_not_called_the_models(checkpoint: Path, tmp_path: Path) -> None:
    ran = run("export", checkpoint, "--format", "openvino", "-o", tmp_path / "bundle")
    files = [tmp_path / "bundle" / name for name in ("model.xml", "model.bin")]
    own, whole = (readable_size(sum(f.stat().st_size for f in chosen)) for chosen in (files[:1], files))
    assert f"model.xml, {own}, with 1 other file: {whole}, fp32" in ran.out


# Modules


def module(*arguments: str) -> Ran:
    done = subprocess.run([sys.executable, "-m", "s2mlp_deploy", *arguments], capture_output=True, text=True)
    return Ran(done.returncode, done.stdout, done.stderr)


def test_the_package_runs_as_a_module_and_finds_every_command() -> None:
    listed = module()
    assert (listed.code, listed.err) == (0, "") and listed == module("-h")
    for name in (*COMMANDS, "bench"):
        assert re.search(rf"^  {name} +[A-Z].*\.$", listed.out, re.MULTILINE)
    assert module("export", "--help").out.startswith("Usage: python -m s2mlp_deploy export [OPTIONS] CKPT|BUNDLE\n")
    assert module("verify", "nowhere").code == 3 and module("--version").out == run("verify", "--version").out
    called = "import sys; sys.argv = ['/bin/s2mlp', 'export', '-h']; from s2mlp_deploy.__main__ import main; main()"
    short = subprocess.run([sys.executable, "-c", called], capture_output=True, text=True)
    assert short.stdout.startswith("Usage: s2mlp export [OPTIONS] CKPT|BUNDLE\n") and not short.stderr
    wrong = module("exprot")
    assert (wrong.code, wrong.out) == (2, "") and "no command 'exprot': expected bench, doctor, export" in wrong.err


# Options


def test_the_default_output_is_named_after_the_checkpoint_and_lies_in_the_working_directory(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    ran = run("export", checkpoint, "--json")
    assert ran.code == 0 and [p.name for p in Path().iterdir()] == ["small-onnx-fp32"]
    again = run("export", checkpoint)
    assert again.code == 3 and "small-onnx-fp32 exists: " in again.err and "--force" in again.err
    assert run("export", checkpoint, "--force").code == 0
    assert [p.name for p in Path().iterdir()] == ["small-onnx-fp32"]


def test_weights_are_chosen_by_name(tmp_path: Path) -> None:
    states = {name: random_model(small_spec(), seed).state_dict() for seed, name in enumerate(("model", "model_ema"))}
    torch.save({**states, "img_size": [20, 28]}, tmp_path / "model.pt")
    ran = run("export", tmp_path / "model.pt", "-o", tmp_path / "own")
    assert ran.code == 0 and "model_ema" in ran.err and "--weights" in ran.err
    assert read_manifest(tmp_path / "own").source.weights == "model"
    manifest = export(tmp_path, tmp_path / "model.pt", "--weights", "model_ema")
    assert manifest.source.weights == "model_ema"
    x = np.random.default_rng(0).standard_normal((2, 3, 20, 28), dtype=np.float32)
    (logits,) = onnxruntime.InferenceSession(tmp_path / "bundle" / "model.onnx").run(None, {"input": x})
    np.testing.assert_allclose(logits, reference_logits.run(random_model(small_spec(), 1), x), rtol=1e-4, atol=1e-5)


def own_layout(path: Path, *lines: str) -> Path:
    """A layout file with the canonical names but for ``out``, the classifier, and these lines."""
    layout = ['name = "mine"', *lines, "[keys]", '"head.fc" = "out"', '"stages.0.embedding" = "stages.0.embedding"']
    layout += [
        f'"stages.0.blocks.{{b}}.{n}" = "stages.0.blocks.{{b}}.{n}"'
        for n in ("norm1", "fc1", "fc2", "norm2", "fc3", "fc4")
    ]
    path.write_text("\n".join(layout))
    return path


@pytest.mark.parametrize(
    ("declared", "options", "exported", "warned"),
    [
        ("inplace", [], "inplace", None),
        ("paper", [], "paper", None),
        ("inplace", ["--shift-semantics", "paper"], "paper", "which --shift-semantics paper replaces"),
        (None, [], "paper", "does not say which shift the model was trained with"),
        (None, ["--shift-semantics", "inplace"], "inplace", None),
    ],
)
def test_what_a_layout_file_declares_is_exported_unless_the_command_line_says_otherwise(
    tmp_path: Path, declared: str | None, options: list[str], exported: str, warned: str | None
) -> None:
    source = save_checkpoint(tmp_path / "mine.pt", small_spec(), rename=lambda key: key.replace("head.fc", "out"))
    layout = own_layout(tmp_path / "mine.toml", *([f'shift_semantics = "{declared}"'] if declared else []))
    ran = run("export", source, "--layout", layout, *options, "-o", tmp_path / "bundle")
    assert ran.code == 0, ran.err
    assert read_bundle(tmp_path / "bundle").manifest.spec.semantics == exported
    x = np.random.default_rng(0).standard_normal((2, 3, 20, 28), dtype=np.float32)
    (logits,) = onnxruntime.InferenceSession(tmp_path / "bundle" / "model.onnx").run(None, {"input": x})
    truth = reference_logits.run(random_model(small_spec().with_semantics(exported)), x)  # type: ignore[arg-type]
    np.testing.assert_allclose(logits, truth, rtol=1e-4, atol=1e-5)
    said = " ".join(ran.err.split())
    assert (warned or "") in said and ("in place" in said or "semantics" in said) == bool(warned)
    if not options:
        found = run("inspect", source, "--layout", layout, "--json").json
        assert found["spec"]["shift_semantics"] == exported
        assert any("in place" in text for text in found["warnings"]) == bool(warned)


def test_a_layout_file_and_its_epsilon_reach_the_manifest(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "mine.pt", small_spec(), rename=lambda key: key.replace("head.fc", "out"))
    assert "no place for out.weight" in run("inspect", source).err
    manifest = export(tmp_path, source, "--layout", own_layout(tmp_path / "mine.toml", "norm_epsilon = 1e-3"))
    assert (manifest.source.layout, manifest.spec.norm_epsilon) == ("mine", 1e-3)


def test_a_layout_is_chosen_by_name(checkpoint: Path, tmp_path: Path) -> None:
    assert export(tmp_path, checkpoint, "--layout", "canonical").source.layout == "canonical"
    ran = run("inspect", checkpoint, "--layout", "jittor-mlp")
    assert ran.code == 3 and "(jittor-mlp)" in ran.err


GEOMETRY = ("resize", "interpolation", "crop_fraction")
"""What is assumed of a checkpoint that records its normalization alone."""


def test_recorded_normalization_is_used_until_it_is_overridden(tmp_path: Path) -> None:
    options = {"img_size": [20, 28], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    torch.save({"model": random_model(small_spec()).state_dict(), "args": options}, tmp_path / "model.pt")
    recorded = export(tmp_path, tmp_path / "model.pt").preprocessing
    assert (recorded.mean, recorded.std, recorded.assumed) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), GEOMETRY)
    given = export(tmp_path, tmp_path / "model.pt", "--mean", "0.5,0.25,0", "--force").preprocessing
    assert (given.mean, given.std, given.assumed) == ((0.5, 0.25, 0), (0.4, 0.5, 0.6), GEOMETRY)
    given = export(tmp_path, tmp_path / "model.pt", "--std", "1,0.2,0.5", "--force").preprocessing
    assert (given.mean, given.std) == ((0.1, 0.2, 0.3), (1, 0.2, 0.5))


def test_normalization_that_nobody_gave_is_assumed_and_said(checkpoint: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.pt"
    torch.save(torch.load(checkpoint, weights_only=True)["model"], bare)
    ran = run("export", bare, "--image-size", "20x28", "-o", tmp_path / "bare")
    assert ran.code == 0, ran.err
    assert "does not record how its images were normalized" in " ".join(ran.err.split())
    assumed = read_bundle(tmp_path / "bare").manifest.preprocessing
    assert (assumed.mean, assumed.assumed) == ((0.485, 0.456, 0.406), (*GEOMETRY, "mean", "std"))
    assert export(tmp_path, checkpoint, "--mean", "0,0,0", "--std", "1,1,1").preprocessing.assumed == GEOMETRY


def test_the_image_size_replaces_the_recorded_one(checkpoint: Path, tmp_path: Path) -> None:
    manifest = export(tmp_path, checkpoint, "--image-size", "12x36")
    assert manifest.spec.image_size == (12, 36) and manifest.input.shape == ("batch", 3, 12, 36)
    assert export(tmp_path, checkpoint, "--image-size", "16", "--force").spec.image_size == (16, 16)


def test_a_batch_size_is_fixed_and_the_bundle_still_verifies(checkpoint: Path, tmp_path: Path) -> None:
    manifest = export(tmp_path, checkpoint, "--batch", "3")
    assert manifest.input.shape == (3, 3, 20, 28) and manifest.output.shape == (3, 7)
    session = onnxruntime.InferenceSession(tmp_path / "bundle" / "model.onnx")
    assert session.get_inputs()[0].shape == [3, 3, 20, 28]
    assert run("verify", tmp_path / "bundle", "--per-block").code == 0


@pytest.mark.parametrize("shift", ["auto", "slice", "conv", "pad"])
def test_one_file_serves_every_size(checkpoint: Path, tmp_path: Path, shift: str) -> None:
    manifest = export(tmp_path, checkpoint, "--dynamic-size", "--shift", shift)
    assert manifest.lowering == ("slice" if shift == "auto" else shift)
    assert [type(n) for n in manifest.input.shape] == [str, int, str, str]
    session = onnxruntime.InferenceSession(tmp_path / "bundle" / "model.onnx")
    for size in ((20, 28), (4, 8), (36, 12)):
        x = np.random.default_rng(0).standard_normal((2, 3, *size), dtype=np.float32)
        expected = reference_logits.run(random_model(small_spec()), x)
        np.testing.assert_allclose(session.run(None, {"input": x})[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shift", ["slice", "conv", "gather", "pad"])
def test_the_lowering_asked_for_is_the_one_in_the_manifest(checkpoint: Path, tmp_path: Path, shift: str) -> None:
    assert export(tmp_path, checkpoint, "--shift", shift).lowering == shift


@pytest.mark.parametrize(("directions", "groups"), [("4", 4), ("8", 8), ("horizontal", 2), ("vertical", 2)])
def test_the_directions_asked_for_are_those_in_the_manifest(
    checkpoint: Path, tmp_path: Path, directions: str, groups: int
) -> None:
    assert len(export(tmp_path, checkpoint, "--shift-directions", directions).spec.shift.offsets) == groups
    assert (
        len(run("inspect", checkpoint, "--shift-directions", directions, "--json").json["spec"]["shift_offsets"])
        == groups
    )


def test_a_bundle_without_a_gate_says_so_and_cannot_be_verified(checkpoint: Path, tmp_path: Path) -> None:
    ran = run("export", checkpoint, "--no-gate", "-o", tmp_path / "bundle")
    assert ran.code == 0 and "NOT JUDGED" in ran.out
    manifest = read_bundle(tmp_path / "bundle").manifest
    assert (manifest.verdict, manifest.tolerance) == ("not judged", None)
    assert sorted(p.name for p in (tmp_path / "bundle").iterdir()) == ["manifest.json", "model.onnx", "report.json"]
    verified = run("verify", tmp_path / "bundle")
    assert verified.code == 3 and "was exported with --no-gate" in verified.err
    assert (
        run("export", checkpoint, "--no-gate", "--force", "-o", tmp_path / "bundle", "--json").json["exports"][0][
            "passed"
        ]
        is None
    )


# Refusals


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        *(
            ((f"--image-size={v}",), "is not a size: expected N or HxW")
            for v in ("x", "0", "20x", "-20", "20X28", "1x2x3", "", "0x20", "２８", "123456")
        ),
        *(
            ((f"--batch={v}",), "expected a positive number, or dynamic")
            for v in ("0", "-1", "x", "1.5", "", " 3", "３", "100000")
        ),
        *(((f"--mean={v}",), "is not a list of numbers") for v in ("x", "", "0.5,,0.5", "0.5;0.5;0.5", "0.5 0.5 0.5")),
        *(((f"--std={v}",), "is not a sensible number") for v in ("nan,1,1", "inf,1,1", "1e9,1,1")),
        (("--mean=0.5,0.5",), "--mean has 2 values, and the model's input has 3 channels"),
        (("--std=1,1,1,1",), "--std has 4 values, and the model's input has 3 channels"),
        (("--std=0.5,0,0.5",), "--std must be positive"),
        (("--std=0.5,-1,0.5",), "--std must be positive"),
        (("--format=tflite",), "no exporter for format 'tflite' is installed: there are "),
        (("--format=",), "no exporter for format ''"),
        (("--format=onnx", "--format=ort"), "-o names one bundle"),
        (("--dynamic-size", "--shift=gather"), "its table of positions is written for one image size"),
        (("--shift-directions=8", "--shift=conv"), "--shift conv would change the model's predictions"),
        (("--shift-directions=8", "--shift=pad"), "--shift pad would change the model's predictions"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path, options: Sequence[str], problem: str
) -> None:
    (tmp_path / "out").mkdir()
    ran = run("export", checkpoint, *options, "-o", tmp_path / "out" / "bundle")
    *progress, message = ran.err.splitlines()
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert message.startswith("error: ") and problem in message
    assert all(line.endswith(" …") for line in progress)
    assert not list((tmp_path / "out").iterdir())


def test_a_format_given_twice_is_refused(checkpoint: Path) -> None:
    ran = run("export", checkpoint, "--format", "onnx", "--format", "onnx")
    assert (ran.code, ran.out, ran.err) == (2, "", "error: a --format or a --precision is given twice\n")


@pytest.mark.parametrize(
    "options",
    [
        ("--shift", "roll"),
        ("--shift-semantics", "both"),
        ("--shift-directions", "5"),
        ("--data-count", "0"),
        ("--nothing",),
    ],
)
def test_an_option_that_does_not_exist_is_a_usage_error(checkpoint: Path, options: Sequence[str]) -> None:
    ran = run("export", checkpoint, *options)
    assert (ran.code, ran.out) == (2, "") and options[0] in ran.err and "Traceback" not in ran.err


@pytest.mark.parametrize("command", ["inspect", "export", "verify"])
def test_a_missing_argument_is_a_usage_error(command: str) -> None:
    ran = run(command)
    assert (ran.code, ran.out) == (2, "") and "Missing argument" in ran.err


@pytest.mark.parametrize("layout", ["resnet", "resnet.toml"])
def test_a_layout_of_no_name_is_bad_input(checkpoint: Path, tmp_path: Path, layout: str) -> None:
    ran = run("export", checkpoint, f"--layout={layout}", "-o", tmp_path / "bundle")
    assert ran.code == 3 and "layout" in ran.err and not (tmp_path / "bundle").exists()


def test_debug_shows_the_traceback_and_the_same_paragraph(tmp_path: Path) -> None:
    plain, debug = run("inspect", tmp_path / "no.pt"), run("inspect", tmp_path / "no.pt", "--debug")
    assert plain.code == debug.code == 3
    assert "Traceback" not in plain.err
    assert "Traceback (most recent call last)" in debug.err and "FileNotFoundError" in debug.err
    assert debug.err.endswith(plain.err)


def test_ctrl_c_while_the_bundle_is_being_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    options = ("--data", TEST_IMAGES, "--data-count", "120", "-o", tmp_path / "out" / "bundle")
    # A shell that starts pytest in the background has interrupts ignored, and children inherit that.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    process = start("export", PAPER_CHECKPOINT, *options, before=listen)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("checking fp32 parity"):
            process.send_signal(signal.SIGINT)
            break
    ran = finish(process)
    assert (ran.code, ran.out) == (130, "")
    assert (
        ran.err.splitlines()[-1] == "error: interrupted; nothing unfinished was published"
        and "Traceback" not in ran.err
    )
    assert not list((tmp_path / "out").iterdir())


def test_a_request_beyond_the_machines_memory_is_not_answered_with_a_traceback(
    checkpoint: Path, tmp_path: Path
) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 34, 1 << 34))"
    ran = finish(start("export", checkpoint, "--image-size", "99996", "-o", tmp_path / "bundle", before=limit))
    assert (ran.code, ran.out) == (4, "")
    assert "has not enough memory" in ran.err.splitlines()[-1] and "Traceback" not in ran.err
    assert not (tmp_path / "bundle").exists()


def test_threads_that_wait_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    seen: list[str] = []
    monkeypatch.setattr("s2mlp_deploy.cli.doctor.main", lambda: seen.append(os.environ["OMP_WAIT_POLICY"]))
    entry_points.doctor()
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    entry_points.doctor()
    assert seen == ["passive", "active"]
