"""Measure the latency of a published bundle in whichever process this is called, while nothing else is timed on that machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from s2mlp_deploy.bundle.contents import MANIFEST, Bundle
from s2mlp_deploy.bundle.read import read_bundle, read_manifest
from s2mlp_deploy.errors import BundleError, RuntimeMissingError
from s2mlp_deploy.formats import memory_limit, registry
from s2mlp_deploy.pipeline import latency, verify
from s2mlp_deploy.pipeline.sweep.outcome import Failure, Latency, failure_of
from s2mlp_deploy.system import bench_slot, machine
from s2mlp_deploy.system.hashing import sha256


@dataclass(frozen=True)
class Timing:
    """The bundle at ``bundle``, whose manifest has the hash ``manifest``, to be timed."""

    key: str
    bundle: Path
    manifest: str

    @property
    def reads(self) -> tuple[Path, ...]:
        """The files that a process must see to work on it."""
        return (self.bundle,)

    def moved(self, places: Mapping[Path, Path]) -> Timing:
        """The same, with the bundle where ``places`` has it."""
        return replace(self, bundle=places[self.bundle])

    @property
    def on_gpu(self) -> bool:
        """Whether the bundle runs on a GPU."""
        bundle = Bundle(self.bundle, read_manifest(self.bundle))
        return registry.find(bundle.manifest.format).on_gpu(bundle.artifact)

    def failed(self, failure: Failure, attempts: int = 1) -> Timed:
        """The result where it could not be timed."""
        return Timed(self.key, None, failure, attempts)


@dataclass(frozen=True)
class Timed:
    """The latency of a bundle; ``error`` where it could not be timed."""

    key: str
    latency: Latency | None
    error: Failure | None = None
    attempts: int = 1


def time_bundle(timing: Timing, output: Path | None = None) -> Timed:
    """The latency; nothing is raised, and nothing written, to ``output`` or elsewhere."""
    try:
        with bench_slot.held():
            return Timed(timing.key, _measure(timing))
    except Exception as error:  # of a runtime, too: the other bundles go on
        return timing.failed(failure_of(error))


def _measure(timing: Timing) -> Latency:
    if sha256(timing.bundle / MANIFEST) != timing.manifest:
        raise BundleError(f"{timing.bundle} was replaced while the sweep ran: start it again")
    bundle = read_bundle(timing.bundle)
    target, _ = verify.checked(bundle)
    with memory_limit.bounded(bundle, on_gpu=target.on_gpu(bundle.artifact)):
        found = latency.measure([bundle])
    if found is None:
        raise RuntimeMissingError(f"{timing.bundle} is pending a device, so it cannot be timed here")
    (one,), method = found.results.values(), found.method
    ms = one.milliseconds
    return Latency(ms.median, ms.low, ms.high, method.rounds, method.batch, str(machine.describe()["processor"]))
