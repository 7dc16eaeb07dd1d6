"""The files of an .mlpackage, which is a directory: a table of contents, the program, and its weights.

Core ML's own writer draws the identifiers in the table of contents anew each time; these are fixed.
"""

from __future__ import annotations

import json
from pathlib import Path

PACKAGE = "model.mlpackage"
_DATA = f"{PACKAGE}/Data"
_AUTHOR = "com.apple.CoreML"

CONTENTS = f"{PACKAGE}/Manifest.json"
PROGRAM = f"{_DATA}/{_AUTHOR}/model.mlmodel"
WEIGHTS = f"{_DATA}/{_AUTHOR}/weights/weight.bin"
FILES = (CONTENTS, PROGRAM, WEIGHTS)
"""In a bundle; the table of contents first."""

WEIGHTS_IN_PROGRAM = "@model_path/weights/weight.bin"
"""The name of the weights' file in the program."""

_MODEL_ID, _WEIGHTS_ID = "32d96a52-1c2e-5f53-9b7f-2f3d1d5d0a01", "32d96a52-1c2e-5f53-9b7f-2f3d1d5d0a02"


def contents() -> bytes:
    """The table of contents, which is the same in every package."""
    items = {
        _MODEL_ID: ("CoreML Model Specification", "model.mlmodel"),
        _WEIGHTS_ID: ("CoreML Model Weights", "weights"),
    }
    table = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            identifier: {"author": _AUTHOR, "description": text, "name": name, "path": f"{_AUTHOR}/{name}"}
            for identifier, (text, name) in items.items()
        },
        "rootModelIdentifier": _MODEL_ID,
    }
    return (json.dumps(table, indent=4) + "\n").encode()


def others(directory: Path) -> list[str]:
    """The files, links and directories in the package in ``directory`` that none has, by name from there."""
    known = {*FILES} | {parent.as_posix() for name in FILES for parent in Path(name).parents}
    return sorted(
        name
        for path in (directory / PACKAGE).rglob("*")
        if (name := path.relative_to(directory).as_posix()) not in known
        or path.is_symlink()
        or path.is_file() != (name in FILES)
    )
