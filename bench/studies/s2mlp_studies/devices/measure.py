"""Runtimes for devices, beside ONNX Runtime and OpenVINO: latency, size, and the cost of writing a file for LiteRT."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from s2mlp_bench import environment
from s2mlp_bench.benchmark import Plan, run
from s2mlp_bench.interleaved_timing import Schedule
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.system.process_cost import ProcessCost
from s2mlp_deploy.system.process_cost import measure as measure_process
from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.timing import Estimate, estimate
from s2mlp_studies.benchmark import Benchmark
from s2mlp_studies.devices.artifacts import LITERT, ONNX, Made, Subject, bundle_name, make

BASELINES = ("openvino", "openvino-static")
"""Our graphs in OpenVINO, and int8 there as its users get it: from onnxruntime's static quantization."""

WRITING = Path(__file__).with_name("writing.py")


@dataclass(frozen=True)
class Writing:
    """Whole processes that write the float32 model for LiteRT, and one that only imports the packages."""

    file_bytes: int
    rounds: tuple[ProcessCost, ...]
    imports: ProcessCost

    @property
    def cpu_s(self) -> Estimate:
        """Seconds of processor time, imports included."""
        return estimate([cost.cpu_s for cost in self.rounds])

    @property
    def memory_ratio(self) -> Estimate:
        """Peak memory beyond the imports', in sizes of the file."""
        return estimate([(cost.peak_rss_bytes - self.imports.peak_rss_bytes) / self.file_bytes for cost in self.rounds])


@dataclass(frozen=True)
class Devices:
    """One network in every runtime: the benchmark, the size of each artifact by the name of its bundle, and what writing a
    model for LiteRT takes (None where it cannot be written here). ``left_out`` has reasons by the same names."""

    subject: str
    benchmark: Benchmark
    file_bytes: Mapping[str, int]
    left_out: Mapping[str, str]
    writing: Writing | None
    environment: Mapping[str, object]

    def name(self, format: str, precision: str) -> str | None:
        """The name of a bundle; None where it was left out."""
        name = bundle_name(self.subject, format, precision)
        return name if name in self.file_bytes else None

    def has(self, candidate: str) -> bool:
        """Whether ``candidate`` was timed."""
        return candidate in self.benchmark.result.samples_ms


@dataclass(frozen=True)
class Schedules:
    """``schedule`` of latency, ``repeats`` of whole processes, with those of ``baselines`` that are here."""

    schedule: Schedule
    repeats: int
    baselines: tuple[str, ...]
    listener: Listener


def measure_devices(subject: Subject, scratch: Path, how: Schedules) -> Devices:
    """Make the artifacts of ``subject`` in ``scratch``, and time them interleaved on one thread.

    Raises:
        ParityError: where a bundle does not compute what it is timed for.
    """
    made = make(subject, scratch, how.listener)
    plan = Plan(tuple(made.bundles.values()), how.baselines, threads=(1,), schedule=how.schedule, bound=False)
    return Devices(
        subject.name,
        Benchmark(plan, run(plan, how.listener)),
        {place.name: read_bundle(place).artifact.path.stat().st_size for place in made.bundles.values()},
        made.left_out,
        _writing(made, scratch, how),
        environment.describe(),
    )


def _writing(made: Made, scratch: Path, how: Schedules) -> Writing | None:
    if (LITERT, "fp32") not in made.bundles:
        return None
    place = scratch / "written"
    place.mkdir()
    command = [sys.executable, str(WRITING)]
    with how.listener.step("writing a model for LiteRT in a process of its own"):
        rounds = tuple(
            measure_process([*command, str(made.bundles[ONNX, "fp32"]), str(place)]) for _ in range(how.repeats)
        )
        imports = measure_process(command)
    return Writing(sum(file.stat().st_size for file in place.iterdir()), rounds, imports)
