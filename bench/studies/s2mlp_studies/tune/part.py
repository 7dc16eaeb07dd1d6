"""The part that measures tunes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from s2mlp_studies.part import Finding, Part, Run, announce
from s2mlp_studies.tune.goals import tune_goals
from s2mlp_studies.tune.measure import EXAMPLES, measure_tune, request_for
from s2mlp_studies.tune.table import document, tune_table

ROUNDS = 8
"""Rounds of the full race for each round of latency: runs of the bundled model take a millisecond."""


def measure(run: Run) -> Iterator[Finding]:
    """The bundled checkpoint."""
    with TemporaryDirectory() as directory:
        request = request_for(EXAMPLES / "fashion_mnist.pt", EXAMPLES / "test_images", Path(directory))
        found = measure_tune(request, ROUNDS * run.rounds, run.listener, announce)
    yield Finding("all", "The bundled checkpoint", tune_table(found), {"tunes": [document(found)]}, tune_goals(found))


PART = Part(
    "tune",
    "The choice of a tune",
    "`s2mlp-tune` twice on the bundled checkpoint, beside a race of all its candidates",
    measure,
)
