"""How a model grows, as JSON: every point with its raw samples, every exponent, every count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from s2mlp_studies.scale import costs
from s2mlp_studies.scale.scaling import OVER, QUANTITIES, Point, Quantity, Scaling

SCHEMA_VERSION = 1

INTERVALS: dict[Quantity, str | None] = {
    "latency": "rounds drawn again",
    "peak memory": "regression",
    "memory to run": "regression",
    "multiply-adds": None,
    "parameters": None,
}
"""Where the 95% interval of an exponent comes from; None for what is counted and not measured."""


def document(found: Scaling, sha256: str, environment: Mapping[str, object]) -> dict[str, Any]:
    """``found`` of the checkpoint with this ``sha256``, with what it was measured for and on.

    Times are milliseconds a batch, sizes bytes, multiply-adds those of a batch in points and of one image in costs.
    """
    plan, spec = found.plan, found.spec
    return {
        "schema_version": SCHEMA_VERSION,
        "environment": dict(environment),
        "checkpoint_sha256": sha256,
        "spec": spec.to_json(),
        "lowering": found.lowering,
        "no_mixer": found.no_mixer,
        "plan": {**asdict(plan), "depths": [str(depth) for depth in plan.depths]},
        "points": [_point(point) for point in found.points],
        "growth": [
            {"model": model, "over": over, "quantity": quantity, "interval": INTERVALS[quantity], **asdict(grown)}
            for over in OVER
            for quantity in QUANTITIES
            for model in found.models
            if (grown := found.growth(model, over, quantity))
        ],
        "costs": {
            "presets": {name: asdict(row) for name, row in costs.presets().items()},
            "presets_in_the_paper": {name: asdict(cost) for name, cost in costs.PAPER.items()},
            "image_sizes": [asdict(row) for row in costs.at_sizes(found.base_spec, plan.sizes)],
            "patches": [asdict(row) for row in costs.at_patches(found.base_spec)],
        },
    }


def _point(point: Point) -> dict[str, Any]:
    setting = point.setting
    return {
        "model": point.model,
        "image_size": setting.size,
        "batch": setting.batch,
        "blocks": point.blocks,
        "positions": point.positions,
        "parameters": point.parameters,
        "macs": point.macs,
        **asdict(point.footprint),
        "latency_ms": asdict(point.latency_ms),
        "samples_ms": point.samples_ms,
    }
