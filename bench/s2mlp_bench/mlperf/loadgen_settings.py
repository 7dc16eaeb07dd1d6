"""The options of an MLPerf scenario, and LoadGen's settings for it; every departure from its rules is named."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from s2mlp_deploy.errors import UsageError

NAMES = {"singlestream": "SingleStream", "offline": "Offline", "server": "Server"}
"""LoadGen's names."""

SCENARIOS = tuple(NAMES)

MODEL = "resnet50"
"""The model whose rules are kept: LoadGen's image classifier."""


@dataclass(frozen=True)
class ScenarioOptions:
    """The options of a scenario. None: by LoadGen's rules.

    ``min_queries`` are images where all are in one query, offline. ``target_qps`` is the rate that a server is offered,
    and offline the one expected, else estimated. ``batch`` images are run together: offline, and for a server at
    most, where so many wait.

    Raises:
        UsageError: where that cannot be run.
    """

    scenario: str
    min_seconds: float | None = None
    min_queries: int | None = None
    target_qps: float | None = None
    target_latency_ms: float | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise UsageError(f"--scenario {self.scenario}: expected {', '.join(SCENARIOS)}")
        for what, value in (
            ("shortest time", self.min_seconds),
            ("rate", self.target_qps),
            ("latency bound", self.target_latency_ms),
        ):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"--scenario {self.scenario}: a {what} of {value:g}: expected a positive number")
        for what, count in (("smallest number of queries", self.min_queries), ("batch", self.batch)):
            if count is not None and count < 1:
                raise UsageError(f"--scenario {self.scenario}: a {what} of {count}: expected 1 or more")
        if self.scenario == "server" and self.target_qps is None:
            raise UsageError("--scenario server: say which rate is to be offered, in images a second")
        if self.scenario == "singlestream" and self.target_qps is not None:
            raise UsageError("--scenario singlestream: one image follows another, so there is no rate to set")
        if self.scenario != "server" and self.target_latency_ms is not None:
            raise UsageError(f"--scenario {self.scenario}: a latency bound is for --scenario server")
        if self.scenario == "singlestream" and self.batch > 1:
            raise UsageError(
                "--scenario singlestream: its queries are of one image, so a batch is for the other scenarios"
            )


def settings(loadgen: Any, options: ScenarioOptions, fastest_s: float) -> tuple[Any, tuple[str, ...]]:
    """LoadGen's settings for ``options``, and where these leave its rules. A batch takes ``fastest_s`` seconds or more."""
    chosen = loadgen.TestSettings()
    chosen.FromConfig("", MODEL, NAMES[options.scenario], 0)  # 0: the rules inside LoadGen, and no file
    chosen.scenario = getattr(loadgen.TestScenario, NAMES[options.scenario])
    chosen.mode = loadgen.TestMode.PerformanceOnly
    left = _leave_rules(chosen, options)
    chosen.single_stream_expected_latency_ns = 1e9 * fastest_s
    chosen.offline_expected_qps = options.target_qps or options.batch / fastest_s
    if options.target_qps is not None:
        chosen.server_target_qps = options.target_qps
    chosen.server_max_async_queries = _hopeless(chosen)
    return chosen, left


def _leave_rules(chosen: Any, options: ScenarioOptions) -> tuple[str, ...]:
    left = []
    if options.min_seconds is not None:
        if 1e3 * options.min_seconds < chosen.min_duration_ms:
            left.append(
                f"shortest time {options.min_seconds:g} s, where the rule is {chosen.min_duration_ms / 1e3:g} s"
            )
        chosen.min_duration_ms = math.ceil(1e3 * options.min_seconds)
    if options.min_queries is not None:
        if options.min_queries < chosen.min_query_count:
            what = "images" if options.scenario == "offline" else "queries"
            left.append(f"fewest {what} {options.min_queries:,}, where the rule is {chosen.min_query_count:,}")
        chosen.min_query_count = options.min_queries
    if options.target_latency_ms is not None:
        rule_ms = chosen.server_target_latency_ns / 1e6
        if options.target_latency_ms > rule_ms:
            left.append(f"latency bound {options.target_latency_ms:g} ms, where the rule is {rule_ms:g} ms")
        chosen.server_target_latency_ns = round(1e6 * options.target_latency_ms)
    return tuple(left)


def _hopeless(chosen: Any) -> int:
    """How many queries wait at once only where a server's run cannot become valid any more; there LoadGen ends it.

    1% of all queries may be late, and whatever waits is late but for those that came within the last ``bound``.
    """
    qps: float = chosen.server_target_qps
    bound_s = chosen.server_target_latency_ns / 1e9
    everything = max(_most(qps * chosen.min_duration_ms / 1e3), chosen.min_query_count)
    late: float = (1 - chosen.server_target_latency_percentile) * everything
    return math.ceil(late + _most(qps * bound_s)) + 1


def _most(mean: float) -> float:
    """Arrivals that a Poisson process as good as never exceeds: ten standard deviations, and 5 where there are few."""
    return mean + 10 * math.sqrt(mean) + 5
