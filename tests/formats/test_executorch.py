"""``--format executorch``: programs hold the numbers in ExecuTorch's runtime; what cannot be is refused by name."""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path
from random import Random

import numpy as np
import onnx_ir as ir
import pytest
import torch

from helpers.formats import exported, manifest_of, noise, promised, replace_file
from helpers.mixers import lucidrains_mixer
from helpers.support import run, save_checkpoint, small_spec, v2_spec
from helpers.translated_graphs import SPECS, save_network
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.golden_tensors import Golden
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import BundleError, CompilerError, UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.runtime.onnxruntime import OnnxSession
from s2mlp_deploy.runtime.session import DescribedSession
from s2mlp_deploy.schema.array import Array

pytest.importorskip("executorch", reason="needs ExecuTorch")

from s2mlp_exporters.executorch import artifact_scan, bundled_program, exporter
from s2mlp_exporters.executorch.exporter import MODEL, ExecuTorchProgram
from s2mlp_exporters.executorch.graph_module import GraphModule
from s2mlp_exporters.executorch.operators import OPERATORS
from s2mlp_exporters.executorch.packages import load
from s2mlp_exporters.executorch.session import RUNTIME, ExecuTorchSession

pytestmark = pytest.mark.slow  # ExecuTorch takes seconds to lower the smallest network


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``onnx``, ``engine`` of a small checkpoint."""
    place = tmp_path_factory.mktemp("made")
    checkpoint = save_checkpoint(place / "small.pt", small_spec(depth=1))
    exported(checkpoint, "-o", place / "onnx")
    exported(place / "onnx", "--format", "executorch", "--max-batch", 9, "-o", place / "engine")
    return place


@pytest.fixture
def engine(made: Path, tmp_path: Path) -> Path:
    """A copy of the program, to be changed."""
    return Path(shutil.copytree(made / "engine", tmp_path / "engine"))


def session_of(bundle: Path) -> ExecuTorchSession:
    return ExecuTorchProgram().open(read_bundle(bundle).artifact)


def test_a_program_verifies_and_is_one_file(made: Path) -> None:
    verified = run("verify", made / "engine")
    assert verified.code == 0, verified.err
    assert promised(made / "engine").keys() == {MODEL, "manifest.json", "golden.safetensors"}


def test_any_batch_up_to_the_largest_runs_and_a_larger_one_is_refused(made: Path) -> None:
    session = session_of(made / "engine")
    images = noise(10)
    whole = session.run(images[:9])
    for count in (1, 4):
        np.testing.assert_allclose(session.run(images[:count]), whole[:count], rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match="up to 9; export it with --max-batch 10"):
        session.run(images)
    with pytest.raises(BundleError, match=r"cannot run the program on an input of \[1, 3, 20, 27\]"):
        session.run(images[:1, :, :, :-1])


def test_a_program_carries_its_interface_and_the_metadata_of_the_graph(made: Path) -> None:
    session = session_of(made / "engine")
    assert isinstance(session, DescribedSession)
    described, manifest = session.describe(), manifest_of(made / "engine")
    assert [e.name for e in (*described.inputs, *described.outputs)] == ["input", "logits"]
    assert described.inputs[0].shape == ("any", 3, 20, 28)
    assert json.loads(described.metadata["s2mlp.preprocessing"]) == manifest["preprocessing"]


def test_the_report_names_what_xnnpack_leaves_out_which_only_moves_values_but_for_the_last_mean(made: Path) -> None:
    left = json.loads((made / "engine" / "report.json").read_text("utf-8"))["engine"]["not_delegated"]
    assert left.keys() == {"index_select", "slice_copy.Tensor", "view_copy", "mean.dim"}
    assert left["mean.dim"] == 2


# The program with its golden tensors, written beside it


class Lowered:
    """A program that was lowered before, so that it need not be again."""

    output, outside = "logits", dict[str, int]()

    def __init__(self, file: Path) -> None:
        self._file = file

    def write(self, path: Path) -> None:
        shutil.copyfile(self._file, path)


@pytest.fixture
def tested(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle with ``model.bpte``."""
    monkeypatch.setattr(exporter, "lower", lambda path, max_batch: Lowered(made / "engine" / MODEL))
    options = ("--max-batch", 9, "--bundled-program", "-o", tmp_path / "tested")
    exported(made / "onnx", "--format", "executorch", *options)
    return tmp_path / "tested"


def test_executorchs_own_runtime_verifies_a_program_with_its_golden_tensors(tested: Path, made: Path) -> None:
    assert run("verify", tested).code == 0
    assert promised(tested).keys() - promised(made / "engine").keys() == {bundled_program.FILE}
    engine = json.loads((tested / "report.json").read_text("utf-8"))["engine"]
    runtime = load(RUNTIME)
    content = (tested / bundled_program.FILE).read_bytes()
    module = runtime._load_bundled_program_from_buffer(content)
    cases = len(golden_tensors.load(tested / "golden.safetensors").inputs)
    for i in range(cases):
        module.verify_result_with_bundled_expected_output("forward", i, 0.0, engine["bundleio_atol"])
    with pytest.raises(RuntimeError):
        module.verify_result_with_bundled_expected_output("forward", 0, 0.0, engine["bundleio_atol"] / 1000)
    with pytest.raises(RuntimeError):
        module.verify_result_with_bundled_expected_output("forward", cases, 0.0, 1e9)


def test_golden_tensors_of_another_program_are_refused(tested: Path) -> None:
    content = bytearray((tested / bundled_program.FILE).read_bytes())
    content[-1] ^= 1
    replace_file(tested, bundled_program.FILE, bytes(content))
    ran = run("verify", tested)
    assert ran.code == 3 and "model.bpte is not model.pte with the golden tensors beside it" in ran.err


def test_without_golden_tensors_there_is_no_such_file(made: Path, tmp_path: Path) -> None:
    exported(made / "small.pt", "--no-gate", "-o", tmp_path / "onnx")
    ran = run("export", tmp_path / "onnx", "--format", "executorch", "--bundled-program", "-o", tmp_path / "out")
    assert ran.code == 2 and "--bundled-program" in ran.err and "holds no golden tensors" in ran.err


@pytest.mark.parametrize(
    ("batch", "largest", "sizes"), [(None, 3, [2, 3, 2, 1]), (None, 8, [2, 5, 1]), (4, 1, [4, 4, 4, 4])]
)
def test_test_cases_fit_the_program_and_begin_with_images(batch: int | None, largest: int, sizes: list[int]) -> None:
    inputs = {"faint": noise(1), "images": noise(2), "noise": noise(5)}
    logits = {name: x[:, 0, 0, :7] for name, x in inputs.items()}
    cases = bundled_program.test_cases(Golden(inputs, logits, {}), "logits", batch=batch, largest=largest)
    assert sorted(len(case.input) for case in cases) == sorted(sizes)
    np.testing.assert_array_equal(cases[0].input[:2], inputs["images"])
    for case in cases:
        np.testing.assert_array_equal(case.expected, case.input[:, 0, 0, :7])


@pytest.mark.parametrize("classes", [1, 7])
def test_a_program_that_gives_probabilities_is_held_to_those(classes: int) -> None:
    logits = torch.tensor(noise(5)[:, 0, 0, :classes])
    golden = Golden({"noise": noise(5)}, {"noise": logits.numpy()}, {})
    (case,) = bundled_program.test_cases(golden, "probabilities", batch=None, largest=8)
    wanted = torch.sigmoid(logits) if classes == 1 else torch.softmax(logits, 1)
    np.testing.assert_allclose(case.expected, wanted.numpy(), rtol=1e-6)


# The graph as a module: in PyTorch itself, which takes no time


def eager(path: Path, images: Array) -> Array:
    """The output of the ONNX model at ``path`` as a module."""
    with torch.no_grad():
        out: Array = GraphModule(ir.load(path), OPERATORS)(torch.tensor(images)).numpy()
    return out


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("lowering", ["gather", "slice", "conv", "pad"])
def test_the_module_of_any_family_computes_what_its_graph_does(name: str, lowering: str, tmp_path: Path) -> None:
    images = save_network(SPECS[name], lowering, tmp_path / "model.onnx")
    reference = OnnxSession(tmp_path / "model.onnx").run(images)
    assert compare(eager(tmp_path / "model.onnx", images), reference).relative_l2 < 2e-6


@pytest.mark.parametrize(("precision", "limit"), [("int8", 0.01), ("int8w", 0.05)])
def test_the_module_of_a_quantized_graph_computes_what_it_does(
    precision: str, limit: float, made: Path, tmp_path: Path
) -> None:
    """With int8 the same roundings; with int8w activations are rounded, too, which ONNX Runtime leaves in float32."""
    np.save(tmp_path / "calibration.npy", noise(64))
    of_int8 = ("--target", "litert", "--calibration", tmp_path / "calibration.npy", "--min-agreement", 0.9)
    exported(
        made / "small.pt", "--precision", precision, *(of_int8 if precision == "int8" else ()), "-o", tmp_path / "onnx"
    )
    reference = registry.find("onnx").open(read_bundle(tmp_path / "onnx").artifact).run(noise(8))
    distance = compare(eager(tmp_path / "onnx" / "model.onnx", noise(8)), reference).relative_l2
    assert distance < limit


def test_an_operator_without_a_translation_is_refused_by_name(made: Path) -> None:
    model = ir.load(made / "onnx" / "model.onnx")
    next(node for node in model.graph if node.op_type == "Gelu").op_type = "Erf"
    with pytest.raises(CompilerError, match=r"no translation for the operator Erf of stage0/block00/gelu1"):
        GraphModule(model, OPERATORS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--answer", "top5"),
            "--format executorch cannot be made with --answer top5: expected logits or probabilities",
        ),
        (("--input", "image"), "--format executorch cannot be made with --input image: expected float or uint8"),
        (("--dynamic-size",), "one size of images for a file: leave out --dynamic-size"),
        (("--batch", 2, "--max-batch", 4), "--max-batch 4: the bundle's graph has a fixed batch of 2"),
        (("--precision", "fp16"), "fp16"),
        (("--max-batch", 0), "--max-batch '0': expected a number greater than or equal to 1"),
    ],
)
def test_what_the_format_does_not_have_is_refused_by_name(
    options: tuple[object, ...], message: str, made: Path, tmp_path: Path
) -> None:
    ran = run("export", made / "small.pt", "--format", "executorch", *options, "-o", tmp_path / "out")
    assert ran.code == 2 and message in " ".join(ran.err.split()), ran.err
    assert not (tmp_path / "out").exists()


# Files from elsewhere

HOSTILE: dict[str, tuple[bytes, bytes, str]] = {
    "another backend": (b"XnnpackBackend", b"OpenvinoBacken", "for another backend than XNNPACK"),
    "another operator": (b"index_select", b"index_put___", "operator 'aten::index_put___.out' is none"),
    "another method": (b"forward\0", b"farword\0", "it has not one method called forward"),
    "another identifier": (b"ET12eh00", b"ET11eh00", "it is no .pte file"),
    "another part": (b"XN01", b"XN02", "tables of another kind than XN01"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_program_that_could_do_something_else_is_refused_before_it_is_loaded(name: str, engine: Path) -> None:
    old, new, message = HOSTILE[name]
    content = (engine / MODEL).read_bytes()
    assert old in content
    replace_file(engine, MODEL, content.replace(old, new, 1))
    ran = run("verify", engine)
    assert ran.code == 3 and message in " ".join(ran.err.split()), ran.err


@pytest.mark.parametrize("end", [0, 7, 40, 5000, -1])
def test_a_file_that_was_cut_short_is_refused(end: int, engine: Path) -> None:
    replace_file(engine, MODEL, (engine / MODEL).read_bytes()[:end])
    with pytest.raises(BundleError, match="No export writes that"):
        ExecuTorchProgram().inspect(read_bundle(engine))


def test_sizes_and_indices_that_lead_out_of_the_file_are_refused(engine: Path) -> None:
    """Each number of four bytes in the tables set to all ones, in turn, is refused or reads as before."""
    content = (engine / MODEL).read_bytes()
    tables = int.from_bytes(content[16:24], "little")
    refused = 0
    for place in range(40, tables - 4, 52):
        (engine / MODEL).write_bytes(content[:place] + b"\xff" * 4 + content[place + 4 :])
        try:
            artifact_scan.inspect(engine / MODEL)
        except BundleError:
            refused += 1
    assert refused > 0.7 * len(range(40, tables - 4, 52))


# Every precision and family all through, by make thorough


@pytest.mark.thorough
@pytest.mark.parametrize("precision", ["fp32", "int8", "int8w"])
@pytest.mark.parametrize("family", ["S²-MLPv2", "MLP-Mixer"])
def test_other_families_go_to_every_precision(family: str, precision: str, tmp_path: Path) -> None:
    if family == "MLP-Mixer":
        torch.save(lucidrains_mixer().state_dict(), tmp_path / "net.pt")
        options: tuple[object, ...] = ("--image-size", "20x28", "--mean", "0.5", "--std", "0.5")
    else:
        save_checkpoint(tmp_path / "net.pt", v2_spec("one stage"))
        options = ("--shift-semantics", "paper")
    np.save(tmp_path / "calibration.npy", noise(64))
    if precision == "int8":
        options += ("--calibration", tmp_path / "calibration.npy", "--min-agreement", 0.9)
    out = tmp_path / "out"
    exported(tmp_path / "net.pt", "--format", "executorch", "--precision", precision, *options, "-o", out)
    assert run("verify", out).code == 0


def test_the_runtime_prints_nothing(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session_of(made / "engine").run(noise(1))
    assert capfd.readouterr() == ("", "")


def test_threads_are_the_process_s(made: Path) -> None:
    """Programs keep the threads that they were loaded with, so that other numbers are refused while one is loaded."""
    gc.collect()  # sessions of other tests, which keep their threads
    artifact = read_bundle(made / "engine").artifact
    one = ExecuTorchProgram().open_with_threads(artifact, 1)
    again = ExecuTorchProgram().open_with_threads(artifact, 1)
    np.testing.assert_array_equal(one.run(noise(2)), again.run(noise(2)))
    with pytest.raises(UsageError, match="--threads 2: ExecuTorch has one set of threads for a process"):
        ExecuTorchProgram().open_with_threads(artifact, 2)


def test_damaged_programs_are_refused_or_harmless(engine: Path, pytestconfig: pytest.Config) -> None:
    """What the scan lets pass is loaded and run: no file may end the process."""
    rng, content = Random(0), (engine / MODEL).read_bytes()
    loaded = 0
    artifact = read_bundle(engine).artifact
    for _ in range(20_000 if pytestconfig.getoption("--thorough") else 200):
        changed = bytearray(content)
        for _ in range(rng.choice((1, 1, 2, 4))):
            place = rng.randrange(len(changed) - 4)
            changed[place : place + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f", rng.randbytes(4)))
        (engine / MODEL).write_bytes(changed)
        try:
            artifact_scan.inspect(engine / MODEL)
            session = ExecuTorchProgram().open(artifact)
            loaded += 1
            session.describe()
            session.run(noise(2))
        except (BundleError, UsageError):
            pass
    assert loaded
