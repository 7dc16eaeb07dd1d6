"""Measure the bundles of a sweep after they were made, where the plan says so: accuracy, in portions, and latency.

Each figure is kept in a file of its own as soon as it is there, so a sweep that was killed goes on with the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from s2mlp_deploy.bundle.contents import MANIFEST
from s2mlp_deploy.pipeline.sweep import evaluation
from s2mlp_deploy.pipeline.sweep.evaluation import LabelledFolder, Portion, Tally
from s2mlp_deploy.pipeline.sweep.fingerprint import Fingerprints
from s2mlp_deploy.pipeline.sweep.item import Item
from s2mlp_deploy.pipeline.sweep.outcome import Evaluated, Failure, Latency, Outcome, failure_of
from s2mlp_deploy.pipeline.sweep.timing import Timed, Timing
from s2mlp_deploy.pipeline.sweep.work import Workers
from s2mlp_deploy.system import atomic_write
from s2mlp_deploy.system.hashing import sha256
from s2mlp_deploy.system.progress import Listener

DIRECTORY = "measured"
DIGITS = 12


class Measurements:
    """The figures of the bundles in ``output`` that the plan of ``items`` wants measured.

    Raises:
        OutputError: where a figure cannot be written.
    """

    def __init__(self, items: Sequence[Item], output: Path) -> None:
        self._output, self._prints = output, Fingerprints()
        self._items = {item.key: item for item in items if item.group.evaluation or item.group.latency}
        self._errors: dict[str, Failure] = {}

    @property
    def wanted(self) -> bool:
        """Whether the plan wants any."""
        return bool(self._items)

    def evaluate(self, workers: Workers[Tally], listener: Listener) -> None:
        """Have ``workers`` run the images that no bundle's figures are there for."""
        for tally in workers.run(self._missing(self._portions)):
            self._keep(tally.key, tally.error, {"images": tally.images, "right": tally.right}, listener)

    def time(self, workers: Workers[Timed], listener: Listener) -> None:
        """Have ``workers``, which time one bundle at a time on a machine, time those without a latency."""
        for timed in workers.run(self._missing(self._timings)):
            self._keep(timed.key, timed.error, asdict(timed.latency) if timed.latency else {}, listener)

    def add_to(self, outcome: Outcome) -> Outcome:
        """``outcome`` with its figures; where one could not be measured, it has failed, and its bundle stays."""
        item = self._items.get(outcome.key)
        if item is None or outcome.bundle is None:
            return outcome
        if error := self._errors.get(item.key):
            return replace(outcome, status="failed", error=error)
        if portions := list(self._portions(item)):
            tallies = [self._find(portion.key) or {"images": 0, "right": 0} for portion in portions]
            images, right = (sum(one[name] for one in tallies) for name in ("images", "right"))
            outcome = replace(outcome, evaluation=Evaluated(images, right))
        for timing in self._timings(item):
            if found := self._find(timing.key):
                outcome = replace(outcome, latency=Latency(**found))
        return outcome

    def _missing(self, works: Callable[[Item], Iterator[Any]]) -> Iterator[Any]:
        """The works of all bundles that are there, without those whose figures are."""
        for item in self._items.values():
            if (self._output / item.key / MANIFEST).exists():
                try:
                    yield from (work for work in works(item) if self._find(work.key) is None)
                except Exception as error:  # of its folder of images, or of its manifest: the others go on
                    self._errors[item.key] = failure_of(error)

    def _portions(self, item: Item) -> Iterator[Portion]:
        wanted = item.group.evaluation
        if wanted is None or item.key in self._errors:
            return
        text = json.dumps([self._prints.of(wanted.data), wanted.count])
        key = f"{item.key}-{hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}"
        folder = LabelledFolder(wanted.data, wanted.count)
        yield from evaluation.portions_of(key, self._output / item.key, folder)

    def _timings(self, item: Item) -> Iterator[Timing]:
        if item.group.latency:
            bundle = self._output / item.key
            yield Timing(f"{item.key}-latency", bundle, sha256(bundle / MANIFEST))

    def _keep(self, key: str, error: Failure | None, figures: dict[str, Any], listener: Listener) -> None:
        item = self._items[key.partition("-")[0]]
        if error:
            self._errors.setdefault(item.key, error)
        else:
            atomic_write.write(self._place(key), json.dumps(figures).encode(), option="-o")
        with listener.step(f"{item.name}: {error.message if error else f'measured {_words(figures)}'}"):
            pass

    def _find(self, key: str) -> dict[str, Any] | None:
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(self._place(key).read_bytes())
            return found
        return None

    def _place(self, key: str) -> Path:
        directory = self._output / DIRECTORY
        directory.mkdir(exist_ok=True)
        return directory / f"{key}.json"


def _words(figures: dict[str, Any]) -> str:
    return f"{figures['images']} images" if "images" in figures else f"{figures['median_ms']:.3g} ms a batch"
