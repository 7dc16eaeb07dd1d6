"""How many exports this machine can make at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence

from s2mlp_deploy.pipeline.sweep.item import Item
from s2mlp_deploy.system import machine, memory

IMPORTS_BYTES = 1 << 30
"""For the libraries of one process, and images to judge on."""

COPIES = 4
"""Of the checkpoint: the reference, the graph and a runtime's session. An export takes 1.9 times the file (docs/benchmarks.md); one of a
checkpoint in half precision, twice that."""


def workers(items: Sequence[Item]) -> int:
    """As many processes as there are cores, items, and room in memory for the largest checkpoint."""
    most = min(machine.usable_cores(), len(items))
    if (free := memory.available_bytes()) is not None:
        largest = max((os.stat(checkpoint).st_size for checkpoint in {item.checkpoint for item in items}), default=0)
        most = min(most, free // (IMPORTS_BYTES + COPIES * largest))
    return max(1, most)
