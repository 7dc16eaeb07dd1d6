"""s2mlp-doctor says what this machine can do, and how it could do more."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from helpers.support import run
from s2mlp_deploy import __version__
from s2mlp_deploy.cli.abilities import examine
from s2mlp_deploy.runtime import providers
from s2mlp_deploy.system.dependencies import pip_install


def abilities(*arguments: str) -> dict[str, dict[str, object]]:
    """What the doctor's JSON says, by ability."""
    return {a["name"]: a for a in run("doctor", "--json", *arguments).json["abilities"]}


def install(place: Path, monkeypatch: pytest.MonkeyPatch, *, module: str, content: str) -> None:
    """Make a distribution in ``place`` that offers the format ``abacus``."""
    info = place / "abacus-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: abacus\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[s2mlp_deploy.exporters]\nabacus = {module}:Abacus\n")
    (place / "abacus_exporter.py").write_text(content)
    monkeypatch.syspath_prepend(place)
    monkeypatch.delitem(sys.modules, "abacus_exporter", raising=False)


def test_a_machine_with_everything_can_do_everything() -> None:
    ran = run("doctor")
    assert (ran.code, ran.err) == (0, "")
    assert "✓ export a checkpoint" in ran.out and "✓ run and verify onnx bundles" in ran.out
    unavailable = {name for name, ability in abilities().items() if not ability["available"]}
    formats = ("onnx", "ort", "openvino", "triton", "web")  # all of which run with what pip brings
    assert not unavailable & {"export a checkpoint", *(f"run and verify {format} bundles" for format in formats)}


def test_packages_and_machine_are_listed() -> None:
    out = run("doctor").out
    for fact in (
        f"torch {version('torch')}",
        f"onnxruntime {version('onnxruntime')}",
        platform.python_version(),
        __version__,
        "processor",
        "cores",
        "system",
    ):
        assert fact in " ".join(out.split())


def test_json_says_the_same() -> None:
    report = run("doctor", "--json").json
    assert report["s2mlp_deploy"] == __version__
    assert report["machine"].keys() == {"processor", "cores", "system", "python"}
    assert report["packages"]["numpy"] == version("numpy")
    (ability,) = (a for a in report["abilities"] if a["name"] == "run and verify onnx bundles")
    assert ability["available"] is True and ability["missing"] == []


@pytest.mark.parametrize("hidden", ["torch", "onnxruntime", "onnxsim", "PIL"])
def test_what_is_missing_for_exports_is_named_with_its_remedy(hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, hidden, None)
    ran = run("doctor")
    assert ran.code == 0
    assert f"✗ export a checkpoint: {hidden} missing. {pip_install('export')}" in " ".join(ran.out.split())
    assert abilities()["export a checkpoint"]["missing"] == [hidden]


def test_everything_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for hidden in ("PIL", "torch"):
        monkeypatch.setitem(sys.modules, hidden, None)
    assert abilities()["export a checkpoint"]["missing"] == ["torch", "PIL"]


def test_a_bundle_can_be_verified_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert abilities()["run and verify onnx bundles"]["available"] is True


def test_a_missing_runtime_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ability = abilities()["run and verify onnx bundles"]
    assert ability["missing"] == ["onnxruntime"] and "pip install onnxruntime" in str(ability["remedy"])
    assert "✗ run and verify onnx bundles: onnxruntime missing" in run("doctor").out


def test_formats_of_others_are_listed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = """
from s2mlp_deploy.formats.base import Exporter
from s2mlp_deploy.formats.options import Options

class Abacus(Exporter):
    name, precisions, options = "abacus", ("fp32",), Options
    modules, install_hint = ("no_such.beads",), "buy beads"
    export = inspect = open = versions = None
"""
    install(tmp_path, monkeypatch, module="abacus_exporter", content=content)
    ability = abilities()["run and verify abacus bundles"]
    assert (ability["missing"], ability["remedy"], ability["available"]) == (["no_such.beads"], "buy beads", False)


@pytest.mark.parametrize(
    ("module", "content", "reason"),
    [
        ("abacus_exporter", "import no_such_beads\n", "no_such_beads"),
        ("abacus_exporter", "", "Abacus"),
        ("no_such_module", "", "no_such_module"),
    ],
)
def test_an_exporter_that_cannot_be_loaded_does_not_stop_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, content: str, reason: str
) -> None:
    install(tmp_path, monkeypatch, module=module, content=content)
    ability = abilities()["run and verify abacus bundles"]
    assert ability["missing"] == ["the exporter"] and reason in str(ability["remedy"])
    assert abilities()["run and verify onnx bundles"]["available"] is True


def test_looking_imports_nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "PLUGINS", {})  # whose devices ONNX Runtime alone can list
    for name in ("torch", "onnxruntime", "onnxsim", "PIL"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    loaded = set(sys.modules)
    assert examine().abilities
    assert not {name.split(".")[0] for name in set(sys.modules) - loaded} & {"torch", "onnxruntime", "onnxsim", "PIL"}
