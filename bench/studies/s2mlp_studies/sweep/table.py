"""A sweep as a table, and as JSON."""

from __future__ import annotations

from statistics import median
from typing import Any

from rich.console import RenderableType

from s2mlp_deploy.system.timing import ratio
from s2mlp_studies.sweep.measure import Swept
from s2mlp_studies.tables import new_table, with_interval


def sweep_table(found: Swept) -> RenderableType:
    """The seconds on each number of workers."""
    one = found.seconds[min(found.seconds)]
    table = new_table(f"{found.exports} exports, {len(one)} rounds by turns", "workers", "seconds", "times as fast")
    for count, seconds in found.seconds.items():
        table.add_row(str(count), f"{median(seconds):.1f}", with_interval(ratio(one, seconds)))
    return table


def document(found: Swept) -> dict[str, Any]:
    """The samples."""
    return {
        "exports": found.exports,
        "seconds": {str(count): list(seconds) for count, seconds in found.seconds.items()},
        "driver": {"items": found.driver_items, "ms_an_item": found.driver_ms},
    }
