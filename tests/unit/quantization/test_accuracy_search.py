"""The search leaves the layers that cost most in float, no more of them than it takes, and refuses beyond half."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from s2mlp_deploy.errors import AccuracyError
from s2mlp_deploy.graph.layer import Layer
from s2mlp_deploy.quantization.accuracy import Evaluator
from s2mlp_deploy.quantization.accuracy_search import Ranker, search
from s2mlp_deploy.quantization.quantizer import Quantizer
from s2mlp_deploy.quantization.settings import Int8
from s2mlp_deploy.schema.report import Trial

LAYERS = tuple(Layer(f"layer{i}", f"activation{i}") for i in range(7))
RANKING = ["layer5", "layer0", "layer3", "layer6", "layer1", "layer2", "layer4"]


@dataclass
class FakeQuantizer:
    """Graphs that are known by their layers in float."""

    layers: tuple[Layer, ...] = LAYERS

    def graph(self, float_layers: Collection[str] = ()) -> Any:
        return frozenset(float_layers)


@dataclass
class FakeEvaluator:
    """Lets a graph pass that has all of ``needed`` in float."""

    needed: frozenset[str] | None
    settings: Int8 = field(default_factory=Int8)

    def trial(self, float_layers: tuple[str, ...], lowered: Any) -> Trial:
        assert lowered == frozenset(float_layers)
        passed = self.needed is not None and self.needed <= lowered
        return Trial(float_layers, 0.5, None, None, 0.2, passed)


@dataclass
class FakeRanker:
    """Counts how often the layers are ranked, which takes a run for each."""

    calls: int = 0

    def ranking(self) -> list[str]:
        self.calls += 1
        return RANKING


def found(needed: set[str] | None, ranker: FakeRanker) -> tuple[Trial, ...]:
    evaluator = FakeEvaluator(None if needed is None else frozenset(needed))
    return search(cast(Quantizer, FakeQuantizer()), cast(Evaluator, evaluator), cast(Ranker, ranker))


def test_layers_are_not_ranked_where_all_can_be_quantized() -> None:
    ranker = FakeRanker()
    (trial,) = found(set(), ranker)
    assert trial.float_layers == () and ranker.calls == 0


def test_layers_that_cost_most_stay_in_float_until_a_graph_passes() -> None:
    ranker = FakeRanker()
    trials = found({"layer0"}, ranker)
    assert [t.float_layers for t in trials] == [(), ("layer5",), ("layer5", "layer0")]
    assert [t.passed for t in trials] == [False, False, True] and ranker.calls == 1


def test_at_most_half_of_the_layers_stay_in_float() -> None:
    assert found({"layer3"}, FakeRanker())[-1].float_layers == ("layer5", "layer0", "layer3")
    with pytest.raises(AccuracyError, match=r"--min-agreement 0\.99 .*not even with 3 of 7 layers left in float"):
        found({"layer6"}, FakeRanker())


def test_a_refusal_shows_the_first_and_the_last_trial() -> None:
    with pytest.raises(AccuracyError, match=r"Tried: 0 in float: same class 50\.00%.*3 in float"):
        found(None, FakeRanker())


def test_a_graph_that_is_int8_throughout_has_no_layers_to_leave_in_float() -> None:
    ranker, whole = FakeRanker(), cast(Quantizer, FakeQuantizer(layers=()))
    with pytest.raises(
        AccuracyError, match=r"int8 throughout cannot keep .* or --target litert, which computes in float"
    ):
        search(whole, cast(Evaluator, FakeEvaluator(None)), cast(Ranker, ranker))
    assert ranker.calls == 0
