"""Several exports of one checkpoint side by side, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s2mlp_deploy.pipeline.latency import Latencies, Latency
from s2mlp_deploy.pipeline.request import Export


@dataclass(frozen=True)
class Row:
    """The figures of one export. ``size_ratio`` is its size in units of the first one's.

    ``relative_l2`` and ``cosine`` are those of golden images where there are any, else of the worst golden
    case. ``same_class`` and ``accuracy`` are shares of its evaluation images. None: not measured.
    """

    bundle: str
    size_bytes: int
    size_ratio: float
    relative_l2: float | None
    cosine: float | None
    same_class: float | None
    accuracy: float | None
    latency: Latency | None = None


def side_by_side(results: Sequence[Export], latencies: Latencies | None = None) -> tuple[Row, ...]:
    """A row for each of ``results``, the first of which the others are compared with."""
    first = results[0].bundle.size_bytes
    timed = latencies.results if latencies else {}
    return tuple(_row(result, first, timed.get(result.bundle.directory)) for result in results)


def _row(result: Export, first_bytes: int, latency: Latency | None) -> Row:
    distances = result.verdict.distances if result.verdict else {}
    worst = max(distances.values(), key=lambda d: d.relative_l2, default=None)
    distance = distances.get("images", worst)
    same_class, accuracy = _on_images(result)
    size = result.bundle.size_bytes
    return Row(
        result.bundle.directory.name,
        size,
        size / first_bytes,
        distance.relative_l2 if distance else None,
        distance.cosine if distance else None,
        same_class,
        accuracy,
        latency,
    )


def _on_images(result: Export) -> tuple[float | None, float | None]:
    if trials := result.report.trials:
        return trials[-1].agreement, trials[-1].accuracy
    images = result.report.images
    return (images.top1_agreement, images.accuracy) if images else (None, None)
