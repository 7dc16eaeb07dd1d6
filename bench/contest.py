"""Bundles against each other: each verified first, then timed interleaved until enough is known, and checked all along."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from s2mlp_deploy import exporter, golden, parity
from s2mlp_deploy.artifact import Bundle
from s2mlp_deploy.asking import as_logits, listening
from s2mlp_deploy.errors import ParityError, UsageError
from s2mlp_deploy.exporter import Session
from s2mlp_deploy.manifest import Manifest
from s2mlp_deploy.parity import Array
from s2mlp_deploy.spec import format_size
from s2mlp_deploy.timing import Clock

NOTHING = "(nothing)"
"""A session that does nothing, timed like the others: what measuring itself takes."""

SETTLED = 0.02
"""The warm-up ends when the medians of two windows in a row differ by no more than this share, for everyone."""

WINDOW, LONGEST_WARMUP = 5, 60


@dataclass(frozen=True)
class Course:
    """How long to measure: until both ``seconds`` and ``rounds`` are reached. ``seed`` draws the orders."""

    seconds: float = 10.0
    rounds: int = 30
    seed: int = 0


@dataclass(frozen=True)
class Entry:
    """A bundle with the settings that it is timed with; ``threads`` is None for the runtime's own choice."""

    bundle: Bundle
    batch: int
    threads: int | None = None

    @property
    def name(self) -> str:
        """The bundle's directory, and the settings where they are set."""
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.bundle.directory.name}{threads}" + (f", batch {self.batch}" if self.batch > 1 else "")


@dataclass(frozen=True)
class Record:
    """Milliseconds a batch by entry, in the order of the rounds; the i-th of all are from one round.

    ``complete`` is False where measuring was interrupted.
    """

    samples_ms: dict[str, tuple[float, ...]]
    warmup_rounds: int
    complete: bool


def check_comparable(bundles: Sequence[Bundle]) -> None:
    """That all bundles answer the same question.

    Raises:
        UsageError: where inputs or classes differ.
    """
    first = bundles[0]
    for other in bundles[1:]:
        for what, of in (("input", _input_shape), ("number of classes", lambda m: m.spec.classes)):
            if of(first.manifest) != of(other.manifest):
                raise UsageError(
                    f"{first.directory} and {other.directory} differ in their {what} ({of(first.manifest)} and "
                    f"{of(other.manifest)}), so their times cannot be compared"
                )


def _input_shape(manifest: Manifest) -> str:
    return f"{manifest.spec.in_channels} channels, {format_size(manifest.spec.image_size)}"


class Runner:
    """An entry, loaded, with golden inputs that take turns and the logits that each must give.

    Raises:
        RuntimeMissingError, BundleError: where it cannot be loaded here.
        UsageError: where its batch is not the one asked for.
    """

    def __init__(self, entry: Entry) -> None:
        manifest = entry.bundle.manifest
        if manifest.batch not in (None, entry.batch):
            raise UsageError(
                f"{entry.bundle.directory} takes batches of {manifest.batch} alone: leave out --batch, or export it with "
                "--batch dynamic"
            )
        assert manifest.tolerance is not None  # it was verified
        self._limit = manifest.tolerance.relative_l2
        self._name = entry.name
        self._images, self._logits = _questions(entry)
        self._turn = 0
        self._interface = manifest.interface
        self._session = listening(_open(entry), manifest.interface, manifest.spec.classes)

    def time_ms(self, clock: Clock) -> float:
        """Milliseconds of one batch; the answer is checked when the clock has stopped.

        Raises:
            ParityError: where it is wrong.
        """
        images, expected = self._images[self._turn], self._logits[self._turn]
        self._turn = (self._turn + 1) % len(self._images)
        start = clock()
        logits = self._session.run(images)
        elapsed = clock() - start
        distance = parity.compare(as_logits(logits, expected, self._interface), expected).relative_l2
        if not distance <= self._limit:
            raise ParityError(
                f"{self._name} gave wrong logits while it was timed (relative L2 {distance:.2g}, limit {self._limit:.0e}), so "
                "its times say nothing: run s2mlp-verify on it"
            )
        return elapsed * 1e3


def _open(entry: Entry) -> Session:
    target = exporter.find(entry.bundle.manifest.format)
    if isinstance(target, exporter.Threaded):
        return target.open_with_threads(entry.bundle.artifact, entry.threads)
    if entry.threads is not None:
        raise UsageError(f"--threads: engines of format {entry.bundle.manifest.format} have no threads to set")
    return target.open(entry.bundle.artifact)


def _questions(entry: Entry) -> tuple[list[Array], list[Array]]:
    """Batches of golden images of the model's size, each starting at another one, and the oracle's logits."""
    expected = golden.load(entry.bundle.golden)
    manifest = entry.bundle.manifest
    axes = slice(2, 4) if manifest.interface.input == "float" else slice(1, 3)
    cases = [case for case, x in expected.inputs.items() if x.shape[axes] == manifest.spec.image_size]
    images = np.concatenate([expected.inputs[case] for case in cases])
    logits = np.concatenate([expected.logits[case] for case in cases])
    turns = [np.arange(start, start + entry.batch) % len(images) for start in range(len(images))]
    return [images[turn] for turn in turns], [logits[turn] for turn in turns]


def nothing(clock: Clock) -> float:
    """A runner that does nothing."""
    start = clock()
    return (clock() - start) * 1e3


@dataclass
class Race:
    """Times every runner once a round, in an order that is drawn anew each round."""

    runners: dict[str, Callable[[Clock], float]]
    course: Course
    clock: Clock = time.perf_counter
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.course.seed)

    def run(self) -> Record:
        """Warm up until times have settled, then measure; what was measured before an interruption is kept."""
        samples: dict[str, list[float]] = {name: [] for name in self.runners}
        complete, warmup = True, 0
        try:
            warmup = self._warm_up()
            start = self.clock()
            count = 0
            while count < self.course.rounds or self.clock() - start < self.course.seconds:
                for name, milliseconds in self._round().items():
                    samples[name].append(milliseconds)
                count += 1
        except KeyboardInterrupt:
            complete = False
        return Record({name: tuple(values) for name, values in samples.items()}, warmup, complete)

    def _warm_up(self) -> int:
        rounds: list[dict[str, float]] = []
        while len(rounds) < LONGEST_WARMUP and not _settled(rounds):
            rounds.append(self._round())
        return len(rounds)

    def _round(self) -> dict[str, float]:
        """A whole round or none: an interruption in the middle would leave some with a sample more."""
        order = self._rng.sample(list(self.runners), len(self.runners))
        return {name: self.runners[name](self.clock) for name in order}


def _settled(rounds: Sequence[dict[str, float]]) -> bool:
    if len(rounds) < 2 * WINDOW:
        return False
    return all(
        abs(now - before) <= SETTLED * before
        for before, now in _medians_of_two_windows(rounds)
    )  # fmt: skip


def _medians_of_two_windows(rounds: Sequence[dict[str, float]]) -> Iterator[tuple[float, float]]:
    for name in rounds[0]:
        if name != NOTHING:
            times: list[Any] = [r[name] for r in rounds[-2 * WINDOW :]]
            yield median(times[:WINDOW]), median(times[WINDOW:])
