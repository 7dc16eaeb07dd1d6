"""Made up results of benchmarks, as ``s2mlp_bench.benchmark.run`` returns them, for tests of reports and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from s2mlp_bench.benchmark import Devices, Plan, Result
from s2mlp_bench.candidate import Kind, Point
from s2mlp_bench.cold_start import ColdStart
from s2mlp_bench.interleaved_timing import NOTHING, Schedule
from s2mlp_bench.profile import Part, Profile
from s2mlp_bench.roofline.roofline import Dot, Roof, Roofline
from s2mlp_bench.summary import Figures, Summary
from s2mlp_deploy.system.timing import ratio

ENVIRONMENT: dict[str, object] = {
    "processor": "Some CPU <&>",
    "cores": 2,
    "features": ["avx2", "amx_int8"],
    "governor": "unknown",
    "versions": {"onnxruntime": "1.32.0", "numpy": "2.4.6"},
    "load_average": None,
}

ROUNDS = 40
EVIL = "<img src=x onerror=alert(1)>"

LAYERS = {
    "FC₃": (60.0, 100e9),
    "FC₄": (61.0, 110e9),
    "FC₁, FC₂": (48.0, 118e9),
    "GELU": (1.0, 11e9),
    "LayerNorm": (1.0, 8e9),
    "residual sums": (0.083, 2.7e9),
    "shift": (0.0, 0.0),
    "head": (0.0, 0.0),
}
"""Operations a byte and operations a second."""


@dataclass(frozen=True)
class Entry:
    """A candidate to be: milliseconds a batch, and what else pictures and report show of it."""

    source: str
    p50_ms: float
    kind: Kind = "bundle"
    precision: str = "fp32"
    remark: str = ""
    threads: int | None = None
    accuracy: float | None = None
    size_bytes: int = 3_000_000
    distance: float | None = 1e-6


PAIR = (Entry("fp32", 10.0, accuracy=0.8957), Entry("int8", 4.0, precision="int8", accuracy=0.8912, size_bytes=900_000))
BASELINES = (
    Entry("torch-eager", 14.0, "baseline"),
    Entry("no-shift", 9.0, "baseline", remark="another network", distance=None),
    Entry("naive-onnx", 15.0, "baseline", remark="computes something else (relative L2 0.22)", distance=0.22),
    Entry("ort-static", 5.0, "baseline", "int8", remark="calibrated on noise, for its speed alone", distance=None),
)


def made_up(
    entries: Sequence[Entry] = (*PAIR, *BASELINES),
    *,
    noise: Sequence[str] = (),
    complete: bool = True,
    bound: bool = True,
    cold: bool = True,
    seed: int = 0,
) -> tuple[Plan, Result]:
    """A plan and its result; bundles have a profile and a place in the roofline where ``bound`` is set."""
    rng = np.random.default_rng(seed)
    machine = np.exp(0.03 * rng.standard_normal(ROUNDS))
    samples = {
        _name(e): tuple(float(x) for x in e.p50_ms * machine * np.exp(0.02 * np.abs(rng.standard_normal(ROUNDS))))
        for e in entries
    }
    first = samples[_name(entries[0])]
    figures = tuple(_figures(e, samples[_name(e)], first, bound=bound, cold=cold) for e in entries)
    found = Summary(figures, 0.0002, ROUNDS, 10, complete, tuple(noise))
    bundles = [e for e in entries if e.kind == "bundle"]
    profiles = tuple(_profile(e) for e in bundles) if bound else ()
    plan = Plan(
        tuple(dict.fromkeys(Path("some where") / e.source for e in bundles)),
        tuple(dict.fromkeys(e.source for e in entries if e.kind == "baseline")),
        threads=tuple(dict.fromkeys(e.threads for e in entries)),
        schedule=Schedule(2.0, 30, 7),
        cold=cold,
        bound=bound,
    )
    devices = Devices((), {}, ())
    return plan, Result(
        found, {**samples, NOTHING: (0.0002,)}, profiles, _roofline(bundles) if bound else None, devices
    )


def swept(entries: Sequence[Entry], threads: Sequence[int]) -> list[Entry]:
    """Each of ``entries`` with each number of ``threads``."""
    return [replace(e, threads=n, p50_ms=e.p50_ms / n**0.7) for e in entries for n in threads]


def _name(e: Entry) -> str:
    return ", ".join([e.source, *Point(threads=e.threads).settings])


def _figures(e: Entry, samples: Sequence[float], first: Sequence[float], *, bound: bool, cold: bool) -> Figures:
    p50, p90, p99 = (float(value) for value in np.percentile(samples, [50, 90, 99]))
    return Figures(
        _name(e),
        e.source,
        e.kind,
        Point(threads=e.threads),
        e.precision,
        e.remark,
        not e.remark,
        e.distance,
        p50,
        p90,
        p99,
        float(np.mean(samples)),
        min(samples),
        1e3 / p50,
        2e9 / p50,
        ratio(first, samples),
        ratio([0.8 * x for x in samples], samples) if bound and e.kind == "bundle" else None,
        None,
        e.size_bytes,
        ColdStart(5 * p50, 2 * p50, 90_000_000) if cold else None,
        e.accuracy,
    )


def _profile(e: Entry) -> Profile:
    parts = tuple(
        Part(
            kind,
            ("Op",),
            1,
            e.p50_ms / (2 + i),
            round(rate * e.p50_ms / (2 + i) / 1e3),
            round(rate * e.p50_ms / (2 + i) / 1e3 / intensity) if intensity else 1000,
        )
        for i, (kind, (intensity, rate)) in enumerate(LAYERS.items())
    )
    return Profile(_name(e), parts)


def _roofline(bundles: Sequence[Entry]) -> Roofline:
    peaks = {"fp32": 173e9, "int8": 1826e9}
    roofs = dict.fromkeys((e.threads, e.precision) for e in bundles)
    return Roofline(
        tuple(Roof(threads, precision, peaks[precision] * (threads or 1), 15e9) for threads, precision in roofs),
        tuple(
            Dot(
                _name(e),
                "candidate",
                e.precision,
                e.threads,
                57.0 if e.precision == "fp32" else 140.0,
                1.4e12 / e.p50_ms,
            )
            for e in bundles
        ),
    )
