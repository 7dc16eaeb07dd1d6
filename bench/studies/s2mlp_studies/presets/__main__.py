"""``python -m s2mlp_studies.presets``: export cost, latency, scaling and engines of random models.

Tables go to stdout, progress to stderr.
"""

from __future__ import annotations

import json
import random
import sys
from enum import Enum
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from s2mlp_deploy.cli.terminal import ConsoleListener
from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.families.s2mlp.spec import PRESETS

SEED = 20210614
SCALED = "deep"
"""The model whose growth is measured: large images of the other take too long."""

DEPTHS = (Fraction(1, 4), Fraction(1, 2), Fraction(1))


class Model(str, Enum):
    wide = "wide"
    deep = "deep"


class Part(str, Enum):
    export = "export"
    latency = "latency"
    scale = "scale"
    engines = "engines"


def bench(
    model: Annotated[list[Model], typer.Option(help="The preset to measure; may be repeated.")] = list(Model),  # noqa: B006
    rounds: Annotated[int, typer.Option(min=6, help="Rounds of the latency measurement.")] = 25,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Rounds of whole processes; else 3 of exports, and 1 of engine builds.")
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
    """Measure what an export costs, how fast its graphs run, how that grows, and what engines of them cost."""
    # torch and onnxruntime are not needed for --help.
    from s2mlp_bench import environment
    from s2mlp_bench.baselines.registry import BASELINES
    from s2mlp_bench.interleaved_timing import Schedule
    from s2mlp_deploy.checkpoint.load import load_checkpoint
    from s2mlp_studies.presets import report
    from s2mlp_studies.presets.engines import measure_engines, require_tensorrt_rtx
    from s2mlp_studies.presets.export_cost import measure_exports
    from s2mlp_studies.presets.goals import engine_goals, export_goals, latency_goals
    from s2mlp_studies.presets.latency import measure_latency
    from s2mlp_studies.random_weights import save_random
    from s2mlp_studies.scale import table
    from s2mlp_studies.scale.measure import measure
    from s2mlp_studies.scale.scaling import Plan, default_sizes

    listener = ConsoleListener()
    if write:
        from s2mlp_studies.presets import markdown

        markdown.check()
    baselines = []
    for name, baseline in BASELINES.items():
        if reason := baseline.missing():
            listener.warn(f"the baseline {name} is left out: {reason}")
        else:
            baselines.append(name)
    with_engines = only in (None, Part.engines)
    if with_engines:
        try:
            require_tensorrt_rtx()
        except RuntimeMissingError as error:
            if only is Part.engines:
                listener.warn(str(error))
                raise typer.Exit(error.exit_code) from None
            listener.warn(f"engines are left out: {error}")
            with_engines = False

    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = 120
    measured = report.Measured(report.environment())
    out.print(measured.environment)
    rng = random.Random(SEED)
    for preset in (m.value for m in model):
        with TemporaryDirectory() as directory:
            scratch = Path(directory)
            checkpoint = save_random(preset, scratch / f"{preset}.pt")
            if only in (None, Part.export):
                cost = measure_exports(preset, checkpoint, scratch, repeats=repeats or 3, rng=rng, announce=_announce)
                measured.exports.append(cost)
                measured.goals += export_goals(cost)
                out.print(report.export_table(cost))
            if only in (None, Part.latency):
                latency = measure_latency(
                    preset,
                    checkpoint,
                    scratch,
                    baselines=baselines,
                    schedule=Schedule(0, rounds, SEED),
                    listener=listener,
                )
                measured.latencies.append(latency)
                measured.goals += latency_goals(latency)
                out.print(report.latency_tables(latency))
            if preset == SCALED and only in (None, Part.scale):
                source = load_checkpoint(checkpoint)
                plan = Plan(
                    default_sizes(PRESETS[preset]), (1, 2, 4, 8), DEPTHS, threads=1, rounds=10, min_seconds=0, seed=SEED
                )
                scaling = measure(source, plan, listener)
                around = environment.describe()
                measured.scalings.append(report.Scaled(preset, source.sha256, scaling, around))
                out.print(table.render(scaling, around))
            if with_engines:
                built = measure_engines(preset, checkpoint, scratch, repeats=repeats or 1, announce=_announce)
                measured.engines.append(built)
                measured.goals += engine_goals(built)
                out.print(report.engine_table(built))
    out.print(report.goal_table(measured.goals))
    if json_file:
        json_file.write_text(json.dumps(report.document(measured), indent=2) + "\n", "utf-8")
    if write:
        markdown.write(measured, write)


def _announce(text: str) -> None:
    sys.stderr.write(f"{text} …\n")


if __name__ == "__main__":
    typer.run(bench)
