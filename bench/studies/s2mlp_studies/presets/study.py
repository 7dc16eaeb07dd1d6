"""Measure the parts one after another; each one's tables are printed, and its page is written, when it is there."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

from s2mlp_studies import conditions
from s2mlp_studies.goal import Goal, goal_table
from s2mlp_studies.models import Model
from s2mlp_studies.part import Finding, Part, Run, announce
from s2mlp_studies.presets.pages import Page, write
from s2mlp_studies.random_weights import save_random


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints with random weights in ``directory``, each made when it is first needed."""

    directory: Path

    def __call__(self, model: Model) -> Path:
        """The checkpoint of ``model``."""
        path = self.directory / f"{model.name}.pt"
        return path if path.exists() else save_random(model.name, path)


@dataclass
class Study:
    """Measures parts and prints to ``out``; with ``pages``, a directory, it writes their pages there.

    ``document`` is everything that was measured, as JSON; ``goals`` are all goals; ``failed`` are the parts that broke off.
    """

    run: Run
    out: Console
    pages: Path | None = None
    today: Callable[[], date] = date.today
    goals: list[Goal] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    document: dict[str, Any] = field(default_factory=dict)

    def measure_all(self, parts: Sequence[Part]) -> None:
        """Measure ``parts``; one that breaks off leaves the page that was there, and the next follow."""
        for part in parts:
            try:
                self.measure(part)
            except Exception:  # whatever it is: hours of others' measurements would be lost with it
                traceback.print_exc()
                self.failed.append(part.name)
        self.out.print(goal_table(self.goals))

    def measure(self, part: Part) -> None:
        """Measure one part."""
        around, start, findings = conditions.describe(self.today()), time.monotonic(), list[Finding]()
        self.out.print(f"[bold]{part.title}[/bold]\n{around.text}")
        for finding in part.measure(self.run):
            self.out.print(finding.tables)
            findings.append(finding)
            self.goals += finding.goals
        page = Page(part, around, round(time.monotonic() - start), findings)
        announce(f"{part.name}: measured in {page.minutes}")
        self.document[part.name] = {
            "conditions": asdict(around),
            "seconds": page.seconds,
            "findings": [{"model": finding.model, **finding.samples} for finding in findings],
            "goals": [{**asdict(g), "holds": g.holds, "clear": g.clear} for f in findings for g in f.goals],
        }
        if self.pages:
            write(page, self.pages)
