"""Limit the memory that running or compiling a bundle may take.

A graph of a few bytes can allocate more memory than any machine has: a matrix product of a column and a row is enough.
So a bundle is checked and compiled within a limit that follows from its size. The operating system enforces it:
a larger allocation fails as if the machine had no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from threading import RLock

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

from s2mlp_deploy.bundle.contents import GOLDEN, Bundle
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.spec import Network, Spec
from s2mlp_deploy.system.memory import kibibytes

SPARE_BYTES = 2 << 30
"""For libraries, threads and buffers, whatever the model."""

COPIES = 8
"""Of the files. Loading a model takes three or four: as it is read, as it is kept, and as it is laid out for the processor."""

ACTIVATIONS = 64
"""Times a batch of inputs; feature maps take some ten times as much as their input."""

MOST_IMAGES = 1024
"""In a batch: a manifest can state any number."""

_turn = RLock()
"""The limit is the process's: of two threads that set it at once, one would leave its own in place."""


@contextmanager
def bounded(bundle: Bundle, *, on_gpu: bool) -> Iterator[None]:
    """Limit the memory of the process, inside ``with``, to what the size of ``bundle`` allows.

    Threads take turns: the limit is the whole process's. Linux alone keeps such a limit; and drivers of GPUs reserve so much that
    none can be set ``on_gpu``.
    """
    if resource is None or on_gpu:
        yield
        return
    limit = _most_bytes(bundle)
    with _turn:
        before = resource.getrlimit(resource.RLIMIT_DATA)
        if now := kibibytes("/proc/self/status", "VmData"):
            wanted = (now << 10) + limit
            if before[0] != resource.RLIM_INFINITY:
                wanted = min(wanted, before[0])
            resource.setrlimit(resource.RLIMIT_DATA, (wanted, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)


def _most_bytes(bundle: Bundle) -> int:
    manifest = bundle.manifest
    sizes = {name: (bundle.directory / name).stat().st_size for name in manifest.files}
    golden = sizes.get(GOLDEN, 0)
    sample = min(golden, _sample_bytes(manifest.spec))  # which one of the golden ones is
    batch = max(golden, sample * min(manifest.batch or 1, MOST_IMAGES))
    most = SPARE_BYTES + COPIES * sum(sizes.values()) + ACTIVATIONS * batch
    free = kibibytes("/proc/meminfo", "MemAvailable")
    return min(most, free << 10) if free else most


def _sample_bytes(network: Network) -> int:
    """Bytes of the inputs for a batch of one, at the least size where sizes are free; at most eight a number."""
    if isinstance(network, Spec):
        return 4 * network.in_channels * prod(network.image_size)
    assert isinstance(network, OnnxNetwork)
    return sum(8 * prod(n for n in entry.shape[1:] if isinstance(n, int)) for entry in network.inputs)
