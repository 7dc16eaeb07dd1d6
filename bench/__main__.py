"""``python -m bench``: export cost, latency and engines of random models.

Tables go to stdout, progress to stderr.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status

SEED = 20210614
_err = Console(stderr=True, highlight=False)


class Model(str, Enum):
    wide = "wide"
    deep = "deep"


class Part(str, Enum):
    export = "export"
    latency = "latency"
    engines = "engines"


def bench(
    model: Annotated[list[Model], typer.Option(help="The preset to measure; may be repeated.")] = list(Model),  # noqa: B006
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of the latency measurement.")] = 25,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Rounds of whole processes; else 3 of exports, and 1 of engine builds.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything that was measured to FILE.")
    ] = None,
    only: Annotated[Part | None, typer.Option(help="Measure one part alone.")] = None,
) -> None:
    """Measure what an export costs, how fast its graphs run, and what engines of them cost."""
    # torch and onnxruntime are not needed for --help.
    from bench import report
    from bench.engines import measure_engines, require_tensorrt_rtx
    from bench.export_cost import measure_exports, naive_command, naive_file
    from bench.goals import engine_goals, export_goals, latency_goals
    from bench.latency import measure_latency
    from bench.process import measure
    from bench.runtimes import require_openvino
    from bench.weights import save_random
    from s2mlp_deploy.errors import RuntimeMissingError

    if only in (None, Part.latency):
        try:
            require_openvino()  # before minutes of measuring, not after
        except RuntimeMissingError as error:
            _err.print(str(error), markup=False)
            raise typer.Exit(error.exit_code) from None
    with_engines = only in (None, Part.engines)
    if with_engines:
        try:
            require_tensorrt_rtx()
        except RuntimeMissingError as error:
            if only is Part.engines:
                _err.print(str(error), markup=False)
                raise typer.Exit(error.exit_code) from None
            _err.print(f"engines are left out: {error}", markup=False)
            with_engines = False

    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = 120
    out.print(report.environment())
    rng = random.Random(SEED)
    exports, latencies, engines, goals = [], [], [], []
    with _err.status("") as status:
        for preset in (m.value for m in model):
            announce = _announcer(status, preset)
            with TemporaryDirectory() as directory:
                scratch = Path(directory)
                checkpoint = save_random(preset, scratch / f"{preset}.pt", SEED)
                if only in (None, Part.export):
                    cost = measure_exports(
                        preset, checkpoint, scratch, repeats=repeats or 3, rng=rng, announce=announce
                    )
                    exports.append(cost)
                    goals += export_goals(cost)
                    out.print(report.export_table(cost))
                if only in (None, Part.latency):
                    naive = naive_file(scratch)
                    if not naive.exists():
                        announce("torch.onnx.export")
                        measure(naive_command(preset, checkpoint, scratch))
                    latency = measure_latency(
                        preset, checkpoint, naive, scratch, rounds=rounds, rng=rng, announce=announce
                    )
                    latencies.append(latency)
                    goals += latency_goals(latency)
                    out.print(report.latency_table(latency), report.bound_table(latency), sep="\n")
                if with_engines:
                    built = measure_engines(preset, checkpoint, scratch, repeats=repeats or 1, announce=announce)
                    engines.append(built)
                    goals += engine_goals(built)
                    out.print(report.engine_table(built))
    out.print(report.goal_table(goals))
    if json_file:
        json_file.write_text(json.dumps(report.document(exports, latencies, engines, goals), indent=2) + "\n", "utf-8")


def _announcer(status: Status, preset: str) -> Callable[[str], None]:
    def announce(text: str) -> None:
        status.update(f"{preset}: {text}")
        if not _err.is_terminal:
            _err.print(f"{preset}: {text}")

    return announce


if __name__ == "__main__":
    typer.run(bench)
