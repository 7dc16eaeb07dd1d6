"""The inspection of ONNX files refuses by itself each that could do more than compute, before any runtime would."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.reliability.hostile_bundles import GRAPHS
from helpers.support import run
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.formats import onnx_scan


def test_what_was_exported_is_accepted(pristine: Path) -> None:
    onnx_scan.inspect(read_bundle(pristine), "model.onnx")


@pytest.mark.parametrize("what", GRAPHS)
def test_a_graph_that_could_do_more_is_refused(what: str, bundle: Path) -> None:
    GRAPHS[what](bundle)
    with pytest.raises(BundleError):
        onnx_scan.inspect(read_bundle(bundle), "model.onnx")


@pytest.mark.parametrize("command", [("verify",), ("export", "--format", "ort", "-o", "out")], ids=lambda c: c[0])
def test_commands_inspect_a_graph_before_anything_opens_it(
    command: tuple[str, ...], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    GRAPHS["a branch"](bundle)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: pytest.fail("it was loaded"))
    name, *options = command
    ran = run(name, bundle, *options)
    assert ran.code == 3 and "its operator 'If' holds a graph" in ran.err
