"""The plan of the gate's runs: every sample, in full batches, beside others, and each shape more than once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from s2mlp_deploy.gate.run_plan import Run, plan, repeats
from s2mlp_deploy.runtime.session import BATCH
from s2mlp_deploy.schema.array import Array


def inputs(**cases: tuple[int, int]) -> dict[str, Array]:
    """Images by case, so many and so high."""
    return {case: np.zeros((count, 1, height, 4), np.float32) for case, (count, height) in cases.items()}


SEVERAL = inputs(noise=(3, 4), faint=(1, 4), border=(2, 4), large=(1, 8), pictures=(5, 12))


def whole(runs: list[Run], batch: int | None) -> list[Run]:
    """``runs`` as a session sees them: one batch each."""
    step = batch or max(len(samples) for _, samples in runs)
    return [(case, samples[i : i + step]) for case, samples in runs for i in range(0, len(samples), step)]


@pytest.mark.parametrize("batch", [None, 1, 2, 3, 4, 16])
def test_every_sample_runs_in_a_run_of_its_own_case_and_all_of_a_run_have_one_size(batch: int | None) -> None:
    ran: dict[str, set[int]] = {case: set() for case in SEVERAL}
    for case, samples in plan(SEVERAL, batch):
        ran[case] |= {row for name, row in samples if name == case}
        assert {SEVERAL[name].shape[1:] for name, _ in samples} == {SEVERAL[case].shape[1:]}
    assert ran == {case: set(range(len(x))) for case, x in SEVERAL.items()}


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 16])
def test_a_fixed_batch_is_full_and_holds_others_where_there_are_any(batch: int) -> None:
    for case, samples in whole(list(plan(SEVERAL, batch)), batch):
        assert len(samples) == batch
        beside = {name for name, _ in samples} - {case}
        rows = len(SEVERAL[case])
        if case in ("noise", "faint", "border") and batch > rows:
            assert beside
        if case in ("large", "pictures"):
            assert not beside


def test_where_the_batch_is_free_the_first_case_of_each_size_runs_with_as_many_as_fit_together() -> None:
    sizes = {case: len(samples) for case, samples in reversed(list(plan(SEVERAL, None)))}
    assert sizes == {"noise": 6, "faint": 1, "border": 2, "large": 1, "pictures": 5}
    many = inputs(noise=(2, 4), border=(30, 4))
    assert [len(samples) for _, samples in plan(many, None)] == [BATCH, 30]


@pytest.mark.parametrize("batch", [None, 3])
def test_samples_that_share_their_size_with_no_other_case_run_in_two_orders(batch: int | None) -> None:
    runs = [samples for case, samples in plan(SEVERAL, batch) if case == "pictures"]
    assert [row for _, row in runs[0]][:5] == [0, 1, 2, 3, 4] and [row for _, row in runs[1]][:5] == [4, 3, 2, 1, 0]
    assert len(runs) == 2 and [case for case, _ in plan(SEVERAL, batch)].count("large") == 1


@pytest.mark.parametrize("batch", [None, 1, 2, 3, 4, 16])
def test_with_the_repeats_some_batch_of_each_size_runs_twice(batch: int | None) -> None:
    runs = list(plan(SEVERAL, batch))
    again = repeats(runs, SEVERAL, batch)
    shapes = Counter((SEVERAL[case].shape[2], batch or len(samples)) for case, samples in whole_or_free(runs, batch))
    more = Counter((SEVERAL[case].shape[2], batch or len(samples)) for case, samples in whole_or_free(again, batch))
    for height in (4, 8, 12):
        assert max(count for (h, _), count in (shapes + more).items() if h == height) > 1
    assert all(max(count for (h, _), count in shapes.items() if h == height) == 1 for height, _ in more)


def whole_or_free(runs: list[Run], batch: int | None) -> list[Run]:
    return whole(runs, batch) if batch else runs
