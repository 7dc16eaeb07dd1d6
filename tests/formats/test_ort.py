"""``--format ort``: models that ONNX Runtime has optimized run, verify, and hold what they say; what cannot be is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import onnxruntime
import pytest

from helpers import formats
from helpers.formats import PRECISIONS, change_manifest, exported, manifest_of, noise, promised, replace_file
from helpers.support import PAPER_CHECKPOINT, TEST_IMAGES, run, save_checkpoint, small_spec
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import RuntimeMissingError, UsageError
from s2mlp_deploy.pipeline.deploy import deploy
from s2mlp_deploy.pipeline.request import EvidenceOptions, ExportRequest, FormatOptions, OutputOptions, Source
from s2mlp_deploy.quantization.settings import OPTIONS, Int8
from s2mlp_deploy.runtime.onnxruntime import Loading, OnnxSession, load
from s2mlp_deploy.runtime.providers import PROVIDERS, is_built_in, is_plugin
from s2mlp_exporters.onnxruntime import canonical, exporter
from s2mlp_exporters.onnxruntime.exporter import OPERATORS, OrtModel

STYLES = ("ort", "onnx")
ABSENT = [name for name in PROVIDERS if not is_built_in(name) and not is_plugin(name)]
"""The providers that the onnxruntime at hand was built without."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``onnx-P``, ``ort-P`` and ``onnx-style-P`` of a small checkpoint, for each precision P."""
    place = formats.make(tmp_path_factory.mktemp("made"), "ort")
    for precision in PRECISIONS:
        exported(
            place / f"onnx-{precision}",
            "--format",
            "ort",
            "--ort-style",
            "onnx",
            "-o",
            place / f"onnx-style-{precision}",
        )
    return place


@pytest.fixture
def engine(made: Path, tmp_path: Path) -> Path:
    """A copy of the fp32 engine, to be changed."""
    return Path(shutil.copytree(made / "ort-fp32", tmp_path / "engine"))


# It runs


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["ort", "onnx-style"])
def test_an_engine_verifies_and_holds_what_its_style_says(made: Path, name: str, precision: str) -> None:
    bundle = made / f"{name}-{precision}"
    verified = run("verify", bundle)
    assert verified.code == 0, verified.err
    artifacts = {"model.onnx"} if name == "onnx-style" else {"model.ort", OPERATORS}
    assert promised(bundle).keys() == artifacts | {"manifest.json", "golden.safetensors"}


@pytest.mark.parametrize(
    "options",
    [
        ("--batch", 3),
        ("--dynamic-size",),
        ("--precision", "fp16", "--io-dtype", "fp16"),
        ("--shift", "conv"),
        ("--shift-semantics", "inplace", "--shift", "slice"),
        ("--ort-style", "onnx", "--batch", 1),
    ],
    ids=lambda o: " ".join(map(str, o)),
)
def test_other_options_of_an_export_go_together_with_it(
    options: tuple[object, ...], checkpoint: Path, tmp_path: Path
) -> None:
    exported(checkpoint, "--format", "ort", "-o", tmp_path / "engine", *options)
    assert run("verify", tmp_path / "engine").code == 0


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.thorough), "int8"])
def test_the_bundled_checkpoint_keeps_its_accuracy_as_an_engine(precision: str, tmp_path: Path) -> None:
    request = ExportRequest(
        Source(PAPER_CHECKPOINT),
        precision=Int8(TEST_IMAGES, max_accuracy_drop=1.0) if precision == "int8" else OPTIONS[precision](),
        format=FormatOptions("ort"),
        evidence=EvidenceOptions(data=TEST_IMAGES),
        output=OutputOptions(tmp_path / "engine"),
    )
    report = deploy(request).report
    if precision == "int8":
        _graphs, trial = report.trials
        assert trial.passed and abs(trial.float_accuracy - trial.accuracy) < 0.0101
    else:
        assert report.images.count == 200 and report.images.top1_agreement == 1
        assert report.images.accuracy == report.images.accuracy_pytorch == 0.895
    assert run("verify", tmp_path / "engine").code == 0


# What the manifest says of it


@pytest.mark.parametrize(("name", "style"), [("ort", "ort"), ("onnx-style", "onnx")])
def test_what_it_takes_to_load_it_is_in_the_manifest(made: Path, name: str, style: str) -> None:
    manifest = manifest_of(made / f"{name}-fp32")
    assert manifest["engine"] == {
        "runtime": "onnxruntime",
        "runtime_version": onnxruntime.__version__,
        "provider": "cpu",
        "style": style,
        "optimization": "extended",
        "session_options": list(exporter.SESSION_OPTIONS),
    }
    assert (manifest["format"], manifest["artifact"]) == ("ort", f"model.{style}")
    assert onnxruntime.__version__ in [v for k, v in manifest["versions"].items() if k.startswith("onnxruntime")]


# What is in the files


@pytest.mark.parametrize("name", ["ort", "onnx-style"])
def test_it_is_loaded_without_optimizing_it_again(made: Path, name: str) -> None:
    session = OrtModel().open(read_bundle(made / f"{name}-fp32").artifact)
    level = session._session().get_session_options().graph_optimization_level
    assert level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL


def operators(bundle: Path) -> Counter[tuple[str, str]]:
    return Counter((n.domain or "ai.onnx", n.op_type) for n in onnx.load(bundle / "model.onnx").graph.node)


def test_int8_layers_are_fused_into_integer_gemms(made: Path) -> None:
    before, after = operators(made / "onnx-int8"), operators(made / "onnx-style-int8")
    assert before["ai.onnx", "DequantizeLinear"] > 0 and ("com.microsoft", "QGemm") not in before
    assert after["com.microsoft", "QGemm"] == 8 and not {op for _, op in after} & {"DequantizeLinear", "Cast"}


@pytest.mark.parametrize("precision", ["fp32", "int8"])  # ONNX Runtime has no float16 GELU for CPUs
def test_norms_and_activations_stay_one_operator_each(made: Path, precision: str) -> None:
    after = operators(made / f"onnx-style-{precision}")
    assert after["ai.onnx", "LayerNormalization"] == after["ai.onnx", "Gelu"] == 4
    assert not {op for _, op in after} & {"Erf", "Tanh", "Sqrt", "Pow"}


def listed(config: str) -> set[tuple[str, int, str]]:
    """(domain, opset, operator) of each operator in a configuration for a minimal build."""
    found = set()
    for line in config.splitlines():
        if not line.startswith("#"):
            domain, opset, entries = line.split(";")
            types = re.compile(r"\{[^{}]*\}")
            while types.search(entries):
                entries = types.sub("", entries)
            found |= {(domain, int(opset), name) for name in entries.split(",")}
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_operators_that_a_minimal_build_needs_are_exactly_those_of_the_graph(made: Path, precision: str) -> None:
    names = operators(made / f"onnx-style-{precision}")
    expected = {
        (domain, onnx.defs.get_schema(op, 20).since_version if domain == "ai.onnx" else 1, op) for domain, op in names
    }
    assert listed((made / f"ort-{precision}" / OPERATORS).read_text()) == expected


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_list_of_operators_names_no_path(made: Path, precision: str) -> None:
    comments = [c for c in (made / f"ort-{precision}" / OPERATORS).read_text().splitlines() if c.startswith("#")]
    assert comments == ["# Generated from model/s:", "# - model.ort"]


# The table of an .ort file, in order


FBS = canonical.bindings()


def as_onnxruntime_writes_it(made: Path, precision: str, destination: Path) -> Path:
    loading = Loading("cpu", "extended", {"session.save_model_format": "ORT"}, save_to=destination)
    load(made / f"onnx-{precision}" / "model.onnx", loading)
    return destination


def table(content: bytes) -> list[tuple[bytes, list[tuple[bytes, list[tuple[int, int]]]]]]:
    """The operators' type constraints, in the order of the file."""
    resolver = FBS.InferenceSession.InferenceSession.GetRootAs(content).KernelTypeStrResolver()
    found = []
    for i in range(resolver.OpKernelTypeStrArgsLength()):
        entry = resolver.OpKernelTypeStrArgs(i)
        constraints = [entry.KernelTypeStrArgs(j) for j in range(entry.KernelTypeStrArgsLength())]
        arguments = [[(a.ArgType(), a.Index()) for a in map(c.Args, range(c.ArgsLength()))] for c in constraints]
        names = [c.KernelTypeStr() for c in constraints]
        found.append((entry.OpId(), list(zip(names, arguments, strict=True))))
    return found


def model_part(content: bytes) -> bytes:
    place = FBS.InferenceSession.InferenceSession.GetRootAs(content).Model()._tab.Pos
    return content[place - int.from_bytes(content[place : place + 4], "little", signed=True) :]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_table_is_in_alphabetical_order_and_says_the_same(made: Path, precision: str, tmp_path: Path) -> None:
    raw = as_onnxruntime_writes_it(made, precision, tmp_path / "raw")
    canonical.write(raw, tmp_path / "ordered")
    before, after = (table((tmp_path / name).read_bytes()) for name in ("raw", "ordered"))
    assert after == sorted((op, sorted(constraints)) for op, constraints in before)
    assert len(after) > 5 and len({op for op, _ in after}) == len(after)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_model_itself_and_the_version_are_kept(made: Path, precision: str, tmp_path: Path) -> None:
    raw = as_onnxruntime_writes_it(made, precision, tmp_path / "raw").read_bytes()
    canonical.write(tmp_path / "raw", tmp_path / "ordered")
    ordered = (tmp_path / "ordered").read_bytes()
    assert model_part(ordered) == model_part(raw) and len(model_part(raw)) > len(raw) // 2
    assert (len(ordered) - len(model_part(ordered))) % 64 == (len(raw) - len(model_part(raw))) % 64  # for alignment
    sessions = [FBS.InferenceSession.InferenceSession.GetRootAs(c) for c in (raw, ordered)]
    assert sessions[0].OrtVersion() == sessions[1].OrtVersion() and sessions[1].OrtVersion()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_putting_the_table_in_order_changes_no_bit_of_the_logits(made: Path, precision: str, tmp_path: Path) -> None:
    raw = as_onnxruntime_writes_it(made, precision, tmp_path / "raw.ort")
    canonical.write(raw, tmp_path / "ordered.ort")
    before, after = (OnnxSession(p, Loading(optimization="none")).run(noise(5)) for p in sorted(tmp_path.iterdir()))
    assert before.shape == (5, 7)
    np.testing.assert_array_equal(before, after)


def test_the_order_that_onnxruntime_wrote_makes_no_difference(made: Path, tmp_path: Path) -> None:
    results = set()
    for i in range(4):
        canonical.write(as_onnxruntime_writes_it(made, "int8", tmp_path / f"{i}"), tmp_path / "ordered")
        results.add((tmp_path / "ordered").read_bytes())
    canonical.write(tmp_path / "ordered", tmp_path / "again")
    assert results == {(tmp_path / "again").read_bytes()}


def test_a_model_is_written_in_that_order(made: Path, tmp_path: Path) -> None:
    canonical.write(as_onnxruntime_writes_it(made, "fp32", tmp_path / "raw"), tmp_path / "ordered")
    assert (tmp_path / "ordered").read_bytes() == (made / "ort-fp32" / "model.ort").read_bytes()


Entries = tuple[tuple[str, tuple[str, ...]], ...]


def session_file(*parts: str, entries: Entries = ()) -> bytes:
    """An .ort file with ``parts``, the first of them last in the file, and operators with their constraints."""
    from ort_flatbuffers_py.fbs import Model

    builder = flatbuffers.Builder()
    places: dict[str, int] = {}
    for part in parts:
        if part == "model":
            Model.Start(builder)
            places[part] = Model.End(builder)
        else:
            operators = canonical._vector(builder, [operator_entry(builder, *entry) for entry in entries])
            FBS.KernelTypeStrResolver.Start(builder)
            FBS.KernelTypeStrResolver.AddOpKernelTypeStrArgs(builder, operators)
            places[part] = FBS.KernelTypeStrResolver.End(builder)
    version = builder.CreateString("1.0")
    FBS.InferenceSession.Start(builder)
    FBS.InferenceSession.AddOrtVersion(builder, version)
    if "model" in places:
        FBS.InferenceSession.AddModel(builder, places["model"])
    if "operators" in places:
        FBS.InferenceSession.AddKernelTypeStrResolver(builder, places["operators"])
    builder.Finish(FBS.InferenceSession.End(builder), b"ORTM")
    return bytes(builder.Output())


def operator_entry(builder: Any, name: str, constraints: tuple[str, ...]) -> int:
    """An operator of the table, and its constraints without arguments."""
    offsets = []
    for constraint in constraints:
        text, arguments = builder.CreateString(constraint), canonical._vector(builder, [])
        FBS.KernelTypeStrArgsEntry.Start(builder)
        FBS.KernelTypeStrArgsEntry.AddKernelTypeStr(builder, text)
        FBS.KernelTypeStrArgsEntry.AddArgs(builder, arguments)
        offsets.append(FBS.KernelTypeStrArgsEntry.End(builder))
    text, vector = builder.CreateString(name), canonical._vector(builder, offsets)
    FBS.OpIdKernelTypeStrArgsEntry.Start(builder)
    FBS.OpIdKernelTypeStrArgsEntry.AddOpId(builder, text)
    FBS.OpIdKernelTypeStrArgsEntry.AddKernelTypeStrArgs(builder, vector)
    return int(FBS.OpIdKernelTypeStrArgsEntry.End(builder))


def with_one_field_more(content: bytes) -> bytes:
    """``content`` as a later release might write it: the vtable of its session says that it has another field."""
    changed = bytearray(content)
    place = FBS.InferenceSession.InferenceSession.GetRootAs(content)._tab.Pos
    vtable = place - int.from_bytes(content[place : place + 4], "little", signed=True)
    changed[vtable] += 2
    return bytes(changed)


def test_operators_and_constraints_are_put_in_order_wherever_they_stood(tmp_path: Path) -> None:
    orders: list[Entries] = [
        ((":Add:14", ("T",)), (":Gather:13", ("T", "Tind")), (":Gemm:13", ("T",))),
        ((":Gemm:13", ("T",)), (":Gather:13", ("Tind", "T")), (":Add:14", ("T",))),
        ((":Gather:13", ("Tind", "T")), (":Add:14", ("T",)), (":Gemm:13", ("T",))),
    ]
    results = set()
    for entries in orders:
        (tmp_path / "file").write_bytes(session_file("model", "operators", entries=entries))
        canonical.write(tmp_path / "file", tmp_path / "out")
        results.add((tmp_path / "out").read_bytes())
    (only,) = results
    assert [(op.decode(), tuple(c.decode() for c, _ in cs)) for op, cs in table(only)] == list(orders[0])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\x08\x00\x00\x00ONNX and something else", "not an .ort file"),
        (session_file("model"), "other parts"),
        (session_file("operators"), "other parts"),
        (with_one_field_more(session_file("model", "operators")), "other parts"),
        (session_file("operators", "model"), "another order"),
    ],
    ids=["empty", "no .ort file", "no operators", "no model", "one field more", "other order"],
)
def test_a_layout_that_is_not_known_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        canonical.write(tmp_path / "file", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_such_files_would_be_known_otherwise(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(session_file("model", "operators"))
    canonical.write(tmp_path / "file", tmp_path / "out")
    assert table((tmp_path / "out").read_bytes()) == []


def test_an_onnxruntime_that_writes_another_layout_is_told_with_a_way_out(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canonical, "_IDENTIFIER", b"ORTZ")
    out = tmp_path / "out"
    ran = run("export", made / "onnx-fp32", "--format", "ort", "-o", out)
    assert (ran.code, ran.out) == (4, "")
    assert f"onnxruntime {onnxruntime.__version__} writes .ort files that this release does not know" in ran.err
    assert list(tmp_path.iterdir()) == []
    exported(made / "onnx-fp32", "--format", "ort", *re.findall(r"(--ort-style) (\w+)", ran.err)[0], "-o", out)


# Nothing but what the commands say


ALONE = """
import json, logging, sys
from importlib import import_module

for command, *arguments in json.loads(sys.argv[1]):
    sys.argv = [command, *arguments]
    try:
        import_module(f"s2mlp_deploy.cli.{command}").main()
    except SystemExit as stop:
        assert not stop.code, stop.code
    for stream in (sys.stdout, sys.stderr):
        print(end="\f", file=stream, flush=True)
print(logging.root.handlers)
"""
"""Runs commands in a process of their own, whose streams hold what libraries print as well, with a form feed after each."""


def test_libraries_print_nothing_and_leave_the_programs_logging_alone(made: Path, tmp_path: Path) -> None:
    commands = (
        ("export", made / "onnx-int8", "--format", "ort", "-o", tmp_path / "engine", "--json"),
        ("verify", tmp_path / "engine", "--json"),
        ("export", made / "small.pt", "--precision", "fp16", "--format", "ort", "-o", tmp_path / "half"),
    )
    arguments = json.dumps([list(map(str, command)) for command in commands])
    done = subprocess.run([sys.executable, "-W", "error", "-c", ALONE, arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    exported, verified, half, handlers = zip(done.stdout.split("\f"), done.stderr.split("\f"), strict=True)
    assert exported[1].splitlines() == [
        "compiling for ort …",
        "checking int8 parity of the ort engine with the reference …",
    ]
    assert json.loads(exported[0])["exports"][0]["passed"] is True
    assert verified[1] == "checking the bundle …\n" and json.loads(verified[0])["passed"] is True
    lines = half[1].splitlines()
    assert lines[0] == "reading the checkpoint …" and lines[-2] == "compiling for ort …"
    assert all(re.fullmatch(r"[a-z0-9 ]+ …", line) for line in lines), lines
    assert half[0].startswith("bundle ") and "PASSED" in half[0].splitlines()[-1]
    assert handlers == ("[]\n", "")


def test_what_is_printed_for_an_engine_from_a_bundle_is_what_is_printed_for_a_checkpoints(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("export", made / "onnx-fp32", "--format", "ort", "-o", "engine")
    assert ran.code == 0, ran.err
    assert "model.ort" in ran.out and "PASSED: 20 checks over 5 golden cases" in ran.out
    assert "PyTorch itself" not in ran.out  # which does not travel in a bundle


# Damage


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"provider": "abacus"}, "provider 'abacus'"),
        ({"provider": 5}, "provider 5"),
        ({"style": ["ort"]}, "style"),
        ({"optimization": "wild"}, "optimization 'wild'"),
        ({"runtime": "tensorrt"}, "runtime 'tensorrt'"),
        ({"session_options": ["session.no_value"]}, "session_options.0 'session.no_value'"),
        ({"session_options": ["=1"]}, "session_options.0 '=1'"),
        ({"session_options": "session.x=1"}, "session_options"),
        ({"session_options": [["x=1"]]}, "session_options"),
        ({"runtime_version": None}, "runtime_version"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_damaged_engine_entry_is_a_damaged_bundle(engine: Path, entry: Mapping[str, Any], said: str) -> None:
    change_manifest(engine, lambda m: m["engine"].update(entry))
    ran = run("verify", engine)
    assert (ran.code, ran.out) == (3, "")
    (message,) = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert f"{engine / 'manifest.json'}: engine" in message and said in message and "copy it again" in message


def test_an_unknown_session_option_is_told(engine: Path) -> None:
    change_manifest(engine, lambda m: m["engine"].update(session_options=["x" * 2000 + "=1"]))
    assert run("verify", engine).code == 3


@pytest.mark.parametrize("cut", [0, 7, 100, 0.5, 0.9], ids=str)
def test_a_model_that_onnxruntime_cannot_load_is_told_quietly(
    engine: Path, cut: float, capfd: pytest.CaptureFixture[str]
) -> None:
    content = (engine / "model.ort").read_bytes()
    replace_file(engine, "model.ort", content[: int(cut if cut > 1 else cut * len(content))])
    ran = run("verify", engine)
    assert (ran.code, ran.out) == (3, "") and f"cannot load the model {engine / 'model.ort'}" in ran.err
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"garbage", bytes(5000), session_file("model", "operators")], ids=len)
def test_a_model_of_other_content_is_told(engine: Path, content: bytes) -> None:
    replace_file(engine, "model.ort", content)
    ran = run("verify", engine)
    assert ran.code == 3 and "cannot load the model" in ran.err


def test_the_engine_of_another_model_is_told_apart(engine: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / "other.pt", small_spec(), seed=1)
    exported(other, "--format", "ort", "-o", tmp_path / "other")
    replace_file(engine, "model.ort", (tmp_path / "other" / "model.ort").read_bytes())
    ran = run("verify", engine)
    assert ran.code == 3 and "made from another checkpoint" in ran.err


def test_layers_cannot_be_seen_in_an_engine(made: Path) -> None:
    ran = run("verify", made / "ort-fp32", "--per-block")
    assert ran.code == 2 and "--per-block" in ran.err


# Providers, and what is not here


@pytest.mark.parametrize("source", ["onnx-fp32", "small.pt"], ids=["bundle", "checkpoint"])
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("provider", [p for p in ABSENT if p in ("cuda", "coreml")])
def test_a_provider_that_this_build_lacks_is_named_with_those_it_has(
    made: Path, tmp_path: Path, source: str, style: str, provider: str
) -> None:
    options = ("--format", "ort", "--provider", provider, "--ort-style", style)
    ran = run("export", made / source, *options, "-o", tmp_path / "new" / "engine")
    assert (ran.code, ran.out) == (4, "")
    assert f"has no {PROVIDERS[provider]}" in ran.err
    assert all(name in ran.err for name in onnxruntime.get_available_providers())
    # What is left is the verified graph to compile elsewhere, and how.
    assert f"s2mlp-export {'onnx-fp32' if source == 'onnx-fp32' else 'engine-onnx-fp32'} --format ort" in ran.err
    left = list(tmp_path.rglob("*/manifest.json"))
    assert [path.parent.name for path in left] == ([] if source == "onnx-fp32" else ["engine-onnx-fp32"])
    assert all(run("verify", path.parent).code == 0 for path in left)


@pytest.mark.parametrize("provider", ABSENT)
def test_an_engine_for_a_provider_that_is_not_here_is_not_run_on_another(engine: Path, provider: str) -> None:
    change_manifest(engine, lambda m: m["engine"].update(provider=provider))
    ran = run("verify", engine)
    assert (ran.code, ran.out) == (4, "") and f"has no {PROVIDERS[provider]}" in ran.err


def test_a_provider_that_cannot_run_the_whole_model_is_an_error_and_no_detour(
    made: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no provider that runs no operator of the model")
    monkeypatch.setitem(PROVIDERS, "azure", "AzureExecutionProvider")
    with pytest.raises(RuntimeMissingError, match="AzureExecutionProvider cannot run the whole model here"):
        load(made / "onnx-fp32" / "model.onnx", Loading("azure"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("option", [("--provider", "cpu"), ("--ort-style", "ort")], ids=lambda o: o[0])
def test_its_options_are_refused_for_other_formats(made: Path, tmp_path: Path, option: tuple[str, str]) -> None:
    ran = run("export", made / "small.pt", "--format", "onnx", *option, "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "") and f"{option[0]}: not for --format onnx" in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("option", "value"), [("provider", "abacus"), ("ort_style", "gothic")])
def test_a_provider_or_style_that_there_is_not_is_refused(made: Path, tmp_path: Path, option: str, value: str) -> None:
    flag = "--" + option.replace("_", "-")
    ran = run("export", made / "onnx-fp32", "--format", "ort", flag, value, "-o", tmp_path / "out")
    assert ran.code == 2 and value in ran.err
    with pytest.raises(UsageError, match=repr(value)):
        deploy(
            ExportRequest(
                Source(made / "onnx-fp32"),
                format=FormatOptions("ort", {option: value}),
                output=OutputOptions(tmp_path / "out"),
            )
        )
    assert list(tmp_path.iterdir()) == []


def test_a_setting_that_it_does_not_know_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--workspace: not for --format ort, which knows --ort-style, --provider"):
        deploy(
            ExportRequest(
                Source(made / "onnx-fp32"),
                format=FormatOptions("ort", {"workspace": 4}),
                output=OutputOptions(tmp_path / "out"),
            )
        )


def test_without_onnxruntime_it_says_what_to_install(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(exporter, "version", missing)
    ran = run("export", made / "onnx-fp32", "--format", "ort", "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (4, "") and "pip install onnxruntime" in ran.err
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ran = run("export", made / "onnx-fp32", "--format", "ort", "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (4, "") and "pip install onnxruntime" in ran.err
    assert list(tmp_path.iterdir()) == []
