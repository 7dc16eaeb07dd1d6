"""The gate: measure how far an artifact's logits are from the oracle's, then judge.

:func:`compare` returns numbers and decides nothing; a :class:`Tolerance` decides and measures
nothing. All tolerances follow from the rules in schema/precision.py; docs/numerics.md justifies them from measurements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.schema.tolerance import Tolerance, round_up

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Distance:
    """How far ``samples`` rows of logits are from the oracle's; the worst row counts.

    ``relative_l2`` is ‖actual − expected‖ / ‖expected‖. ``margin`` is the smallest gap between the
    oracle's first and second class, in units of ‖expected‖, among rows whose first class differs.
    """

    samples: int
    relative_l2: float
    cosine: float
    max_abs: float
    top1_agreement: float
    margin: float = 0.0


QUANTIZED_SHARE, QUANTIZED_FLOOR = 0.5, 1e-3
"""How far an int8 artifact may be from what its graph gave, as a share of that graph's distance from the oracle.

From half of it on, the float model may be as near as the int8 graph.
"""

QUANTIZED_ROWS = 4
"""Samples that it takes for a median that no single one of them decides."""


@dataclass(frozen=True)
class Check:
    """One line of a verdict: what was measured on which case, and the limit it must keep."""

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


def leading_class(logits: Array) -> Array:
    """The class that each row of logits (rows, classes) names, (rows,) int64; of one logit by its sign (spec.categories)."""
    found: Array = (logits[:, 0] > 0).astype(np.int64) if logits.shape[1] == 1 else logits.argmax(1)
    return found


def scale_of(logits: Iterable[Array]) -> float | None:
    """What distances from one logit are relative to, its root mean square over all rows; None for several logits.

    A row of several has a norm that says how large logits are. A single one may be close to zero by chance, and then all
    that rounds would seem far away: int8 of every second healthy model.
    """
    columns = [x for x in logits if x.ndim == 2 and x.shape[1] == 1]
    return float(np.sqrt(np.mean(np.square(np.concatenate(columns), dtype=np.float64)))) if columns else None


def compare(actual: Array, expected: Array, scale: float | None = None) -> Distance:
    """Distances between logits of the same shape (samples, classes), row by row.

    Those from a single logit are relative to ``scale`` (:func:`scale_of`), else to what ``expected`` gives for it; its cosine is
    that of the whole column. Values that are not finite make every distance infinite.
    """
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    if not np.isfinite(a).all():
        return Distance(len(e), float("inf"), -1.0, float("inf"), 0.0, float("inf"))
    size = _sizes(e, scale)
    with np.errstate(over="ignore"):  # against logits that are all zero the distance is infinite
        relative = np.linalg.norm(a - e, axis=1) / size
    cosine = _cosine(a.T, e.T) if e.shape[1] == 1 else _cosine(a, e)
    differ = leading_class(a) != leading_class(e)
    margin = 0.0
    if differ.any():
        top = np.sort(
            np.pad(e[differ], ((0, 0), (0, e.shape[1] == 1))), axis=1
        )  # one logit is ahead of zero, or behind
        margin = float(((top[:, -1] - top[:, -2]) / size[differ]).max())
    return Distance(
        samples=len(e),
        relative_l2=float(relative.max()),
        cosine=float(cosine.min()),
        max_abs=float(np.abs(a - e).max()),
        top1_agreement=float(1 - differ.mean()),
        margin=margin,
    )


def _sizes(logits: Array, scale: float | None = None) -> Array:
    """What the distances of each row are relative to, (rows,): above zero."""
    found: Array = np.linalg.norm(logits, axis=1)
    if logits.shape[1] == 1:
        found = np.full(len(logits), scale_of([logits]) if scale is None else scale)
    above: Array = np.maximum(found, np.finfo(np.float64).tiny)
    return above


def _cosine(a: Array, e: Array) -> Array:
    norm_a, norm_e = np.linalg.norm(a, axis=1), np.linalg.norm(e, axis=1)
    tiny = np.finfo(np.float64).tiny
    found: Array = np.where((norm_a == 0) & (norm_e == 0), 1.0, (a * e).sum(1) / np.maximum(norm_a * norm_e, tiny))
    return found


def judge(outputs: Mapping[str, Array], expected: Mapping[str, Array], limit: Tolerance) -> Verdict:
    """Hold each case's logits against the oracle's: shape and finiteness first, then the tolerance.

    A row whose two leading classes the oracle itself separates by less than the allowed distance
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
        undecided = distance.margin <= limit.relative_l2
        checks.append(
            Check(case, "same class", distance.top1_agreement, limit.top1_agreement,
                  distance.top1_agreement >= limit.top1_agreement or undecided)
        )  # fmt: skip
    return Verdict(tuple(checks), distances)


def nearer_to(actual: Array, quantized: Array, oracle: Array, case: str) -> Check:
    """Whether logits ``actual`` are those of an int8 graph, which gave ``quantized``, rather than of another model.

    Other kernels add in another order, and now and then that rounds a value to the next step, which moves the logits of
    that sample, in small models by as much as all of quantization did. A fault moves all of them: so the median counts.
    """
    norm = _sizes(oracle.astype(np.float64))

    def distance(a: Array, b: Array) -> float:
        return float(np.median(np.linalg.norm(a.astype(np.float64) - b, axis=1) / norm))

    limit = round_up(QUANTIZED_SHARE * max(distance(quantized, oracle), QUANTIZED_FLOOR))
    measured = distance(actual, quantized)
    return Check(case, "relative L2 to the int8 graph", measured, limit, measured <= limit)


def first_divergence(distances: Sequence[tuple[str, Distance]], limit: float) -> str | None:
    """The name of the first layer whose relative L2 is beyond ``limit``."""
    return next((name for name, distance in distances if not distance.relative_l2 <= limit), None)
