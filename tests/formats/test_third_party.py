"""A format of another package, tests/data/third_party_format, which docs/extending.md shows: nothing of this project knows it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from helpers.fake_formats import install
from helpers.formats import change_manifest, manifest_of, replace_file
from helpers.support import ROOT, run, save_checkpoint, small_spec
from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.conformance import FormatConformance

PACKAGE = ROOT / "tests" / "data" / "third_party_format"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package on the path, with its metadata, as pip would install it."""
    monkeypatch.syspath_prepend(PACKAGE)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "c_header", raising=False)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "small.pt", small_spec())


class TestCHeader(FormatConformance):
    """It passes the tests that any format must pass."""

    format = "c-header"

    def run(self, command: str, *arguments: object) -> int:
        return run(command, *arguments).code


def test_it_is_exported_with_its_option_verified_and_refused_when_tampered_with(
    checkpoint: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    ran = run("export", checkpoint, "--format", "c-header", "-O", "symbol=network", "-o", bundle)
    assert ran.code == 0, ran.err
    assert (bundle / "model.h").read_text().startswith("static const unsigned char network[] = {8,")
    assert manifest_of(bundle)["engine"] == {"symbol": "network"}
    assert run("verify", bundle).code == 0
    change_manifest(bundle, lambda m: m["engine"].update(symbol="x[9]; int y"))
    ran = run("verify", bundle)
    assert ran.code == 3 and "symbol 'x[9]; int y'" in ran.err
    change_manifest(bundle, lambda m: m["engine"].update(symbol="network"))
    replace_file(bundle, "model.h", b"static const unsigned char network[] = {0};\n")
    ran = run("verify", bundle)
    assert ran.code == 3 and "model.h does not hold the model beside it" in ran.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-O", "symbol=9"], "-O symbol '9': "),
        (["-O", "symbol"], "-O 'symbol': expected NAME=VALUE"),
        (["-O", "symbol=a", "-O", "symbol=b"], "-O symbol: given twice"),
        (["-O", "size=9"], "-O size: not for --format c-header"),
        (["--ort-style", "ort"], "--ort-style: not for --format c-header"),
    ],
)
def test_its_options_are_refused_as_they_were_typed(
    checkpoint: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    ran = run("export", checkpoint, "--format", "c-header", *options, "-o", tmp_path / "bundle")
    assert (ran.code, ran.out) == (2, "") and message in ran.err
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_options_of_this_projects_formats_can_be_given_in_either_way(checkpoint: Path, tmp_path: Path) -> None:
    assert run("export", checkpoint, "--format", "ort", "-O", "ort_style=onnx", "-o", tmp_path / "bundle").code == 0
    assert manifest_of(tmp_path / "bundle")["engine"]["style"] == "onnx"


SILENT = """
from s2mlp_deploy.formats.base import Exporter
from s2mlp_deploy.formats.options import Options

class Silent(Exporter):
    name, precisions, options = "silent", ("fp32",), Options

    def export(self, lowered, destination): ...
    def open(self, artifact): ...
    def versions(self): ...

class Misnamed(Silent):
    def inspect(self, bundle): ...

class NoFormat: ...
"""


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        ("Silent", "Silent does not define inspect, and without inspect its artifacts could not be checked"),
        ("Misnamed", "Misnamed calls itself 'silent'"),
        ("NoFormat", "no subclass of s2mlp_deploy.formats.base.Exporter or Compiler"),
    ],
)
def test_what_is_not_a_whole_format_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, reason: str
) -> None:
    name = "silent" if point == "Silent" else "mine"
    install(tmp_path / "site", monkeypatch, SILENT, **{name: f"fake_engine:{point}"})
    with pytest.raises(RuntimeMissingError, match=f"the format '{name}' of the package fake-engine .*{reason}"):
        registry.find(name)


def test_the_example_in_the_docs_is_this_package() -> None:
    text = (ROOT / "docs" / "extending.md").read_text("utf-8")
    source = (PACKAGE / "c_header.py").read_text("utf-8")
    assert f"```python\n{source}```" in text
