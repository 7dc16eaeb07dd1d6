"""docs/reliability.md: what was promised, how it was tried, how often, and what came of it.

A promise is a test module: the first line of its docstring is the promise, the rest what there is to say of it. A way to
try it is a test that takes the fixture ``trials``: its docstring says how. So the page says what was run, and nothing else.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from s2mlp_deploy import machine

INTRODUCTION = """\
# Reliability: what is promised, and how it was tried

`make reliability` repeats everything on this page and writes it anew (hours), `make reliability ONLY=crash` what is about
crashes; `make test` tries each promise a few times. Each section is a module in `tests/reliability`, each row a test there. *Held*
means that every single try went as promised. A module in `tests/reliability` without a section has not been run in full yet.
"""


class Trials:
    """How often a test tries something, and what the page tells of it."""

    def __init__(self, *, thorough: bool) -> None:
        self.thorough = thorough
        self._tried: dict[str, int] = {}
        self._notes: list[str] = []

    def times(self, few: int, many: int) -> int:
        """``few``, or ``many`` where it is to be thorough."""
        return many if self.thorough else few

    def tried(self, what: str, count: int = 1) -> None:
        """``count`` more of ``what``, which is in the plural: "exports killed"."""
        self._tried[what] = self._tried.get(what, 0) + count

    def note(self, text: str) -> None:
        """What was seen that a reader wants to know: a largest value, which check caught what."""
        self._notes.append(text)

    def entry(self, promise: str | None, how: str | None) -> tuple[str, Any]:
        """What the test's report carries to the process that writes the page; filled while the test runs."""
        assert promise and how, "a test with trials has a docstring that says how it tries, in a module that says what"
        return "trials", (promise, how, self._tried, self._notes)


@dataclass
class Row:
    """One way of trying a promise, over all parameters of its test."""

    tried: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
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
    def count(self) -> str:
        return "<br>".join(f"{number:,} {what}" for what, number in self.tried.items()) or str(self.passed or "–")


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
        promise, how, tried, notes = told
        row = self._rows.setdefault(inspect.cleandoc(promise), {}).setdefault(" ".join(how.split()), Row())
        row.seconds += report.duration
        row.failed += report.failed
        if report.skipped and isinstance(report.longrepr, tuple):
            row.skipped.append(report.longrepr[2].removeprefix("Skipped: "))
        if report.when == "call" and report.passed:
            row.passed += 1
            row.tried.update(tried)
            row.notes += notes

    def pytest_sessionfinish(self) -> None:
        """Write the page; sections that were not run stay as they are."""
        sections = {section.partition("\n")[0]: section for section in self._sections()}
        if self._path.exists():
            _, *before = self._path.read_text("utf-8").split("\n## ")
            sections = {section.partition("\n")[0]: section.strip() for section in before} | sections
        page = [INTRODUCTION, *(f"## {sections[title]}\n" for title in sorted(sections))]
        self._path.write_text("\n".join(page), "utf-8")

    def _sections(self) -> Iterator[str]:
        for promise, rows in self._rows.items():
            title, _, text = promise.partition("\n")
            table = "| how | how often | result |\n|---|---|---|"
            for how, row in rows.items():
                cells = how, row.count, "<br>".join([row.result, *dict.fromkeys(row.notes)])
                table += f"\n| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
            minutes = sum(row.seconds for row in rows.values()) / 60
            yield "\n\n".join([title.rstrip("."), *([text.strip()] if text else []), table, _conditions(minutes)])


def _conditions(minutes: float) -> str:
    described = machine.describe()
    versions = ", ".join(f"{name} {version}" for name, version in machine.installed().items())
    return (
        f"{minutes:.0f} minutes of tests on {described['processor']}, {described['cores']} cores, {described['system']}, Python "
        f"{described['python']}, with {versions}."
    )
