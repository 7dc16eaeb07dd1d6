"""Tolerances that follow from PyTorch's own run, and the warning where they show few faults."""

import numpy as np

from s2mlp_deploy.bundle.golden_tensors import Golden
from s2mlp_deploy.gate.golden import GoldenReference
from s2mlp_deploy.gate.rules import caution, tolerance_for
from s2mlp_deploy.schema.report import Distance


def _reference(**own_runs):
    distances = {case: Distance(1, value, 1.0, value, 1.0) for case, value in own_runs.items()}
    return GoldenReference(Golden({}, {}, {}), distances)


def _warning(precision, **own_runs):
    reference = _reference(**own_runs)
    return caution(precision, reference, tolerance_for(precision, reference))


def test_a_network_that_turns_rounding_into_large_errors_is_named_with_its_worst_case():
    text = _warning("fp32", noise=6e-6, border=0.15)
    assert text is not None
    assert "0.15" in text and "'border'" in text and "float32" in text and "--data" in text


def test_healthy_networks_give_no_warning_at_any_precision():
    for precision, distance in (("fp32", 1e-6), ("fp32", 1.6e-5), ("fp16", 2e-2), ("bf16", 2e-2), ("int8", 1e-6)):
        assert _warning(precision, noise=distance) is None


def test_a_limit_follows_the_worst_case():
    wide, narrow = (tolerance_for("fp32", _reference(noise=1e-6, border=b)).relative_l2 for b in (1e-3, 1e-6))
    assert np.isclose(wide, 8e-3) and np.isclose(narrow, 8e-6)
