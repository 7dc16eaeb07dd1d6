"""A picture inside a page: SVG that takes its colours and its font from there, and whose names clash with nobody's.

matplotlib gives every part a name and styles everything with a rule for ``*``, which would style the whole page. Colours
become the page's variables, so that one picture serves light and dark.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree as ET

from s2mlp_bench.report.pictures import drawing, roofline_plot, rows

LINK = "{http://www.w3.org/1999/xlink}href"
_SVG = "{http://www.w3.org/2000/svg}"
_DRAWN = (f"{_SVG}g", f"{_SVG}defs")
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_NAME = re.compile(r"#([A-Za-z_][\w.-]*)\)?")

VARIABLES = {
    drawing.INK: "ink",
    drawing.QUIET: "quiet",
    drawing.FAINT: "faint",
    drawing.GRID: "grid",
    drawing.PAPER: "paper",
    drawing.BUNDLE: "bundle",
    drawing.BASELINE: "baseline",
    **{colour: f"precision-{i}" for i, colour in enumerate(roofline_plot.COLOURS.values())},
    **{colour: f"kind-{i}" for i, colour in enumerate(rows.KIND_COLOURS.values())},
}
"""The page's variables by the colours of the pictures."""


def inline(svg: bytes, *, name: str, words: str) -> str:
    """``svg`` as an element for HTML; ``name`` begins its names, ``words`` are read out in its place."""
    root = ET.fromstring(svg)
    box = root.get("viewBox", "")
    used = set(_NAME.findall(" ".join(value for part in root.iter() for value in part.attrib.values())))
    drawn = ET.Element("svg", {"viewBox": box, "role": "img", "aria-label": words, "class": "picture"})
    drawn.extend(_copy(part, name, used) for part in root if part.tag in _DRAWN and part.find(f"{_SVG}style") is None)
    return ET.tostring(drawn, encoding="unicode")


def _copy(part: ET.Element, name: str, used: set[str]) -> ET.Element:
    copied = ET.Element(part.tag.removeprefix(_SVG), _attributes(part.attrib, name, used))
    copied.text, copied.tail = part.text, part.tail
    copied.extend(_copy(child, name, used) for child in part)
    return copied


def _attributes(given: Mapping[str, str], name: str, used: set[str]) -> dict[str, str]:
    found = {}
    for key, value in given.items():
        if key == "id":
            if value in used:
                found["id"] = f"{name}-{value}"
        elif key == LINK:
            found["href"] = value.replace("#", f"#{name}-")
        elif key == "clip-path":
            found[key] = value.replace("#", f"#{name}-")
        elif key == "d":
            found[key] = _LONG_NUMBER.sub(lambda number: f"{float(number[0]):.2f}", value)
        elif key == "style":
            found[key] = _style(value)
        else:
            found[key] = value
    return found


def _style(value: str) -> str:
    """Without a font, which is the page's, and with variables for colours."""
    kept = (part for part in value.split("; ") if not part.startswith("font-family"))
    return _COLOUR.sub(lambda found: f"var(--{VARIABLES[found[0]]}, {found[0]})", "; ".join(kept))
