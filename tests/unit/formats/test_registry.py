"""The boundary to runtimes: formats are found by entry point, and their sessions are checked like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.fake_formats import FORMATS, install
from helpers.support import run, save_checkpoint, small_spec
from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.onnx import OnnxFile
from s2mlp_deploy.runtime.session import TracingSession, run_in_batches
from s2mlp_deploy.schema.array import Array


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small checkpoint."""
    return save_checkpoint(tmp_path / "small.pt", small_spec())


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The distribution with the formats of :data:`FORMATS`."""
    install(tmp_path / "site", monkeypatch, **{name: f"fake_engine:{target}" for name, target in FORMATS.items()})


# Finding


def test_the_projects_own_formats_are_found_by_entry_point() -> None:
    assert isinstance(registry.find("onnx"), OnnxFile)


@pytest.mark.usefixtures("fakes")
def test_formats_of_other_distributions_stand_beside_them() -> None:
    found = registry.names()
    assert list(found) == sorted(found) and set(found) >= {"onnx", *FORMATS}


def test_looking_for_formats_loads_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", monkeypatch, broken="no_such_module:Nothing")
    assert "broken" in registry.names()


def test_an_unknown_format_is_told_with_those_that_exist(checkpoint: Path, tmp_path: Path) -> None:
    ran = run("export", checkpoint, "--format", "abacus", "-o", tmp_path / "bundle")
    assert ran.code == 2 and "'abacus'" in ran.err and "onnx" in ran.err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("target", ["no_such_module:Fake", "fake_engine:NoSuchClass"])
def test_an_exporter_that_cannot_be_loaded_is_a_missing_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    install(tmp_path / "site", monkeypatch, broken=target)
    with pytest.raises(RuntimeMissingError, match=r"'broken' cannot be loaded .*(no_such_module|NoSuchClass)"):
        registry.find("broken")


@pytest.mark.usefixtures("fakes")
def test_a_precision_that_a_format_does_not_have_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    ran = run("export", checkpoint, "--format", "fake", "--precision", "int4", "-o", tmp_path / "bundle")
    assert ran.code == 2 and "int4" in ran.err and "fp32" in ran.err


# Somebody else's format, end to end


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(
    "options", [[], ["--batch", "3"], ["--dynamic-size"]], ids=["any batch", "batch 3", "any size"]
)
def test_a_format_of_others_is_exported_judged_and_verified(
    checkpoint: Path, tmp_path: Path, options: list[str]
) -> None:
    bundle = tmp_path / "bundle"
    ran = run("export", checkpoint, "--format", "fake", "-o", bundle, *options)
    assert ran.code == 0, ran.err
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert (manifest["format"], manifest["artifact"], manifest["versions"]["fake"]) == ("fake", "engine.bin", "1.0")
    assert manifest["files"].keys() == {"engine.bin", "tables.json", "golden.safetensors"}
    assert run("verify", bundle).code == 0
    (bundle / "tables.json").write_text("[]")
    assert run("verify", bundle).code == 3


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(("format", "reason"), [("wrong", "relative L2"), ("lossy", "shape and dtype")])
def test_the_gate_judges_a_format_of_others_too(checkpoint: Path, tmp_path: Path, format: str, reason: str) -> None:
    ran = run("export", checkpoint, "--format", format, "-o", tmp_path / "bundle")
    assert (ran.code, ran.out) == (1, "") and reason in ran.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["site", "small.pt"]


@pytest.mark.usefixtures("fakes")
def test_a_runtime_that_went_wrong_since_fails_the_check_of_a_bundle(checkpoint: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    assert run("export", checkpoint, "--format", "fake", "-o", bundle).code == 0
    import fake_engine

    fake_engine.Fake.error = 1e-4
    assert run("verify", bundle).code == 1


@pytest.mark.usefixtures("fakes")
def test_what_an_exporter_forgets_to_name_is_not_published(checkpoint: Path, tmp_path: Path) -> None:
    ran = run("export", checkpoint, "--format", "messy", "-o", tmp_path / "bundle")
    assert ran.code == 3 and "scratch.tmp" in ran.err and "'messy'" in ran.err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.usefixtures("fakes")
def test_layers_are_shown_by_formats_that_can(checkpoint: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    assert run("export", checkpoint, "--format", "fake", "-o", bundle).code == 0
    ran = run("verify", bundle, "--per-block")
    assert ran.code == 2 and "--per-block" in ran.err and "fake" in ran.err


@pytest.mark.usefixtures("fakes")
def test_one_command_writes_several_formats(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("export", checkpoint, "--format", "onnx", "--format", "fake", "--json")
    assert ran.code == 0
    assert [e["bundle"] for e in ran.json["exports"]] == ["small-onnx-fp32", "small-fake-fp32"]


# Sessions of a fixed batch


class Recorder:
    """A session whose logits are each image's first value, and which keeps the shapes that it saw."""

    def __init__(self) -> None:
        self.seen: list[Array] = []

    def run(self, images: Array) -> Array:
        self.seen.append(images)
        return images[:, 0, 0, :1] * np.float32([1, 2])


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 6, 7])
def test_a_fixed_batch_is_always_full_and_only_the_given_images_count(samples: int) -> None:
    images = np.arange(samples, dtype=np.float32).reshape(samples, 1, 1, 1) + np.zeros((1, 3, 5, 7), np.float32)
    session = Recorder()
    logits = run_in_batches(session, images, 3)
    assert [x.shape for x in session.seen] == [(3, 3, 5, 7)] * -(-samples // 3)
    assert {x.dtype for x in session.seen} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(logits, images[:, 0, 0, :1] * [1, 2])


def test_the_last_batch_is_filled_with_its_last_image() -> None:
    session = Recorder()
    run_in_batches(session, np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1), 3)
    assert session.seen[1].ravel().tolist() == [3, 3, 3]


def test_a_session_for_any_batch_gets_all_images_at_once() -> None:
    session = Recorder()
    images = np.ones((5, 3, 2, 4), np.float32)
    assert run_in_batches(session, images, None).shape == (5, 2)
    assert session.seen[0] is images


def test_a_session_without_trace_is_no_tracing_session(checkpoint: Path, tmp_path: Path) -> None:
    assert not isinstance(Recorder(), TracingSession)
