"""S²-MLP-wide and -deep on the CPU, one image at a time: benchmarks, as ``s2mlp-bench`` holds them.

All candidates run on one thread, but for one benchmark. Weights are random: speed does not depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from s2mlp_bench import environment
from s2mlp_bench.benchmark import Plan, Result, run
from s2mlp_bench.interleaved_timing import Schedule
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.pipeline.deploy import deploy, deploy_all
from s2mlp_deploy.pipeline.request import ExportRequest, GraphOptions, OutputOptions, Source
from s2mlp_deploy.quantization.settings import SYNTHETIC, Int8
from s2mlp_deploy.schema.manifest import Interface
from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.timing import Estimate, ratio

BYTES = Interface(input="uint8")
UINT8 = "uint8"
"""The float32 bundle that takes bytes."""

NO_SHIFT, NAIVE, OPENVINO_STATIC = "no-shift", "naive-onnx", "openvino-static"


@dataclass(frozen=True)
class Benchmark:
    """A plan and its result."""

    plan: Plan
    result: Result

    def over(self, candidate: str, other: str) -> Estimate:
        """Its time in units of the ``other``'s."""
        return ratio(self.samples_ms(candidate), self.samples_ms(other))

    def samples_ms(self, candidate: str) -> Sequence[float]:
        """Milliseconds of each batch."""
        return self.result.samples_ms[candidate]


@dataclass(frozen=True)
class Latency:
    """``everything`` has float32 and int8 against all baselines, ``lowerings`` each way to write the shift against none,
    ``threads`` float32 and int8 on one thread and on two, ``inputs`` prepared images and bytes. ``fp32`` and ``int8`` are the bundles' names."""

    model: str
    fp32: str
    int8: str
    everything: Benchmark
    lowerings: Benchmark
    threads: Benchmark
    inputs: Benchmark
    environment: Mapping[str, object]

    @property
    def best_lowering(self) -> str:
        """The one closest to no shift at all, by its bundle's name."""
        names = [bundle.name for bundle in self.lowerings.plan.bundles]
        return min(names, key=lambda name: self.lowerings.over(on(name), on(NO_SHIFT)).median)

    def second_thread_for_int8(self) -> Estimate:
        """How much more a second thread does for int8 than for float32: the one gain over the other."""
        return ratio(self._gains(self.int8), self._gains(self.fp32))

    def second_thread(self, bundle: str) -> Estimate:
        """How many times as fast a bundle is on two threads."""
        return self.threads.over(on(bundle), on(bundle, 2))

    def _gains(self, bundle: str) -> list[float]:
        pairs = zip(self.threads.samples_ms(on(bundle)), self.threads.samples_ms(on(bundle, 2)), strict=True)
        return [one / two for one, two in pairs]


def on(source: str, threads: int = 1) -> str:
    """The name of a candidate on so many threads."""
    return f"{source}, {threads} thread{'s' if threads > 1 else ''}"


def alone(bundle: str) -> str:
    """The name of a bundle's matrix products."""
    return on(f"{bundle}, products alone")


def measure_latency(
    preset: str,
    checkpoint: Path,
    scratch: Path,
    *,
    baselines: Sequence[str],
    schedule: Schedule,
    listener: Listener,
) -> Latency:
    """Make the bundles of ``checkpoint`` in ``scratch``, and run the benchmarks, the first against ``baselines``.

    Raises:
        ParityError: where a bundle does not compute what it is timed for.
        RuntimeMissingError: where a baseline's package is missing.
    """
    fp32, int8 = scratch / f"{preset}-onnx-fp32", scratch / f"{preset}-onnx-int8"
    lowered = {name: scratch / name for name in LOWERINGS}
    requests = [
        ExportRequest(Source(checkpoint), graph=GraphOptions(lowering=name), output=OutputOptions(place))
        for name, place in lowered.items()
    ]
    requests += [ExportRequest(Source(checkpoint), output=OutputOptions(fp32))]
    requests += [ExportRequest(Source(checkpoint), precision=Int8(SYNTHETIC), output=OutputOptions(int8))]
    list(deploy_all(requests, listener))
    deploy(
        ExportRequest(Source(checkpoint), graph=GraphOptions(interface=BYTES), output=OutputOptions(scratch / UINT8)),
        listener,
    )

    def benchmark(
        bundles: Sequence[Path], baselines: Sequence[str], threads: Sequence[int], *, extras: bool
    ) -> Benchmark:
        plan = Plan(
            tuple(bundles), tuple(baselines), threads=tuple(threads), schedule=schedule, cold=extras, bound=extras
        )
        return Benchmark(plan, run(plan, listener))

    return Latency(
        preset,
        fp32.name,
        int8.name,
        benchmark([fp32, int8], baselines, [1], extras=True),
        benchmark(list(lowered.values()), [NO_SHIFT], [1], extras=False),
        benchmark([fp32, int8], [], [1, 2], extras=False),
        benchmark([fp32, scratch / UINT8], [], [1], extras=False),
        environment.describe(),
    )
