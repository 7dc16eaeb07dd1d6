"""Bundles against each other and against baselines. Read this first; it is the whole story of s2mlp-bench.

    verify ─▶ prepare baselines ─▶ cold starts ─▶ load, and check answers ─▶ race ─▶ what it shows

What gives wrong answers is not timed; a baseline that computes something else is, and is labelled so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path

from s2mlp_bench import cold_start as cold
from s2mlp_bench import profile
from s2mlp_bench.backends import BundleWay
from s2mlp_bench.baselines import registry
from s2mlp_bench.candidate import Contestant, Point
from s2mlp_bench.cold_start import Cold
from s2mlp_bench.energy.energy import Energy, measure_energy
from s2mlp_bench.energy.monitor import Condition, Watch
from s2mlp_bench.energy.sensors import Gauges, gauges
from s2mlp_bench.inputs import Asked
from s2mlp_bench.interleaved_timing import NOTHING, Course, Race, Record, nothing
from s2mlp_bench.load import check_comparable, check_names, entry, verified
from s2mlp_bench.profile import Profile
from s2mlp_bench.roofline import lower_bound as bound
from s2mlp_bench.roofline import peaks, roofline
from s2mlp_bench.roofline.lower_bound import bound_of
from s2mlp_bench.roofline.peaks import Probe, Probes, Reached
from s2mlp_bench.roofline.roofline import Roofline
from s2mlp_bench.runner import Runner
from s2mlp_bench.summary import Standing, standing
from s2mlp_deploy.runtime.session import ProfilingSession
from s2mlp_deploy.schema.precision import ON_CPUS, precision
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.timing import Clock
from s2mlp_deploy.system.workdir import temporary

OPENVINO_FORMAT = "openvino"

ENERGY_SECONDS = 3.0
"""Energy counters move in steps of a tenth of a second."""


@dataclass(frozen=True)
class Plan:
    """What to measure: each bundle and each baseline at every point of the sweep."""

    bundles: tuple[Path, ...]
    baselines: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1,)
    threads: tuple[int | None, ...] = (None,)
    sizes: tuple[Size | None, ...] = (None,)
    providers: tuple[str | None, ...] = (None,)
    course: Course = field(default_factory=Course)
    cold: bool = True
    bound: bool = True
    energy: bool = True

    @property
    def points(self) -> tuple[Point, ...]:
        """The sweep; threads change fastest."""
        swept = product(self.providers, self.sizes, self.batches, self.threads)
        return tuple(Point(batch, threads, size, provider) for provider, size, batch, threads in swept)


@dataclass(frozen=True)
class Devices:
    """Before and after; the energy of each contestant, which ran alone for it (None: not known); and what could not be
    read, in words."""

    conditions: tuple[Condition, ...]
    energies: Mapping[str, Energy | None]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What was measured: the standing, the samples behind it (milliseconds a batch, by contestant), where the time of
    each bundle goes, how far all are from what the machine can do (None where that was not asked for), and what the
    devices did meanwhile."""

    standing: Standing
    samples_ms: Mapping[str, Sequence[float]]
    profiles: tuple[Profile, ...]
    roofline: Roofline | None
    devices: Devices


def hold(plan: Plan, listener: Listener, clock: Clock = time.perf_counter) -> Result:
    """Measure ``plan``. An interruption once the race has begun ends it early, and the standing says so.

    Raises:
        BundleError: for a bundle that is damaged, or was never judged.
        ParityError: for one whose answers are wrong.
        UsageError: where bundles cannot be compared, or something cannot run as asked.
        RuntimeMissingError: where a runtime or a device is not here.
        KeyboardInterrupt: where it comes before the first round has ended.
    """
    bundles = list(verified(plan.bundles, listener))
    check_comparable(bundles)
    with temporary() as scratch:
        contestants = [entry(bundle, point, bundles) for bundle in bundles for point in plan.points]
        contestants += registry.prepare(plan.baselines, bundles, plan.points, scratch, listener)
        check_names(contestants)
        starts = dict(_cold_starts(contestants, scratch, listener)) if plan.cold else {}
        asked = Asked(bundles)
        runners = []
        for contestant in contestants:
            with listener.step(f"loading {contestant.name}"):
                runners.append(Runner(contestant, asked.of(contestant)))
        if plan.bound:
            with listener.step("preparing the matrix products alone"):
                runners += [Runner(alone, asked.of(alone)) for alone in _bounds(runners, scratch)]
        with listener.step("preparing products that show what the machine can do at most"):
            probes = Probes(list(_probes(runners, plan, scratch)), clock)
        with gauges() as here:
            with listener.step("timing, interleaved"):
                record, conditions = _race(runners, plan.course, here, probes, clock)
            if not record.samples_ms[NOTHING]:
                raise KeyboardInterrupt
            energies = dict(_energies(runners, asked, here, listener)) if plan.energy and record.complete else {}
            devices = Devices(conditions, energies, here.unknown)
        found = standing(runners, record, starts, [words for c in conditions for words in c.noise])
        alone = list(_reached_alone(runners, record))
        runners = [runner for runner in runners if runner.contestant.kind == "bundle"]  # the others make room
        profiles: tuple[Profile, ...] = ()
        roof = None
        if plan.bound and record.complete:
            with listener.step("measuring what the machine can do at most"):
                reached = [*probes.finish(), *alone]
            with listener.step("looking where the time goes"):
                profiles = tuple(_profiles(runners, asked))
            if probes.probes:
                roof = _roofline(runners, found, profiles, reached, clock)
    return Result(found, record.samples_ms, profiles, roof, devices)


def _cold_starts(
    contestants: Sequence[Contestant], scratch: Path, listener: Listener
) -> Iterator[tuple[tuple[str, Point], Cold]]:
    for contestant in contestants:
        with listener.step(f"starting {contestant.name} in a process of its own"):
            yield (contestant.source, contestant.point), cold.start(contestant, scratch)


def _race(
    runners: Sequence[Runner], course: Course, here: Gauges, probes: Probes, clock: Clock
) -> tuple[Record, tuple[Condition, ...]]:
    """The devices that something runs on are watched from the first round that counts, while nothing is timed; so are
    ``probes`` run."""
    used = {"board", *(runner.contestant.device for runner in runners)}
    watches: list[Watch] = []

    def rest(clock: Clock) -> float:
        for watch in watches:
            watch.look()
        probes.turn()
        return nothing(clock)

    def start() -> None:
        watches.append(Watch([gauge for gauge in here.found if gauge.kind in used], clock=clock))

    calls = {runner.contestant.name: runner.time_ms for runner in runners}
    record = Race({**calls, NOTHING: rest}, course, clock, start).run()
    return record, tuple(condition for watch in watches for condition in watch.end())


def _energies(
    runners: Sequence[Runner], asked: Asked, here: Gauges, listener: Listener
) -> Iterator[tuple[str, Energy | None]]:
    for runner in runners:
        contestant, batch = runner.contestant, runner.contestant.point.batch
        gauge = here.of(contestant.device)
        if gauge and contestant.kind != "bound":
            ((images, _), *_) = asked.of(contestant).turns(batch)
            with listener.step(f"measuring the energy of {contestant.name}"):
                yield (
                    contestant.name,
                    measure_energy(
                        partial(runner.session.run, images), images=batch, gauge=gauge, seconds=ENERGY_SECONDS
                    ),
                )


def _bounds(runners: Sequence[Runner], scratch: Path) -> Iterator[Contestant]:
    for runner in runners:
        way = runner.contestant.way
        if isinstance(way, BundleWay) and (alone := bound_of(runner.contestant, way.bundle.manifest, scratch)):
            yield alone


def _profiles(runners: Sequence[Runner], asked: Asked) -> Iterator[Profile]:
    for runner in runners:
        contestant, session = runner.contestant, runner.session
        if isinstance(contestant.way, BundleWay) and isinstance(session, ProfilingSession):
            ((images, _), *_) = asked.of(contestant).turns(contestant.point.batch)
            spec = contestant.way.bundle.manifest.spec
            weight_bytes = precision(contestant.precision).on_gpu.item_bytes[1]
            yield profile.take(contestant.name, session, images, spec, contestant.point, weight_bytes=weight_bytes)


def _probes(runners: Sequence[Runner], plan: Plan, scratch: Path) -> Iterator[Probe]:
    """Products at the precisions and threads of the bundles; those of bundles for OpenVINO themselves, too, since these have no
    bound. Nothing where not all run on the processor: the peaks of another device are not measured."""
    bundles = [(r.contestant, r.contestant.way.bundle) for r in runners if isinstance(r.contestant.way, BundleWay)]
    if not plan.bound or any(c.point.provider not in (None, "cpu") or c.device != "cpu" for c, _ in bundles):
        return
    if not any(isinstance(runner.session, ProfilingSession) for runner in runners):
        return
    known = [(c, bundle.manifest) for c, bundle in bundles if c.precision in ON_CPUS]
    recipes = {m.precision: m.quantization.target if m.quantization else None for _, m in known}
    yield from peaks.prepare(recipes.items(), plan.threads, scratch)
    for c, manifest in known:
        if manifest.format == OPENVINO_FORMAT and manifest.spec.products():
            path = bound.write_products(manifest, c.point, scratch)
            spec = manifest.spec
            yield from peaks.of_products(spec, c.point, c.precision, path, c.source, (peaks.OPENVINO,))


def _reached_alone(runners: Sequence[Runner], record: Record) -> Iterator[Reached]:
    """What ONNX Runtime reached on the products of the bundles themselves, in the race."""
    for c in (runner.contestant for runner in runners if runner.contestant.kind == "bound"):
        operations = 2 * c.macs * c.point.batch
        of = next(r.contestant.source for r in runners if r.contestant.name == c.of)
        fastest_s = min(record.samples_ms[c.name]) / 1e3
        yield Reached(c.precision, c.point.threads, peaks.ONNXRUNTIME, of, operations / fastest_s)


def _roofline(
    runners: Sequence[Runner], found: Standing, profiles: Sequence[Profile], reached: Sequence[Reached], clock: Clock
) -> Roofline:
    shown = [runner.contestant for runner in runners if runner.contestant.kind == "bundle"]
    roofs = roofline.roofs_under([one for one in reached if one.precision in ON_CPUS], clock)
    p50_ms = {figures.name: figures.p50_ms for figures in found.figures}
    dots = []
    for contestant in shown:
        if contestant.precision in ON_CPUS and isinstance(contestant.way, BundleWay):
            spec = contestant.way.bundle.manifest.spec
            dots.append(roofline.contestant_dot(contestant, spec, p50_ms[contestant.name]))
    for one in profiles:
        contestant = next(c for c in shown if c.name == one.contestant)
        dots += roofline.layer_dots(one, contestant.precision, contestant.point.threads)
    return Roofline(roofs, tuple(dots))
