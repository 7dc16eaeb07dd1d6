"""``--format executorch``: programs hold the numbers in ExecuTorch's runtime; what cannot be is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.formats import exported, manifest_of, noise, promised
from helpers.support import run, save_checkpoint, small_spec
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import BundleError, UsageError
from s2mlp_deploy.runtime.session import DescribedSession

pytest.importorskip("executorch", reason="needs ExecuTorch")

from s2mlp_exporters.executorch.exporter import MODEL, ExecuTorchProgram
from s2mlp_exporters.executorch.session import ExecuTorchSession

pytestmark = pytest.mark.slow  # ExecuTorch takes seconds to lower the smallest network


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``onnx``, ``engine`` of a small checkpoint."""
    place = tmp_path_factory.mktemp("made")
    checkpoint = save_checkpoint(place / "small.pt", small_spec(depth=1))
    exported(checkpoint, "-o", place / "onnx")
    exported(place / "onnx", "--format", "executorch", "--max-batch", 9, "-o", place / "engine")
    return place


@pytest.fixture
def engine(made: Path, tmp_path: Path) -> Path:
    """A copy of the program, to be changed."""
    return Path(shutil.copytree(made / "engine", tmp_path / "engine"))


def session_of(bundle: Path) -> ExecuTorchSession:
    return ExecuTorchProgram().open(read_bundle(bundle).artifact)


def test_a_program_verifies_and_is_one_file(made: Path) -> None:
    verified = run("verify", made / "engine")
    assert verified.code == 0, verified.err
    assert promised(made / "engine").keys() == {MODEL, "manifest.json", "golden.safetensors"}


def test_any_batch_up_to_the_largest_runs_and_a_larger_one_is_refused(made: Path) -> None:
    session = session_of(made / "engine")
    images = noise(10)
    whole = session.run(images[:9])
    for count in (1, 4):
        np.testing.assert_allclose(session.run(images[:count]), whole[:count], rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match="up to 9; export it with --max-batch 10"):
        session.run(images)
    with pytest.raises(BundleError, match=r"cannot run the program on an input of \[1, 3, 20, 27\]"):
        session.run(images[:1, :, :, :-1])


def test_a_program_carries_its_interface_and_the_metadata_of_the_graph(made: Path) -> None:
    session = session_of(made / "engine")
    assert isinstance(session, DescribedSession)
    described, manifest = session.describe(), manifest_of(made / "engine")
    assert [e.name for e in (*described.inputs, *described.outputs)] == ["input", "logits"]
    assert described.inputs[0].shape == ("any", 3, 20, 28)
    assert json.loads(described.metadata["s2mlp.preprocessing"]) == manifest["preprocessing"]


def test_the_report_names_what_xnnpack_leaves_out_which_only_moves_values_but_for_the_last_mean(made: Path) -> None:
    left = json.loads((made / "engine" / "report.json").read_text("utf-8"))["engine"]["not_delegated"]
    assert left.keys() == {"index_select", "slice_copy.Tensor", "view_copy", "mean.dim"}
    assert left["mean.dim"] == 2
