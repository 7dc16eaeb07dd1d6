"""Bundles in MLPerf's scenarios: each is verified, loaded and driven by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from s2mlp_bench.backends import BundleBackend
from s2mlp_bench.benchmark import Plan
from s2mlp_bench.inputs import InputSource
from s2mlp_bench.load import candidate_of, check_names, verified
from s2mlp_bench.mlperf import scenario
from s2mlp_bench.mlperf.loadgen import require_loadgen
from s2mlp_bench.mlperf.loadgen_settings import ScenarioOptions
from s2mlp_bench.mlperf.scenario import Outcome, Workload
from s2mlp_bench.runner import Runner
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.runtime.session import run_in_batches
from s2mlp_deploy.system.progress import Listener


def run_scenarios(plan: Plan, name: str, options: Mapping[str, Any], listener: Listener) -> Iterator[Outcome]:
    """Each bundle at every point by itself, driven by MLPerf LoadGen in the scenario called so; ``options`` as ScenarioOptions has them.

    Raises:
        UsageError: where a scenario cannot be run on these options; and as :func:`~s2mlp_bench.benchmark.run`.
    """
    bundles = list(verified(plan.bundles, listener))
    candidates = [candidate_of(bundle, point, bundles) for bundle in bundles for point in plan.points]
    check_names(candidates)
    if other := next((c for c in candidates if c.interface.output != "logits"), None):
        raise UsageError(
            f"--scenario: {other.source} gives {other.interface.output}, and answers are checked as logits"
        )
    agreed = {candidate.name: ScenarioOptions(name, batch=candidate.point.batch, **options) for candidate in candidates}
    require_loadgen()
    inputs = InputSource(bundles)
    for candidate in candidates:
        with listener.step(f"{name}: {candidate.name}"):
            test_inputs = inputs.of(candidate)
            runner = Runner(candidate, test_inputs)
            assert candidate.limit is not None and isinstance(candidate.backend, BundleBackend)
            answer = partial(run_in_batches, runner.session, batch=candidate.backend.bundle.manifest.batch)
            yield scenario.run(
                answer,
                agreed[candidate.name],
                Workload(candidate.name, test_inputs.images, test_inputs.logits, candidate.limit),
            )
