"""The inspection of ONNX files refuses by itself each that could do more than compute, before any runtime would."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.reliability.hostile_bundles import GRAPHS
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
