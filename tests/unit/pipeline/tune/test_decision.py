"""The simplest of the candidates that are level with the best is taken; a lower precision only where it is faster."""

from __future__ import annotations

from pathlib import Path

import pytest

from s2mlp_deploy import EvidenceOptions, Int8, OutputOptions, Source
from s2mlp_deploy.pipeline.tune.candidates import Build, Candidate
from s2mlp_deploy.pipeline.tune.decision import Figures, Miss, decide, misses
from s2mlp_deploy.pipeline.tune.race import Standing
from s2mlp_deploy.pipeline.tune.report import Row, front
from s2mlp_deploy.pipeline.tune.request import ACCURACY_DROP, Limits, TuneRequest
from s2mlp_deploy.quantization.settings import OPTIONS, Float32
from s2mlp_deploy.system.timing import Estimate

FP32 = Candidate(Build("onnx", Float32()))
OTHER_FORMAT = Candidate(Build("ort", Float32()))
ONE_THREAD = Candidate(Build("onnx", Float32()), 1)
SLICE = Candidate(Build("onnx", Float32(), lowering="slice"))
INT8 = Candidate(Build("onnx", Int8("images")))
INT8W = Candidate(Build("onnx", OPTIONS["int8w"]()))
ENDS = Candidate(Build("onnx", Int8("images", quantize_ends=True)))


def timed(*pairs: tuple[Candidate, float], spread: float = 0.001, rounds: int = 30) -> tuple[Standing, list[Candidate]]:
    """Candidates with the milliseconds that each takes in every round, which differ from round to round by ``spread``."""
    drift = [1 + spread * (i % 3 - 1) for i in range(rounds)]
    samples = {one.name: [ms * (d if i else 1) for d in drift] for i, (one, ms) in enumerate(pairs)}
    return Standing(samples, tuple(samples), ()), [one for one, _ in pairs]


def taken(*pairs: tuple[Candidate, float], spread: float = 0.001) -> str:
    standing, candidates = timed(*pairs, spread=spread)
    return decide(standing, candidates, [1] * len(candidates), "latency").taken


def test_a_lower_precision_is_taken_only_where_it_is_faster_by_more_than_two_per_cent() -> None:
    assert taken((FP32, 10.0), (INT8, 9.9)) == FP32.name
    assert taken((FP32, 10.0), (INT8, 9.82)) == FP32.name
    assert taken((FP32, 10.0), (INT8, 9.5)) == INT8.name
    assert taken((FP32, 10.0), (INT8, 9.5), spread=0.2) == FP32.name  # faster, but not beyond the interval
    assert taken((FP32, 9.0), (INT8, 9.5)) == FP32.name


def test_the_simplest_of_equals_is_taken() -> None:
    every = [FP32, ONE_THREAD, SLICE, OTHER_FORMAT, INT8W, INT8, ENDS]
    shuffled = [every[i] for i in (3, 6, 0, 5, 1, 4, 2)]
    assert sorted(shuffled, key=lambda one: one.complexity) == every
    for i in range(len(every)):
        assert taken(*((one, 10.0) for one in every[i:][::-1])) == every[i].name


def test_between_two_that_are_faster_the_one_of_the_higher_precision_is_taken_where_they_are_equal() -> None:
    assert taken((FP32, 10.0), (INT8, 5.0), (INT8W, 5.01)) == INT8W.name
    decision = decide(*timed((FP32, 10.0), (INT8, 5.0), (INT8W, 5.01)), [1, 1, 1], "latency")
    assert (decision.best, decision.level) == (INT8.name, (INT8.name,))


def test_for_size_bytes_decide_whatever_the_times() -> None:
    standing, candidates = timed((FP32, 1.0), (INT8, 9.0), (INT8W, 9.0))
    decision = decide(standing, candidates, [1000, 250, 252], "size")
    assert (decision.taken, decision.best, decision.level) == (INT8W.name, INT8.name, (INT8.name,))
    assert decide(standing, candidates, [1000, 990, 985], "size").taken == FP32.name


def test_every_limit_that_is_broken_is_named_with_its_figures() -> None:
    figures = Figures(2_000_000, 0.88, 1.5, 100_000_000)
    assert misses(figures, Limits(size_bytes=1_000_000, memory_bytes=50_000_000), 0.5) == [
        Miss("--max-accuracy-drop", 1.5, 0.5),
        Miss("--max-size", 2_000_000, 1_000_000),
        Miss("--max-memory", 100_000_000, 50_000_000),
    ]
    assert misses(figures, Limits(size_bytes=2_000_000), 1.5) == []
    assert misses(Figures(1, None, None), Limits(), 0.5) == []  # not measured
    assert Miss("--max-size", 3.0, 2.0).excess == 0.5 and Miss("--max-accuracy-drop", 0.3, 0.0).excess == 0.3


def test_accuracy_has_a_limit_wherever_it_is_measured() -> None:
    assert TuneRequest(Source("c.pt")).accuracy_drop is None
    assert TuneRequest(Source("c.pt"), EvidenceOptions(data="d")).accuracy_drop == ACCURACY_DROP
    given = TuneRequest(Source("c.pt"), EvidenceOptions(data="d"), limits=Limits(accuracy_drop=0.0))
    assert given.accuracy_drop == 0.0


def row(name: str, milliseconds: float, drop: float | None, size: int = 1) -> Row:
    times = Estimate(milliseconds, milliseconds, milliseconds)
    return Row(name, name, "onnx", "fp32", (), None, "slower", figures=Figures(size, None, drop), milliseconds=times)


def test_the_front_has_those_that_no_other_is_as_fast_and_as_accurate_as() -> None:
    rows = [row("a", 1, 0.4), row("b", 2, 0.4), row("c", 3, 0.1), row("d", 3, 0.2), row("e", 9, 0.0)]
    assert front(rows) == {"a", "c", "e"}
    assert front([row("a", 1, None, 9), row("b", 2, None, 5), row("c", 3, None, 7)]) == {"a", "b"}


@pytest.mark.parametrize(
    ("path", "output", "places"),
    [
        ("nets/c.pt", None, ("c-tuned", "c-tuned.json", "c-tuned.tuning")),
        ("c.pt", "there/out", ("there/out", "there/out.json", "there/out.tuning")),
    ],
)
def test_everything_lies_beside_the_bundle(path: str, output: str | None, places: tuple[str, ...]) -> None:
    request = TuneRequest(Source(path), output=OutputOptions(output))  # type: ignore[arg-type]
    assert (request.destination, request.report, request.work) == tuple(map(Path, places))


def test_one_that_was_dropped_is_not_level_with_another_fastest_though_its_few_rounds_would_not_show_that() -> None:
    samples = {INT8.name: [10.0, 10.4] * 20, FP32.name: [10.2, 10.0, 10.3]}
    decision = decide(Standing(samples, (INT8.name,), (2,)), [FP32, INT8], [2, 1], "latency")
    assert (decision.taken, decision.level) == (INT8.name, ())
