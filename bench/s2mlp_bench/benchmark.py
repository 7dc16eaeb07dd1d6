"""Time bundles against each other and against baselines. Read this first; it is the whole story of s2mlp-bench.

    verify ─▶ prepare baselines ─▶ cold starts ─▶ load, and check logits ─▶ time ─▶ summarize

A bundle with wrong logits is refused; a baseline that computes something else is timed and labelled.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from s2mlp_bench import cold_start as cold
from s2mlp_bench import profile
from s2mlp_bench.backends import BundleBackend
from s2mlp_bench.baselines import registry
from s2mlp_bench.candidate import Candidate, Point
from s2mlp_bench.cold_start import ColdStart
from s2mlp_bench.energy.energy import Energy, measure_energy
from s2mlp_bench.energy.monitor import Condition, Monitor
from s2mlp_bench.energy.sensors import Sensors, open_sensors
from s2mlp_bench.inputs import InputSource
from s2mlp_bench.interleaved_timing import NOTHING, InterleavedTiming, Record, Schedule, nothing
from s2mlp_bench.load import candidate_of, check_comparable, check_names, verified
from s2mlp_bench.profile import Profile
from s2mlp_bench.pytorch.place import no_gpu
from s2mlp_bench.roofline import lower_bound as bound
from s2mlp_bench.roofline import peaks, roofline
from s2mlp_bench.roofline.lower_bound import ProductTypes, bound_of
from s2mlp_bench.roofline.peaks import Probe, Probes, Reached
from s2mlp_bench.roofline.roofline import Roofline
from s2mlp_bench.runner import Runner
from s2mlp_bench.summary import Summary, compute_samples_ms, summarize
from s2mlp_deploy.runtime.session import ProfilingSession
from s2mlp_deploy.schema.precision import ON_CPUS
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.timing import Clock
from s2mlp_deploy.system.workdir import temporary

OPENVINO_FORMAT = "openvino"

ENERGY_SECONDS = 3.0
"""Energy counters move in steps of a tenth of a second."""


@dataclass(frozen=True)
class Plan:
    """The measurements to take: each bundle and each baseline at every point of the sweep."""

    bundles: tuple[Path, ...]
    baselines: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1,)
    threads: tuple[int | None, ...] = (None,)
    sizes: tuple[Size | None, ...] = (None,)
    providers: tuple[str | None, ...] = (None,)
    schedule: Schedule = field(default_factory=Schedule)
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
    """Before and after; the energy of each candidate, which ran alone for it (None: not known); and what could not be
    read, in words."""

    conditions: tuple[Condition, ...]
    energies: Mapping[str, Energy | None]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """The outcome of a benchmark: the summary, its samples (milliseconds a batch, by candidate), where the time of
    each bundle goes, how far all are from what the machine can do (None without ``Plan.bound``), what the
    devices did meanwhile, and the samples without copies, of candidates on a device with a clock of its own."""

    summary: Summary
    samples_ms: Mapping[str, Sequence[float]]
    profiles: tuple[Profile, ...]
    roofline: Roofline | None
    devices: Devices
    compute_ms: Mapping[str, Sequence[float]] = field(default_factory=dict)


def run(plan: Plan, listener: Listener, clock: Clock = time.perf_counter) -> Result:
    """Measure ``plan``. An interruption after the first round ends timing early, and the summary notes it.

    Raises:
        BundleError: for a bundle that is damaged, or was never checked.
        ParityError: for one whose logits are wrong.
        UsageError: where bundles cannot be compared, or a candidate cannot run with these settings.
        RuntimeMissingError: where a runtime or a device is not here.
        KeyboardInterrupt: where it comes before the first round has ended.
    """
    bundles = list(verified(plan.bundles, listener))
    check_comparable(bundles)
    with temporary() as scratch:
        candidates = [candidate_of(bundle, point, bundles) for bundle in bundles for point in plan.points]
        candidates += registry.prepare(plan.baselines, bundles, plan.points, scratch, listener)
        check_names(candidates)
        starts = dict(_cold_starts(candidates, scratch, listener)) if plan.cold else {}
        inputs = InputSource(bundles)
        runners = []
        for candidate in candidates:
            with listener.step(f"loading {candidate.name}"):
                runners.append(Runner(candidate, inputs.of(candidate)))
        if plan.bound:
            with listener.step("preparing the matrix products alone"):
                runners += [Runner(alone, inputs.of(alone)) for alone in _bounds(runners, scratch)]
        with listener.step("preparing products that show what the machine can do at most"):
            probes = Probes(list(_probes(runners, plan, scratch)), clock)
        with open_sensors() as here:
            with listener.step("timing, interleaved"):
                record, conditions = _race(runners, plan.schedule, here, probes, clock)
            if not record.samples_ms[NOTHING]:
                raise KeyboardInterrupt
            energies = dict(_energies(runners, inputs, here, listener)) if plan.energy and record.complete else {}
            devices = Devices(conditions, energies, here.unknown)
        found = summarize(runners, record, starts, [words for c in conditions for words in c.noise])
        alone = list(_reached_alone(runners, record))
        computed = {runner.candidate.name: compute_samples_ms(runner, record) for runner in runners if runner.parts}
        runners = [runner for runner in runners if runner.candidate.kind == "bundle"]  # the others make room
        profiles: tuple[Profile, ...] = ()
        roof = None
        if plan.bound and record.complete:
            with listener.step("measuring what the machine can do at most"):
                reached = [*probes.finish(), *alone]
            with listener.step("looking where the time goes"):
                profiles = tuple(_profiles(runners, inputs))
            if probes.probes:
                roof = _roofline(runners, found, profiles, reached, clock)
    return Result(found, record.samples_ms, profiles, roof, devices, computed)


def _cold_starts(
    candidates: Sequence[Candidate], scratch: Path, listener: Listener
) -> Iterator[tuple[tuple[str, Point], ColdStart]]:
    for candidate in candidates:
        with listener.step(f"starting {candidate.name} in a process of its own"):
            yield (candidate.source, candidate.point), cold.start(candidate, scratch)


def _race(
    runners: Sequence[Runner], schedule: Schedule, here: Sensors, probes: Probes, clock: Clock
) -> tuple[Record, tuple[Condition, ...]]:
    """The devices that something runs on are watched from the first round that counts, while nothing is timed; so are
    ``probes`` run."""
    used = {"board", *(runner.candidate.device for runner in runners)}
    monitors: list[Monitor] = []

    def rest(clock: Clock) -> float:
        for monitor in monitors:
            monitor.look()
        probes.turn()
        return nothing(clock)

    def start() -> None:
        monitors.append(Monitor([sensor for sensor in here.found if sensor.kind in used], clock=clock))

    calls = {runner.candidate.name: runner.time_ms for runner in runners}
    record = InterleavedTiming({**calls, NOTHING: rest}, schedule, clock, start).run()
    return record, tuple(condition for monitor in monitors for condition in monitor.end())


def _energies(
    runners: Sequence[Runner], inputs: InputSource, here: Sensors, listener: Listener
) -> Iterator[tuple[str, Energy | None]]:
    for runner in runners:
        candidate, batch = runner.candidate, runner.candidate.point.batch
        sensor = here.of(candidate.device)
        if sensor and candidate.kind != "bound":
            images, _ = inputs.of(candidate).turn(0, batch)
            with listener.step(f"measuring the energy of {candidate.name}"):
                yield (
                    candidate.name,
                    measure_energy(
                        partial(runner.session.run, images), images=batch, sensor=sensor, seconds=ENERGY_SECONDS
                    ),
                )


def _bounds(runners: Sequence[Runner], scratch: Path) -> Iterator[Candidate]:
    for runner in runners:
        backend = runner.candidate.backend
        if isinstance(backend, BundleBackend) and (
            alone := bound_of(runner.candidate, backend.bundle.manifest, scratch)
        ):
            yield alone


def _profiles(runners: Sequence[Runner], inputs: InputSource) -> Iterator[Profile]:
    """Those of bundles on the processor: ONNX Runtime times operators there, and on a GPU only their start."""
    for runner in runners:
        candidate, session = runner.candidate, runner.session
        if candidate.device != "cpu":
            continue
        if isinstance(candidate.backend, BundleBackend) and isinstance(session, ProfilingSession):
            images, _ = inputs.of(candidate).turn(0, candidate.point.batch)
            manifest = candidate.backend.bundle.manifest
            spec, weight_bytes = manifest.classifier, ProductTypes.of(manifest).arithmetic.item_bytes[1]
            yield profile.take(candidate.name, session, images, spec, candidate.point, weight_bytes=weight_bytes)


def _probes(runners: Sequence[Runner], plan: Plan, scratch: Path) -> Iterator[Probe]:
    """Products at the precisions and threads of the bundles, on each device that runs some of them."""
    if not plan.bound:
        return
    for device, probes in (("cpu", _probes_on_processor), ("gpu", _probes_on_gpu)):
        if here := [r for r in runners if r.candidate.kind == "bundle" and r.candidate.device == device]:
            yield from probes(here, plan, scratch)


def _probes_on_processor(runners: Sequence[Runner], plan: Plan, scratch: Path) -> Iterator[Probe]:
    """Those of bundles for OpenVINO themselves, too, since these have no bound. Nothing where a provider has kernels of its own,
    or no session can tell where its time goes."""
    bundles = [
        (r.candidate, r.candidate.backend.bundle) for r in runners if isinstance(r.candidate.backend, BundleBackend)
    ]
    if any(c.point.provider not in (None, "cpu") for c, _ in bundles):
        return
    if not any(isinstance(runner.session, ProfilingSession) for runner in runners):
        return
    known = [(c, bundle.manifest) for c, bundle in bundles if c.precision in ON_CPUS]
    types = {m.precision: ProductTypes.of(m) for _, m in known}
    yield from peaks.prepare(types.values(), plan.threads, scratch)
    for c, manifest in known:
        if manifest.format == OPENVINO_FORMAT and manifest.classifier.products():
            path = bound.write_products(manifest, c.point, scratch)
            spec = manifest.classifier
            yield from peaks.of_products(spec, c.point, ProductTypes.of(manifest), path, c.source, (peaks.OPENVINO,))


def _probes_on_gpu(runners: Sequence[Runner], plan: Plan, scratch: Path) -> Iterator[Probe]:
    """Those of cuBLAS, where PyTorch is and has a GPU."""
    if find_spec("torch") is None or no_gpu():
        return
    backends = (r.candidate.backend for r in runners)
    manifests = [backend.bundle.manifest for backend in backends if isinstance(backend, BundleBackend)]
    types = {m.precision: ProductTypes.of(m) for m in manifests}
    yield from peaks.on_gpu(types.values(), Point(provider=bound.CUDA))


def _reached_alone(runners: Sequence[Runner], record: Record) -> Iterator[Reached]:
    """The rate that was reached on the products of the bundles themselves, timed with the candidates."""
    for runner in runners:
        c = runner.candidate
        if c.kind == "bound":
            assert c.macs is not None  # which a bound has
            operations = 2 * c.macs * c.point.batch
            of = next(r.candidate.source for r in runners if r.candidate.name == c.of)
            fastest_s = min(compute_samples_ms(runner, record) or record.samples_ms[c.name]) / 1e3
            runtime = peaks.CUBLAS if c.device == "gpu" else peaks.ONNXRUNTIME
            yield Reached(c.precision, c.point.threads, runtime, of, operations / fastest_s, c.device)


def _roofline(
    runners: Sequence[Runner], found: Summary, profiles: Sequence[Profile], reached: Sequence[Reached], clock: Clock
) -> Roofline:
    shown = [runner.candidate for runner in runners if runner.candidate.kind == "bundle"]
    roofs = roofline.roofs_under([one for one in reached if one.device == "gpu" or one.precision in ON_CPUS], clock)
    compute_ms = {figures.name: figures.compute_ms for figures in found.figures}
    roofed = {(roof.device, roof.precision) for roof in roofs}
    dots = []
    for candidate in shown:
        if (candidate.device, candidate.precision) in roofed and isinstance(candidate.backend, BundleBackend):
            manifest = candidate.backend.bundle.manifest
            arithmetic = ProductTypes.of(manifest).arithmetic
            ms = compute_ms[candidate.name]
            dots.append(roofline.candidate_dot(candidate, manifest.classifier, arithmetic, ms))
    for one in profiles:
        candidate = next(c for c in shown if c.name == one.candidate)
        dots += roofline.layer_dots(one, candidate.precision, candidate.point.threads)
    return Roofline(roofs, tuple(dots))
