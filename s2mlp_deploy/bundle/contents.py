"""The contents of a bundle: a directory with an artifact, its manifest, its golden tensors and a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s2mlp_deploy.bundle.signature import UNSIGNED, Signature
from s2mlp_deploy.schema.manifest import Manifest, Setting

MANIFEST, REPORT, GOLDEN, SBOM = "manifest.json", "report.json", "golden.safetensors", "sbom.cdx.json"


@dataclass(frozen=True)
class Artifact:
    """The files that an exporter wrote into ``directory``: ``main``, and others it needs.

    Files are named as in a manifest: ``model.onnx``, or ``1/model.onnx`` in the directory of a version. ``graph`` are
    files that it does not need: the ONNX model that it was compiled from, to compile it again elsewhere. ``settings``
    are those for compiling and for loading it, as the format defines them; ``report`` holds the figures of its
    compilation, which vary between runs. ``beyond`` are golden cases of sizes that it was not compiled for, as
    requested.
    """

    directory: Path
    main: str
    files: tuple[str, ...]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    graph: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    beyond: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return self.directory / self.main


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose files are those that its manifest lists, unchanged."""

    directory: Path
    manifest: Manifest
    signature: Signature = UNSIGNED

    @property
    def artifact(self) -> Artifact:
        m = self.manifest
        images = (image.file for image in m.golden_images)
        beside = {m.artifact, GOLDEN, SBOM, *m.graph, *images}
        others = tuple(n for n in m.files if n not in beside)
        return Artifact(self.directory, m.artifact, (m.artifact, *others), m.engine or {}, m.graph)

    @property
    def golden(self) -> Path:
        return self.directory / GOLDEN

    @property
    def size_bytes(self) -> int:
        """Size of the artifact, without golden tensors, golden images, SBOM and manifest."""
        return sum((self.directory / name).stat().st_size for name in self.artifact.files)
