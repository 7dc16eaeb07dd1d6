"""Measure the latency of bundles on this machine, interleaved in one process (timing.py explains why)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path

import numpy as np

from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.contents import GOLDEN, Bundle
from s2mlp_deploy.formats import registry
from s2mlp_deploy.gate.io_adapter import IoAdapter
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.system import machine
from s2mlp_deploy.system.timing import Clock, Estimate, estimate, interleave, ratio, timed_ms

WARMUP = 3
"""Rounds that are dropped; how long they take decides how many follow."""

SECONDS = 2.0
FEWEST_ROUNDS, MOST_ROUNDS = 10, 1000
SEED = 0


@dataclass(frozen=True)
class Latency:
    """One bundle's milliseconds a batch, and how many times as fast as the first bundle it is, round by round."""

    milliseconds: Estimate
    speed: Estimate

    @property
    def differs(self) -> bool:
        """Whether a difference from the first bundle is shown: whether the interval of ``speed`` leaves out 1."""
        return not self.speed.low <= 1 <= self.speed.high


@dataclass(frozen=True)
class Method:
    """The method of a latency measurement. ``input`` names the input: a golden one, or noise where there is none."""

    rounds: int
    batch: int
    cores: int
    input: str


@dataclass(frozen=True)
class Latencies:
    """Latencies by the bundle's directory, and the method of measurement."""

    results: Mapping[Path, Latency]
    method: Method


def measure(bundles: Sequence[Bundle], clock: Clock = time.perf_counter) -> Latencies | None:
    """Time those ``bundles`` of one checkpoint that can run here; None where none can.

    They take the same input. Every round runs each of them once, in an order that is drawn anew; there are about
    :data:`SECONDS` of rounds.

    Raises:
        RuntimeMissingError, BundleError: where a bundle cannot be loaded or run here.
    """
    bundles = [bundle for bundle in bundles if bundle.manifest.verdict != "pending a device"]
    if not bundles:
        return None
    batch = bundles[0].manifest.batch or 1
    images, source = images_for(bundles, batch)
    calls: dict[str, Callable[[], object]] = {}
    for bundle in bundles:
        session = registry.find(bundle.manifest.format).open_with_threads(bundle.artifact, None)
        calls[str(bundle.directory)] = partial(session.run, images)
    found, rounds = in_turns(calls, clock)
    results = dict(zip((b.directory for b in bundles), found, strict=True))
    return Latencies(results, Method(rounds, batch, cores(), source))


def cores() -> int:
    """The processor's cores, over which a runtime spreads by default."""
    return int(machine.describe()["cores"])


def in_turns(calls: Mapping[str, Callable[[], object]], clock: Clock = time.perf_counter) -> tuple[list[Latency], int]:
    """The latency of each of ``calls``, by name, and the number of rounds in which all of them took their turns."""
    candidates = {name: timed_ms(call, clock) for name, call in calls.items()}
    rng = random.Random(SEED)
    start = clock()
    interleave(candidates, rounds=WARMUP, rng=rng)
    rounds = ceil(SECONDS * WARMUP / (clock() - start))
    rounds = min(max(rounds, FEWEST_ROUNDS), MOST_ROUNDS)
    samples = list(interleave(candidates, rounds=rounds, rng=rng).values())
    return [Latency(estimate(s), ratio(samples[0], s)) for s in samples], rounds


def images_for(bundles: Sequence[Bundle], batch: int) -> tuple[Array, str]:
    """Inputs as the first of ``bundles`` takes them, and a name for them."""
    for bundle in bundles:
        if GOLDEN in bundle.manifest.files:
            expected = golden_tensors.load(bundle.golden)
            return expected.inputs[expected.traced][:1].repeat(batch, axis=0), "a golden input"
    spec = bundles[0].manifest.classifier
    rng = np.random.default_rng(SEED)
    noise = rng.standard_normal((batch, spec.in_channels, *spec.image_size), dtype=np.float32)
    return IoAdapter.of(bundles[0].manifest).raw(noise), "noise"
