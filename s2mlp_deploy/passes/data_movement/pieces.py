"""Cut a map along one axis where its entries stop moving alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from s2mlp_deploy.schema.array import Array

_LARGEST = np.iinfo(np.int64).max


def cuts(addresses: Array, axis: int, bounds: Sequence[int]) -> list[int]:
    """The indices along ``axis`` before which a cut must be.

    Neighbouring entries move alike where the difference of their addresses is one number, zeros lie at the same places,
    and each element is of the same source in both; ``bounds`` are the sources' first addresses.
    """
    lines = np.moveaxis(addresses, axis, 0).reshape(addresses.shape[axis], -1)
    before, after = lines[:-1], lines[1:]
    empty = lines < 0
    steps = after - before
    both = ~(empty[1:] | empty[:-1])
    most = np.where(both, steps, -_LARGEST).max(axis=1, initial=-_LARGEST)
    least = np.where(both, steps, _LARGEST).min(axis=1, initial=_LARGEST)
    apart = (most > least) | (empty[1:] != empty[:-1]).any(axis=1)
    for bound in bounds[1:]:
        apart |= ((before < bound) != (after < bound)).any(axis=1)
    return [int(i) + 1 for i in np.flatnonzero(apart)]
