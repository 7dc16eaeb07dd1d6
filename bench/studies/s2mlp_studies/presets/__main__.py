"""``python -m s2mlp_studies.presets``: the measurements behind docs/benchmarks, whole or in part.

Tables go to stdout, progress to stderr.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from s2mlp_deploy.cli.terminal import ConsoleListener
from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_studies.models import MODELS
from s2mlp_studies.part import NAMES

if TYPE_CHECKING:  # needs torch
    from s2mlp_studies.part import Part


def _of(known: Sequence[str]) -> Callable[[list[str]], list[str]]:
    """A check that every value of an option is ``known``."""

    def check(given: list[str]) -> list[str]:
        for name in given:
            if name not in known:
                raise typer.BadParameter(f"{name!r}: expected one of {', '.join(known)}")
        return given

    return check


def bench(
    model: Annotated[
        list[str],
        typer.Option(callback=_of(tuple(MODELS)), help=f"A preset to measure: {', '.join(MODELS)}; may be repeated."),
    ] = list(MODELS),  # noqa: B006
    only: Annotated[
        list[str],
        typer.Option(metavar="PART", callback=_of(NAMES), help=f"One part alone: {', '.join(NAMES)}; may be repeated."),
    ] = list(NAMES),  # noqa: B006
    rounds: Annotated[int, typer.Option(min=6, help="Rounds of the latency measurement.")] = 25,
    repeats: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rounds of whole processes; else 3 of most exports, and 1 of engine builds and repairs."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json-file", metavar="FILE", help="Write every sample to FILE.")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the page of each part into DIR/benchmarks, over what is there."),
    ] = None,
) -> None:
    """Measure exports, latency, growth, engines, repairs, and the shift in training; each part has a page of its own."""
    # torch and onnxruntime are not needed for --help.
    from s2mlp_studies.part import Run
    from s2mlp_studies.presets import pages
    from s2mlp_studies.presets.study import Checkpoints, Study

    listener = ConsoleListener()
    if write:
        pages.check()
    parts = _available(only, listener)
    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = pages.WIDTH
    with TemporaryDirectory() as directory:
        checkpoints = Checkpoints(Path(directory))
        study = Study(Run([MODELS[name] for name in model], rounds, repeats, listener, checkpoints), out, write)
        study.measure_all(parts)
    if json_file:
        json_file.write_text(json.dumps(study.document, indent=2) + "\n", "utf-8")
    if study.failed:
        listener.warn(f"not measured to the end: {', '.join(study.failed)}")
        raise typer.Exit(1)


def _available(names: Sequence[str], listener: ConsoleListener) -> list[Part]:
    """Those of the parts ``names`` that can be measured here. Exits where there is none."""
    from s2mlp_studies.part import load

    parts, error = [], None
    for name in names:
        part = load(name)
        try:
            part.require()
        except RuntimeMissingError as missing:
            error = missing
            listener.warn(f"the part {name} is left out: {missing}")
        else:
            parts.append(part)
    if error and not parts:
        raise typer.Exit(error.exit_code)
    return parts


if __name__ == "__main__":
    typer.run(bench)
