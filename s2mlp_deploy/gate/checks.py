"""The checks that an artifact's logits must pass. They measure with distance.py and decide by a tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from s2mlp_deploy.gate.distance import compare, row_sizes, scale_of
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.report import Distance
from s2mlp_deploy.schema.tolerance import Tolerance, round_up

QUANTIZED_SHARE, QUANTIZED_FLOOR = 0.5, 1e-3
"""Largest distance of an int8 artifact from its graph's logits, as a share of that graph's from the reference.

From half of it on, the float model may be as near as the int8 graph.
"""

QUANTIZED_ROWS = 4
"""The least number of samples for a median that no single one decides."""


@dataclass(frozen=True)
class Check:
    """One line of a verdict: the measured value, its golden case, and the limit."""

    case: str
    quantity: str
    measured: float
    limit: float
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """All checks of one artifact; it passes if every one does."""

    checks: tuple[Check, ...]
    distances: Mapping[str, Distance]

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)


def check_logits(outputs: Mapping[str, Array], expected: Mapping[str, Array], limit: Tolerance) -> Verdict:
    """Compare each case's logits with the reference's: shape and finiteness first, then the tolerance.

    A row whose two leading classes the reference itself separates by less than the allowed distance
    may go either way; every other row must keep its class.
    """
    checks: list[Check] = []
    distances: dict[str, Distance] = {}
    scale = scale_of(expected.values())
    for case, want in expected.items():
        got = outputs[case]
        same_shape = got.shape == want.shape and got.dtype.kind == "f"
        checks.append(Check(case, "shape and dtype", float(same_shape), 1.0, same_shape))
        if not same_shape:
            continue
        finite = float(np.isfinite(got).mean()) if got.size else 0.0
        checks.append(Check(case, "finite", finite, 1.0, finite == 1.0))
        distance = compare(got, want, scale)
        distances[case] = distance
        checks.append(
            Check(
                case, "relative L2", distance.relative_l2, limit.relative_l2, distance.relative_l2 <= limit.relative_l2
            )
        )
        agreement = distance.top1_agreement or 0.0
        undecided = distance.margin <= limit.relative_l2
        checks.append(
            Check(
                case,
                "same class",
                agreement,
                limit.top1_agreement,
                agreement >= limit.top1_agreement or undecided,
            )
        )
    return Verdict(tuple(checks), distances)


def nearer_to(actual: Array, quantized: Array, reference: Array, case: str) -> Check:
    """Check that logits ``actual`` are an int8 graph's, which are ``quantized``, and not another model's.

    Other kernels add in another order, and now and then that rounds a value to the next step, which moves the logits of
    that sample, in small models by as much as all of quantization did. A fault moves all of them: so the median counts.
    """
    norm = row_sizes(reference.astype(np.float64))

    def distance(a: Array, b: Array) -> float:
        return float(np.median(np.linalg.norm(a.astype(np.float64) - b, axis=1) / norm))

    limit = round_up(QUANTIZED_SHARE * max(distance(quantized, reference), QUANTIZED_FLOOR))
    measured = distance(actual, quantized)
    return Check(case, "relative L2 to the int8 graph", measured, limit, measured <= limit)


def failure(verdict: Verdict, cause: str | None = None) -> str:
    """The message for a verdict that failed, with the cause where it is known."""
    lines = "; ".join(f"{c.case}: {c.quantity} {c.measured:.3g}, limit {c.limit:.3g}" for c in verdict.failures[:6])
    if cause:
        return f"the artifact is too far from what the checkpoint computes, so nothing was published ({lines}): {cause}"
    return (
        f"the artifact does not compute what the checkpoint computes, so nothing was published ({lines}). Please report "
        "this with the output of s2mlp-inspect CKPT --json and s2mlp-doctor"
    )
