"""Bundles in MLPerf's scenarios: each is verified, loaded and driven by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from s2mlp_bench.backends import BundleWay
from s2mlp_bench.benchmark import Plan
from s2mlp_bench.inputs import Asked
from s2mlp_bench.load import check_names, entry, verified
from s2mlp_bench.mlperf import scenario
from s2mlp_bench.mlperf.loadgen import require_loadgen
from s2mlp_bench.mlperf.loadgen_settings import Terms
from s2mlp_bench.mlperf.scenario import Outcome
from s2mlp_bench.runner import Runner
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.runtime.session import run_in_batches
from s2mlp_deploy.system.progress import Listener


def play(plan: Plan, name: str, terms: Mapping[str, Any], listener: Listener) -> Iterator[Outcome]:
    """Each bundle at every point by itself, driven by MLPerf LoadGen in the scenario called so; ``terms`` as Terms has them.

    Raises:
        UsageError: where a scenario cannot be run on these terms; and as :func:`~s2mlp_bench.benchmark.hold`.
    """
    bundles = list(verified(plan.bundles, listener))
    contestants = [entry(bundle, point, bundles) for bundle in bundles for point in plan.points]
    check_names(contestants)
    if other := next((c for c in contestants if c.interface.output != "logits"), None):
        raise UsageError(
            f"--scenario: {other.source} gives {other.interface.output}, and answers are checked as logits"
        )
    agreed = {contestant.name: Terms(name, batch=contestant.point.batch, **terms) for contestant in contestants}
    require_loadgen()
    asked = Asked(bundles)
    for contestant in contestants:
        with listener.step(f"{name}: {contestant.name}"):
            questions = asked.of(contestant)
            runner = Runner(contestant, questions)
            assert contestant.limit is not None and isinstance(contestant.way, BundleWay)
            answer = partial(run_in_batches, runner.session, batch=contestant.way.bundle.manifest.batch)
            yield scenario.run(
                answer,
                agreed[contestant.name],
                images=questions.images,
                expected=questions.logits,
                limit=contestant.limit,
                name=contestant.name,
            )
