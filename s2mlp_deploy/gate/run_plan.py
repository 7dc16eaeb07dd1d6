"""Plan the batches of golden samples so that a fault at any place of a batch shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import TypeAlias

from s2mlp_deploy.runtime.session import BATCH
from s2mlp_deploy.schema.array import Array

Run: TypeAlias = tuple[str, list[tuple[str, int]]]
"""A golden case, and the samples (case and row) that run in one call."""


def plan(inputs: Mapping[str, Array], batch: int | None) -> Iterator[Run]:
    """The runs of all cases: each case's samples, then others of the same size.

    They fill a fixed batch to its last place; where the batch is free, the first case of each size runs with as many samples
    as fit together. Each sample is checked wherever it stands, because a fault may start at some place in the batch. Samples
    of one size that no other case shares run in two orders, which shows an artifact that repeats its first output.
    """
    seen: set[tuple[int, ...]] = set()
    for case, x in inputs.items():
        alike = [(name, row) for name, y in inputs.items() if y.shape[1:] == x.shape[1:] for row in range(len(y))]
        own = [sample for sample in alike if sample[0] == case]
        others = [sample for sample in alike if sample[0] != case]
        count = len(own)
        if batch:
            count = ceil(count / batch) * batch
        elif x.shape[1:] not in seen:
            count = max(count, min(len(alike), BATCH))
        seen.add(x.shape[1:])
        yield case, _first(count, own + others)
        if not others and len(own) > 1:
            yield case, _first(count, own[::-1])


def repeats(runs: Sequence[Run], inputs: Mapping[str, Array], batch: int | None) -> list[Run]:
    """The shortest run of each image size, where no batch of that size runs twice yet."""
    by_size: dict[tuple[int, ...], dict[int, list[Run]]] = {}
    for run in runs:
        of_size = by_size.setdefault(inputs[run[0]].shape[1:], {})
        of_size.setdefault(batch or len(run[1]), []).extend([run] * (len(run[1]) // (batch or len(run[1]))))
    return [
        of_size[min(of_size)][0] for of_size in by_size.values() if all(len(alike) == 1 for alike in of_size.values())
    ]


def _first(count: int, samples: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """``count`` of ``samples``, over and over."""
    return [samples[i % len(samples)] for i in range(count)]
