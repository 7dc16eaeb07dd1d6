"""``python -m s2mlp_studies.presets``: export cost, latency, scaling, engines and repairs of random models, and training with the shift.

Tables go to stdout, progress to stderr.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s2mlp_deploy.cli.terminal import ConsoleListener
from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.system.progress import Listener
from s2mlp_studies.presets.models import MODELS, Part

Name = Enum("Name", {name: name for name in MODELS}, type=str)  # type: ignore[misc]


def bench(
    model: Annotated[list[Name], typer.Option(help="The preset to measure; may be repeated.")] = list(Name),  # noqa: B006
    rounds: Annotated[int, typer.Option(min=6, help="Rounds of the latency measurement.")] = 25,
    repeats: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rounds of whole processes; else 3 of most exports, and 1 of engine builds and repairs."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json-file", metavar="FILE", help="Write everything that was measured to FILE.")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write benchmarks.md and its pictures into DIR, over what is there."),
    ] = None,
    only: Annotated[Part | None, typer.Option(help="Measure one part alone.")] = None,
) -> None:
    """Measure the cost of exports, engines, repairs and of the shift in training, and how fast graphs run and how that grows."""
    # torch and onnxruntime are not needed for --help.
    from s2mlp_studies.presets import report
    from s2mlp_studies.presets.study import Settings, Study

    listener = ConsoleListener()
    if write:
        from s2mlp_studies.presets import markdown

        markdown.check()
    parts = set(Part) if only is None else {only}
    engines = bool(parts & {Part.engines, Part.repair}) and _engines_can_be_built(listener, alone=only is Part.engines)
    if not engines:
        parts -= {Part.engines}
    if Part.training in parts and not _shifts_can_be_compiled(listener, alone=only is Part.training):
        parts -= {Part.training}
    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = 120
    study = Study(Settings(parts, rounds, repeats, _baselines(listener), engines), listener, out)
    for name in model:
        study.measure_model(MODELS[name.value])
    study.measure_repairs()
    study.measure_training()
    out.print(report.goal_table(study.measured.goals))
    if json_file:
        json_file.write_text(json.dumps(report.document(study.measured), indent=2) + "\n", "utf-8")
    if write:
        markdown.write(study.measured, write)


def _baselines(listener: Listener) -> list[str]:
    from s2mlp_bench.baselines.registry import BASELINES

    found = []
    for name, baseline in BASELINES.items():
        if reason := baseline.missing():
            listener.warn(f"the baseline {name} is left out: {reason}")
        else:
            found.append(name)
    return found


def _engines_can_be_built(listener: Listener, *, alone: bool) -> bool:
    from s2mlp_studies.presets.engines import require_tensorrt_rtx

    return _available("engines are", require_tensorrt_rtx, listener, alone=alone)


def _shifts_can_be_compiled(listener: Listener, *, alone: bool) -> bool:
    from s2mlp_studies.training.measure import require_compiler

    return _available("training is", require_compiler, listener, alone=alone)


def _available(what: str, require: Callable[[], object], listener: Listener, *, alone: bool) -> bool:
    """Whether ``require`` finds everything that a part needs. Exits where that part ``alone`` is wanted and cannot be."""
    try:
        require()
    except RuntimeMissingError as error:
        if alone:
            listener.warn(str(error))
            raise typer.Exit(error.exit_code) from None
        listener.warn(f"{what} left out: {error}")
        return False
    return True


if __name__ == "__main__":
    typer.run(bench)
