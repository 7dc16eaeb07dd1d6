"""docs/reliability.md: what was promised, how it was tried, how often, and what came of it.

A promise is a test module: the first line of its docstring is the promise, the rest what there is to say of it. A way to
try it is a test that takes the fixture ``trials``: its docstring says how. So the page says what was run, and nothing else.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from s2mlp_deploy.system import machine

INTRODUCTION = """\
# Reliability: what is promised, and how it was tried

`make reliability` repeats everything on this page and writes it anew (three quarters of an hour on two quiet cores),
`make reliability ONLY=crash` what is in `tests/reliability/test_*crash*.py`; `make test` tries each promise a few times. Each section
is a module there, each row a test. *Held* means that every single try went as promised.
"""


@dataclass
class Told:
    """What came of one test, or of one for several parameters. It crosses processes, so it has builtin types alone."""

    tried: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    largest: dict[str, tuple[float, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, other: Told) -> None:
        """What came of the same for other parameters."""
        for mine, its in ((self.tried, other.tried), (self.ended, other.ended)):
            for what, count in its.items():
                mine[what] = mine.get(what, 0) + count
        for what, largest in other.largest.items():
            self.largest[what] = max(self.largest.get(what, largest), largest)
        self.notes += other.notes


class Trials:
    """How often a test tries something, and what the page tells of it."""

    def __init__(self, *, thorough: bool) -> None:
        self.thorough = thorough
        self._told = Told()

    def times(self, few: int, many: int) -> int:
        """``few``, or ``many`` where it is to be thorough."""
        return many if self.thorough else few

    def tried(self, what: str, count: int = 1) -> None:
        """``count`` more of ``what``, which is in the plural: "exports killed"."""
        self._told.add(Told(tried={what: count}))

    def ended(self, how: str, count: int = 1) -> None:
        """``count`` of them ended so: "with the old bundle". Summed over the test's parameters."""
        self._told.add(Told(ended={how: count}))

    def most(self, what: str, value: float, shown: str) -> None:
        """The largest ``value`` of ``what``, of which one is ``shown`` for all of the test's parameters: "slowest", "0.4 s"."""
        self._told.add(Told(largest={what: (value, shown)}))

    def note(self, text: str) -> None:
        """What else was seen that a reader wants to know: which check caught what."""
        self._told.add(Told(notes=[text]))

    def entry(self, promise: str | None, how: str | None) -> tuple[str, Any]:
        """What the test's report carries to the process that writes the page; filled while the test runs."""
        assert promise and how, "a test with trials has a docstring that says how it tries, in a module that says what"
        return "trials", (promise, how, vars(self._told))


@dataclass
class Row:
    """One way of trying a promise, over all parameters of its test."""

    told: Told = field(default_factory=Told)
    failed: int = 0
    skipped: list[str] = field(default_factory=list)
    passed: int = 0
    seconds: float = 0.0

    @property
    def result(self) -> str:
        if self.failed:
            return f"**FAILED** ({self.failed} of {self.failed + self.passed})"
        missing = "; ".join(dict.fromkeys(self.skipped))
        return "held" * bool(self.passed) + "; " * bool(self.passed and missing) + f"not run: {missing}" * bool(missing)

    @property
    def came(self) -> str:
        told = self.told
        ended = (f"{count:,} {how}" for how, count in sorted(told.ended.items()))
        largest = (f"{what}: {shown}" for what, (_, shown) in told.largest.items())
        return "<br>".join([self.result, *ended, *largest, *dict.fromkeys(told.notes)])

    @property
    def count(self) -> str:
        return "<br>".join(f"{number:,} {what}" for what, number in self.told.tried.items()) or str(self.passed or "–")


class Record:
    """Gathers what tests report, wherever they run, and writes the page in the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, dict[str, Row]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one phase of one test."""
        told = dict(report.user_properties).get("trials")
        if told is None:
            return
        promise, how, counted = told
        row = self._rows.setdefault(inspect.cleandoc(promise), {}).setdefault(" ".join(how.split()), Row())
        row.seconds += report.duration
        row.failed += report.failed
        if report.skipped and isinstance(report.longrepr, tuple):
            row.skipped.append(report.longrepr[2].removeprefix("Skipped: "))
        if report.when == "call" and report.passed:
            row.passed += 1
            row.told.add(Told(**counted))

    def pytest_sessionfinish(self) -> None:
        """Write the page; sections that were not run stay as they are."""
        sections = {section.partition("\n")[0]: section for section in self._sections()}
        if self._path.exists():
            _, *before = self._path.read_text("utf-8").split("\n## ")
            sections = {section.partition("\n")[0]: section.strip() for section in before} | sections
        page = [INTRODUCTION, _contents(sections), *(f"## {sections[title]}\n" for title in sorted(sections))]
        self._path.write_text("\n".join(page), "utf-8")

    def _sections(self) -> Iterator[str]:
        for promise, rows in self._rows.items():
            title, _, text = promise.partition("\n")
            table = "| how | how often | result |\n|---|---|---|"
            for how, row in rows.items():
                cells = how, row.count, row.came
                table += f"\n| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
            minutes = sum(row.seconds for row in rows.values()) / 60
            yield "\n\n".join([title.rstrip("."), *([text.strip()] if text else []), table, _conditions(minutes)])


def _contents(sections: dict[str, str]) -> str:
    """A line for each section, with a link (by GitHub's rule for headings), and whether all in it held."""
    lines = "| promise | ways of trying it | result |\n|---|---|---|\n"
    for title in sorted(sections):
        anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        rows = [line for line in sections[title].splitlines() if line.startswith("| ")][1:]
        failed, missing = (sum(word in row for row in rows) for word in ("**FAILED**", "not run: "))
        result = f"**{failed} FAILED**" if failed else "held" + f", {missing} not or not wholly run" * bool(missing)
        lines += f"| [{title}](#{anchor}) | {len(rows)} | {result} |\n"
    return lines


def _conditions(minutes: float) -> str:
    described = machine.describe()
    versions = ", ".join(f"{name} {version}" for name, version in machine.installed().items())
    return (
        f"{minutes:.0f} minutes of tests on {described['processor']}, {described['cores']} cores, {described['system']}, Python "
        f"{described['python']}, with {versions}."
    )
