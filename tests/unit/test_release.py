"""What strangers see first: metadata that indexes take, a changelog that knows the version, documents whose links lead somewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from trove_classifiers import classifiers

from helpers.support import ROOT
from s2mlp_deploy.system.version import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / ".github").rglob("*.md"))]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def test_classifiers_are_the_indexs_and_fit_the_pythons_that_are_allowed() -> None:
    assert set(PROJECT["classifiers"]) <= classifiers
    versions = [c.rpartition(" :: ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert versions and all(allowed.contains(v) for v in versions)
    assert versions == sorted(versions, key=Version) and not allowed.contains("3.9")


def test_the_changelog_knows_this_version_and_what_comes_next() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[:2] == ["Unreleased", __version__]
    assert headings[1:] == sorted(headings[1:], key=Version, reverse=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_files_lead_to_files(page: Path) -> None:
    text = CODE.sub("", page.read_text("utf-8"))
    targets = [one or other for one, other in LINK.findall(text)]
    local = [t.partition("#")[0] for t in targets if not re.match(r"[a-z]+:", t) and not t.startswith("#")]
    assert [t for t in local if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("name", ["1-bug.yml", "2-checkpoint.yml"])
def test_who_reports_a_fault_is_asked_for_what_the_commands_print(name: str) -> None:
    yaml = pytest.importorskip("yaml", reason="no PyYAML, which timm brings")
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / name).read_text("utf-8"))
    labels = [field["attributes"].get("label", "") for field in form["body"]]
    assert "s2mlp-doctor --json" in labels and any("s2mlp-inspect" in label for label in labels)
    ids = [field["id"] for field in form["body"] if "id" in field]
    assert len(ids) == len(set(ids)) and {"name", "description"} <= form.keys()


def test_every_python_that_is_claimed_is_in_the_workflow() -> None:
    yaml = pytest.importorskip("yaml", reason="no PyYAML, which timm brings")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text("utf-8"))
    run = set(workflow["jobs"]["platforms"]["strategy"]["matrix"]["python"])
    claimed = {c.rpartition(" :: ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)}
    assert claimed <= run


def test_an_image_copies_what_a_wheel_is_built_from() -> None:
    packages = {Path(place).parts[0] for place in ("s2mlp_deploy", "exporters/s2mlp_exporters", "bench/s2mlp_bench")}
    needed = {*packages, PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml"}
    for file in (ROOT / "docker").glob("*.Dockerfile"):
        copied = {
            word
            for line in file.read_text("utf-8").splitlines()
            if line.startswith("COPY")
            for word in line.split()[1:-1]
        }
        sent = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
        assert needed <= copied and copied - {"--from=build", "/wheels"} <= sent, file
