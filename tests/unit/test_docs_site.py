"""The documentation site: every page has its place, and links lead to headings that exist. ``make docs`` checks the rest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers.support import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
CODE = re.compile(r"^(`{3,}).*?^\1`*$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} (.+?) *$", re.MULTILINE)
ANCHOR = re.compile(r"\]\(([^)\s:]*)#([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Those of the headings of ``page``, as both GitHub and the site write them."""
    headings = HEADING.findall(CODE.sub("", page.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_page_has_its_place_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
    listed = re.findall(r"^ *- .*?([\w/.-]+\.md)$", navigation, re.MULTILINE)
    at_the_root = {"index.md", "changelog.md", "code_of_conduct.md", "contributing.md", "security.md"}
    assert sorted(set(listed) - at_the_root) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)
    assert len(listed) == len(set(listed)) and at_the_root <= set(listed)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_headings_lead_to_headings(page: Path) -> None:
    found = ANCHOR.findall(CODE.sub("", page.read_text("utf-8")))
    places = [((page.parent / target if target else page), anchor) for target, anchor in found]
    assert [f"{place.name}#{anchor}" for place, anchor in places if anchor not in anchors(place)] == []


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *PAGES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_page_holds_a_conflict_of_git(page: Path) -> None:
    assert not re.search(r"^(<{7} |>{7} |={7}$)", page.read_text("utf-8"), re.MULTILINE)
