"""The tables of ``s2mlp-tune``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s2mlp_deploy.cli.bundle_tables import bundle_grid
from s2mlp_deploy.cli.grid import fact, new_grid
from s2mlp_deploy.cli.lines import or_dash, readable_size
from s2mlp_deploy.cli.tables import milliseconds
from s2mlp_deploy.pipeline.tune.report import Row, TuneReport
from s2mlp_deploy.pipeline.tune.request import TuneRequest
from s2mlp_deploy.pipeline.tune.tune import TuneResult
from s2mlp_deploy.system.wording import counted

MARKS = {"taken": "taken", "level": "≈", "beyond a limit": "beyond a limit"}
"""Outcomes that the table shows; times show the others."""

_STYLES = {"taken": "bold green", "beyond a limit": "yellow"}


def tune(result: TuneResult, request: TuneRequest, png: Path | None) -> RenderableType:
    """The result of ``s2mlp-tune``: all candidates that were timed, the others with their reasons, the bundle, and why it was taken."""
    report = result.report
    parts: list[RenderableType] = [candidates(report), Text(_method(report))]
    parts += [Text(line, style="yellow") for line in _not_timed(report)]
    parts += [Text(f"left out: {one.name}: {one.reason}") for one in report.excluded]
    grid = new_grid()
    row = report.row
    assert row
    if row.threads is not None:
        fact(grid, "threads", f"run it on {counted(row.threads, 'thread')}, which the bundle does not set")
    fact(grid, "same as", f"{shlex.join(['s2mlp-export', str(request.source.path)])} … {shlex.join(row.flags)}")
    fact(grid, "report", str(request.report))
    if png:
        fact(grid, "picture", str(png))
    return Group(*parts, bundle_grid(result.bundle, unchanged=False), grid, Text(report.decision, style="bold green"))


def candidates(report: TuneReport) -> Table:
    """The candidates that were timed, the fastest first."""
    table = Table(title="candidates", title_justify="left", title_style="bold")
    table.add_column("candidate", overflow="fold")
    accurate = any(row.figures and row.figures.accuracy_drop is not None for row in report.timed)
    measured = ["lost"] if accurate else []
    by_energy = ["mJ a batch"] if any(row.millijoules for row in report.timed) else []
    for heading in ("threads", "size", *measured, "ms a batch", "× fastest", "95% interval", *by_energy, ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.timed:
        table.add_row(*_cells(row, accurate=accurate, by_energy=bool(by_energy)), style=_STYLES.get(row.outcome, ""))
    return table


def _cells(row: Row, *, accurate: bool, by_energy: bool) -> Sequence[Text | str]:
    assert row.figures and row.milliseconds and row.times_as_long
    lost = or_dash(row.figures.accuracy_drop, ".2f")
    longer = row.times_as_long
    return [
        Text(row.build),
        "" if row.threads is None else str(row.threads),
        readable_size(row.figures.size_bytes),
        *([lost] if accurate else []),
        milliseconds(row.milliseconds)[0],
        f"{longer.median:.2f}",
        f"{longer.low:.2f} … {longer.high:.2f}",
        *([f"{row.millijoules.median:.3g}" if row.millijoules else "–"] if by_energy else []),
        MARKS.get(row.outcome, ""),
    ]


def _not_timed(report: TuneReport) -> list[str]:
    """A line for each candidate without times, those with the same reason together."""
    by_reason: dict[str, list[str]] = {}
    for row in report.rows:
        if not row.milliseconds:
            by_reason.setdefault(f"{row.outcome}: {row.reason}", []).append(row.name)
    return [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]


def _method(report: TuneReport) -> str:
    """How candidates were timed, in a sentence."""
    method = report.method
    if method is None:
        return ""
    laps = ", then ".join("→".join(map(str, of_race)) for of_race in method.laps)
    return (
        f"lost: points of accuracy. × fastest: the time in units of the fastest's of the same race, round by round, in one process; batch "
        f"{method.batch}, {method.input}, on {counted(method.cores, 'core')}. ≈: no difference of 2% shown. Slow ones left early: {laps} "
        "candidates"
    )
