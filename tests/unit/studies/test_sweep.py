"""The measurements of sweeps: their goals, their table, the turns that they take, and the checkpoints that they are made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from s2mlp_deploy.pipeline.sweep.item import items_of
from s2mlp_deploy.pipeline.sweep.plan import read_plan
from s2mlp_deploy.pipeline.sweep.sweep import SweepRequest, SweepResult
from s2mlp_studies.sweep.goals import DRIVER_MS, SPEEDUP, sweep_goals
from s2mlp_studies.sweep.measure import Swept, driver_ms, measure_sweep, write_plan
from s2mlp_studies.sweep.table import document, sweep_table

FOUND = Swept(40, {1: (100.0, 102.0, 98.0), 2: (50.0, 51.0, 70.0)}, 1000, 0.3)


def test_goals_are_held_against_the_right_figures() -> None:
    speedup, driver = sweep_goals(FOUND)
    assert speedup.measured.median == 2.0 and speedup.measured.low == 1.4 and speedup.at_least == SPEEDUP
    assert driver.measured.median == 0.3 and driver.at_most == DRIVER_MS and speedup.holds and driver.holds


def test_the_table_has_both_numbers_of_workers() -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(sweep_table(FOUND))
    rows = [line.replace("│", " ").split() for line in capture.get().splitlines() if line.startswith("│")]
    assert [row[:2] for row in rows] == [["1", "100.0"], ["2", "51.0"]] and rows[1][2] == "2.00"
    assert document(FOUND)["seconds"]["2"] == [50.0, 51.0, 70.0]


def test_each_number_of_workers_has_its_turn_first_and_a_failed_export_ends_it(tmp_path: Path) -> None:
    turns: list[tuple[int | None, str]] = []

    def sweep(request: SweepRequest) -> SweepResult:
        turns.append((request.workers, str(request.output)))
        return SweepResult({"made": 2, "there": 0, "failed": 0}, tmp_path / "results.jsonl")

    found = measure_sweep(tmp_path / "plan.toml", 2, 2, lambda text: None, sweep)
    assert [count for count, _ in turns] == [1, 2, 2, 1] and len({place for _, place in turns}) == 4
    assert {count: len(seconds) for count, seconds in found.items()} == {1: 2, 2: 2}
    with pytest.raises(RuntimeError, match="of 3 exports"):
        measure_sweep(tmp_path / "plan.toml", 3, 1, lambda text: None, sweep)


def test_the_plan_has_as_many_exports_as_checkpoints_that_differ(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, exports=3)
    assert len({item.key for item in items_of(read_plan(plan), plan)}) == 3
    assert 0 < driver_ms(tmp_path, 50) < 10 * DRIVER_MS
