"""A tune as a table, and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import Any

from rich.console import RenderableType

from s2mlp_deploy.system.timing import ratio
from s2mlp_studies.tables import new_table, with_interval
from s2mlp_studies.tune.measure import Tuned


def tune_table(found: Tuned) -> RenderableType:
    """All candidates of a full race, the fastest first, and those that the two tunes chose."""
    rounds = len(found.samples_ms[found.best])
    table = new_table(
        f"{found.model}: all candidates, {rounds} interleaved rounds", "latency, ms", "it / the best", "chosen by"
    )
    for name in sorted(found.samples_ms, key=lambda name: median(found.samples_ms[name])):
        times = found.samples_ms[name]
        by = [word for word, chosen in zip(("first", "second"), found.chosen, strict=True) if chosen == name]
        table.add_row(
            name, f"{median(times):.3f}", with_interval(ratio(times, found.samples_ms[found.best])), ", ".join(by)
        )
    return table


def document(found: Tuned) -> dict[str, Any]:
    """The tunes with their samples."""
    return asdict(found)
