"""Each thing that bundles need of ONNX Runtime has a least release, which commands, doctor and docs name alike."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from helpers.support import ROOT, run, save_checkpoint, small_spec
from s2mlp_deploy.runtime import onnxruntime_versions
from s2mlp_deploy.runtime.onnxruntime_versions import LEAST
from s2mlp_deploy.system import machine

pytestmark = pytest.mark.slow  # exports in several formats


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``onnx``, ``ort`` and, at fp16, ``cpu`` and ``gpu``: bundles of a small checkpoint."""
    place = tmp_path_factory.mktemp("made")
    checkpoint = save_checkpoint(place / "small.pt", small_spec())
    for name, options in {
        "onnx": (),
        "ort": ("--format", "ort"),
        "cpu": ("--precision", "fp16"),
        "gpu": ("--precision", "fp16", "--target", "trt"),
    }.items():
        assert run("export", checkpoint, *options, "-o", place / name).code == 0
    return place


@pytest.mark.parametrize(
    ("name", "release", "lacks"),
    [
        ("onnx", "1.16.3", "graphs"),
        ("ort", "1.16.3", "graphs"),
        ("cpu", "1.16.3", "graphs"),
        ("onnx", "1.17.0", None),
        ("cpu", "1.17.0", None),
        ("ort", "1.17.3", "engines"),
        ("ort", "1.18.0", None),
        ("gpu", "1.17.0", "float16"),
        ("gpu", "1.18.1", "float16"),
        ("gpu", "1.19.0", None),
    ],
)
def test_a_bundle_is_refused_by_releases_that_are_too_old_for_it_and_by_no_other(
    name: str, release: str, lacks: onnxruntime_versions.Feature | None, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", release)
    ran = run("verify", made / name)
    if lacks is None:
        assert ran.code == 0, ran.err
        return
    assert (ran.code, ran.out) == (4, "")
    for words in (LEAST[lacks].older, f"{release} is installed", f"pip install 'onnxruntime>={LEAST[lacks].release}'"):
        assert words in ran.err
    assert "copy the bundle again" not in ran.err


def test_nothing_is_compiled_by_a_release_that_is_too_old(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", "1.17.3")
    ran = run("export", made / "onnx", "--format", "ort", "-o", tmp_path / "out")
    assert ran.code == 4 and "pip install 'onnxruntime>=1.18'" in ran.err


@pytest.mark.parametrize(
    ("release", "without"),
    [("1.16.3", ("onnx", "ort", "triton")), ("1.17.3", ("ort",)), ("1.18.1", ()), ("1.19.0", ())],
)
def test_the_doctor_says_what_a_release_is_too_old_for(
    release: str, without: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", release)
    monkeypatch.setattr(machine, "features", lambda: frozenset({"amx_int8"}))
    found = {a["name"]: a for a in run("doctor", "--json").json["abilities"]}
    for name in ("onnx", "ort", "triton"):
        ability = found[f"run and verify {name} bundles"]
        assert ability["available"] == (name not in without)
        assert (f"{release} is installed" in str(ability["obstacle"])) == (name in without)
    helps = [a["obstacle"] for a in found.values() if "pip install 'onnxruntime>=1.1" in str(a["obstacle"])]
    assert bool(helps) == (release < "1.19")
    old = release < "1.19"
    assert (f"run {LEAST['float16'].what}" in found) == old
    assert f"run {LEAST['bytes'].what}" in found
    monkeypatch.setattr(machine, "features", lambda: frozenset())
    assert LEAST["bytes"].what not in run("doctor").out


def test_the_docs_have_the_same_table() -> None:
    rows = [f"| {least.release} | {least.what} | {least.older} |" for least in LEAST.values()]
    text = (ROOT / "docs" / "engines.md").read_text("utf-8")
    assert "\n".join(["| from | for | older ones |", "|---|---|---|", *rows]) in text


def test_the_release_is_known_without_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    expected = onnxruntime_versions.installed()
    monkeypatch.delitem(sys.modules, "onnxruntime")
    assert onnxruntime_versions.installed() == expected and "onnxruntime" not in sys.modules
