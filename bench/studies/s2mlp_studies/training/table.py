"""The cost of a shift in training, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from s2mlp_studies.tables import new_table, with_interval
from s2mlp_studies.training.measure import COMPILED, COMPILED_INPLACE, EAGER, IN_PLACE, ShiftCost


def training_table(costs: Sequence[ShiftCost]) -> Table:
    """A row for each map: milliseconds in place, and shares of them."""
    rounds = len(costs[0].samples_ms[IN_PLACE])
    table = new_table(
        f"forward and backward, in units of in place: one thread, {rounds} interleaved rounds",
        "map",
        "in place, ms",
        "eager",
        "compiled",
        "compiled, inplace",
    )
    for cost in costs:
        table.add_row(
            cost.model,
            "×".join(map(str, cost.shape)),
            f"{cost.time_ms(IN_PLACE).median:.1f}",
            *(with_interval(cost.share(candidate)) for candidate in (EAGER, COMPILED, COMPILED_INPLACE)),
        )
    return table
