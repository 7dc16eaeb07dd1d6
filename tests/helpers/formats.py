"""Bundles of every precision for tests of a format, and ways to change them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from helpers.support import run, save_checkpoint, small_spec
from s2mlp_deploy.schema.array import Array

PRECISIONS = ("fp32", "fp16", "int8")


def noise(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 3, 20, 28)).astype(np.float32)


def exported(*arguments: object) -> None:
    ran = run("export", *arguments)
    assert ran.code == 0, ran.err


def make(place: Path, format: str) -> Path:
    """``onnx-P`` of a small checkpoint and ``FORMAT-P``, compiled from it, for each precision P, in ``place``."""
    checkpoint = save_checkpoint(place / "small.pt", small_spec())
    np.save(place / "calibration.npy", noise(64))
    for precision in PRECISIONS:
        options: list[object] = ["--precision", precision]
        if precision == "int8":
            options += ["--calibration", place / "calibration.npy", "--min-agreement", 0.9]
        exported(checkpoint, *options, "-o", place / f"onnx-{precision}")
        exported(place / f"onnx-{precision}", "--format", format, "-o", place / f"{format}-{precision}")
    return place


def manifest_of(bundle: Path) -> dict[str, Any]:
    return dict(json.loads((bundle / "manifest.json").read_text()))


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = manifest_of(bundle)
    change(content)
    (bundle / "manifest.json").write_text(json.dumps(content))


def replace_file(bundle: Path, name: str, content: bytes) -> None:
    """Another file under ``name``, with its hash in the manifest, as if it had been exported so."""
    (bundle / name).write_bytes(content)
    change_manifest(bundle, lambda m: m["files"].update({name: hashlib.sha256(content).hexdigest()}))


def silence(bundle: Path, name: str = "model.onnx") -> None:
    """Let the model called ``name`` say nothing of itself, so that the manifest alone can be wrong."""
    model = onnx.load(bundle / name, load_external_data=False)
    del model.metadata_props[:]
    replace_file(bundle, name, model.SerializeToString())


def promised(bundle: Path) -> dict[str, bytes]:
    """The files that are promised to be the same everywhere, by their names in the manifest."""
    files = [p for p in bundle.rglob("*") if p.is_file() and p.name != "report.json"]
    return {p.relative_to(bundle).as_posix(): p.read_bytes() for p in files}
