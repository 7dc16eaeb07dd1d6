"""One bundle, the same pictures, programs in several languages: the same classes, and logits within the bundle's tolerance."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import browser as browsers
from helpers.browser import Browser
from helpers.support import EXAMPLES, PAPER_CHECKPOINT, TEST_IMAGES, run
from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.read import read_bundle, read_manifest
from s2mlp_deploy.data import images
from s2mlp_deploy.formats import registry
from s2mlp_deploy.schema.array import Array
from s2mlp_exporters.web.exporter import PAGE

APPS = EXAMPLES / "apps"


@pytest.fixture(scope="module")
def bundles(served: Path) -> Path:
    """``fp32`` and ``int8`` of the bundled checkpoint, and pictures for them in ``pictures``."""
    assert run("export", PAPER_CHECKPOINT, "--data", TEST_IMAGES, "-o", served / "fp32").code == 0
    int8 = ("--precision", "int8", "--calibration", TEST_IMAGES, "--data", TEST_IMAGES)
    assert run("export", PAPER_CHECKPOINT, *int8, "-o", served / "int8").code == 0
    (served / "pictures").mkdir()
    for label in range(10):
        file = sorted((TEST_IMAGES / str(label)).iterdir())[1]
        with Image.open(file) as image:
            # Of other sizes and shapes, so that resizing takes part.
            size = (28 + 41 * label, 28 + 17 * (9 - label)) if label % 2 else image.size
            image.convert("RGB").resize(size).save(served / "pictures" / f"{label}.png")
    return served


@pytest.fixture(scope="module")
def pictures(bundles: Path) -> list[Path]:
    return sorted((bundles / "pictures").iterdir())


@pytest.fixture(params=["fp32", "int8"])
def bundle(request: pytest.FixtureRequest, bundles: Path) -> Bundle:
    return read_bundle(bundles / str(request.param))


def hold(bundle: Bundle, pictures: list[Path], found: Array, classes: list[str] | None = None) -> None:
    """Compare ``found`` logits, and each picture's first class, with this project's own way to them."""
    manifest = bundle.manifest
    assert manifest.tolerance and manifest.labels
    session = registry.find(manifest.format).open(bundle.artifact)
    expected = session.run(images.load(pictures, manifest.preprocessing, manifest.spec.image_size))
    assert found.shape == expected.shape == (10, 10)
    distance = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    # Each may be off by the tolerance, in its own direction.
    assert distance.max() <= 2 * manifest.tolerance.relative_l2
    assert (found.argmax(1) == expected.argmax(1)).all() and len(set(expected.argmax(1))) >= 5
    if classes:
        assert classes == [manifest.labels[i] for i in expected.argmax(1)]


def told(ran: subprocess.CompletedProcess[str]) -> tuple[Array, list[str]]:
    """The logits and first classes that a program printed."""
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert all(len(answer["classes"]) == 5 for answer in answers)
    return np.array([answer["logits"] for answer in answers], np.float32), [a["classes"][0] for a in answers]


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(a) for a in arguments], capture_output=True, text=True)


NODE = shutil.which("node")
needs_node = [
    pytest.mark.skipif(not NODE, reason="no Node.js: apt-get install nodejs npm"),
    pytest.mark.npm("onnxruntime-node"),
]
COMMANDS = [
    pytest.param((sys.executable, APPS / "classify.py"), id="python"),
    pytest.param((NODE, APPS / "classify.mjs"), id="node", marks=needs_node),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_program_says_what_this_project_says(
    bundle: Bundle, pictures: list[Path], command: tuple[object, ...]
) -> None:
    logits, classes = told(program(*command, bundle.directory, *pictures, "--json"))
    hold(bundle, pictures, logits, classes)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_program_prints_five_classes_for_people(
    bundles: Path, pictures: list[Path], command: tuple[object, ...]
) -> None:
    ran = program(*command, bundles / "fp32", pictures[8])
    assert ran.returncode == 0 and ran.stdout.splitlines()[0] == str(pictures[8])
    assert len(ran.stdout.splitlines()) == 6 and "%  Bag" in ran.stdout.splitlines()[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_program_refuses_a_changed_model_and_what_it_cannot_feed(
    bundles: Path, pictures: list[Path], tmp_path: Path, command: tuple[object, ...]
) -> None:
    shutil.copytree(bundles / "fp32", tmp_path / "changed")
    with (tmp_path / "changed" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    ran = program(*command, tmp_path / "changed", pictures[0])
    assert ran.returncode == 1 and ran.stdout == "" and "not the file that was exported" in ran.stderr
    assert "Traceback" not in ran.stderr and "    at " not in ran.stderr
    shutil.copytree(bundles / "fp32", tmp_path / "image")
    manifest = json.loads((tmp_path / "image" / "manifest.json").read_text())
    manifest["interface"] = {"input": "image", "output": "top5"}
    (tmp_path / "image" / "manifest.json").write_text(json.dumps(manifest))
    ran = program(*command, tmp_path / "image", pictures[0])
    assert ran.returncode == 1 and "--answer" in ran.stderr and "Traceback" not in ran.stderr


@pytest.mark.parametrize("kind", ["image", "uint8"])
def test_the_python_program_feeds_models_that_take_bytes(
    bundles: Path, pictures: list[Path], tmp_path: Path, kind: str
) -> None:
    """What the model does itself gives the logits of the same model that is given prepared images."""
    ran = run("export", PAPER_CHECKPOINT, "--data", TEST_IMAGES, "--input", kind, "-o", tmp_path / kind)
    assert ran.code == 0, ran.err
    logits, classes = told(program(sys.executable, APPS / "classify.py", tmp_path / kind, *pictures, "--json"))
    hold(read_bundle(bundles / "fp32"), pictures, logits, classes)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_program_switches_telemetry_off_before_it_loads_the_runtime(
    command: tuple[object, ...], bundles: Path, pictures: list[Path], tmp_path: Path
) -> None:
    """A runtime that looks when it is loaded, as ONNX Runtime does, finds the switch."""
    program_file = Path(str(command[1]))
    text = program_file.read_text("utf-8")
    loads = text.index('import("onnxruntime-node")' if program_file.suffix == ".mjs" else "\nimport onnxruntime")
    assert text.index("ORT_DISABLE_TELEMETRY") < loads
    around = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    around |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [*map(str, command), bundles / "fp32", pictures[0]], env=around, capture_output=True, check=True
    )
    assert done.stdout and not [f for f in tmp_path.rglob("*") if f.is_file()]


def test_the_page_is_not_served_from_a_folder_that_is_not_there(tmp_path: Path) -> None:
    for wrong in (tmp_path / "nowhere", Path(__file__)):
        ran = program(sys.executable, PAGE / "serve.py", wrong, "--port", 0)
        assert ran.returncode == 2 and ran.stdout == "" and f"{wrong} is no folder" in ran.stderr


def test_the_python_program_prepares_pictures_in_every_way(bundles: Path, tmp_path: Path) -> None:
    """Each way of resizing against the project's own, to the last bit."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("classify", APPS / "classify.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    prepare: Callable[..., Array] = module.prepare
    base = read_manifest(bundles / "fp32").preprocessing
    rng = np.random.default_rng(5)
    for resize in ("shorter", "shorter-then-crop", "squash"):
        for shape in ((31, 200), (200, 31), (28, 28), (5, 9)):
            Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(tmp_path / "a.png")
            way = base.model_copy(update={"resize": resize, "crop_fraction": 0.8, "interpolation": "lanczos"})
            expected = images.prepare(tmp_path / "a.png", way, (20, 28))
            told_so = {"preprocessing": way.model_dump(mode="json"), "spec": {"image_size": (20, 28)}}
            prepared = prepare(tmp_path / "a.png", {**told_so, "interface": {"input": "float"}})
            assert prepared.tobytes() == expected.tobytes()


@pytest.mark.skipif(browsers.lacking() is not None, reason=browsers.lacking() or "")
@pytest.mark.npm("onnxruntime-web")
def test_a_browser_says_what_this_project_says(
    browser: Browser, bundles: Path, bundle: Bundle, pictures: list[Path]
) -> None:
    if not (bundles / "site").exists():
        assert run("export", bundles / "fp32", "--format", "web", "-o", bundles / "site").code == 0
    visit = browser.look("site/?threads=1")
    path = f"../{bundle.directory.name}"
    hold(bundle, pictures, np.stack([visit.logits(path, file.read_bytes()) for file in pictures]))


def test_openvino_says_what_this_project_says(bundle: Bundle, pictures: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    assert run("export", bundle.directory, "--format", "openvino", "-o", tmp_path / "ir").code == 0
    ir = read_bundle(tmp_path / "ir")
    session = registry.find("openvino").open(ir.artifact)
    hold(bundle, pictures, session.run(images.load(pictures, ir.manifest.preprocessing, ir.manifest.spec.image_size)))


@pytest.mark.skipif("ORT_HOME" not in os.environ, reason="ORT_HOME does not say where ONNX Runtime's C++ headers are")
def test_the_cpp_program_says_what_this_project_says(bundles: Path, pictures: list[Path], tmp_path: Path) -> None:
    home = Path(os.environ["ORT_HOME"])
    flags = ["-std=c++17", "-O2", f"-I{home}/include", f"-L{home}/lib", "-lonnxruntime", f"-Wl,-rpath,{home}/lib"]
    built = program("g++", APPS / "classify.cpp", *flags, "-o", tmp_path / "classify")
    assert built.returncode == 0, built.stderr
    labels = read_manifest(bundles / "fp32").labels
    assert labels
    for picture in pictures:
        with Image.open(picture) as image:
            image.save(tmp_path / "picture.ppm")
        ran = program(tmp_path / "classify", bundles / "fp32", tmp_path / "picture.ppm")
        logits, _ = told(program(sys.executable, APPS / "classify.py", bundles / "fp32", picture, "--json"))
        assert ran.returncode == 0 and ran.stdout.splitlines()[0].endswith(f"  {labels[logits[0].argmax()]}")
