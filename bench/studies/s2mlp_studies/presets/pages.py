"""The pages of docs/benchmarks, one a part, and docs/benchmarks.md, which lists them.

Each page has a JSON file beside it with its head and its goals. The list is made from these, so that a part can be measured alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

import s2mlp_studies
from s2mlp_bench.report import pictures
from s2mlp_bench.results.output import write as write_file
from s2mlp_bench.results.output import write_json
from s2mlp_studies.conditions import Conditions
from s2mlp_studies.goal import Goal
from s2mlp_studies.part import NAMES, Finding, Part, load

WIDTH = 120
FOLDER, INDEX = "benchmarks", "benchmarks.md"


@dataclass(frozen=True)
class Page:
    """What a part has found, under which conditions and in how many seconds."""

    part: Part
    conditions: Conditions
    seconds: int
    findings: Sequence[Finding]

    @property
    def minutes(self) -> str:
        """The duration in words."""
        return in_words(self.seconds)

    @property
    def goals(self) -> list[Goal]:
        """Those of all findings."""
        return [goal for finding in self.findings for goal in finding.goals]

    @property
    def record(self) -> dict[str, Any]:
        """The head of the page and its goals, as JSON."""
        goals = [
            {
                "model": goal.model,
                "what": goal.what,
                "limit": goal.limit,
                **asdict(goal.measured),
                "verdict": goal.verdict,
            }
            for goal in self.goals
        ]
        return {**asdict(self.conditions), "seconds": self.seconds, "goals": goals}


def check() -> None:
    """That pages and pictures can be made here.

    Raises:
        RuntimeMissingError: where a package is missing.
    """
    pictures.check(Path("page.png"))


def write(page: Page, docs: Path) -> None:
    """Write the page with its pictures and its JSON file into ``docs``, over what is there, and the list of all pages.

    Raises:
        OutputError: where that fails.
    """
    name, folder = page.part.name, docs / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    sections = []
    for finding in page.findings:
        picture = f"{name}_{finding.model}.png" if finding.draw else None
        if finding.draw and picture:
            finding.draw(folder / picture)
        sections.append(
            {"model": finding.model, "title": finding.title, "picture": picture, "tables": as_text(finding.tables)}
        )
    text = render(page.part, page.record, reasons(page.goals, page.part.why), sections)
    write_file(folder / f"{name}.md", text)
    write_json(folder / f"{name}.json", page.record)
    write_index(docs)


def write_index(docs: Path) -> None:
    """Write the list of all pages of ``docs``, with their goals."""
    rows = []
    for part in map(load, NAMES):
        path = docs / FOLDER / f"{part.name}.json"
        rows.append({"part": part, "record": json.loads(path.read_text("utf-8")) if path.exists() else None})
    write_file(docs / INDEX, _template("presets/index.md.j2").render(rows=rows, in_words=in_words))


def render(
    part: Part, record: Mapping[str, Any], reasons: Sequence[str], sections: Sequence[Mapping[str, str | None]]
) -> str:
    """The page of ``part`` with its ``sections``: a model, its title, tables, and a picture or none."""
    text: str = _template(f"{part.name}/page.md.j2").render(
        part=part, record=record, reasons=reasons, sections=sections, in_words=in_words
    )
    return text


def reasons(goals: Sequence[Goal], why: Mapping[str, str]) -> list[str]:
    """Why goals were missed, as far as that is known; each once."""
    found = []
    for goal in goals:
        if not goal.holds:
            known = [text for what, text in why.items() if what in goal.what]
            found += known or [f"**{goal.model}, {goal.what}.** Not yet understood."]
    return list(dict.fromkeys(found))


def in_words(seconds: int) -> str:
    """A duration, to the minute where it is one."""
    return f"{seconds} s" if seconds < 60 else f"{seconds / 60:.0f} min"


def as_text(table: RenderableType, width: int = WIDTH) -> str:
    """What a terminal of ``width`` columns would show."""
    console = Console(file=StringIO(), width=width, highlight=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().strip("\n").split("\n"))  # type: ignore[attr-defined]


def _template(name: str) -> Any:
    import jinja2

    loader = jinja2.FileSystemLoader(Path(s2mlp_studies.__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=False, undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template(name)
