"""No repair that moves one element wrong is published.

s2mlp-repair compares the repaired graph with the file bit by bit, on random inputs, before it publishes anything. What is tried
are repairs with one fault each, injected where the operators are planned: maps of source elements that are wrong in a
single place. Each network's own repair passes. Not covered: faults that the maps' operators would not show on any input, as exchanging two
elements that are always equal.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from helpers.reliability.record import Trials
from helpers.shift_nets import NETS
from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.graph import onnx_file
from s2mlp_deploy.passes import data_movement
from s2mlp_deploy.passes.data_movement import Repair
from s2mlp_deploy.pipeline.repair import repair as repairing
from s2mlp_deploy.pipeline.repair.request import RepairRequest
from s2mlp_deploy.pipeline.request import OutputOptions
from s2mlp_deploy.schema.array import Array

Fault = Callable[[Array, np.random.Generator], Array]


def element(addresses: Array, rng: np.random.Generator) -> Array:
    """One element comes from another place."""
    flat = addresses.reshape(-1).copy()
    at = int(rng.integers(flat.size))
    others = flat[(flat != flat[at]) & (flat >= 0)]
    flat[at] = rng.choice(others)
    return flat.reshape(addresses.shape)


def channel(addresses: Array, rng: np.random.Generator) -> Array:
    """One entry of the last axis is its neighbour's."""
    wrong, at = addresses.copy(), int(rng.integers(addresses.shape[-1]))
    wrong[..., at] = addresses[..., at - 1]
    return wrong


def border(addresses: Array, rng: np.random.Generator) -> Array:
    """The last row of one axis is the row before it."""
    axes = [i for i, n in enumerate(addresses.shape) if n > 1]
    wrong, axis = addresses.copy(), int(rng.choice(axes))
    last = [slice(None)] * addresses.ndim
    before = list(last)
    last[axis], before[axis] = slice(-1, None), slice(-2, -1)
    wrong[tuple(last)] = addresses[tuple(before)]
    return wrong


def zero(addresses: Array, rng: np.random.Generator) -> Array:
    """One element is zero."""
    flat = addresses.reshape(-1).copy()
    flat[rng.choice(np.flatnonzero(flat >= 0))] = -1
    return flat.reshape(addresses.shape)


FAULTS: dict[str, Fault] = {"element": element, "channel": channel, "border": border, "zero": zero}
FEW = ("s2mlp", "shiftvit", "tsm")
LEAST = 16
"""Elements of the smallest map that a fault goes into."""


def faulty(model: ir.Model, fault: Fault, which: int) -> Repair:
    """The repair of ``model`` with ``fault`` in one map: that of the value planned after ``which`` others of some size."""
    rng, passed = np.random.default_rng(which), count()

    def change(addresses: Array) -> Array:
        several = addresses.size >= LEAST and len(np.unique(addresses)) > 2
        return fault(addresses, rng) if several and next(passed) == which else addresses

    return data_movement.repair(model, change_map=change)


def content(repaired: Repair) -> bytes:
    written: bytes = ir.to_proto(repaired.model).SerializeToString(deterministic=True)
    return written


@pytest.mark.parametrize("fault", FAULTS)
def test_a_repair_with_one_fault_is_refused(
    fault: str, trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map of one value that leaves a region is wrong by one element, one channel, one border row, or a zero, in repairs of
    networks of several kinds: nothing is published."""
    for name in list(NETS) if trials.thorough else FEW:
        file = NETS[name].file("dynamo", "fixed")
        model = onnx_file.read(file)
        healthy, injected = content(data_movement.repair(model)), 0
        for which in range(trials.times(3, 12)):
            wrong = faulty(model, FAULTS[fault], which)
            if content(wrong) == healthy:  # there is no such map, or none of its operators is written
                continue
            monkeypatch.setattr(repairing, "repair", lambda *_, wrong=wrong, **__: wrong)
            with pytest.raises(ParityError, match="does not give the bits"):
                repairing.repair_file(RepairRequest(file, output=OutputOptions(tmp_path / "out")))
            assert not (tmp_path / "out").exists()
            trials.tried("repairs with a fault")
            injected += 1
            if not trials.thorough:
                break
        assert injected, name
