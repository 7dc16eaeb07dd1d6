"""The models on the CPU, one image at a time: benchmarks, as ``s2mlp-bench`` holds them.

All candidates run on one thread, but for one benchmark. Weights are random: speed does not depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from s2mlp_bench import environment
from s2mlp_bench.benchmark import Plan, run
from s2mlp_bench.interleaved_timing import Schedule
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.pipeline.deploy import deploy, deploy_all
from s2mlp_deploy.pipeline.request import ExportRequest, GraphOptions, OutputOptions, Source
from s2mlp_deploy.quantization.settings import SYNTHETIC, Int8
from s2mlp_deploy.schema.manifest import Interface
from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.timing import Estimate, ratio
from s2mlp_studies.benchmark import Benchmark, on

BYTES = Interface(input="uint8")
UINT8 = "uint8"
"""The float32 bundle that takes bytes."""

NO_SHIFT, NAIVE, OPENVINO_STATIC = "no-shift", "naive-onnx", "openvino-static"


@dataclass(frozen=True)
class Details:
    """``lowerings`` has each way to write the shift against none, ``threads`` float32 and int8 on one thread and on two,
    ``inputs`` prepared images and bytes."""

    lowerings: Benchmark
    threads: Benchmark
    inputs: Benchmark

    @property
    def best_lowering(self) -> str:
        """The one closest to no shift at all, by its bundle's name."""
        names = [bundle.name for bundle in self.lowerings.plan.bundles]
        return min(names, key=lambda name: self.lowerings.over(on(name), on(NO_SHIFT)).median)

    def second_thread(self, bundle: str) -> Estimate:
        """How many times as fast a bundle is on two threads."""
        return self.threads.over(on(bundle), on(bundle, 2))

    def second_thread_gain(self, bundle: str, other: str) -> Estimate:
        """How much more a second thread does for ``bundle`` than for ``other``: the one gain over the other."""
        return ratio(self._gains(bundle), self._gains(other))

    def _gains(self, bundle: str) -> list[float]:
        pairs = zip(self.threads.samples_ms(on(bundle)), self.threads.samples_ms(on(bundle, 2)), strict=True)
        return [one / two for one, two in pairs]


@dataclass(frozen=True)
class Latency:
    """``everything`` has float32 and int8, whose bundles' names ``fp32`` and ``int8`` are, against all baselines.

    ``details`` are None where they were not measured.
    """

    model: str
    fp32: str
    int8: str
    everything: Benchmark
    details: Details | None
    environment: Mapping[str, object]

    @property
    def benchmarks(self) -> dict[str, Benchmark]:
        """Every benchmark by name."""
        return {"everything": self.everything, **(vars(self.details) if self.details else {})}


def alone(bundle: str) -> str:
    """The name of a bundle's matrix products."""
    return on(f"{bundle}, products alone")


@dataclass(frozen=True)
class Runs:
    """How to time: against which ``baselines``, in which rounds."""

    baselines: Sequence[str]
    schedule: Schedule
    listener: Listener

    def of(self, bundles: Sequence[Path], baselines: Sequence[str], threads: Sequence[int] = (1,)) -> Benchmark:
        """The benchmark of ``bundles``, without cold starts and bounds."""
        return self._run(Plan(tuple(bundles), tuple(baselines), threads=tuple(threads), cold=False, bound=False))

    def of_everything(self, bundles: Sequence[Path]) -> Benchmark:
        """The benchmark of ``bundles`` against all baselines, with cold starts and bounds."""
        return self._run(Plan(tuple(bundles), tuple(self.baselines), threads=(1,)))

    def _run(self, plan: Plan) -> Benchmark:
        plan = replace(plan, schedule=self.schedule)
        return Benchmark(plan, run(plan, self.listener))


def measure_latency(model: str, checkpoint: Path, scratch: Path, runs: Runs, *, details: bool) -> Latency:
    """Make the bundles of ``checkpoint``, a ``model``, in ``scratch``, and run the benchmarks.

    Raises:
        ParityError: where a bundle does not compute what it is timed for.
        RuntimeMissingError: where a baseline's package is missing.
    """
    fp32, int8 = scratch / f"{model}-onnx-fp32", scratch / f"{model}-onnx-int8"
    source = Source(checkpoint)
    requests = [ExportRequest(source, output=OutputOptions(fp32))]
    requests += [ExportRequest(source, precision=Int8(SYNTHETIC), output=OutputOptions(int8))]
    list(deploy_all(requests, runs.listener))
    return Latency(
        model,
        fp32.name,
        int8.name,
        runs.of_everything([fp32, int8]),
        _details(source, fp32, int8, runs) if details else None,
        environment.describe(),
    )


def _details(source: Source, fp32: Path, int8: Path, runs: Runs) -> Details:
    lowered = {name: fp32.parent / name for name in LOWERINGS}
    requests = [
        ExportRequest(source, graph=GraphOptions(lowering=name), output=OutputOptions(place))
        for name, place in lowered.items()
    ]
    list(deploy_all(requests, runs.listener))
    of_bytes = fp32.parent / UINT8
    deploy(ExportRequest(source, graph=GraphOptions(interface=BYTES), output=OutputOptions(of_bytes)), runs.listener)
    return Details(
        runs.of(list(lowered.values()), [NO_SHIFT]), runs.of([fp32, int8], [], (1, 2)), runs.of([fp32, of_bytes], [])
    )
