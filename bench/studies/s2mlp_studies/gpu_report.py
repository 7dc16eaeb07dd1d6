"""``python -m s2mlp_studies.gpu_report``, or ``make gpu``: what works on this machine's GPU and how fast, within six minutes.

It needs no network. Tables go to stdout, progress to stderr.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from s2mlp_deploy.cli.terminal import ConsoleListener

SECONDS = 360.0


def report(
    device: Annotated[str, typer.Option(help="cuda, or cpu for a trial of the report itself.")] = "cuda",
    seconds: Annotated[
        float, typer.Option(min=1, help="The time that it may take; what has none left is dropped.")
    ] = SECONDS,
    model: Annotated[list[str], typer.Option(help="A preset to race; may be repeated.")] = ["wide", "deep"],  # noqa: B006
    batch: Annotated[list[int], typer.Option(min=1, help="A batch to race at; may be repeated.")] = [1, 128, 32],  # noqa: B006
    json_file: Annotated[
        Path | None,
        typer.Option("--json-file", metavar="FILE", help="Write every row and sample to FILE, after each step."),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write the page into DIR/benchmarks; one with figures is not replaced by one without."
        ),
    ] = None,
) -> None:
    """Run the tests marked gpu, the parity of every lowering and precision, and a short race against PyTorch."""
    from s2mlp_studies import conditions
    from s2mlp_studies.goal import goal_table
    from s2mlp_studies.gpu import part
    from s2mlp_studies.gpu.device import DEVICES
    from s2mlp_studies.gpu.measure import measure
    from s2mlp_studies.presets import pages
    from s2mlp_studies.random_weights import PRESETS, save_random

    for name, value, known in (("--device", device, DEVICES), *(("--model", one, PRESETS) for one in model)):
        if value not in known:
            raise typer.BadParameter(f"{name} {value!r}: expected one of {', '.join(known)}")
    listener = ConsoleListener()
    around = conditions.describe(date.today())
    with TemporaryDirectory() as directory:

        def checkpoint(name: str) -> Path:
            return save_random(name, Path(directory) / f"{name}.pt")

        planned = replace(part.plan(device, model, checkpoint), seconds=seconds, batches=tuple(batch))
        for found in measure(planned, listener):
            if json_file:
                json_file.parent.mkdir(parents=True, exist_ok=True)
                content = {"conditions": asdict(around), **found.document}
                json_file.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    findings = list(part.findings(found))
    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = pages.WIDTH
    out.print(around.text)
    for finding in findings:
        out.print(f"[bold]{finding.title}[/bold]", finding.tables)
    if goals := [goal for finding in findings for goal in finding.goals]:
        out.print(goal_table(goals))
    if write and not _keeps(write, found.figured, listener):
        pages.write(pages.Page(part.PART, around, round(found.seconds), findings), write)


def _keeps(docs: Path, figured: bool, listener: ConsoleListener) -> bool:
    """Whether the page in ``docs`` is kept, since it has goals that were measured, and the new one has no figure of a race."""
    from s2mlp_studies.presets import pages

    path = docs / pages.FOLDER / "gpu.json"
    if figured or not path.exists() or not json.loads(path.read_text("utf-8"))["goals"]:
        return False
    listener.warn(f"{path} holds figures of a GPU, and nothing was raced here: the page is left as it is")
    return True


if __name__ == "__main__":
    typer.run(report)
