"""``--sbom``: the bill of materials names what made a bundle, and changes nothing else in it."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from helpers import npm
from helpers.formats import change_manifest, exported, manifest_of, promised
from helpers.support import run, save_checkpoint, small_spec
from s2mlp_deploy.bundle.contents import SBOM
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.system.dependencies import Package, closure, pip_install
from s2mlp_exporters.web.exporter import TESTED

pytestmark = pytest.mark.npm()

MODULES = {"litert": "ai_edge_litert", "executorch": "executorch", "coreml": "coremltools"}
"""The modules that formats need and that are not everywhere."""

ALL = ("onnx", "ort", "openvino", "litert", "executorch", "coreml", "triton", "web")
HERE = [name for name in npm.formats(ALL) if name not in MODULES or find_spec(MODULES[name])]
FORMATS = [pytest.param(name, marks=[pytest.mark.thorough] * (name == "executorch")) for name in HERE]
"""The formats that can be made here; lowering for ExecuTorch takes seconds."""

UNDECLARED = {"tiktoken", "torchao"}
"""Packages that ExecuTorch requires and whose metadata name no licence (docs/dependencies.md)."""

RUNTIMES = {"openvino": "openvino", "litert": "ai-edge-litert", "executorch": "executorch", "coreml": "coremltools"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """``FORMAT-without`` and ``FORMAT-with`` an SBOM, of one small checkpoint, and the same ``FORMAT-from-bundle``."""
    place = tmp_path_factory.mktemp("sbom")
    checkpoint = save_checkpoint(place / "small.pt", small_spec())
    for format in HERE:
        if format == "executorch" and not request.config.getoption("--thorough"):
            continue
        wanted = ("--format", format, *(["--allow-unverified-engine"] if format == "coreml" else []))
        exported(checkpoint, *wanted, "-o", place / f"{format}-without")
        exported(checkpoint, *wanted, "--sbom", "-o", place / f"{format}-with")
        if format != "onnx":
            exported(place / "onnx-with", *wanted, "--sbom", "-o", place / f"{format}-from-bundle")
    return place


def bill(bundle: Path) -> dict[str, Any]:
    return dict(json.loads((bundle / SBOM).read_text("utf-8")))


def components(bundle: Path) -> dict[str, dict[str, Any]]:
    """By package URL without version."""
    return {c["purl"].partition("@")[0]: c for c in bill(bundle)["components"]}


@pytest.mark.parametrize("format", FORMATS)
def test_it_is_what_the_official_schema_asks_for(place: Path, format: str) -> None:
    text = (place / f"{format}-with" / SBOM).read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_validator_refuses_what_is_none(place: Path) -> None:
    text = (place / "onnx-with" / SBOM).read_text("utf-8").replace('"type": "library"', '"type": "novel"')
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is not None


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_else_in_the_bundle_changes(place: Path, format: str) -> None:
    without, with_it = promised(place / f"{format}-without"), promised(place / f"{format}-with")
    assert with_it.keys() - without.keys() == {SBOM}
    assert [n for n in without if n != "manifest.json" and without[n] != with_it[n]] == []
    before, after = manifest_of(place / f"{format}-without"), manifest_of(place / f"{format}-with")
    assert after["files"].pop(SBOM)
    assert before == after


@pytest.mark.parametrize("format", FORMATS[1:])
def test_both_ways_to_an_engine_give_the_same_bill(place: Path, format: str) -> None:
    assert promised(place / f"{format}-from-bundle") == promised(place / f"{format}-with")


@pytest.mark.parametrize("format", FORMATS)
def test_it_is_no_part_of_the_artifact(place: Path, format: str) -> None:
    without, with_it = read_bundle(place / f"{format}-without"), read_bundle(place / f"{format}-with")
    assert without.artifact.files == with_it.artifact.files
    assert without.size_bytes == with_it.size_bytes


@pytest.mark.parametrize("format", FORMATS)
def test_it_names_the_packages_that_made_the_bundle_and_their_licences(place: Path, format: str) -> None:
    found = components(place / f"{format}-with")
    manifest = manifest_of(place / f"{format}-with")
    for name, used in {**manifest["versions"], "s2mlp-deploy": version("s2mlp-deploy")}.items():
        assert found[f"pkg:pypi/{name}"]["version"] == used
    assert (
        f"pkg:pypi/{RUNTIMES.get(format, 'onnxruntime')}" in found and "pkg:pypi/protobuf" in found
    )  # what onnx requires
    assert "pkg:pypi/pytest" not in found
    assert {n.removeprefix("pkg:pypi/") for n, c in found.items() if not c.get("licenses")} <= UNDECLARED


@pytest.mark.npm("onnxruntime-web")
def test_it_names_what_a_web_page_brings_along(place: Path) -> None:
    found = components(place / "web-with")["pkg:npm/onnxruntime-web"]
    assert found["version"] == TESTED
    assert found["licenses"][0]["license"]["id"] == json.loads((npm.WEB.parent / "package.json").read_text())["license"]


@pytest.mark.parametrize("format", FORMATS)
def test_every_dependency_is_a_component(place: Path, format: str) -> None:
    content = bill(place / f"{format}-with")
    known = {c["bom-ref"] for c in content["components"]}
    graph = {d["ref"]: d.get("dependsOn", []) for d in content["dependencies"]}
    assert graph["bundle"] and {other for needed in graph.values() for other in needed} <= known
    reached, waiting = set(), ["bundle"]
    while waiting:
        waiting += graph[here] if (here := waiting.pop()) not in reached else []
        reached.add(here)
    assert reached - {"bundle"} == known


def test_it_names_the_files_and_the_checkpoint_by_their_hashes(place: Path) -> None:
    described = bill(place / "openvino-with")["metadata"]["component"]
    manifest = manifest_of(place / "openvino-with")
    del manifest["files"][SBOM]
    assert {c["name"]: c["hashes"] for c in described["components"]} == {
        name: [{"alg": "SHA-256", "content": digest}] for name, digest in manifest["files"].items()
    }
    (checkpoint,) = described["pedigree"]["ancestors"]
    assert checkpoint["hashes"] == [{"alg": "SHA-256", "content": manifest["source"]["sha256"]}]
    assert described["type"] == checkpoint["type"] == "machine-learning-model"


def test_it_holds_neither_time_nor_serial_number(place: Path) -> None:
    content = bill(place / "onnx-with")
    assert "serialNumber" not in content and "timestamp" not in content["metadata"]


def test_verify_checks_it_like_every_file(place: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(place / "ort-with", tmp_path / "bundle"))
    assert run("verify", bundle).code == 0
    (bundle / SBOM).write_text((bundle / SBOM).read_text() + " ")
    ran = run("verify", bundle)
    assert ran.code == 3 and SBOM in ran.err
    (bundle / SBOM).unlink()
    assert run("verify", bundle).code == 3


def test_what_is_compiled_without_the_option_has_none(place: Path, tmp_path: Path) -> None:
    exported(place / "onnx-with", "--format", "ort", "-o", tmp_path / "ort")
    assert promised(tmp_path / "ort") == promised(place / "ort-without")


def test_a_bundle_with_one_is_replaced_whole(place: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(place / "onnx-with", tmp_path / "bundle"))
    exported(place / "small.pt", "--force", "-o", bundle)
    assert promised(bundle) == promised(place / "onnx-without")


def test_several_that_are_made_together_each_have_their_own(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = [("onnx", "fp32"), ("onnx", "fp16"), ("ort", "fp32"), ("ort", "fp16")]
    exported(
        place / "small.pt",
        "--format",
        "onnx",
        "--format",
        "ort",
        "--precision",
        "fp32",
        "--precision",
        "fp16",
        "--sbom",
    )
    for format, precision in made:
        described = bill(tmp_path / f"small-{format}-{precision}")["metadata"]["component"]
        told = {p["name"]: p["value"] for p in described["properties"]}
        assert (told["s2mlp-deploy:format"], told["s2mlp-deploy:precision"]) == (format, precision)


def test_of_a_package_that_was_used_elsewhere_only_the_version_is_told(place: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(place / "onnx-with", tmp_path / "bundle"))
    change_manifest(bundle, lambda m: m["versions"].update({"torch": "2.99.1+cpu"}))
    exported(bundle, "--format", "ort", "--sbom", "-o", tmp_path / "ort")
    torch = components(tmp_path / "ort")["pkg:pypi/torch"]
    assert torch["version"] == "2.99.1+cpu" and torch["purl"] == "pkg:pypi/torch@2.99.1%2Bcpu"
    assert "licenses" not in torch
    assert "pkg:pypi/networkx" not in components(tmp_path / "ort")  # what the torch that is here requires


@pytest.mark.parametrize("source", ["small.pt", "onnx-with"])
def test_without_the_library_nothing_is_begun(
    place: Path, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cyclonedx"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "s2mlp_deploy.bundle.sbom")
    monkeypatch.delattr("s2mlp_deploy.bundle.sbom")
    monkeypatch.setitem(sys.modules, "cyclonedx", None)
    ran = run("export", place / source, "--format", "ort", "--sbom", "-o", tmp_path / "new" / "bundle")
    assert ran.code == 4 and pip_install("sbom") in ran.err
    assert len(ran.err.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_packages_that_are_required_are_found_all_over() -> None:
    found = closure({"Rich": None})
    assert {"rich", "markdown-it-py", "mdurl"} <= found.keys()
    assert found["rich"].version == version("rich")
    assert "markdown-it-py" in found["rich"].requires


def test_an_extra_that_is_required_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def install(name: str, *requires: str) -> None:
        place = tmp_path / f"{name}-1.0.dist-info"
        place.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {r}" for r in requires)]
        (place / "METADATA").write_text("\n".join(lines))

    install("first", "second[drawing]")
    install("second", 'third; extra == "drawing"', 'fourth; extra == "sound"', 'fifth; python_version < "3"', "first")
    for name in ("third", "fourth", "fifth"):
        install(name)
    monkeypatch.syspath_prepend(tmp_path)
    assert {name: p.requires for name, p in closure({"first": None}).items()} == {
        "first": {"second"},
        "second": {"first", "third"},
        "third": set(),
    }
    assert closure({"second": None}).keys() == {"first", "second", "third"}


def test_a_package_that_is_not_here_is_left_out_unless_its_version_is_known() -> None:
    assert closure({"no-such-package": None, "neither-this": "1.0"}) == {"neither-this": Package("1.0")}
