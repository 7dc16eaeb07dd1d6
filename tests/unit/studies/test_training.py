"""The measurements of the shift in training: their goal, table and document, and a small map that is timed."""

from __future__ import annotations

import random

import torch
from rich.console import Console

from s2mlp_bench.baselines.naive import slice_assignment_shift
from s2mlp_deploy.schema.shift import Shift
from s2mlp_deploy.shift import spatial_shift
from s2mlp_studies.training.goals import training_goals
from s2mlp_studies.training.measure import COMPILED, COMPILED_INPLACE, EAGER, IN_PLACE, ShiftCost, measure, timed_step
from s2mlp_studies.training.table import training_table


def synthetic() -> ShiftCost:
    samples = {IN_PLACE: (10.0, 20.0, 12.0), EAGER: (5.0, 10.0, 6.0), COMPILED: (2.0, 4.0, 2.4)}
    return ShiftCost("deep", (8, 14, 14, 384), {**samples, COMPILED_INPLACE: (1.0, 2.0, 1.2)})


def test_the_goal_is_held_against_the_compiled_paper_shift() -> None:
    (goal,) = training_goals(synthetic())
    assert goal.model == "deep" and goal.measured.median == 0.2 and goal.at_most == 0.3 and goal.holds


def test_the_table_fits_and_shows_shares() -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(training_table([synthetic()]))
    (row,) = [line.replace("│", " ").split() for line in capture.get().splitlines() if "deep" in line]
    assert row[:4] == ["deep", "8×14×14×384", "12.0", "0.50"] and "3 interleaved rounds" in capture.get()
    assert "0.20" in row and "0.10" in row


def test_shifts_are_timed_in_the_same_rounds_on_one_thread() -> None:
    threads = torch.get_num_threads()
    seen = set()

    def safe(x: torch.Tensor) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return spatial_shift(x)

    shifts = {IN_PLACE: lambda x: slice_assignment_shift(x, Shift()), EAGER: safe}
    cost = measure("small", (2, 5, 7, 8), shifts, 6, random.Random(0))
    assert {name: len(samples) for name, samples in cost.samples_ms.items()} == {IN_PLACE: 6, EAGER: 6}
    assert cost.share(IN_PLACE).median == 1 and cost.time_ms(EAGER).median > 0
    assert seen == {1} and torch.get_num_threads() == threads


def test_a_step_leaves_the_map_as_it_was() -> None:
    leaf = torch.randn(1, 4, 3, 8, requires_grad=True)
    before, ticks = leaf.detach().clone(), iter([1.0, 1.25])
    ms = timed_step(lambda x: slice_assignment_shift(x, Shift()), leaf, torch.ones_like(leaf), lambda: next(ticks))
    assert ms == 250 and torch.equal(leaf, before)
