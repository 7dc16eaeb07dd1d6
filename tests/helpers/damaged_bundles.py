"""Changes of a bundle that its hashes follow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

from s2mlp_deploy.bundle.contents import MANIFEST
from s2mlp_deploy.system.hashing import sha256

MODEL = "model.onnx"


def rehash(directory: Path, change: Callable[[dict[str, Any]], object] = lambda m: None) -> None:
    """Make the manifest agree with the files, after ``change``."""
    path = directory / MANIFEST
    content = json.loads(path.read_bytes())
    content["files"] = {name: sha256(directory / name) for name in content["files"]}
    change(content)
    path.write_text(json.dumps(content))


def alter_weight(directory: Path, name: str, *, by: float = 0.05) -> None:
    """Add ``by`` to one element of the initializer called ``name``; golden tensors go stale, hashes agree."""
    model = onnx.load(directory / MODEL)
    (initializer,) = (i for i in model.graph.initializer if i.name == name)
    values = numpy_helper.to_array(initializer).copy()
    values.flat[values.size // 2] += by
    initializer.CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(model, directory / MODEL)
    rehash(directory)
