"""``s2mlp-doctor``: what this machine can export and run, and what is missing for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from s2mlp_deploy.cli.grid import fact, new_grid
from s2mlp_deploy.cli.options import JsonOption
from s2mlp_deploy.cli.terminal import command, show
from s2mlp_deploy.system.version import __version__

if TYPE_CHECKING:
    from s2mlp_deploy.cli.abilities import Ability, Report


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
    shown = sorted(_merged(report.abilities), key=lambda ability: not ability.available)
    lines = [Text(str(a), style="green" if a.available else "yellow") for a in shown]
    return Group(facts, *lines)


def _merged(abilities: Sequence[Ability]) -> Iterator[Ability]:
    """The abilities, those to build and to run a format's bundles as one where both are there, or lack the same."""
    waiting = None
    for ability in abilities:
        if waiting:
            same = str(ability).replace("run and verify", "build", 1) == str(waiting)
            ability = replace(ability, name=f"build, {ability.name}") if same else ability
            yield from () if same else (waiting,)
        waiting = ability if ability.name.startswith("build ") else None
        if waiting is None:
            yield ability


main = command(doctor)
