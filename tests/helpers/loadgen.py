"""Sessions for LoadGen that take their time, and runs of it that are short or, unless they are interrupted, long."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from s2mlp_bench.mlperf.loadgen_settings import ScenarioOptions
from s2mlp_bench.mlperf.scenario import Outcome, Workload, run
from s2mlp_deploy.schema.array import Array

IMAGES = np.random.default_rng(0).standard_normal((5, 3, 4, 7)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).standard_normal((3 * 4 * 7, 6)).astype(np.float32)
LOGITS = IMAGES.reshape(5, -1) @ WEIGHTS

SHORT = {
    "singlestream": ScenarioOptions("singlestream", min_seconds=0.2, min_queries=64),
    "offline": ScenarioOptions("offline", min_seconds=0.2, min_queries=30, target_qps=9000, batch=4),
    "server": ScenarioOptions(
        "server", min_seconds=0.5, min_queries=480, target_qps=1000, target_latency_ms=2000, batch=8
    ),
}
"""Long enough for a valid run."""


def session(sleep_s: float = 0.0005) -> Callable[[Array], Array]:
    """One that takes its time, and is right."""

    def answer(images: Array) -> Array:
        time.sleep(sleep_s)
        return images.reshape(len(images), -1) @ WEIGHTS

    return answer


def after(calls: int, then: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """A session that does something else after so many calls; 10 of them, or 8 where batches are larger, are the warm-up."""
    count = iter(range(10**9))
    before = session()
    return lambda images: (before if next(count) < calls else then)(images)


def go(answer: Callable[[Array], Array], options: ScenarioOptions) -> Outcome:
    return run(answer, options, Workload("the fake", IMAGES, LOGITS, 1e-5))


class BrokenError(Exception):
    """What a session raises that has a bug."""


LONG = {
    "singlestream": ScenarioOptions("singlestream", min_seconds=30),
    "offline": ScenarioOptions("offline", min_seconds=30),
    "server": ScenarioOptions("server", min_seconds=30, target_qps=500),
}
