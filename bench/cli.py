"""``s2mlp-bench``: bundles timed against each other on this machine. Parses, calls, prints and exits."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s2mlp_deploy.cli import command, listener
from s2mlp_deploy.errors import OutputError, UsageError
from s2mlp_deploy.spec import Size

INTERRUPTED = 130


def bench(
    bundles: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE...", help="Bundles; the first is what others are compared with.")
    ],
    baseline: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="What to compare with, on the same weights; may be repeated; all for all."),
    ] = None,
    threads: Annotated[
        str | None, typer.Option(metavar="N,N", help="Threads of the processor; everything runs with each number.")
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N,N", help="Batch sizes.")] = "1",
    image_size: Annotated[
        str | None,
        typer.Option(metavar="N,HxW", help="Image sizes, of bundles that were exported with --dynamic-size."),
    ] = None,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="ONNX Runtime's providers that run ONNX bundles.")
    ] = None,
    min_seconds: Annotated[float, typer.Option(min=0.0, help="Measure for at least so long.")] = 10.0,
    min_rounds: Annotated[int, typer.Option(min=1, help="Measure at least so many rounds.")] = 30,
    seed: Annotated[int, typer.Option(help="Draws the order of each round.")] = 0,
    cold: Annotated[bool, typer.Option("--cold/--no-cold", help="Measure a cold start of each, too.")] = True,
    bound: Annotated[
        bool, typer.Option("--bound/--no-bound", help="Time the matrix products alone, too, and say where time goes.")
    ] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where the machine was too noisy.")] = False,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="OLD.json", help="Find what became slower since; exit with 1 if anything did."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything, raw samples included, to FILE.")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a line for each contestant to FILE.")
    ] = None,
    html_file: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a report with pictures to FILE, which needs no other."),
    ] = None,
    png_file: Annotated[
        Path | None,
        typer.Option("--png", metavar="FILE", help="Draw ratios and roofline to FILE (.png, .svg or .pdf)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.", hidden=True)] = False,
) -> None:
    """Verify bundles, then time them interleaved, checking every answer. ``s2mlp-bench scale`` measures how a model grows."""
    # Threads of other libraries that wait busily would run at the cost of whoever is timed then.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from bench import contest, document, environment, regression, rivals, table
    from bench.race import Course
    from bench.standing import FEWEST_ROUNDS

    if min_rounds < FEWEST_ROUNDS:
        raise UsageError(f"--min-rounds {min_rounds}: the intervals need at least {FEWEST_ROUNDS}")
    for path in (json_file, csv_file, html_file, png_file):
        _check_writable(path, replace=force)
    before = document.read(compare) if compare else None
    names = tuple(baseline or ())
    plan = contest.Plan(
        tuple(bundles),
        tuple(rivals.BASELINES) if names == ("all",) else names,
        batches=_numbers("--batch", batch),
        threads=_numbers("--threads", threads) if threads is not None else (None,),
        sizes=_sizes(image_size) if image_size is not None else (None,),
        providers=_providers(provider) if provider is not None else (None,),
        course=Course(min_seconds, min_rounds, seed),
        cold=cold,
        bound=bound,
    )
    result = contest.hold(plan, listener())
    around = environment.describe()
    content = document.document(plan, result, around)
    if json_file:
        _write(json_file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    if csv_file:
        _write(csv_file, _csv(table.rows(result.standing)))
    out = Console(highlight=False, width=None if os.isatty(1) else 120)
    out.print(table.render(result.standing, around, result.profiles, result.roofline))
    changed = regression.compare(before, content) if before else None
    if changed:
        out.print(regression.render(changed))
    if not result.standing.complete:
        raise typer.Exit(INTERRUPTED)
    if (changed and changed.regressions) or (strict and not result.standing.stable):
        raise typer.Exit(1)


def _sizes(text: str) -> tuple[Size, ...]:
    return tuple(dict.fromkeys(_size(part) for part in text.split(",")))


def _size(text: str) -> Size:
    match = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
    if not match or not int(match[1]) or not int(match[2] or 1):
        raise UsageError(f"--image-size {text!r}: expected N or HxW, with commas between, as in 224,192x256")
    return int(match[1]), int(match[2] or match[1])


def _providers(text: str) -> tuple[str, ...]:
    from s2mlp_deploy.onnx_session import PROVIDERS

    if unknown := [name for name in text.split(",") if name not in PROVIDERS]:
        raise UsageError(f"--provider {unknown[0]!r}: expected {', '.join(PROVIDERS)}, with commas between")
    return tuple(dict.fromkeys(text.split(",")))


def _numbers(option: str, text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and 0 < int(part) < 100_000 for part in parts):
        raise UsageError(f"{option} {text!r}: expected positive numbers with commas between, as in 1,2")
    return tuple(dict.fromkeys(map(int, parts)))


def _check_writable(path: Path | None, *, replace: bool) -> None:
    """So that nothing is measured for a file that cannot be written."""
    if path is None:
        return
    if path.is_dir() or (path.exists() and not replace):
        raise OutputError(f"{path} exists: choose another file, or replace it with --force")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} is not a directory: choose another place for {path.name}")


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.new")
    try:
        scratch.write_text(text, "utf-8")
        scratch.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}. Choose another place") from error
    finally:
        scratch.unlink(missing_ok=True)


def _csv(rows: list[dict[str, object]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


main = command(bench)
