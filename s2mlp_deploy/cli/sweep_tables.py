"""The table of ``s2mlp-sweep``."""

from __future__ import annotations

import os
from itertools import islice

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s2mlp_deploy.cli.lines import or_dash, readable_size
from s2mlp_deploy.pipeline.sweep.outcome import Outcome
from s2mlp_deploy.pipeline.sweep.sweep import SweepResult
from s2mlp_deploy.system.wording import counted

MOST_ROWS = 200
"""Items that are shown; the file of results has them all."""


def sweep(result: SweepResult) -> RenderableType:
    """The items, the errors of those that failed, and the counts."""
    table = Table(title="exports", title_justify="left", title_style="bold")
    for heading in ("checkpoint", "made"):
        table.add_column(heading, overflow="fold")
    timed = ("ms a batch",) if any(outcome.latency for outcome in result.outcomes()) else ()
    for heading in ("size", "relative L2", "accuracy", *timed, "bundle"):
        table.add_column(heading, justify="right", no_wrap=True)
    folder = os.path.commonpath({os.path.dirname(outcome.checkpoint) for outcome in result.outcomes()})
    for outcome in islice(result.outcomes(), MOST_ROWS):
        name = os.path.relpath(outcome.checkpoint, folder)
        table.add_row(Text(name), Text(_choice(outcome)), *_figures(outcome, timed=bool(timed)))
    failures = islice((outcome for outcome in result.outcomes() if outcome.error), MOST_ROWS)
    return Group(table, *(_failure(outcome, folder) for outcome in failures), _summary(result))


def _choice(outcome: Outcome) -> str:
    lowering = outcome.lowering if outcome.lowering != "auto" else None
    return " ".join(part for part in (outcome.format, outcome.precision, outcome.target, lowering) if part)


def _figures(outcome: Outcome, *, timed: bool) -> list[Text | str]:
    if outcome.error:
        return ["–"] * (4 if timed else 3) + [Text(f"FAILED, {outcome.error.exit_code}", style="bold red")]
    return [
        "–" if outcome.size_bytes is None else readable_size(outcome.size_bytes),
        or_dash(outcome.relative_l2, ".1e"),
        or_dash(outcome.evaluation.accuracy if outcome.evaluation else outcome.accuracy, ".2%"),
        *([or_dash(outcome.latency.median_ms if outcome.latency else None, ".3g")] if timed else []),
        outcome.key,
    ]


def _failure(outcome: Outcome, folder: str) -> Text:
    assert outcome.error
    name = f"{os.path.relpath(outcome.checkpoint, folder)} {_choice(outcome)}"
    return Text.assemble((f"{name}: ", "bold red"), f"{outcome.error.message} (exit code {outcome.error.exit_code})")


def _summary(result: SweepResult) -> Text:
    counts = result.counts
    parts = [f"{counted(counts['made'], 'export')} made"]
    if counts["there"]:
        parts.append(f"{counts['there']:,} there already")
    if counts["failed"]:
        parts.append(f"{counts['failed']:,} FAILED")
    more = sum(counts.values()) - MOST_ROWS
    beyond = f"; {more:,} more in it" if more > 0 else ""
    return Text(f"{', '.join(parts)}: {result.results}{beyond}", style="bold red" if counts["failed"] else "bold green")
