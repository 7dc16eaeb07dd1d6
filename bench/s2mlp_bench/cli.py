"""``s2mlp-bench``: bundles timed against each other on this machine. Parses, calls, prints and exits."""

from __future__ import annotations

import csv
import io
import os
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from s2mlp_bench.common_options import (
    ForceOption,
    JsonFileOption,
    RoundsOption,
    SamplesOption,
    SecondsOption,
    load_option,
    measurement_option,
)
from s2mlp_bench.results.output import check_writable, write, write_json
from s2mlp_deploy.cli import signals
from s2mlp_deploy.cli.help import one_of, section
from s2mlp_deploy.cli.option_values import numbers, sizes
from s2mlp_deploy.cli.options import output_option
from s2mlp_deploy.cli.terminal import ConsoleListener, command, show
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.pipeline.request import flags

SECONDS, ROUNDS = 10.0, 30

against_option = section("Compare with")
loadgen_option = section("MLPerf LoadGen")


Scenario = Literal["singlestream", "offline", "server"]


def bench(
    bundles: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE...", readable=False, help="Bundles; the first is what others are compared with."
        ),
    ],
    baseline: Annotated[
        list[str] | None,
        against_option(
            metavar="NAME",
            help="A baseline on the same weights; may be repeated, or all that run on the --provider. torch-cudagraph and names in "
            "-fp16 are for --provider cuda. One of torch-eager, torch-eager-fp16, torch-compile, torch-compile-fp16, "
            "torch-cudagraph, torch-cudagraph-fp16, naive-onnx, naive-onnx-fp16, openvino, mixer, no-shift, ort-static, "
            "openvino-static.",
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        against_option(metavar="OLD.json", help="Find what became slower since; exit with 1 if anything did."),
    ] = None,
    threads: Annotated[
        str | None, load_option(metavar="N,N", help="Threads of the processor; everything runs with each number.")
    ] = None,
    batch: Annotated[str, load_option(metavar="N,N", help="Batch sizes.")] = "1",
    image_size: Annotated[
        str | None,
        load_option(metavar="N,HxW", help="Image sizes, of bundles that were exported with --dynamic-size."),
    ] = None,
    provider: Annotated[
        str | None,
        load_option(
            metavar="NAME,NAME",
            help="ONNX Runtime's execution providers that run ONNX bundles; else cpu. Some of cpu, coreml, cuda, "
            "directml, openvino, qnn, tensorrt, tensorrt-rtx, webgpu, xnnpack.",
        ),
    ] = None,
    device: Annotated[
        int | None,
        load_option(
            "--device", metavar="N", min=0, help="The number of the NVIDIA GPU of all that runs on one; else 0."
        ),
    ] = None,
    min_seconds: SecondsOption = SECONDS,
    min_rounds: RoundsOption = ROUNDS,
    seed: Annotated[int, measurement_option(metavar="N", help="Draws the order of each round.")] = 0,
    cold: Annotated[bool, measurement_option("--cold/--no-cold", help="Measure a cold start of each, too.")] = True,
    bound: Annotated[
        bool,
        measurement_option("--bound/--no-bound", help="Time the matrix products alone, too, and say where time goes."),
    ] = True,
    energy: Annotated[
        bool,
        measurement_option(
            "--energy/--no-energy",
            help="Measure the energy of an image, where the device has a counter or a power sensor.",
        ),
    ] = True,
    strict: Annotated[
        bool, measurement_option("--strict", help="Exit with 1 where the machine was too noisy.")
    ] = False,
    scenario: Annotated[
        Scenario | None,
        loadgen_option(
            metavar="SCENARIO",
            help="Let MLPerf LoadGen drive each bundle by itself, and print its verdict, in place of interleaved timing. "
            + one_of(Scenario),
        ),
    ] = None,
    scenario_seconds: Annotated[
        float | None, loadgen_option(metavar="SECONDS", help="A scenario's shortest time; LoadGen's rule is 600.")
    ] = None,
    scenario_queries: Annotated[
        int | None,
        loadgen_option(metavar="N", help="A scenario's fewest queries (offline: images); else LoadGen's rule."),
    ] = None,
    target_qps: Annotated[
        float | None, loadgen_option(metavar="N", help="Images a second: offered to a server, or expected offline.")
    ] = None,
    target_latency_ms: Annotated[
        float | None,
        loadgen_option(metavar="MS", help="A server's bound of 99% of the latencies; LoadGen's rule is 15."),
    ] = None,
    as_json: SamplesOption = False,
    json_file: JsonFileOption = None,
    csv_file: Annotated[
        Path | None, output_option("--csv", metavar="FILE", help="Write a line for each candidate to FILE.")
    ] = None,
    html_file: Annotated[
        Path | None,
        output_option("--html", metavar="FILE", help="Write a report with pictures to FILE, which needs no other."),
    ] = None,
    png_file: Annotated[
        Path | None,
        output_option("--png", metavar="FILE", help="Draw ratios and roofline to FILE (.png, .svg or .pdf)."),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Verify bundles, then time them interleaved, checking every answer."""
    from s2mlp_bench import benchmark, environment
    from s2mlp_bench.baselines import registry
    from s2mlp_bench.energy import device_table
    from s2mlp_bench.interleaved_timing import Schedule
    from s2mlp_bench.mlperf import loadgen_run, scenario_table
    from s2mlp_bench.report import html, pictures, table
    from s2mlp_bench.results import document, regression

    if device is not None:
        environment.use_gpu(device)
    for path in (json_file, csv_file, html_file, png_file):
        check_writable(path, replace=force)
    if png_file:
        pictures.check(png_file)
    if html_file:
        html.check()
    before = document.read(compare) if compare else None
    names = tuple(baseline or ())
    plan = benchmark.Plan(
        tuple(bundles),
        names,
        batches=numbers("--batch", batch),
        threads=numbers("--threads", threads) if threads is not None else (None,),
        sizes=sizes("--image-size", image_size) if image_size is not None else (None,),
        providers=_providers(provider) if provider is not None else (None,),
        schedule=Schedule(min_seconds, min_rounds, seed),
        cold=cold,
        bound=bound,
        energy=energy,
    )
    if names == ("all",):
        plan = replace(plan, baselines=registry.all_offered(bundles, plan.points, ConsoleListener()))
    options = {
        "min_seconds": scenario_seconds,
        "min_queries": scenario_queries,
        "target_qps": target_qps,
        "target_latency_ms": target_latency_ms,
    }
    out = Console(highlight=False, width=None if os.isatty(1) else 120)
    if scenario:
        of_race = {
            "--baseline": names,
            "--compare": compare,
            "--csv": csv_file,
            "--html": html_file,
            "--png": png_file,
            "--min-seconds": min_seconds != SECONDS,
            "--min-rounds": min_rounds != ROUNDS,
            "--seed": seed,
            "--strict": strict,
            "--no-cold": not cold,
            "--no-bound": not bound,
            "--no-energy": not energy,
        }
        if given := [option for option, value in of_race.items() if value]:
            raise UsageError(
                f"{', '.join(given)}: these belong to interleaved timing, which --scenario replaces: leave out either"
            )
        outcomes = []
        for outcome in loadgen_run.run_scenarios(plan, scenario, options, ConsoleListener()):
            outcomes.append(outcome)
            if not as_json:
                out.print(scenario_table.render(outcome))
        content = document.of_scenario(plan, outcomes, environment.describe())
        if as_json:
            show(content)
        if json_file:
            write_json(json_file, content)
        raise typer.Exit(0 if all(outcome.valid for outcome in outcomes) else 1)
    if given := [name for name, value in options.items() if value is not None]:
        raise UsageError(
            f"{flags('scenario_' + n.removeprefix('min_') if 'min' in n else n for n in given)}: only with --scenario"
        )
    result = benchmark.run(plan, ConsoleListener())
    around = environment.describe()
    content = document.document(plan, result, around)
    if json_file:
        write_json(json_file, content)
    if png_file:
        pictures.draw(result, png_file, replace=force)
    if csv_file:
        write(csv_file, _csv(table.rows(result.summary)))
    changed = regression.compare(before, content) if before else None
    if as_json:
        slower = [change.name for change in changed.regressions] if changed else []
        show({**content, "comparison": {**asdict(changed), "slower": slower} if changed else None})
    else:
        out.print(table.render(result, around))
        if result.devices.conditions or result.devices.energies:
            out.print(
                device_table.render(
                    result.devices.conditions, result.devices.energies, result.summary, unknown=result.devices.unknown
                )
            )
        if changed:
            out.print(regression.render(changed))
    if html_file:
        extras = [
            *device_table.sections(result.summary, result.devices.energies),
            *([regression.section(changed)] if changed else []),
        ]
        repeat = shlex.join(["s2mlp-bench", *sys.argv[1:]])
        write(html_file, html.render(plan, result, around, command=repeat, extras=extras))
    if not result.summary.complete:
        raise typer.Exit(signals.take())
    if (changed and changed.regressions) or (strict and not result.summary.stable):
        raise typer.Exit(1)


def _providers(text: str) -> tuple[str, ...]:
    from s2mlp_deploy.runtime.providers import PROVIDERS

    if unknown := [name for name in text.split(",") if name not in PROVIDERS]:
        raise UsageError(f"--provider {unknown[0]!r}: expected {', '.join(PROVIDERS)}, with commas between")
    return tuple(dict.fromkeys(text.split(",")))


def _csv(rows: list[dict[str, object]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


main = command(
    bench,
    "best-onnx-fp32 best-onnx-int8 --threads 1",
    "best-onnx-fp32 --baseline torch-eager --baseline naive-onnx",
)
