"""``s2mlp-sweep``: many exports from one plan, on several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from s2mlp_deploy.cli.help import section
from s2mlp_deploy.cli.options import JsonOption, MlflowOption, output_option
from s2mlp_deploy.cli.terminal import ConsoleListener, command, show

worker_option = section("Workers")


def sweep(
    plan: Annotated[
        Path,
        typer.Argument(
            metavar="PLAN.toml", readable=False, help="Which exports to make of which checkpoints (docs/sweep.md)."
        ),
    ],
    workers: Annotated[
        int | None,
        worker_option(metavar="N", min=1, help="Exports to make at a time; else as many as cores and memory allow."),
    ] = None,
    ray: Annotated[
        str | None,
        worker_option(
            metavar="HOST:PORT", help="Make them on this Ray cluster instead (auto: the one that this machine is of)."
        ),
    ] = None,
    ship: Annotated[
        bool,
        worker_option("--ship", help="Send files through Ray, for nodes that do not share this machine's storage."),
    ] = False,
    output: Annotated[
        Path | None,
        output_option(
            "-o", "--output", metavar="DIR", help="Where bundles and results.jsonl go; else STEM-exports here."
        ),
    ] = None,
    mlflow: MlflowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make every export of a plan that is not there yet. Exits 1 where one failed; the others are made all the same."""
    from s2mlp_deploy.pipeline.sweep.sweep import SweepRequest, SweepResult
    from s2mlp_deploy.pipeline.sweep.sweep import sweep as run

    result: SweepResult = run(SweepRequest(plan, output, workers, ray, mlflow, ship), ConsoleListener())
    if as_json:
        show(_json(result))
    else:
        from s2mlp_deploy.cli import sweep_tables

        show(sweep_tables.sweep(result))
    if result.counts["failed"]:
        raise typer.Exit(1)


def _json(result: Any) -> dict[str, Any]:
    return {
        "results": str(result.results),
        "counts": dict(result.counts),
        "items": [outcome.as_dict() for outcome in result.outcomes()],
    }


main = command(sweep, "plan.toml", "plan.toml -o exports --workers 4")
