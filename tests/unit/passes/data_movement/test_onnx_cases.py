"""ONNX's own test cases of its operators: none stops a repair, and all that it changes keep their bits."""

from __future__ import annotations

import warnings

import numpy as np
import onnx_ir as ir
import pytest

from helpers.moving_graphs import operators, outputs, same_bits
from s2mlp_deploy.passes.data_movement import repair
from s2mlp_deploy.passes.data_movement.repair import OLDEST_OPSET, Preference

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


@pytest.mark.parametrize("prefer", ["gather", "slice"])
def test_every_case_keeps_its_bits(prefer: Preference) -> None:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some cases overflow on purpose
        cases = collect_testcases(None)
    compared = 0
    for case in cases:
        if case.model is None:
            continue
        model = ir.from_proto(case.model)
        if model.graph.opset_imports.get("", OLDEST_OPSET) < OLDEST_OPSET:
            continue
        repaired = repair(model, prefer=prefer).model
        if operators(repaired) == operators(model):
            continue
        names = [str(value.name) for value in model.graph.inputs]
        feeds = {name: np.asarray(array) for name, array in zip(names, case.data_sets[0][0], strict=False)}
        try:
            expected = outputs(model, feeds)
        except Exception:  # an operator that ONNX Runtime does not have, in any of its exceptions
            continue
        assert same_bits(expected, outputs(repaired, feeds)), case.name
        compared += 1
    assert compared > 200
