"""``s2mlp-bench``: bundles timed against each other on this machine. Parses, calls, prints and exits."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from s2mlp_deploy.cli import command, listener
from s2mlp_deploy.errors import OutputError, ParityError, UsageError

INTERRUPTED = 130


def bench(
    bundles: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE...", help="Bundles; the first is what others are compared with.")
    ],
    threads: Annotated[
        str | None, typer.Option(metavar="N,N", help="Threads of the processor; each bundle runs with each number.")
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N,N", help="Batch sizes; each bundle runs with each.")] = "1",
    min_seconds: Annotated[float, typer.Option(min=0.0, help="Measure for at least so long.")] = 10.0,
    min_rounds: Annotated[int, typer.Option(min=1, help="Measure at least so many rounds.")] = 30,
    seed: Annotated[int, typer.Option(help="Draws the order of each round.")] = 0,
    cold: Annotated[bool, typer.Option("--cold/--no-cold", help="Measure a cold start of each bundle, too.")] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where the machine was too noisy.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything, raw samples included, to FILE.")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a line for each entry to FILE.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.", hidden=True)] = False,
) -> None:
    """Verify bundles, then time them interleaved, checking every answer."""
    from bench import cold as colds
    from bench import environment, table
    from bench.contest import NOTHING, Course, Entry, Race, Runner, check_comparable, nothing
    from bench.standing import FEWEST_ROUNDS, standing
    from s2mlp_deploy import verification

    if min_rounds < FEWEST_ROUNDS:
        raise UsageError(f"--min-rounds {min_rounds}: the intervals need at least {FEWEST_ROUNDS}")
    for path in (json_file, csv_file):
        _check_writable(path, replace=force)
    shown = listener()
    verified = []
    for directory in bundles:
        with shown.step(f"verifying {directory}"):
            result = verification.verify(directory)
        if not result.verdict.passed:
            raise ParityError(f"{directory} does not compute what it should on this machine: s2mlp-verify shows more")
        verified.append(result.bundle)
    check_comparable(verified)
    entries = [
        Entry(bundle, size, count)
        for bundle in verified
        for size in _numbers("--batch", batch)
        for count in (_numbers("--threads", threads) if threads is not None else [None])
    ]
    if len({entry.name for entry in entries}) < len(entries):
        raise UsageError("two bundles have the same name, or one is given twice: their results could not be told apart")
    starts: list[colds.Cold | None] = [None] * len(entries)
    if cold:
        with shown.step("starting each bundle in a process of its own"):
            known = {bundle.directory: colds.start(bundle) for bundle in verified}
        starts = [known[entry.bundle.directory] for entry in entries]
    with shown.step("loading"):
        runners: dict[str, Any] = {entry.name: Runner(entry).time_ms for entry in entries}
    runners[NOTHING] = nothing
    with shown.step("timing, interleaved"):
        record = Race(runners, Course(min_seconds, min_rounds, seed)).run()
    if not record.samples_ms[NOTHING]:
        raise KeyboardInterrupt
    found = standing(entries, record, starts)
    around = environment.describe()
    document = {
        "environment": around,
        "options": {
            "threads": threads,
            "batch": batch,
            "min_seconds": min_seconds,
            "min_rounds": min_rounds,
            "seed": seed,
        },
        "standing": asdict(found),
        "samples_ms": record.samples_ms,
    }
    if json_file:
        _write(json_file, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    if csv_file:
        _write(csv_file, _csv(table.rows(found)))
    out = Console(highlight=False, width=None if os.isatty(1) else 120)
    out.print(table.render(found, around))
    if not record.complete:
        raise typer.Exit(INTERRUPTED)
    if strict and not found.stable:
        raise typer.Exit(1)


def _numbers(option: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and 0 < int(part) < 100_000 for part in parts):
        raise UsageError(f"{option} {text!r}: expected positive numbers with commas between, as in 1,2")
    return list(dict.fromkeys(map(int, parts)))


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
