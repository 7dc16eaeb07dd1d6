"""Tests that any format must pass, run by pytest through the commands, as its users run it.

The package of a format has them with three lines in a module of its tests::

    from s2mlp_deploy.formats.conformance import FormatConformance

    class TestMyFormat(FormatConformance):
        format = "my-format"
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from s2mlp_deploy.bundle.contents import GOLDEN, MANIFEST, REPORT
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.base import Compiler
from s2mlp_deploy.schema.precision import PRECISIONS

_OF_ARTIFACT = ("format", "engine", "versions", "artifact", "graph", "files")
"""The fields of a manifest that may differ between an artifact and the ONNX bundle that it is compiled from."""


class FormatConformance:
    """The tests; a subclass whose name begins with ``Test`` names the format. They need torch, for a checkpoint to export."""

    format: str

    def run(self, command: str, *arguments: object) -> int:
        """The exit code of ``s2mlp-COMMAND`` with ``arguments``."""
        words = [sys.executable, "-m", "s2mlp_deploy", command, *map(str, arguments)]
        return subprocess.run(words, check=False).returncode

    def test_every_option_has_a_default_and_a_description(self) -> None:
        """So that ``--format`` alone is enough, and ``--help`` says what an option does."""
        model = registry.find(self.format).options
        assert not model().given and all(field.description for field in model.model_fields.values())

    def test_an_export_verifies_and_is_the_same_twice(self, tmp_path: Path) -> None:
        """The same bytes, the report apart; the versions that decide them stand in the manifest."""
        first, second = self._export(tmp_path, "first"), self._export(tmp_path, "second")
        assert _contents(first) == _contents(second)
        assert self.run("verify", first) == 0
        versions = registry.find(self.format).versions()
        assert versions.items() <= read_bundle(first).manifest.versions.items()

    def test_from_the_onnx_bundle_of_a_checkpoint_it_is_the_same(self, tmp_path: Path) -> None:
        """At each precision every byte, the report apart; golden tensors and the facts about the graph are the ONNX bundle's."""
        import pytest

        target = registry.find(self.format)
        if not isinstance(target, Compiler):
            pytest.skip("the format is written from the checkpoint alone")
        self._export(tmp_path, "checked")  # skips what cannot run here
        np.save(tmp_path / "noise.npy", np.random.default_rng(0).standard_normal((64, 3, 20, 28), np.float32))
        for precision in target.precisions:
            options: list[object] = ["--precision", precision]
            if PRECISIONS[precision].targets:  # the ONNX bundle is to be for the processor that the format is for
                options += ["--target", target.targets_of(PRECISIONS[precision])[0]]
            if PRECISIONS[precision].calibrated:
                options += ["--calibration", tmp_path / "noise.npy", "--min-agreement", 0.9]
            onnx, direct, compiled = (tmp_path / f"{kind}-{precision}" for kind in ("onnx", "direct", "compiled"))
            for arguments in (
                (_checkpoint(tmp_path), *options, "-o", onnx),
                (_checkpoint(tmp_path), *options, "--format", self.format, "-o", direct),
                (onnx, "--format", self.format, "-o", compiled),
            ):
                assert self.run("export", *arguments) == 0
            assert _contents(direct) == _contents(compiled)
            assert (direct / GOLDEN).read_bytes() == (onnx / GOLDEN).read_bytes()
            own, graph = (json.loads((bundle / MANIFEST).read_text("utf-8")) for bundle in (direct, onnx))
            assert {key for key in graph if own[key] != graph[key]} <= {*_OF_ARTIFACT}
            assert graph["versions"].items() <= own["versions"].items()

    def test_a_damaged_record_of_the_artifact_is_refused(self, tmp_path: Path) -> None:
        """With a field too many, or none at all; a format without a record has nothing to damage."""
        bundle = self._export(tmp_path, "bundle")
        manifest = (bundle / MANIFEST).read_text("utf-8")
        record = json.loads(manifest)["engine"]
        for damaged in ({**record, "no_such_field": True}, {}, None) if record else ():
            (bundle / MANIFEST).write_text(json.dumps({**json.loads(manifest), "engine": damaged}), "utf-8")
            assert self.run("verify", bundle) == 3, f"the record of the artifact was {damaged}"

    def test_the_artifact_runs_whether_or_not_threads_are_chosen(self, tmp_path: Path) -> None:
        """As it is timed: without busy waiting, on the threads that the runtime chooses."""
        bundle = read_bundle(self._export(tmp_path, "bundle"))
        session = registry.find(self.format).open_with_threads(bundle.artifact, None)
        images = np.random.default_rng(0).standard_normal((1, 3, 20, 28), np.float32)
        logits = session.run(images)
        assert logits.shape == (1, bundle.manifest.classifier.classes) and np.isfinite(logits).all()

    def test_a_file_that_was_changed_is_refused(self, tmp_path: Path) -> None:
        """Each by its hash; and by inspection, with a manifest that has the hash of what lies there, before anything loads it."""
        bundle = self._export(tmp_path, "bundle")
        artifact = read_bundle(bundle).artifact
        for name in read_bundle(bundle).manifest.files:
            content = (bundle / name).read_bytes()
            (bundle / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            assert self.run("verify", bundle) == 3, f"a byte of {name} was changed"
            (bundle / name).write_bytes(content)
        for name in (artifact.main, *artifact.graph[:1]):
            content, manifest = (bundle / name).read_bytes(), (bundle / MANIFEST).read_text("utf-8")
            (bundle / name).write_bytes(b"foreign")
            changed: dict[str, Any] = json.loads(manifest)
            changed["files"][name] = hashlib.sha256(b"foreign").hexdigest()
            (bundle / MANIFEST).write_text(json.dumps(changed), "utf-8")
            assert self.run("verify", bundle) == 3, f"{name} was changed, and its hash with it"
            (bundle / name).write_bytes(content)
            (bundle / MANIFEST).write_text(manifest, "utf-8")

    def test_an_option_that_it_does_not_have_is_refused(self, tmp_path: Path) -> None:
        """By name, and nothing is written."""
        arguments = (_checkpoint(tmp_path), "--format", self.format, "-O", "no_such_option=1", "-o", tmp_path / "out")
        assert self.run("export", *arguments) == 2 and not (tmp_path / "out").exists()

    def _export(self, place: Path, name: str) -> Path:
        """A bundle of a small checkpoint; the test is skipped where this machine cannot make or run the format."""
        import pytest

        target = registry.find(self.format)
        options = target.options()
        reason = target.cannot_compile(options) if isinstance(target, Compiler) else None
        if reason := reason or target.cannot_run(options):
            pytest.skip(reason)
        bundle = place / name
        assert self.run("export", _checkpoint(place), "--format", self.format, "-o", bundle) == 0
        return bundle


def _checkpoint(place: Path) -> Path:
    """A random model of odd sizes, which expose swapped axes."""
    import torch

    from s2mlp_deploy.families.s2mlp.reference import S2MLP
    from s2mlp_deploy.families.s2mlp.spec import single_stage

    path = place / "small.pt"
    if not path.exists():
        torch.manual_seed(0)
        model = S2MLP(single_stage(channels=13, depth=2, patch=4, expansion=3, classes=7, image_size=(20, 28)))
        args = {"img_size": [20, 28], "mean": [0.5] * 3, "std": [0.25] * 3}
        torch.save({"model": model.state_dict(), "args": args}, path)
    return path


def _contents(bundle: Path) -> dict[str, bytes]:
    files = (file for file in bundle.rglob("*") if file.is_file() and file.name != REPORT)
    return {file.relative_to(bundle).as_posix(): file.read_bytes() for file in files}
