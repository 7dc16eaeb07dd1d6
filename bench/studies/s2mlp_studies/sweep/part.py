"""The part that measures sweeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from s2mlp_studies.part import Finding, Part, Run, announce
from s2mlp_studies.sweep.goals import sweep_goals
from s2mlp_studies.sweep.measure import EXPORTS, Swept, driver_ms, measure_sweep, write_plan
from s2mlp_studies.sweep.table import document, sweep_table

REPEATS = 6
"""Rounds, unless the run says otherwise: with fewer, an interval is that of all samples."""

NO_OPS = 1000
"""Items that do nothing."""


def measure(run: Run) -> Iterator[Finding]:
    """Forty exports of a small network."""
    with TemporaryDirectory() as directory:
        plan = write_plan(Path(directory))
        seconds = measure_sweep(plan, EXPORTS, run.repeats or REPEATS, announce)
        found = Swept(EXPORTS, seconds, NO_OPS, driver_ms(Path(directory), NO_OPS))
    yield Finding("small", "Forty small exports", sweep_table(found), {"sweep": document(found)}, sweep_goals(found))


PART = Part(
    "sweep",
    "Sweeps on several workers",
    "`s2mlp-sweep` of forty small exports on one worker and on two",
    measure,
    why={
        "on one worker": "**Two workers.** A worker imports for some two seconds first, of the ten that one worker takes in all; the rest is shared. "
        "The more there is to export, the nearer it comes to twice as fast.",
    },
)
