"""Measure distances between an artifact's logits and the reference logits. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.report import Distance

ROWS = 4096
"""Rows that are compared together: in float64, and several times over."""


def leading_class(logits: Array) -> Array:
    """The class that each row of logits (rows, classes) names, (rows,) int64; of one logit by its sign (spec.categories).

    A row with NaN names none: -1, which is no label.
    """
    named = logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(1)
    found: Array = np.where(np.isnan(logits).any(1), -1, named)
    return found


def scale_of(logits: Iterable[Array]) -> float | None:
    """The scale of a single logit: its root mean square over all rows; None for several logits.

    The norm of a row of several shows how large logits are. A single one may be close to zero by chance, and then all
    that rounds would seem far away: int8 of every second healthy model.
    """
    columns = [x for x in logits if x.ndim == 2 and x.shape[1] == 1]
    return float(np.sqrt(np.mean(np.square(np.concatenate(columns), dtype=np.float64)))) if columns else None


def compare(actual: Array, expected: Array, scale: float | None = None) -> Distance:
    """Distances between logits of the same shape (samples, classes), row by row.

    Those from a single logit are relative to ``scale`` (:func:`scale_of`), else to what ``expected`` gives for it; its cosine is
    that of the whole column. Values that are not finite, on either side, make every distance infinite.
    """
    if not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return Distance(len(expected), float("inf"), -1.0, float("inf"), 0.0, float("inf"))
    step = len(expected) if expected.shape[1] == 1 else ROWS  # the cosine of a single logit is that of its whole column
    parts = [_compare(actual[i : i + step], expected[i : i + step], scale) for i in range(0, len(expected), step)]
    return parts[0] if len(parts) == 1 else _together(parts)


def _together(parts: Sequence[Distance]) -> Distance:
    """The distance over the rows of all ``parts``."""
    samples = sum(part.samples for part in parts)
    kept = sum(round((part.top1_agreement or 0.0) * part.samples) for part in parts)
    return Distance(
        samples=samples,
        relative_l2=max(part.relative_l2 for part in parts),
        cosine=min(part.cosine for part in parts),
        max_abs=max(part.max_abs for part in parts),
        top1_agreement=1 - (samples - kept) / samples,
        margin=max(part.margin for part in parts),
    )


def _compare(actual: Array, expected: Array, scale: float | None) -> Distance:
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    size = row_sizes(e, scale)
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


def row_sizes(logits: Array, scale: float | None = None) -> Array:
    """The scale that each row's distances are relative to, (rows,): above zero."""
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


def first_divergence(distances: Sequence[tuple[str, Distance]], limit: float) -> str | None:
    """The name of the first layer whose relative L2 is beyond ``limit``."""
    return next((name for name, distance in distances if not distance.relative_l2 <= limit), None)
