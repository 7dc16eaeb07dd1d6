"""A benchmark as JSON: everything that was measured, raw samples included, and enough to repeat it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from s2mlp_bench.benchmark import Plan, Result
from s2mlp_bench.mlperf.scenario import Outcome
from s2mlp_deploy.errors import DataError

SCHEMA_VERSION = 1


def document(plan: Plan, result: Result, environment: Mapping[str, object]) -> dict[str, Any]:
    """``result`` with what it was measured for and on. Times are in milliseconds, rates per second, sizes in bytes."""
    return {
        "schema_version": SCHEMA_VERSION,
        "environment": dict(environment),
        "plan": _plan(plan),
        "summary": asdict(result.summary),
        "profiles": [asdict(profile) for profile in result.profiles],
        "roofline": asdict(result.roofline) if result.roofline else None,
        "devices": asdict(result.devices),
        "samples_ms": {name: list(samples) for name, samples in result.samples_ms.items()},
        "compute_ms": {name: list(samples) for name, samples in result.compute_ms.items()},
    }


def of_scenario(plan: Plan, outcomes: Sequence[Outcome], environment: Mapping[str, object]) -> dict[str, Any]:
    """LoadGen's results for each bundle, in the units of the names."""
    return {
        "schema_version": SCHEMA_VERSION,
        "environment": dict(environment),
        "plan": _plan(plan),
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }


def _plan(plan: Plan) -> dict[str, Any]:
    return {**asdict(plan), "bundles": [str(bundle) for bundle in plan.bundles]}


def read(path: Path) -> dict[str, Any]:
    """A document that was written before.

    Raises:
        DataError: where the file is not one.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read as JSON ({error}): expected what s2mlp-bench --json-file wrote"
        ) from error
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION or "samples_ms" not in content:
        raise DataError(
            f"{path} is not what this release's s2mlp-bench --json-file writes: measure again with the version at hand"
        )
    return content
