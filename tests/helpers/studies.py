"""Made up benchmarks, for tests of the studies' goals, tables and pages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from s2mlp_bench.backends import OnnxBackend
from s2mlp_bench.benchmark import Devices, Plan, Result
from s2mlp_bench.candidate import Candidate, Point
from s2mlp_bench.interleaved_timing import NOTHING, Record
from s2mlp_bench.summary import summarize
from s2mlp_studies.benchmark import Benchmark


def synthetic_benchmark(times_ms: Mapping[str, float], bundles: Collection[str]) -> Benchmark:
    samples = {name: tuple(ms * slow for slow in (1, 1.5, 2, 1, 1.5, 2)) for name, ms in times_ms.items()}
    runners = [Timed(name, ms) for name, ms in times_ms.items()]
    record = Record({**samples, NOTHING: (0.0,)}, 10, True)
    result = Result(summarize(runners, record, {}), record.samples_ms, (), None, Devices((), {}, ()))  # type: ignore[arg-type]
    return Benchmark(Plan(tuple(map(Path, bundles))), result)


class Timed:
    """Stands in for a loaded candidate, of which only the name counts."""

    def __init__(self, name: str, ms: float) -> None:
        source, _, threads = name.rpartition(", ")
        kind, of = ("bound", name.replace(", products alone", "")) if "alone" in source else ("bundle", None)
        backend = OnnxBackend(Path(__file__))
        point = Point(threads=int(threads[0]))
        self.candidate = Candidate(source, kind, backend, point, "fp32", 1, None, "", of)  # type: ignore[arg-type]
        self.distance, self.parts = None, list[Any]()
