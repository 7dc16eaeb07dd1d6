"""The exports of a sweep as MLflow logs them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from s2mlp_deploy.pipeline.mlflow_log import Run
from s2mlp_deploy.pipeline.sweep.outcome import Outcome

PARAMETERS = ("checkpoint", "sha256", "format", "precision", "target", "lowering")
FIGURES = ("size_bytes", "relative_l2", "limit", "same_class", "accuracy", "seconds")


def runs_of(outcomes: Iterable[Outcome]) -> Iterator[Run]:
    """A run for each of ``outcomes`` that has a bundle."""
    for outcome in outcomes:
        if outcome.bundle:
            name = " ".join(part for part in (outcome.format, outcome.precision, outcome.target) if part)
            values: dict[str, Any] = outcome.as_dict()
            figures = {figure: values[figure] for figure in FIGURES}
            if outcome.evaluation:
                figures["accuracy"] = outcome.evaluation.accuracy
            if outcome.latency:
                figures["latency_ms"] = outcome.latency.median_ms
            yield Run(outcome.key, name, {name: values[name] for name in PARAMETERS}, figures, outcome.bundle)
