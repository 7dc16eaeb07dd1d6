"""Calibration: find the ranges of activations from images of the kind the model will see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from s2mlp_deploy.errors import DataError
from s2mlp_deploy.graph.layer import INPUT
from s2mlp_deploy.passes.recipe import Range
from s2mlp_deploy.runtime.session import TracingSession
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.choices import CalibrationMethod
from s2mlp_deploy.schema.spec import Spec

Observe: TypeAlias = Callable[[Array], Mapping[str, Array]]
"""Every activation's values, by name, for a batch of images (batch, channels, height, width)."""

MINIMUM_IMAGES = 16
BINS = 2048
ENTROPY_BINS, ENTROPY_LEVELS = 512, 128
PERCENTILE = 99.99


def noise(spec: Spec) -> Array:
    """As few images as a calibration takes, of noise: their ranges do not matter where only speed is measured."""
    shape = (MINIMUM_IMAGES, spec.in_channels, *spec.image_size)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def calibrate(observe: Observe, images: Array, method: CalibrationMethod, *, batch: int = 8) -> dict[str, Range]:
    """The range of each activation that ``observe`` shows, over ``images``, ``batch`` at a time.

    ``minmax`` keeps every value that occurred; the others clip rare ones: ``percentile`` those
    beyond 99.99%, ``mse`` so that the mean squared error of 8 bits is smallest, ``entropy`` so that
    the distribution changes least (onnxruntime's implementation).

    Raises:
        DataError: where there are too few images, or they do not move an activation.
    """
    if len(images) < MINIMUM_IMAGES:
        raise DataError(f"calibration needs at least {MINIMUM_IMAGES} images, and got {len(images)}")
    if (images == images[:, :, :1, :1]).all():  # by channel: normalization moves each by its own mean
        raise DataError("every calibration image is constant: give real images of the kind the model will see")
    extremes = _extremes(_batches(observe, images, batch))
    for name, r in extremes.items():
        if not np.isfinite([r.low, r.high]).all():
            raise DataError(
                f"{name} takes values that are not finite on the calibration images: look at their normalization"
            )
        if r.low == r.high:
            raise DataError(f"no calibration image moves {name}: give real images of the kind the model will see")
    if method == "minmax":
        return extremes
    clip = {"percentile": _percentile, "mse": _mse, "entropy": _entropy}[method]
    return {name: clip(h) for name, h in _histograms(_batches(observe, images, batch), extremes).items()}


def observer(session: TracingSession, values: Sequence[str], batch: int | None) -> Observe:
    """A function that runs ``session``, whose batch size may be fixed, and returns the ``values`` of these names."""
    names = tuple(name for name in values if name != INPUT)
    reads_input = INPUT in values

    def observe(inputs: Array) -> Mapping[str, Array]:
        if batch:  # copies of an image do not change a range
            inputs = inputs[np.arange(batch) % len(inputs)]
        return {**session.trace(inputs, names), **({INPUT: inputs} if reads_input else {})}

    return observe


def _batches(observe: Observe, images: Array, batch: int) -> Iterator[Mapping[str, Array]]:
    for start in range(0, len(images), batch):
        yield observe(images[start : start + batch])


def _extremes(batches: Iterator[Mapping[str, Array]]) -> dict[str, Range]:
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for values in batches:
        for name, x in values.items():
            low[name] = float(np.minimum(low.get(name, np.inf), x.min()))  # keeps NaN, as min() would not
            high[name] = float(np.maximum(high.get(name, -np.inf), x.max()))
    return {name: Range(low[name], high[name]) for name in low}


class _Histogram:
    """Counts over [−m, m], m being the largest magnitude that occurred."""

    def __init__(self, extremes: Range) -> None:
        self.extremes = extremes
        self.limit = max(-extremes.low, extremes.high)
        self.counts = np.zeros(BINS, np.int64)
        self.edges = np.linspace(-self.limit, self.limit, BINS + 1)

    def add(self, x: Array) -> None:
        self.counts += np.histogram(x, BINS, range=(-self.limit, self.limit))[0]

    def clipped(self, low: float, high: float) -> Range:
        return Range(max(float(low), self.extremes.low), min(float(high), self.extremes.high))


def _histograms(batches: Iterator[Mapping[str, Array]], extremes: Mapping[str, Range]) -> dict[str, _Histogram]:
    histograms = {name: _Histogram(r) for name, r in extremes.items()}
    for values in batches:
        for name, x in values.items():
            histograms[name].add(x)
    return histograms


def _percentile(h: _Histogram) -> Range:
    below = np.cumsum(h.counts) / h.counts.sum()
    beyond = 1 - PERCENTILE / 100
    first, last = np.searchsorted(below, [beyond, 1 - beyond])
    return h.clipped(h.edges[first], h.edges[min(last + 1, BINS)])


def _mse(h: _Histogram) -> Range:
    """Of 100 ranges between a tenth of the largest magnitude and all of it, the one of smallest squared error."""
    centers = (h.edges[:-1] + h.edges[1:]) / 2
    candidates = [h.clipped(-f * h.limit, f * h.limit) for f in np.linspace(0.1, 1, 100)]

    def error(r: Range) -> float:
        low, high = min(r.low, 0.0), max(r.high, 0.0)
        step = (high - low) / 255
        restored = low + np.rint((np.clip(centers, low, high) - low) / step) * step
        return float((h.counts * (centers - restored) ** 2).sum())

    return min(candidates, key=error)


def _entropy(h: _Histogram) -> Range:
    """The range of least change, on coarser bins: the search's time grows with the square of their number."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    if not h.extremes.low <= 0 <= h.extremes.high:
        return h.extremes  # the search starts at zero
    coarse = h.counts.reshape(ENTROPY_BINS, -1).sum(1), h.edges[:: BINS // ENTROPY_BINS]
    collector: Any = HistogramCollector("entropy", False, ENTROPY_BINS, ENTROPY_LEVELS, PERCENTILE, "same")
    extremes = (np.float64(h.extremes.low), np.float64(h.extremes.high), h.limit)
    return h.clipped(*collector.get_entropy_threshold((*coarse, *extremes), ENTROPY_LEVELS))
