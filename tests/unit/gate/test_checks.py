"""Distances between logits, and the checks that decide on them: the worst row counts, and nothing is left out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from s2mlp_deploy.bundle.golden_tensors import Golden
from s2mlp_deploy.gate import distance, run_plan
from s2mlp_deploy.gate.checks import QUANTIZED_ROWS, Verdict, check_logits, nearer_to
from s2mlp_deploy.gate.distance import compare, leading_class
from s2mlp_deploy.gate.evaluation import EvaluationSet
from s2mlp_deploy.gate.gate import gate
from s2mlp_deploy.gate.io_adapter import ArtifactIo, named_classes
from s2mlp_deploy.quantization import accuracy
from s2mlp_deploy.quantization.settings import Int8
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS, Interface
from s2mlp_deploy.schema.tolerance import Tolerance

RNG = np.random.default_rng(0)
LIMIT = Tolerance(relative_l2=0.1, top1_agreement=1.0)


def failed(actual: Array, expected: Array, limit: Tolerance = LIMIT) -> list[str]:
    return [check.quantity for check in check_logits({"noise": actual}, {"noise": expected}, limit).failures]


# Distances


def test_one_row_that_is_off_is_the_distance_of_all() -> None:
    expected = RNG.standard_normal((9, 5))
    actual = expected.copy()
    actual[4] *= 1.5
    assert np.isclose(compare(actual, expected).relative_l2, 0.5)
    assert failed(actual, expected) == ["relative L2"]


@pytest.mark.parametrize("rows", [1, 4, 10])
def test_rows_that_are_compared_in_parts_have_the_distance_of_the_whole(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst row lies at the beginning, in the middle and at the end, and some change their class."""
    for worst in range(10):
        expected = RNG.standard_normal((10, 3))
        actual = expected + 0.1 * RNG.standard_normal((10, 3))
        expected[worst], actual[worst] = [0, 1, 0.2], [1, 0, 0.2]
        whole = compare(actual, expected)
        monkeypatch.setattr(distance, "ROWS", rows)
        parts = compare(actual, expected)
        monkeypatch.undo()
        for name, value in vars(whole).items():
            assert np.isclose(vars(parts)[name], value), name


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, 3])
def test_what_is_not_finite_is_infinitely_far_away_wherever_it_stands(
    value: float, row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distance, "ROWS", 2)
    sound, other = np.ones((4, 3)), np.ones((4, 3))
    other[row, 1] = value
    for actual, expected in ((other, sound), (sound, other)):
        assert compare(actual, expected).relative_l2 == np.inf
        assert "relative L2" in failed(actual, expected)
    assert "finite" in failed(other, sound)


def test_a_row_of_nan_names_no_class() -> None:
    logits = np.array([[1, 2, 0], [np.nan, 2, 3], [-np.inf, -np.inf, 0]])
    assert leading_class(logits).tolist() == [1, -1, 2]
    assert leading_class(np.array([[2.0], [-2], [0], [np.nan]])).tolist() == [1, 0, 0, -1]
    assert named_classes(np.array([[0.2], [0.5], [0.7], [np.nan]]), Interface(output="probabilities")).tolist() == [
        0,
        0,
        1,
        -1,
    ]
    assert named_classes(np.array([[0.2], [-0.2]]), FLOAT_LOGITS).tolist() == [1, 0]


# Classes


def test_a_class_may_change_where_the_reference_separates_two_by_less_than_the_limit_and_nowhere_else() -> None:
    """A row that may change excuses no other: 0.12 of gap takes 0.085 of distance, which is within the limit."""
    expected = np.array([[1.0, 1 - 0.05 * 2**0.5, 0], [1.0, 1 - 0.12 * 2**0.5, 0]])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    narrow, wide = (expected[i, 0] - expected[i, 1] for i in (0, 1))
    assert narrow < LIMIT.relative_l2 < wide
    changed = expected.copy()
    changed[:, :2] = changed[:, :2].mean(1, keepdims=True) + np.array([-1e-6, 1e-6])
    assert failed(np.stack([changed[0], expected[1]]), expected) == []
    assert failed(np.stack([expected[0], changed[1]]), expected) == ["same class"]
    assert failed(changed, expected) == ["same class"]


# Verdicts


def test_a_verdict_without_checks_is_no_pass() -> None:
    assert not Verdict((), {}).passed


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int64])
def test_logits_of_another_type_fail(kind: type) -> None:
    verdict = gate(Answers(kind), golden(), LIMIT, ArtifactIo())
    assert {check.quantity for check in verdict.failures} == {"shape and dtype"}
    assert gate(Answers(np.float16), golden(), LIMIT, ArtifactIo(dtype="float16")).passed


@dataclass
class Answers:
    """A session that gives the mean and the negative mean of each image, in a type."""

    kind: type = np.float32

    def run(self, images: Array) -> Array:
        mean = images.mean((1, 2, 3))
        return np.stack([mean, -mean], axis=1).astype(self.kind)


def golden() -> Golden:
    """Whole numbers, which every type holds."""
    inputs = {case: np.full((rows, 1, 2, 2), 3, np.float32) for case, rows in (("noise", 5), ("faint", 2))}
    return Golden(inputs, {case: Answers(np.float64).run(x) for case, x in inputs.items()}, {})


@pytest.mark.parametrize("left_out", ["a case", "a sample"])
def test_a_sample_that_was_never_run_fails(left_out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, plan = golden(), run_plan.plan
    assert gate(Answers(), expected, LIMIT, ArtifactIo(batch=2)).passed

    def shorter(inputs: dict[str, Array], batch: int | None) -> list[run_plan.Run]:
        runs = [(case, [s for s in samples if s != ("noise", 4)]) for case, samples in plan(inputs, batch)]
        return [run for run in runs if left_out == "a sample" or run[0] != "noise"]

    monkeypatch.setattr(run_plan, "plan", shorter)
    (failure,) = gate(Answers(), expected, LIMIT, ArtifactIo()).failures
    assert (failure.case, failure.quantity, failure.limit) == ("noise", "samples", 5)


def test_logits_without_inputs_fail() -> None:
    whole = golden()
    inputs = {case: x for case, x in whole.inputs.items() if case == "noise"}
    (failure,) = gate(Answers(), replace(whole, inputs=inputs), LIMIT, ArtifactIo()).failures
    assert (failure.case, failure.measured) == ("faint", 0)


# int8


def test_an_engine_must_be_within_half_of_the_int8_graphs_own_distance() -> None:
    reference = np.eye(6)
    direction = np.roll(reference, 1, axis=1)
    quantized = reference + 0.02 * direction
    assert nearer_to(quantized + 0.0099 * direction, quantized, reference, "images").passed
    assert not nearer_to(quantized + 0.011 * direction, quantized, reference, "images").passed
    for off, passes in ((2, True), (4, False)):  # the median counts
        some = direction * (np.arange(6) < off)[:, None]
        assert nearer_to(quantized + some, quantized, reference, "images").passed == passes


@pytest.mark.parametrize(("rows", "checked"), [(QUANTIZED_ROWS - 1, False), (QUANTIZED_ROWS, True)])
def test_the_int8_graphs_own_logits_are_compared_from_four_samples_on(rows: int, checked: bool) -> None:
    x = np.full((rows, 1, 2, 2), 3, np.float32)
    logits = Answers(np.float64).run(x)
    expected = Golden({"images": x}, {"images": logits}, {}, {"images": logits + np.array([0.01, 0])})
    quantities = {check.quantity for check in gate(Answers(), expected, LIMIT, ArtifactIo()).failures}
    assert quantities == ({"relative L2 to the int8 graph"} if checked else set())


@pytest.mark.parametrize("labels", [None, np.zeros(300, int)], ids=["agreement", "accuracy"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_int8_that_gives_no_number_for_one_image_of_many_does_not_pass(value: float, labels: Array | None) -> None:
    """Beyond the few images that travel in the bundle, and within the share that may change its class."""
    images, logits = np.zeros((300, 1, 2, 2), np.float32), np.tile([1.0, 0.9], (300, 1))
    evaluation = EvaluationSet(images, logits, labels)
    assert accuracy.assess((), logits, evaluation, Int8()).passed
    off = logits.copy()
    off[next(i for i in range(300) if i not in evaluation.pictures().rows), 0] = value
    trial = accuracy.assess((), off, evaluation, Int8())
    assert not trial.passed and trial.relative_l2 == np.inf
