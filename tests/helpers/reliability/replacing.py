"""An old bundle that a new one is to replace, and what is there afterwards, for every format that can be made here."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.bundle.contents import REPORT
from s2mlp_deploy.bundle.read import read_bundle, read_manifest
from s2mlp_deploy.system import workdir

FORMATS = {
    "onnx": [],
    "onnx int8": ["--precision", "int8", "--min-agreement", "0.8"],
    "ort": [],
    "openvino": [],
    "web": [],
    "triton": [],
    "trt-rtx": ["--allow-unverified-engine"],
}
QUICK = ("onnx",)
FEW = ("onnx", "triton")
BUNDLE = "bundle"


@dataclass(frozen=True)
class Case:
    """Two bundles that differ, ``old`` and ``new``, and the arguments that make the new one."""

    arguments: tuple[object, ...]
    old: Path
    new: Path
    seconds: float

    def prepare(self, place: Path, *, replace: bool) -> list[object]:
        """Make ``place`` as it is before the export, and return what is exported how."""
        place.mkdir(parents=True)
        if replace:
            shutil.copytree(self.old, place / BUNDLE)
        return [*self.arguments, "-o", place / BUNDLE, *(["--force"] if replace else [])]

    def judge(self, place: Path, *, replace: bool) -> str:
        """What is at ``place`` after the next export has begun: ``old``, ``new`` or ``nothing``; all else is a failure."""
        workdir.sweep(place)
        names = sorted(os.listdir(place))
        if not names and not replace:
            return "nothing"
        assert names == [BUNDLE], names
        found = read_bundle(place / BUNDLE).manifest.source  # all files are there, and as they were written
        json.loads((place / BUNDLE / REPORT).read_bytes())
        return next(w for w, b in (("old", self.old), ("new", self.new)) if read_manifest(b).source == found)
