"""The same checkpoint, options and versions give the same bytes, whatever the process around them."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from exporters.web_site import DIST
from s2mlp_deploy.artifact import REPORT, SBOM
from s2mlp_deploy.spec import DIRECTIONS, Shift
from support import PAPER_CHECKPOINT, ROOT, TEST_IMAGES, save_checkpoint, small_spec

EXPORT = """
import json
import sys
from s2mlp_deploy import cli

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["s2mlp-export", *arguments]
    try:
        cli.export_main()
    except SystemExit as stop:
        if stop.code:
            raise
"""
"""One process makes several bundles, so that torch is loaded only once."""

INT8 = ["small.pt", "--precision", "int8", "--calibration", "calibration.npy", "--min-agreement", "0.9"]
EXPORTS = {
    "example": [str(PAPER_CHECKPOINT), "--data", str(TEST_IMAGES), "--data-count", "20"],
    "dynamic": ["small.pt", "--dynamic-size", "--shift", "slice", "--shift-semantics", "inplace"],
    "eight": ["small.pt", "--shift-directions", "8", "--batch", "3", "--shift", "gather", "--sbom"],
    "conv": ["small.pt", "--shift", "conv", "--mean", "0.1,0.2,0.3", "--std", "1,2,3"],
    "int8": [*INT8, "--target", "arm"],
    "ort": ["small.pt", "--format", "ort", "--shift-directions", "8"],
    "ort int8": [*INT8, "--format", "ort"],
    "ort, optimized onnx": ["small.pt", "--format", "ort", "--ort-style", "onnx", "--batch", "3"],
    "ort from a bundle": ["example", "--format", "ort", "--sbom"],
    "openvino": ["small.pt", "--format", "openvino", "--dynamic-size"],
    "openvino fp16": ["small.pt", "--format", "openvino", "--precision", "fp16", "--batch", "3"],
    "openvino int8": [*INT8, "--format", "openvino"],
    "openvino from a bundle": ["example", "--format", "openvino"],
    "triton": ["small.pt", "--format", "triton", "--dynamic-size", "--shift", "pad"],
    "web": ["small.pt", "--format", "web", "--batch", "2", "--sbom"],
    "trt-rtx": ["small.pt", "--format", "trt-rtx", "--allow-unverified-engine", "--batch", "1:2:4"],
    "trt-rtx int8": [*INT8, "--format", "trt-rtx", "--allow-unverified-engine"],
}
NEEDED = {"web": (ROOT / DIST).is_dir(), "trt-rtx": find_spec("tensorrt_rtx") is not None}
"""What some need that is not everywhere."""

EXPORTS = {name: options for name, options in EXPORTS.items() if NEEDED.get(name.partition(" ")[0], True)}
BESIDE = {"model.ort": ["required_operators.config"], "model.xml": ["model.bin"], "1/model.onnx": ["config.pbtxt"]}
"""The files that an artifact comes with."""

ENVIRONMENTS = {
    "a": {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
    "some other, deeper/directory": {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "2", "TZ": "Asia/Kolkata"},
    "c": {"PYTHONHASHSEED": "random", "LANG": "C", "LC_ALL": "C", "HOME": "/nonexistent", "COLUMNS": "31"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A directory for each environment, with the bundle of each export in it."""
    root = tmp_path_factory.mktemp("runs")
    checkpoint = save_checkpoint(root / "small.pt", small_spec(shift=Shift(DIRECTIONS["8"])))
    images = np.random.default_rng(0).standard_normal((64, 3, 20, 28)).astype(np.float32)
    directories = []
    for place, variables in ENVIRONMENTS.items():
        directory = root / place
        directory.mkdir(parents=True)
        shutil.copyfile(checkpoint, directory / "small.pt")
        np.save(directory / "calibration.npy", images)
        arguments = json.dumps([[*options, "-o", name] for name, options in EXPORTS.items()])
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", EXPORT, arguments],
            cwd=directory, env={**os.environ, **variables}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        directories.append(directory)
    return directories


def files_of(bundle: Path) -> dict[str, bytes]:
    """The files that are promised to be the same everywhere."""
    files = [p for p in bundle.rglob("*") if p.is_file() and p.name != REPORT]
    return {p.relative_to(bundle).as_posix(): p.read_bytes() for p in files}


@pytest.mark.parametrize("name", EXPORTS)
def test_every_process_directory_hash_seed_and_thread_count_gives_the_same_bytes(runs: list[Path], name: str) -> None:
    first, *others = (files_of(directory / name) for directory in runs)
    manifest = json.loads(first["manifest.json"])
    assert first.keys() == {"manifest.json", *manifest["files"]}
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
        assert [file for file in first if first[file] != other.get(file)] == []
        assert first.keys() == other.keys()


@pytest.mark.parametrize("name", EXPORTS)
def test_no_file_tells_where_when_or_on_which_machine_it_was_made(runs: list[Path], name: str) -> None:
    where = [str(runs[0]), str(ROOT), str(Path.home()), sys.prefix, "/tmp/", "small.pt", PAPER_CHECKPOINT.name]
    host = socket.gethostname()
    telling = [w.encode() for w in (*where, *([host] if len(host) > 5 else [])) if len(w) > 4]
    for file, content in files_of(runs[0] / name).items():
        assert [w for w in telling if w in content] == [], file
        assert re.search(rb"20\d\d-[01]\d-[0-3]\d|[0-2]\d:[0-5]\d:[0-5]\d", content) is None, file


def test_different_exports_differ(runs: list[Path]) -> None:
    files = [files_of(runs[0] / name) for name in EXPORTS]
    models = [content[json.loads(content["manifest.json"])["artifact"]] for content in files]
    assert len(set(models)) == len(models)
