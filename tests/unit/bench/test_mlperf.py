"""MLPerf's scenarios with the real LoadGen: its verdict, its rules, every answer checked, and any end but a crash."""

from __future__ import annotations

import io
import itertools
import json
import re
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from helpers.loadgen import IMAGES, LOGITS, SHORT, BrokenError, after, go, session
from helpers.support import ROOT
from s2mlp_bench.mlperf import loadgen_log
from s2mlp_bench.mlperf.answers import MOST, Answers
from s2mlp_bench.mlperf.loadgen import Samples, require_loadgen
from s2mlp_bench.mlperf.loadgen_log import DETAIL
from s2mlp_bench.mlperf.loadgen_settings import SCENARIOS, ScenarioOptions, settings
from s2mlp_bench.mlperf.scenario import Outcome, Workload, run
from s2mlp_bench.mlperf.scenario_table import render
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import OutputError, ParityError, RuntimeMissingError, UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.system.dependencies import pip_install


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """A short run of each scenario, all in this process."""
    return {scenario: go(session(), options) for scenario, options in SHORT.items()}


# Verdicts


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_short_run_gets_its_verdict_and_is_not_called_conforming(outcomes: dict[str, Outcome], scenario: str) -> None:
    found, options = outcomes[scenario], SHORT[scenario]
    assert found.valid and found.recommendations == () and found.metric is not None and found.metric > 0
    assert {check.name for check in found.checks if check.met} >= {"Min duration satisfied", "Min queries satisfied"}
    assert not found.conforming
    assert found.deviations[0] == f"shortest time {options.min_seconds} s, where the rule is 600 s"
    assert found.loadgen_version[0].isdigit() and 0 < found.relative_l2 < 1e-5
    assert (found.loaded, found.images, found.batch) == (1024, 5, options.batch)


def test_a_single_stream_reports_the_90th_percentile_of_its_latencies(outcomes: dict[str, Outcome]) -> None:
    found = outcomes["singlestream"]
    assert (found.metric_name, found.unit) == ("90th percentile latency", "ms")
    assert found.metric == found.p90_ms and found.p50_ms is not None and found.mean_ms is not None
    assert 0.5 <= found.p50_ms <= found.p90_ms <= (found.p99_ms or 0)
    assert found.early_stopping_ms is not None and found.early_stopping_ms >= found.p90_ms
    assert found.queries == found.samples >= 64 and found.deviations[1].startswith("fewest queries 64, ")
    assert found.bound_ms is None and found.offered_qps is None


def test_offline_reports_images_a_second_of_one_query(outcomes: dict[str, Outcome]) -> None:
    found = outcomes["offline"]
    assert found.unit == "images/s" and found.queries == 1 and found.metric is not None
    assert found.samples == 1980 and found.p50_ms is None and found.mean_ms is None
    assert found.deviations[1:] == ("fewest images 30, where the rule is 24,576",)


def test_a_server_reports_its_rate_and_its_latency_against_the_bound(outcomes: dict[str, Outcome]) -> None:
    found = outcomes["server"]
    assert found.offered_qps == 1000 and found.bound_ms == 2000 and found.p99_ms is not None
    assert found.metric is not None and 0 < found.metric < 1200 and found.p99_ms <= 2000
    assert found.checks[0].name == "Performance constraints satisfied" and len(found.checks) == 4
    assert found.deviations[1:] == ("latency bound 2000 ms, where the rule is 15 ms",)


def test_a_rate_that_cannot_be_kept_is_invalid_and_ends_when_that_is_certain() -> None:
    calls = itertools.count()
    answer = session(0.01)
    found = go(
        lambda images: (next(calls), answer(images))[1], ScenarioOptions("server", min_seconds=6, target_qps=1000)
    )
    assert next(calls) < 3000  # of 6,000 queries
    assert not found.valid and not found.checks[0].met
    assert "Reduce target QPS to improve latency." in found.recommendations
    assert not any(text.startswith("Increase") for text in found.recommendations)
    assert any("Too many outstanding queries" in text for text in found.deviations)


def test_too_few_queries_for_the_percentile_are_invalid() -> None:
    found = go(session(), ScenarioOptions("singlestream", min_seconds=0.01, min_queries=10))
    assert not found.valid and [c.name for c in found.checks if not c.met] == ["Early stopping satisfied"]
    assert found.recommendations[-1] == "Need to process at least 64 queries for early stopping."
    assert found.early_stopping_ms is None


def test_offline_without_a_rate_it_is_estimated() -> None:
    found = go(session(), ScenarioOptions("offline", min_seconds=0.2, min_queries=1, batch=4))
    assert 10 < found.samples <= 0.2 * 1.1 * 4 / 0.0005  # LoadGen's own guess is an image a second


# LoadGen's rules


def test_without_terms_of_ones_own_the_rules_are_loadgens() -> None:
    loadgen = require_loadgen()
    for options in (
        ScenarioOptions("singlestream"),
        ScenarioOptions("offline", batch=16),
        ScenarioOptions("server", target_qps=50),
    ):
        chosen, left = settings(loadgen, options, 0.004)
        assert left == () and chosen.min_duration_ms == 600_000 and chosen.performance_sample_count_override == 1024
        assert chosen.min_query_count == (24576 if options.scenario == "offline" else 100)
        assert chosen.sample_index_rng_seed and chosen.schedule_rng_seed and chosen.qsl_rng_seed
        assert (chosen.server_target_latency_ns, chosen.server_target_latency_percentile) == (15_000_000, 0.99)
        assert chosen.single_stream_target_latency_percentile == 0.9
    assert settings(loadgen, ScenarioOptions("offline", batch=16), 0.004)[0].offline_expected_qps == pytest.approx(4000)
    assert settings(loadgen, ScenarioOptions("offline", target_qps=77), 0.004)[0].offline_expected_qps == 77
    assert settings(loadgen, ScenarioOptions("singlestream"), 0.004)[
        0
    ].single_stream_expected_latency_ns == pytest.approx(4e6)


def test_stricter_terms_than_the_rules_are_conforming() -> None:
    strict = ScenarioOptions("server", min_seconds=700, min_queries=1000, target_qps=3, target_latency_ms=5)
    assert settings(require_loadgen(), strict, 0.004)[1] == ()


def test_only_a_server_that_cannot_become_valid_is_ended_early() -> None:
    chosen, _ = settings(require_loadgen(), ScenarioOptions("server", target_qps=1000), 0.001)
    assert 6000 + 15 < chosen.server_max_async_queries < 6500
    few, _ = settings(require_loadgen(), ScenarioOptions("server", target_qps=1), 0.001)
    assert 6 < few.server_max_async_queries < 30


def test_a_conforming_run_has_left_no_rule_and_shows_so(outcomes: dict[str, Outcome]) -> None:
    text = shown(replace(outcomes["offline"], conforming=True, deviations=()))
    assert "all kept" in text and "NOT CONFORMING" not in text


# Real sessions


def test_a_real_bundle_is_driven_in_every_scenario(pristine: Path) -> None:
    bundle = read_bundle(pristine)
    known = golden_tensors.load(bundle.golden)
    assert bundle.manifest.tolerance is not None
    opened = registry.find(bundle.manifest.format).open(bundle.artifact)
    for options in SHORT.values():
        found = run(
            opened.run,
            replace(options, min_seconds=0.1),
            Workload("pristine", known.inputs["noise"], known.logits["noise"], bundle.manifest.tolerance.relative_l2),
        )
        assert found.metric and 0 < found.relative_l2 < 1e-5 and found.samples >= 30


# Answers


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("calls", [0, 13])
def test_wrong_logits_end_the_run(scenario: str, calls: int) -> None:
    with pytest.raises(ParityError, match="the fake gave wrong logits while it was measured"):
        go(after(calls, lambda images: session()(images)[:, ::-1]), SHORT[scenario])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_one_wrong_answer_among_many_is_found(scenario: str) -> None:
    count = iter(range(10**9))
    right = session()

    def once_wrong(images: Array) -> Array:
        return right(images) * (1.001 if next(count) == 17 else 1)

    with pytest.raises(ParityError, match=r"relative L2 0\.001, limit 1e-05"):
        go(once_wrong, SHORT[scenario])


def test_logits_of_another_shape_are_told() -> None:
    with pytest.raises(ParityError, match=r"logits of shape \[1, 5\] to 1 images: expected \[1, 6\]"):
        go(after(20, lambda images: session()(images)[:, 1:]), SHORT["singlestream"])


def test_logits_that_are_not_numbers_are_wrong() -> None:
    with pytest.raises(ParityError, match="relative L2 inf"):
        go(after(20, lambda images: session()(images) * np.nan), SHORT["offline"])


def test_answers_that_never_repeat_do_not_pile_up() -> None:
    answers = Answers(LOGITS, 1e-3, "restless")
    rng = np.random.default_rng(2)
    noisy = [LOGITS * (1 + 1e-4 * rng.random((5, 6))) for _ in range(10 * MOST)]
    for logits in noisy:
        answers.keep(range(5), logits.astype(np.float32))
        assert all(len(kept) < MOST for kept in answers._distinct) and all(len(j) <= MOST for j in answers._judged)
    answers.judge()
    worst = max(float((np.linalg.norm(x - LOGITS, axis=1) / np.linalg.norm(LOGITS, axis=1)).max()) for x in noisy)
    assert answers.worst == pytest.approx(worst, rel=1e-3)


def test_samples_are_the_images_in_turn_each_in_memory_of_its_own() -> None:
    samples = Samples(IMAGES, 12)
    samples.load([7, 3, 11, 2])
    np.testing.assert_array_equal(samples.batch([2, 3]), IMAGES[[2, 3]])
    in_a_row = samples.batch([3, 11])
    np.testing.assert_array_equal(in_a_row, IMAGES[[3, 1]])
    assert in_a_row.base is not None and not np.shares_memory(samples.batch([7]), samples.batch([2]))
    assert not np.shares_memory(in_a_row, IMAGES) and samples.image_indices([7, 3, 11, 2]) == [2, 3, 1, 2]


def test_images_are_asked_in_batches_of_at_most_the_size_asked_for() -> None:
    sizes: dict[str, list[int]] = {}
    right = session()
    for scenario, options in SHORT.items():
        seen = sizes.setdefault(scenario, [])
        go(lambda images: (seen.append(len(images)), right(images))[1], options)  # noqa: B023  # called in this round
    assert set(sizes["singlestream"]) == {1} and max(sizes["server"]) <= 8
    assert set(sizes["offline"][4:-1]) == {4} and 1 <= sizes["offline"][-1] <= 4


# Ends


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("calls", [0, 13])
def test_what_the_session_raises_comes_out_as_itself(scenario: str, calls: int) -> None:
    def broken(images: Array) -> Array:
        raise BrokenError("a pipe burst")

    with pytest.raises(BrokenError, match="a pipe burst"):
        go(after(calls, broken), SHORT[scenario])
    assert go(session(), SHORT["singlestream"]).metric  # and LoadGen still runs
    assert [thread.name for thread in threading.enumerate() if thread.name == "s2mlp-server"] == []


INTERRUPTED = """
import os, signal, sys
sys.path.insert(0, "tests")
from helpers.loadgen import *

# A script's background processes are started with it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

calls = 0

def interrupted(images):
    global calls
    calls += 1
    if calls == 1:
        os.kill(os.getpid(), signal.SIGINT)
    return session()(images)

try:
    go(after(20, interrupted), LONG[sys.argv[1]])
except KeyboardInterrupt:
    print("interrupted")
assert calls < 1000, calls  # of tens of thousands
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert go(session(), SHORT["offline"]).valid
print("and another run")
"""


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_interrupted_run_ends_soon_and_as_an_interruption(scenario: str) -> None:
    # In a process of its own: a signal is for all of it, and here that would be pytest's.
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, scenario], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\nand another run\n", "")


def test_a_run_outside_the_main_thread_works_too() -> None:
    found: list[Outcome] = []
    worker = threading.Thread(target=lambda: found.append(go(session(), SHORT["offline"])))
    worker.start()
    worker.join()
    assert found[0].valid


SILENT = """
import sys
from dataclasses import replace
sys.path.insert(0, "tests")
from helpers.loadgen import *

for scenario, options in SHORT.items():
    go(session(), replace(options, min_seconds=0.1))
    for calls, end in ((13, KeyboardInterrupt()), (25, BrokenError())):
        def ending(images):
            raise end
        try:
            go(after(calls, ending), options)
        except (KeyboardInterrupt, BrokenError):
            continue
        sys.exit(f"{scenario} went on")
"""


def test_loadgen_prints_nothing_and_the_process_ends_well() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", SILENT], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# The log


def entry(key: str, value: str, *, is_error: bool = False) -> str:
    return f':::MLLOG {{"key": "{key}", "value": {value}, "metadata": {{"is_error": {json.dumps(is_error)}}}}}\n'


def test_a_figure_that_loadgen_writes_as_nan_is_unknown(tmp_path: Path, outcomes: dict[str, Outcome]) -> None:
    verdict = entry("result_validity", '"INVALID"') + entry("early_stopping_met", "true")
    figures = entry("result_samples_per_second", "-nan") + entry("result_mean_latency_ns", "2.5e+06")
    (tmp_path / DETAIL).write_text(verdict + figures + entry("error_runtime", '"no \\"time\\""', is_error=True))
    log = loadgen_log.read(tmp_path)
    assert not log.valid and log.number("result_samples_per_second") is None and log.errors == ('no "time"',)
    assert log.milliseconds("result_mean_latency_ns") == 2.5 and log.recommendations == ()
    assert "throughput unknown" in shown(replace(outcomes["offline"], metric=None))


def test_a_log_that_ends_before_the_verdict_is_told(tmp_path: Path) -> None:
    (tmp_path / DETAIL).write_text(entry("loadgen_version", '"6"') + ':::MLLOG {"key": "resu')
    with pytest.raises(OutputError, match="make room"):
        loadgen_log.read(tmp_path)


def test_an_audit_config_in_the_working_directory_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "audit.config").write_text("*.*.mode = 1\n")
    monkeypatch.chdir(tmp_path)
    assert go(session(), SHORT["offline"]).valid


# What is shown


def shown(outcome: Outcome) -> str:
    out = io.StringIO()
    Console(file=out, width=100).print(render(outcome))
    return out.getvalue()


def test_the_table_says_what_the_outcome_says(outcomes: dict[str, Outcome]) -> None:
    for scenario, found in outcomes.items():
        text = " ".join(shown(found).split())
        assert f"the fake: MLPerf {scenario}, LoadGen {found.loadgen_version}" in text and "verdict VALID" in text
        assert "NOT CONFORMING: shortest time 0." in text and "1,024 in memory, of 5 different ones" in text
        assert found.metric_name in text and max(map(len, shown(found).splitlines())) <= 100
    assert "of 1,000 offered; 99th percentile latency" in shown(outcomes["server"])
    assert "with 99% confidence no more than" in shown(outcomes["singlestream"])
    invalid = replace(outcomes["offline"], valid=False, recommendations=("Buy a faster one.",))
    assert "INVALID" in shown(invalid) and "Buy a faster one." in shown(invalid)


def test_an_outcome_is_data(outcomes: dict[str, Outcome]) -> None:
    document = json.loads(json.dumps(asdict(outcomes["server"]), allow_nan=False))
    assert document["checks"][0] == {"name": "Performance constraints satisfied", "met": True}
    assert document["valid"] is True and document["conforming"] is False


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenario": "multistream"}, "expected singlestream, offline, server"),
        ({"scenario": "server"}, "which rate is to be offered"),
        ({"scenario": "server", "target_qps": 0}, "a rate of 0"),
        ({"scenario": "server", "target_qps": float("nan")}, "a rate of nan"),
        ({"scenario": "server", "target_qps": 5, "target_latency_ms": -1}, "a latency bound of -1"),
        ({"scenario": "singlestream", "target_qps": 5}, "no rate to set"),
        ({"scenario": "singlestream", "batch": 2}, "of one image"),
        ({"scenario": "singlestream", "min_queries": 0}, "a smallest number of queries of 0"),
        ({"scenario": "offline", "min_seconds": float("inf")}, "a shortest time of inf"),
        ({"scenario": "offline", "target_latency_ms": 15}, "is for --scenario server"),
        ({"scenario": "offline", "batch": 0}, "a batch of 0"),
    ],
    ids=lambda value: ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_terms_that_cannot_be_run_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ScenarioOptions(**options)  # type: ignore[arg-type]


def test_without_loadgen_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(RuntimeMissingError, match=re.escape(pip_install("loadgen"))):
        go(session(), SHORT["offline"])
