"""The same checkpoint, options and versions give the same bytes

Every file of a bundle but `report.json`, which holds measurements, is the same to the last byte, whatever the process around
the export: its directory, the checkpoint's file name, hash seed, number of threads and cores, locale, time zone, umask, and the
order in which a folder lists its images; in another virtual environment, too. The wheel and the source distribution are built
reproducibly as well.

Engines of TensorRT for RTX are the exception: some hundred bytes differ now and then from build to build, and with them their hash in
the manifest. And these follow the kind of processor: the limit for float32 in `manifest.json` (`tolerance`), since it is eight times
PyTorch's own distance from the reference, measured where the export ran; and at int8 the ranges of activations and the answers in
`golden.safetensors` that the int8 graph itself gave, since ONNX Runtime computes them with the instructions that are there. On all kinds that were
tried, the models were the same at every precision, and so were the reference's logits.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from helpers import npm
from helpers.reliability import building
from helpers.reliability.record import Trials
from helpers.support import PAPER_CHECKPOINT, ROOT, TEST_IMAGES, save_checkpoint, small_spec
from s2mlp_deploy.bundle.contents import REPORT, SBOM
from s2mlp_deploy.schema.shift import DIRECTIONS, Shift

pytestmark = pytest.mark.npm()

EXPORT = """
import json
import sys
from s2mlp_deploy.cli import export

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["s2mlp-export", *arguments]
    try:
        export.main()
    except SystemExit as stop:
        if stop.code:
            raise
"""
"""One process makes several bundles, so that torch is loaded only once."""

SMALL = "small.pt"
INT8 = [SMALL, "--precision", "int8", "--calibration", "calibration.npy", "--min-agreement", "0.9"]
EXPORTS = {
    "example": [str(PAPER_CHECKPOINT), "--data", str(TEST_IMAGES), "--data-count", "20"],
    "dynamic": [SMALL, "--dynamic-size", "--shift", "slice", "--shift-semantics", "inplace"],
    "eight": [SMALL, "--shift-directions", "8", "--batch", "3", "--shift", "gather", "--sbom"],
    "conv": [SMALL, "--shift", "conv", "--mean", "0.1,0.2,0.3", "--std", "0.1,0.2,0.3"],
    "int8": [*INT8, "--target", "arm"],
    "int8 of a folder": [
        str(PAPER_CHECKPOINT),
        "--precision",
        "int8",
        "--calibration",
        "images",
        "--min-agreement",
        "0.9",
    ],
    "image": [str(PAPER_CHECKPOINT), "--golden-images", "images", "--input", "image", "--answer", "top5"],
    "ort": [SMALL, "--format", "ort", "--shift-directions", "8"],
    "ort int8": [*INT8, "--format", "ort"],
    "ort, optimized onnx": [SMALL, "--format", "ort", "--ort-style", "onnx", "--batch", "3"],
    "ort from a bundle": ["example", "--format", "ort", "--sbom"],
    "openvino": [SMALL, "--format", "openvino", "--dynamic-size"],
    "openvino fp16": [SMALL, "--format", "openvino", "--precision", "fp16", "--batch", "3"],
    "openvino int8": [*INT8, "--format", "openvino"],
    "openvino from a bundle": ["example", "--format", "openvino"],
    "litert": [SMALL, "--format", "litert", "--precision", "int8w", "--sbom"],
    "litert int8 alone": [*INT8, "--format", "litert", "--target", "litert-micro"],
    "coreml": [SMALL, "--format", "coreml", "--precision", "int8w", "--allow-unverified-engine", "--sbom"],
    "triton": [SMALL, "--format", "triton", "--dynamic-size", "--shift", "pad"],
    "web": [SMALL, "--format", "web", "--batch", "2", "--sbom", "--ort-web", str(npm.WEB)],
    "trt-rtx": [SMALL, "--format", "trt-rtx", "--allow-unverified-engine", "--batch", "1:2:4"],
    "trt-rtx int8": [*INT8, "--format", "trt-rtx", "--allow-unverified-engine"],
}
NEEDED = {
    "web": npm.has("onnxruntime-web"),
    "trt-rtx": find_spec("tensorrt_rtx") is not None,
    "litert": find_spec("ai_edge_litert") is not None,
    "coreml": find_spec("coremltools") is not None,
}
"""What some need that is not everywhere."""

EXPORTS = {name: options for name, options in EXPORTS.items() if NEEDED.get(name.partition(" ")[0], True)}
ENGINE = "model.plan"
"""What TensorRT builds."""

_MLPACKAGE = "model.mlpackage/Data/com.apple.CoreML"
BESIDE = {
    "model.ort": ["required_operators.config"],
    "model.xml": ["model.bin"],
    "1/model.onnx": ["config.pbtxt"],
    "model.mlpackage/Manifest.json": [f"{_MLPACKAGE}/model.mlmodel", f"{_MLPACKAGE}/weights/weight.bin"],
}
"""The files that an artifact comes with."""


@dataclass(frozen=True)
class Surroundings:
    """What is around a process that exports: ``cores`` are how many it may use, ``backwards`` the order in which its images were made."""

    place: str
    variables: Mapping[str, str] = field(default_factory=dict)
    checkpoint: str = SMALL
    umask: int = 0o022
    cores: int | None = None
    backwards: bool = False
    command: Sequence[str] = (sys.executable, "-W", "error")

    def make(self, root: Path, checkpoint: Path, exports: Mapping[str, Sequence[str]]) -> Path:
        """Run ``exports`` of ``checkpoint`` in a directory below ``root``, which then holds a bundle for each."""
        directory = root / self.place
        (directory / "images").mkdir(parents=True)
        shutil.copyfile(checkpoint, directory / self.checkpoint)
        np.save(
            directory / "calibration.npy", np.random.default_rng(0).standard_normal((64, 3, 20, 28)).astype(np.float32)
        )
        pictures = sorted(TEST_IMAGES.rglob("*.png"))[::2]
        for picture in reversed(pictures) if self.backwards else pictures:
            shutil.copyfile(picture, directory / "images" / f"{picture.parent.name}-{picture.name}")
        arguments = [
            [self.checkpoint if word == SMALL else word for word in (*options, "-o", name)]
            for name, options in exports.items()
        ]
        cores = sorted(os.sched_getaffinity(0))[: self.cores]

        def start() -> None:
            os.umask(self.umask)
            os.sched_setaffinity(0, cores)

        done = subprocess.run(
            [*self.command, "-c", EXPORT, json.dumps(arguments)],
            cwd=directory,
            env={**os.environ, **self.variables},
            capture_output=True,
            text=True,
            preexec_fn=start,
        )
        assert done.returncode == 0, done.stderr
        return directory


FEW = (
    Surroundings(
        "a", {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "LANG": "C", "LC_ALL": "C", "COLUMNS": "31"}, cores=1
    ),
    Surroundings(
        "some other, deeper/directory – Größe",
        {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "2", "TZ": "Asia/Kolkata"},
        checkpoint="Ünder another näme.pt",
        umask=0o077,
        backwards=True,
    ),
)
MORE = (
    Surroundings("c", {"PYTHONHASHSEED": "random", "OMP_NUM_THREADS": "3"}, umask=0),
    *(Surroundings(f"threads-{n}", {"OMP_NUM_THREADS": str(n), "MKL_NUM_THREADS": str(n)}) for n in (4, 7, 16)),
    *(
        Surroundings(f"zone-{i}", {"TZ": zone})
        for i, zone in enumerate(("Pacific/Kiritimati", "America/St_Johns", "UTC0"))
    ),
    *(
        Surroundings(f"locale-{name}", {"LC_ALL": name, "LANG": name})
        for name in ("C.UTF-8", "POSIX", "tr_TR.UTF-8", "de_DE.UTF-8")
    ),
    *(Surroundings(f"seed-{n}", {"PYTHONHASHSEED": str(n)}, backwards=bool(n % 2)) for n in range(2, 8)),
    Surroundings("utf8-off", {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}),
    Surroundings("optimized", {"PYTHONOPTIMIZE": "2", "PYTHONDONTWRITEBYTECODE": "1"}),
    Surroundings("malloc", {"MALLOC_PERTURB_": "165", "PYTHONMALLOC": "malloc"}),
)
PROCESSORS = {
    "PyTorch without AVX2": {"ATEN_CPU_CAPABILITY": "default"},
    "oneDNN with AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "PyTorch with AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "MKL as on any processor": {"MKL_CBWR": "COMPATIBLE"},
    "MKL with SSE4.2": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "NumPy without AVX2": {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4"},
}
"""Other kinds of processor, as far as libraries can be told to see one."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("small") / SMALL, small_spec(shift=Shift(DIRECTIONS["8"])))


@pytest.fixture(scope="module")
def runs(small: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A directory for each of a few surroundings, with the bundle of each export in it."""
    root = tmp_path_factory.mktemp("runs")
    return [around.make(root, small, EXPORTS) for around in FEW]


def files_of(bundle: Path) -> dict[str, bytes]:
    """Every file of a bundle but the measurements."""
    files = [p for p in bundle.rglob("*") if p.is_file() and p.name != REPORT]
    return {p.relative_to(bundle).as_posix(): p.read_bytes() for p in files}


def promised(bundle: Path) -> dict[str, bytes]:
    """The files that are promised to be the same everywhere: all but engines."""
    files = files_of(bundle)
    if engine := files.pop(ENGINE, None):
        files["manifest.json"] = files["manifest.json"].replace(hashlib.sha256(engine).hexdigest().encode(), b"")
    return files


def differences(one: Path, other: Path) -> list[str]:
    """The files of two bundles that are not the same; an engine, and its hash in the manifest, may differ."""
    first, second = (promised(bundle) for bundle in (one, other))
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


@pytest.mark.parametrize("name", EXPORTS)
def test_whatever_the_process_around_it(runs: list[Path], name: str, trials: Trials) -> None:
    """Each format and precision in processes with another directory, file name, hash seed, core and thread count, locale, umask and file order."""
    first, *others = runs
    manifest = json.loads((first / name / "manifest.json").read_bytes())
    assert files_of(first / name).keys() == {"manifest.json", *manifest["files"]}
    assert manifest["files"].keys() == {
        "golden.safetensors",
        manifest["artifact"],
        *BESIDE.get(manifest["artifact"], []),
        *manifest["graph"],
        *(manifest["engine"]["page"] + manifest["engine"]["runtime_files"] if name == "web" else []),
        *([SBOM] if "--sbom" in EXPORTS[name] else []),
        *(image["file"] for image in manifest["golden_images"]),
    }
    for other in others:
        assert differences(first / name, other / name) == []
        trials.tried("bundles compared")
    if ENGINE in manifest["files"]:
        engines = {(place / name / ENGINE).read_bytes() for place in runs}
        trials.note(f"{name}: {len(engines)} different engines of {len(runs)}; all else is the same")


@pytest.mark.parametrize("around", MORE, ids=lambda around: around.place)
def test_more_surroundings(around: Surroundings, runs: list[Path], small: Path, tmp_path: Path, trials: Trials) -> None:
    """The same exports in many more surroundings: up to 16 threads, time zones, locales, hash seeds, memory that is not zero."""
    if not trials.thorough:
        pytest.skip("only with --thorough: takes a minute each")
    made = around.make(tmp_path, small, EXPORTS)
    assert {name: found for name in EXPORTS if (found := differences(runs[0] / name, made / name))} == {}
    trials.tried("bundles compared", len(EXPORTS))


@pytest.mark.parametrize("kind", PROCESSORS)
def test_other_processors(kind: str, runs: list[Path], small: Path, tmp_path: Path, trials: Trials) -> None:
    """PyTorch, oneDNN, MKL and NumPy are told that the processor lacks instructions: nothing differs but the float32 limit."""
    exports = {name: EXPORTS[name] for name in ("example", "dynamic", "int8", "image")}
    if not trials.thorough:
        if kind != "PyTorch without AVX2":
            pytest.skip("only with --thorough")
        exports = {"example": EXPORTS["example"]}
    made = Surroundings("processor", PROCESSORS[kind]).make(tmp_path, small, exports)
    for name in exports:
        assert differences(runs[0] / name, made / name) in ([], ["manifest.json"])
        one, other = (json.loads((place / name / "manifest.json").read_bytes()) for place in (runs[0], made))
        limits = one.pop("tolerance"), other.pop("tolerance")
        assert one == other
        trials.tried("bundles compared")
        if limits[0] != limits[1]:
            trials.note(f"limit of {name}: {limits[0]['relative_l2']:g} here, {limits[1]['relative_l2']:g} with {kind}")


@pytest.mark.parametrize("name", EXPORTS)
def test_no_file_tells_where_when_or_on_which_machine_it_was_made(runs: list[Path], name: str) -> None:
    where = [str(runs[0]), str(ROOT), str(Path.home()), sys.prefix, "/tmp/", "small.pt", PAPER_CHECKPOINT.name]
    host = socket.gethostname()
    telling = [w.encode() for w in (*where, *([host] if len(host) > 5 else [])) if len(w) > 4]
    for file, content in files_of(runs[0] / name).items():
        assert [w for w in telling if w in content] == [], file
        assert re.search(rb"20\d\d-[01]\d-[0-3]\d|[0-2]\d:[0-5]\d:[0-5]\d", content) is None, file


def test_programs_for_executorch(small: Path, tmp_path: Path, trials: Trials) -> None:
    """Programs for ExecuTorch, whose lowering takes seconds, with their golden tensors in a second file."""
    if not trials.thorough:
        pytest.skip("only with --thorough: takes a minute")
    pytest.importorskip("executorch", reason="needs ExecuTorch")
    to = ("--format", "executorch", "--bundled-program")
    exports = {"fp32": [SMALL, *to], "int8w": [SMALL, *to, "--precision", "int8w"], "int8": [*INT8, *to]}
    one, other = (around.make(tmp_path, small, exports) for around in FEW)
    assert {name: found for name in exports if (found := differences(one / name, other / name))} == {}
    trials.tried("bundles compared", len(exports))


def test_different_exports_differ(runs: list[Path]) -> None:
    files = [files_of(runs[0] / name) for name in EXPORTS]
    models = [content[json.loads(content["manifest.json"])["artifact"]] for content in files]
    assert len(set(models)) == len(models)


def test_an_emulated_processor(runs: list[Path], small: Path, tmp_path: Path, trials: Trials) -> None:
    """A processor of 2013, without AVX-512 and VNNI, is emulated (qemu): nothing differs but the float32 limit and what int8 answered."""
    if not trials.thorough:
        pytest.skip("only with --thorough: takes minutes")
    emulator = shutil.which("qemu-x86_64")
    if not emulator:
        pytest.skip("no qemu-x86_64: apt-get install qemu-user")
    exports = {name: EXPORTS[name] for name in ("conv", "int8")}
    emulated = Surroundings("old", {"OMP_NUM_THREADS": "1"}, command=(emulator, "-cpu", "Haswell", sys.executable))
    made = emulated.make(tmp_path, small, exports)
    for name in exports:
        one, other = (json.loads((place / name / "manifest.json").read_bytes()) for place in (runs[0], made))
        different = differences(runs[0] / name, made / name)
        assert {*different} <= {"manifest.json", *(["golden.safetensors"] if name == "int8" else [])}
        for manifest in (one, other):
            del manifest["tolerance"], manifest["files"]["golden.safetensors"]
        assert one == other
        trials.tried("bundles compared")
        trials.note(f"{name}: {', '.join(different) or 'nothing'} differs")


# Distributions


def test_the_wheel_and_the_source_distribution(tmp_path: Path, trials: Trials) -> None:
    """Both are built from copies of the sources with another directory, file order, times, modes and hash seed; the wheel also from the source distribution."""
    built = [building.build(tmp_path / str(turn), turn) for turn in range(trials.times(2, 10))]
    for made in built:
        assert made.wheel.read_bytes() == built[0].wheel.read_bytes()
        assert made.sdist.read_bytes() == built[0].sdist.read_bytes()
    again = building.wheel_of(built[0].sdist, tmp_path / "again")
    assert again.read_bytes() == built[0].wheel.read_bytes()
    trials.tried("builds", len(built) + 1)


@pytest.mark.parametrize("python", ["this one", "3.12", "3.13"])
def test_another_virtual_environment(
    python: str, runs: list[Path], small: Path, tmp_path: Path, trials: Trials
) -> None:
    """The wheel is installed with the same versions into empty virtual environments, by this Python and others, and exports there, without the sources."""
    if not trials.thorough:
        pytest.skip("only with --thorough: installs PyTorch")
    command = sys.executable if python == "this one" else building.interpreter(python)
    if not command:
        pytest.skip(f"no Python {python}")
    wheel = building.build(tmp_path / "dist", 0).wheel
    try:
        fresh = building.environment(command, tmp_path / "other environment", f"{wheel}[export,openvino,sbom]")
    except building.NotToBeHadError:
        if command == sys.executable:
            raise
        pytest.skip(f"the same versions are not to be had for Python {python} here")
    exports = {name: options for name, options in EXPORTS.items() if "trt-rtx" not in name}
    made = Surroundings("venv", {"PYTHONPATH": ""}, command=(str(fresh),)).make(tmp_path, small, exports)
    assert {name: found for name in exports if (found := differences(runs[0] / name, made / name))} == {}
    trials.tried("bundles compared", len(exports))
    shutil.rmtree(fresh.parent.parent)
