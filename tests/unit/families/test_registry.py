"""The registry of families, and who else names them."""

from __future__ import annotations

import re

from helpers.support import ROOT
from s2mlp_deploy.families.registry import FAMILIES

VIEW = ROOT / "exporters" / "s2mlp_exporters" / "web" / "page" / "view.js"


def test_the_web_page_names_the_families_as_the_registry_does() -> None:
    (table,) = re.findall(r"^const FAMILIES = \{(.*?)\};", VIEW.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert dict(re.findall(r'(\w+): "([^"]+)"', table)) == {family.name: family.title for family in FAMILIES}
