"""Faults of a repair: maps of source elements that are wrong in one place, for ``repair(…, change_map=…)``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from s2mlp_deploy.schema.array import Array

MapFault = Callable[[Array], Array]


def wrong_element(addresses: Array) -> Array:
    """The last element of each sample comes from where its first one does."""
    changed = addresses.copy()
    samples = changed.reshape(len(changed), -1)
    samples[:, -1] = samples[:, 0]
    return changed


def wrong_channel(addresses: Array) -> Array:
    """The first channel (last axis) comes from where the second one does."""
    changed = addresses.copy()
    if addresses.shape[-1:] > (1,):
        changed[..., 0] = addresses[..., 1]
    return changed


def wrong_border(addresses: Array) -> Array:
    """The last column (second axis from the end) comes from where its neighbour does."""
    changed = addresses.copy()
    if addresses.ndim > 1 and addresses.shape[-2] > 1:
        changed[..., -1, :] = addresses[..., -2, :]
    return changed


def zeroed_border(addresses: Array) -> Array:
    """The last column is zero."""
    changed = addresses.copy()
    if addresses.ndim > 1:
        changed[..., -1, :] = -1
    return changed


def swapped_channels(addresses: Array) -> Array:
    """The channels are in reverse order."""
    return np.ascontiguousarray(addresses[..., ::-1])


MAP_FAULTS: dict[str, MapFault] = {
    "one element": wrong_element,
    "one channel": wrong_channel,
    "one border": wrong_border,
    "a border of zeros": zeroed_border,
    "channels reversed": swapped_channels,
}
