"""docs/reference is what the commands and the models say; bundles keep the schemas."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from helpers import reference
from helpers.oldest import project

jsonschema = pytest.importorskip(
    "jsonschema", reason="no jsonschema, which cyclonedx-python-lib[json-validation] brings"
)


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """The pages as they are made now."""
    return reference.pages()


def test_the_pages_are_those_that_make_docs_output_writes(pages: dict[str, str]) -> None:
    if others := reference.other_versions():
        pytest.skip(f"{', '.join(others)} in other versions than constraints.txt has")
    installed = {entry.name for entry in entry_points(group="s2mlp_deploy.exporters")}
    if installed != set(project()["entry-points"]["s2mlp_deploy.exporters"]):
        pytest.skip("other formats are installed than pyproject.toml has: pip install -e .")
    stale = [n for n, text in pages.items() if (reference.PLACE / n).read_text("utf-8") != text]
    assert stale == [], "make docs-output writes what is said now"
    assert {path.name for path in reference.PLACE.iterdir()} == pages.keys()


def test_every_command_has_its_help_in_80_columns(pages: dict[str, str]) -> None:
    text = pages["commands.md"].removeprefix(reference.INTRODUCTION)
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == reference.commands()
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_a_bundle_keeps_the_schemas(pages: dict[str, str], pristine: Path) -> None:
    for name in ("manifest", "report"):
        schema = json.loads(pages[f"{name}.schema.json"])
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        content = json.loads((pristine / f"{name}.json").read_text("utf-8"))
        assert list(validator.iter_errors(content)) == []
    manifest = json.loads((pristine / "manifest.json").read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(json.loads(pages["manifest.schema.json"]))
    for wrong in (
        {**manifest, "extra": 1},
        {**manifest, "opset": "20"},
        {k: v for k, v in manifest.items() if k != "files"},
    ):
        assert list(validator.iter_errors(wrong))
