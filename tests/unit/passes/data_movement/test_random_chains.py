"""Chains of random moving operators compute the same bits before and after a repair."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings

from helpers.moving_graphs import chains, numbered, outputs, same_bits
from s2mlp_deploy.passes.data_movement import repair
from s2mlp_deploy.passes.data_movement.repair import Preference

quick = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.slow
@pytest.mark.parametrize("prefer", ["gather", "slice"])
@quick
@given(drawn=chains(free_batch=False))
def test_fixed_sizes(drawn: tuple[ir.Model, tuple[int, ...]], prefer: Preference) -> None:
    model, shape = drawn
    repaired = repair(model, prefer=prefer).model
    feeds = {"x": numbered(shape)}
    assert same_bits(outputs(model, feeds), outputs(repaired, feeds))


@pytest.mark.slow
@pytest.mark.parametrize("prefer", ["gather", "slice"])
@quick
@given(drawn=chains(free_batch=True))
def test_a_free_batch(drawn: tuple[ir.Model, tuple[int, ...]], prefer: Preference) -> None:
    model, shape = drawn
    repaired = repair(model, prefer=prefer).model
    for batch in (1, 2, 5):
        feeds = {"x": numbered((batch, *shape[1:]))}
        assert same_bits(outputs(model, feeds), outputs(repaired, feeds))
