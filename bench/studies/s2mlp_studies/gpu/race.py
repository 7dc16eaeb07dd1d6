"""A short race of one model at each batch, interleaved, in the time that there is.

    python -m s2mlp_studies.gpu.race SHEET UNTIL DEVICE MODEL CHECKPOINT BATCHES ROUNDS

writes a row for each candidate at each batch, and one for the devices' condition meanwhile; at the end, where there is time left, one
for the work that each starts at the first of BATCHES, which have commas between.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from s2mlp_bench.candidate import Candidate
from s2mlp_bench.energy.monitor import Monitor
from s2mlp_bench.energy.sensors import Sensors, open_sensors
from s2mlp_bench.inputs import InputSource
from s2mlp_bench.interleaved_timing import LONGEST_WARMUP, NOTHING, InterleavedTiming, Record, Schedule, nothing
from s2mlp_bench.runner import Runner
from s2mlp_bench.summary import compute_samples_ms
from s2mlp_deploy.runtime.session import Session
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.system.timing import Clock
from s2mlp_studies.gpu.candidates import CONTENDERS, Network, obstacle
from s2mlp_studies.gpu.device import DEVICES
from s2mlp_studies.gpu.kernels import attach, count
from s2mlp_studies.gpu.sheet import Row, Sheet, in_words

SEED = 20210614

EXPORT_SHARE = 0.4
"""Of the time for all batches, after which no further bundle is exported."""

TIMING_SECONDS = 1.0
"""Of timing at each batch, at the least."""

TIMING_SHARE = 0.3
"""Of the time for a batch, kept for timing."""

COUNTING_SHARE = 0.1
"""Of the time for all batches, kept for counting kernels: last of all, since a profiler may take the process with it."""


def planned(model: str, batches: Sequence[int]) -> list[tuple[str, ...]]:
    """What the rows are about."""
    rows = [("race", model, str(batch), name) for batch in batches for name in CONTENDERS]
    return [*rows, *(("condition", model, str(batch)) for batch in batches)]


@dataclass(frozen=True)
class Race:
    """One model on one device; rows go to ``sheet``, and all must be there at ``deadline``, a moment of ``clock``."""

    model: str
    network: Network
    sheet: Sheet
    deadline: float
    rounds: int
    clock: Clock = time.monotonic

    def run(self) -> None:
        """Bundles are made first; then each batch gets an equal share of the time that is left."""
        batches, timed = self.network.batches, tuple[str, ...]()
        if self.clock() < self.deadline:
            _ = self.network.exports  # of minutes on few cores, which would be all of the first batch's share
        until = self.deadline - COUNTING_SHARE * max(self.deadline - self.clock(), 0)
        with open_sensors() as sensors:
            for index, batch in enumerate(batches):
                now = self.clock()
                share = (until - now) / (len(batches) - index)
                loaded = dict(self._load(batch, now + share * (1 - TIMING_SHARE)))
                if runners := self._that_fit(batch, loaded, now + share):
                    self._time(batch, runners, sensors)
                    if batch == batches[0]:
                        timed = tuple(runners)
                loaded = runners = {}
        self._count(batches[0], timed)

    def _count(self, batch: int, names: Collection[str]) -> None:
        """Count the work of the candidates called ``names``, those that are made quickest first."""
        attach()
        for name in sorted(names, key=lambda name: CONTENDERS[name].seconds):
            if self.deadline - self.clock() > CONTENDERS[name].seconds:
                about = ("work", self.model, str(batch), name)
                self.sheet.measure(about, lambda name=name: count(*self._opened(name, batch)))  # type: ignore[misc]

    def _opened(self, name: str, batch: int) -> tuple[Session, Array]:
        runner = self._runner(name, batch)
        return runner.session, runner.images

    def _runner(self, name: str, batch: int) -> Runner:
        candidate = CONTENDERS[name].make(self.network, self.network.device.point(batch))
        return Runner(candidate, self._inputs.of(candidate))

    def _that_fit(self, batch: int, loaded: Mapping[str, Runner], until: float) -> dict[str, Runner]:
        """Those that can be timed until then in as many rounds as it may take; those that fail and the slowest are dropped."""
        seconds, rounds = {}, LONGEST_WARMUP + self.rounds
        for name, runner in loaded.items():
            start = self.clock()
            try:
                runner.time_ms(self.clock)
            except Exception as error:
                self.sheet.add(Row(("race", self.model, str(batch), name), not_run=in_words(error)))
                continue
            seconds[name] = self.clock() - start
            runner.parts.clear()  # those of this run, which belongs to no round
        kept = {name: loaded[name] for name in seconds}
        while kept and rounds * sum(seconds[name] for name in kept) > max(until - self.clock(), 0):
            slowest = max(kept, key=lambda name: seconds[name])
            reason = f"dropped: a run takes {seconds[slowest]:.2g} s, and there was no time for {rounds} rounds with it"
            self.sheet.add(Row(("race", self.model, str(batch), slowest), not_run=reason))
            del kept[slowest]
        return kept

    def _load(self, batch: int, until: float) -> Iterator[tuple[str, Runner]]:
        for name, contender in CONTENDERS.items():
            about = ("race", self.model, str(batch), name)
            left = until - self.clock()
            if reason := obstacle(self.network.device, name):
                self.sheet.add(Row(about, not_run=reason))
            elif batch > contender.largest:
                self.sheet.add(Row(about, not_run=f"it is run at batches up to {contender.largest} alone"))
            elif left < contender.seconds:
                reason = f"dropped: it takes about {contender.seconds:g} s to load, and {max(left, 0):.0f} s were left for this batch"
                self.sheet.add(Row(about, not_run=reason))
            else:
                try:
                    yield name, self._runner(name, batch)
                except Exception as error:  # one that fails must not take the others with it
                    self.sheet.add(Row(about, not_run=in_words(error)))

    @property
    def _inputs(self) -> InputSource:
        return InputSource([*self.network.bundles, *_engines(self.network)])

    def _time(self, batch: int, runners: Mapping[str, Runner], sensors: Sensors) -> None:
        monitors: list[Monitor] = []

        def rest(clock: Clock) -> float:
            for monitor in monitors:
                monitor.look()
            return nothing(clock)

        def start() -> None:
            monitors.append(Monitor([sensor for sensor in sensors.found if sensor.kind != "cpu"]))

        calls = {name: _Timed(runner) for name, runner in runners.items()}
        schedule = Schedule(TIMING_SECONDS, self.rounds, SEED)
        record = InterleavedTiming({**calls, NOTHING: rest}, schedule, time.perf_counter, start).run()
        conditions = [asdict(condition) for monitor in monitors for condition in monitor.end()]
        self.sheet.add(
            Row(("condition", self.model, str(batch)), {"devices": conditions, "unknown": list(sensors.unknown)})
        )
        for name, call in calls.items():
            self.sheet.measure(("race", self.model, str(batch), name), lambda c=call, n=name: _figures(c, n, record))  # type: ignore[misc]


@dataclass
class _Timed:
    """A runner in a race: once it has failed it does nothing, so that the others are timed on."""

    runner: Runner
    error: Exception | None = None
    last_ms: float = 0.0

    def __call__(self, clock: Clock) -> float:
        if self.error is None:
            try:
                self.last_ms = self.runner.time_ms(clock)
            except Exception as error:
                self.error = error
        return self.last_ms


def _engines(network: Network) -> Iterator[Any]:
    from s2mlp_deploy.bundle.read import is_bundle, read_bundle

    for directory in sorted(network.place.iterdir()):
        if directory.name.startswith("trt") and is_bundle(directory):
            yield read_bundle(directory)


def _figures(timed: _Timed, name: str, record: Record) -> Mapping[str, Any]:
    """Milliseconds a batch as called and, where it is known, without copies; and the distance from the reference.

    Raises:
        Exception: that it failed with.
    """
    if timed.error:
        raise timed.error
    runner = timed.runner
    c: Candidate = runner.candidate
    renamed = Record({c.name: record.samples_ms[name]}, record.warmup_rounds, record.complete)
    samples, compute = renamed.samples_ms[c.name], compute_samples_ms(runner, renamed)
    return {
        "precision": c.precision,
        "remark": c.remark,
        "distance": runner.distance,
        "operations": None if c.macs is None else 2 * c.macs * c.point.batch,
        "p50_ms": median(samples),
        "compute_p50_ms": median(compute) if compute else None,
        "samples_ms": list(samples),
        "compute_ms": compute,
    }


def main() -> None:
    sheet, until, device, model, checkpoint, batches, rounds = sys.argv[1:]
    deadline, where = float(until), DEVICES[device]
    exported = time.monotonic() + EXPORT_SHARE * (deadline - time.monotonic())
    with TemporaryDirectory() as directory, suppress(KeyboardInterrupt):
        each = tuple(int(batch) for batch in batches.split(","))
        network = Network(where, Path(checkpoint), Path(directory), each, exported)
        Race(model, network, Sheet(Path(sheet)), deadline, int(rounds)).run()


if __name__ == "__main__":
    main()
