"""A distribution with formats of its own, which never existed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from s2mlp_deploy.formats.registry import GROUP

FAKE = '''
"""A format of somebody else: the graph in a file of another name, run by ONNX Runtime."""

import onnx
import onnx_ir as ir
import onnxruntime
from s2mlp_deploy.bundle.contents import Artifact
from s2mlp_deploy.formats.base import Exporter, refuse_other_files
from s2mlp_deploy.formats.options import Options


class Fake(Exporter):
    name = "fake"
    precisions = ("fp32",)
    options = Options
    modules = ("onnxruntime",)
    install_hint = "pip install onnxruntime"
    error = 0.0

    def export(self, lowered, destination):
        (destination / "engine.bin").write_bytes(ir.to_proto(lowered.model).SerializeToString())
        (destination / "tables.json").write_text("{}")
        return Artifact(destination, "engine.bin", ("engine.bin", "tables.json"))

    def inspect(self, bundle):
        refuse_other_files(bundle, "engine.bin", "tables.json")

    def open(self, artifact):
        return Session(artifact.path.read_bytes(), self.error)

    def versions(self):
        return {"fake": "1.0"}


class Wrong(Fake):
    name = "wrong"
    error = 1e-3


class Lossy(Fake):
    name = "lossy"

    def open(self, artifact):
        session = Session(artifact.path.read_bytes(), 0.0)
        session.run = lambda images: Session.run(session, images)[:, :-1]
        return session


class Messy(Fake):
    name = "messy"

    def export(self, lowered, destination):
        (destination / "scratch.tmp").write_text("forgotten")
        return super().export(lowered, destination)


class Session:
    def __init__(self, content, error):
        self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        self._error = error

    def run(self, images):
        return self._session.run(None, {"input": images})[0] * (1 + self._error)
'''


FORMATS = {"fake": "Fake", "wrong": "Wrong", "lossy": "Lossy", "messy": "Messy"}


def install(place: Path, monkeypatch: pytest.MonkeyPatch, source: str = FAKE, **formats: str) -> None:
    """Install a distribution that offers ``formats``, as pip would: modules and their metadata on the path."""
    place.mkdir()
    (place / "fake_engine.py").write_text(source)
    info = place / "fake_engine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-engine\nVersion: 1.0\n")
    points = "\n".join(f"{name} = {target}" for name, target in formats.items())
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{points}\n")
    monkeypatch.syspath_prepend(place)
    monkeypatch.delitem(sys.modules, "fake_engine", raising=False)
