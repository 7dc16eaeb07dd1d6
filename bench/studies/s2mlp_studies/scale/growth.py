"""How fast a quantity grows: y = factor · xᵉˣᵖᵒⁿᵉⁿᵗ, by least squares on logarithms, with a 95% interval of the exponent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt, tan

import numpy as np

from s2mlp_deploy.schema.array import Array

RESAMPLES = 2000
"""How often rounds are drawn again: more would move the ends of an interval by less than it is wide a hundredfold."""


@dataclass(frozen=True)
class Growth:
    """y = ``factor`` · x ^ ``exponent``.

    ``low`` and ``high`` are None where an interval cannot be known. ``misfit`` is the largest share by which a point lies
    off the line: where it is large, y is no power of x, and the exponent only sums up this range.
    """

    exponent: float
    low: float | None
    high: float | None
    factor: float
    misfit: float


def of_rounds(x: Sequence[float], rounds: Sequence[Sequence[float]], *, seed: int = 0) -> Growth | None:
    """The growth of the medians of ``rounds`` (for each x, one positive sample a round; the i-th of all are from one round).

    The interval is the middle 95% of the exponents of whole rounds drawn again with replacement: what happened to the
    machine in a round happened to all points, and stays together. None where there are fewer than two x.
    """
    if len(set(x)) < 2:
        return None
    samples = np.asarray(rounds, float)
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, samples.shape[1], (RESAMPLES, samples.shape[1]))
    medians = np.stack([np.median(of_point[chosen], axis=1) for of_point in samples])
    low, high = np.percentile(_slope(np.log(x), np.log(medians)), [2.5, 97.5])
    return _growth(x, np.median(samples, axis=1), float(low), float(high))


def of_values(x: Sequence[float], y: Sequence[float]) -> Growth | None:
    """The growth of ``y``, one value for each x, with the interval of a regression: Student's t on what is left over.

    None where there are fewer than two x, or a value is not positive; no interval with two, which a line always fits.
    """
    if len(set(x)) < 2 or min(y) <= 0:
        return None
    log_x, log_y = np.log(x), np.log(y)
    slope = float(_slope(log_x, log_y))
    freedom = len(x) - 2
    if freedom < 1:
        return _growth(x, y, None, None)
    left = _residuals(log_x, log_y)
    error = sqrt(float(left @ left) / freedom / float(((log_x - log_x.mean()) ** 2).sum()))
    reach = _student_t(freedom) * error
    return _growth(x, y, slope - reach, slope + reach)


def of_counts(x: Sequence[float], y: Sequence[float]) -> Growth | None:
    """The growth of ``y``, which is counted, not measured: without an interval. None as in :func:`of_values`."""
    return None if len(set(x)) < 2 or min(y) <= 0 else _growth(x, y, None, None)


def _growth(x: Sequence[float], y: Sequence[float] | Array, low: float | None, high: float | None) -> Growth:
    log_x, log_y = np.log(x), np.log(y)
    exponent = float(_slope(log_x, log_y))
    factor = float(np.exp(log_y.mean() - exponent * log_x.mean()))
    return Growth(exponent, low, high, factor, float(np.abs(np.expm1(_residuals(log_x, log_y))).max()))


def _slope(log_x: Array, log_y: Array) -> Array:
    """Of ``log_y`` (points, …) over ``log_x`` (points,): the least squares slopes (…)."""
    centred = log_x - log_x.mean()
    slopes: Array = centred @ log_y / (centred @ centred)
    return slopes


def _residuals(log_x: Array, log_y: Array) -> Array:
    left: Array = log_y - log_y.mean() - _slope(log_x, log_y) * (log_x - log_x.mean())
    return left


@cache
def _student_t(freedom: int) -> float:
    """What Student's t with ``freedom`` degrees exceeds with a probability of 2.5%.

    With t = √freedom · tan(θ) its density is cos(θ) ^ (freedom − 1), but for a constant.
    """
    angle = np.linspace(0, np.pi / 2, 100_001)
    density = np.cos(angle) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return sqrt(freedom) * tan(float(np.interp(0.95, mass / mass[-1], angle)))
