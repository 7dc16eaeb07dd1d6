"""MLPerf's scenarios, driven by MLPerf LoadGen with its own rules and its own verdict.

- **singlestream**: one image after another. The result is the 90th percentile of their latencies.
- **offline**: all images in one query. The result is images a second.
- **server**: images come at random, as a Poisson process of a given rate. The run is valid where the 99th percentile of
  the latencies, waiting included, is within a bound.

The rules are those of the file mlperf.conf inside LoadGen (mlcommons/inference, loadgen/mlperf.conf) for its image
classifier, ResNet-50: at least 600 s and 100 queries, offline 24,576 images in the query, server 15 ms; 1,024 samples in
memory; its seeds. LoadGen adds early stopping: enough queries for the percentile to be known with 99% confidence, 64 at
the least for a single stream and 459 for a server. Rates and expected latencies are the user's to set. Where a rule was
left, the outcome is not conforming, and records why. Nobody's own model is ever an official submission, which takes
MLPerf's model and data, and a review.

LoadGen makes all queries before it starts: a single stream takes twice as many as fit into the time, some 330 bytes each.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from s2mlp_bench.mlperf import loadgen_log
from s2mlp_bench.mlperf.answers import Answers
from s2mlp_bench.mlperf.loadgen import QueuedSystem, Samples, System, drive, require_loadgen
from s2mlp_bench.mlperf.loadgen_log import Check, Log
from s2mlp_bench.mlperf.loadgen_settings import ScenarioOptions, settings
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.system.workdir import temporary


@dataclass(frozen=True)
class Outcome:
    """LoadGen's results of one run; None for a figure that it does not give.

    ``valid`` is its verdict, which needs all ``checks``. ``conforming`` states that all its rules were kept, else
    ``deviations`` list the others. ``metric`` is the scenario's result in ``unit``. Latencies are those of single
    images, which offline have none. ``early_stopping_ms`` is the 90th percentile's bound that a single stream keeps with 99%
    confidence, MLPerf's official figure. ``bound_ms`` and ``offered_qps`` are a server's options. ``samples`` were run,
    of ``loaded`` in memory that were made of ``images`` different ones; the worst logits are ``relative_l2`` from those
    expected.
    """

    name: str
    scenario: str
    valid: bool
    checks: tuple[Check, ...]
    conforming: bool
    deviations: tuple[str, ...]
    metric_name: str
    metric: float | None
    unit: str
    mean_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    early_stopping_ms: float | None
    bound_ms: float | None
    offered_qps: float | None
    batch: int
    queries: int
    samples: int
    loaded: int
    images: int
    relative_l2: float
    recommendations: tuple[str, ...]
    loadgen_version: str


FEWEST = 8
"""Batches of the warm-up: the fastest of fewer may be slow by chance."""

METRICS = {
    "singlestream": ("90th percentile latency", "result_90.00_percentile_latency_ns", "ms"),
    "offline": ("throughput", "result_samples_per_second", "images/s"),
    "server": ("completed", "result_completed_samples_per_sec", "images/s"),
}
"""What each scenario is run for, LoadGen's key of it, and its unit."""


@dataclass(frozen=True)
class Workload:
    """Images for the session called ``name``, and the logits that it must give.

    Attributes:
        name: The session, in messages.
        images: (count, channels, height, width).
        logits: (count, classes).
        limit: Relative L2 that the session's logits may differ by.
    """

    name: str
    images: Array
    logits: Array
    limit: float


def run(answer: Callable[[Array], Array], options: ScenarioOptions, workload: Workload) -> Outcome:
    """Let LoadGen drive ``answer``, a session, on the images of ``workload``, and check all logits.

    ``answer`` takes 1 to ``options.batch`` images (batch, channels, height, width) and gives logits (batch, classes).

    Each image is first run twice or more, untimed by LoadGen: to warm up, to find wrong logits early, and to set the
    latency that LoadGen expects.

    Raises:
        RuntimeMissingError: without LoadGen.
        OutputError: where LoadGen could not write its log.
        ParityError: where logits are wrong.
        BaseException: from ``answer``, and KeyboardInterrupt, once LoadGen has come to its end (loadgen.py).
    """
    loadgen = require_loadgen()
    images = workload.images
    answers = Answers(workload.logits, workload.limit, workload.name)
    fastest_s = _warm_up(answer, images, answers, options.batch)
    chosen, left = settings(loadgen, options, fastest_s)
    samples = Samples(images, max(len(images), chosen.performance_sample_count_override))
    system = (QueuedSystem if options.scenario == "server" else System)(answer, samples, answers, options.batch)
    with temporary() as directory:
        drive(system, chosen, directory)
        answers.judge()
        log = loadgen_log.read(directory)
    return _outcome(log, options, name=workload.name, left=left, images=len(images), relative_l2=answers.worst)


def _warm_up(answer: Callable[[Array], Array], images: Array, answers: Answers, batch: int) -> float:
    """Seconds of the fastest batch, so that LoadGen expects too many queries: too few would end a run early."""
    times = []
    for turn in range(max(FEWEST, 2 * math.ceil(len(images) / batch))):
        chosen = np.arange(turn * batch, (turn + 1) * batch) % len(images)
        batch_images = images[chosen]
        begun = time.perf_counter()
        logits = answer(batch_images)
        times.append(time.perf_counter() - begun)
        answers.keep(chosen.tolist(), logits)
    answers.judge()
    return min(times)


def _outcome(
    log: Log, options: ScenarioOptions, *, name: str, left: tuple[str, ...], images: int, relative_l2: float
) -> Outcome:
    deviations = (*left, *(f"LoadGen reports an error: {error}" for error in log.errors))
    metric_name, key, unit = METRICS[options.scenario]
    queries, loaded = int(log.values["result_query_count"]), int(log.values["effective_performance_sample_count"])
    mean_ms, p50_ms, p90_ms, p99_ms = (
        # Offline, LoadGen counts from the start of the test.
        None if options.scenario == "offline" else log.milliseconds(f"result_{which}_latency_ns")
        for which in ("mean", "50.00_percentile", "90.00_percentile", "99.00_percentile")
    )
    return Outcome(
        name=name,
        scenario=options.scenario,
        valid=log.valid,
        checks=log.checks,
        conforming=not deviations,
        deviations=deviations,
        metric_name=metric_name,
        metric=log.milliseconds(key) if unit == "ms" else log.number(key),
        unit=unit,
        mean_ms=mean_ms,
        p50_ms=p50_ms,
        p90_ms=p90_ms,
        p99_ms=p99_ms,
        early_stopping_ms=log.milliseconds("early_stopping_latency_ss") if log.values["early_stopping_met"] else None,
        bound_ms=log.milliseconds("effective_target_latency_ns") if options.scenario == "server" else None,
        offered_qps=options.target_qps if options.scenario == "server" else None,
        batch=options.batch,
        queries=queries,
        samples=queries * int(log.values["generated_samples_per_query"]),
        loaded=loaded,
        images=min(images, loaded),
        relative_l2=relative_l2,
        recommendations=log.recommendations,
        loadgen_version=str(log.values["loadgen_version"]),
    )
