"""``s2mlp-doctor``: what this machine can export and run, and what is missing for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from s2mlp_deploy.cli.grid import fact, new_grid
from s2mlp_deploy.cli.options import JsonOption
from s2mlp_deploy.cli.terminal import command, show
from s2mlp_deploy.system.version import __version__

if TYPE_CHECKING:
    from s2mlp_deploy.cli.abilities import Report


def doctor(as_json: JsonOption = False) -> None:
    """Show what this machine can export and run, and what is missing for the rest."""
    from s2mlp_deploy.cli import abilities

    report = abilities.examine()
    show(report.to_json() if as_json else table(report))


def table(report: Report) -> RenderableType:
    """The report for people."""
    facts = new_grid()
    fact(facts, "s2mlp-deploy", __version__)
    for key, value in report.machine.items():
        fact(facts, key, str(value))
    fact(facts, "packages", ", ".join(f"{n} {v}" for n, v in report.packages.items()))
    lines = [Text(str(a), style="green" if a.available else "yellow") for a in report.abilities]
    return Group(facts, *lines)


main = command(doctor)
