"""Alternative texts of the pictures, for those who do not see them."""

from __future__ import annotations

from s2mlp_bench.benchmark import Result
from s2mlp_bench.report.pictures import rows
from s2mlp_bench.report.section import figure
from s2mlp_bench.summary import Summary


def ratios(found: Summary) -> str:
    """Of the ratios."""
    each = "; ".join(f"{found.label(f)} {rows.speed(f)}" for f in found.figures[1:])
    return f"How many times as fast as {found.label(found.figures[0])}: {each}."


def latencies(found: Summary) -> str:
    """Of the distributions."""
    each = (f"{found.label(f)} {figure(f.p50_ms)}, {figure(f.p90_ms)}, {figure(f.p99_ms)} ms" for f in found.figures)
    return f"How times are distributed; 50%, 90% and 99% lie within: {'; '.join(each)}."


def profile(result: Result) -> str:
    """Of where the time goes."""
    labels = {f.name: result.summary.label(f) for f in result.summary.figures}
    each = (
        f"{labels[p.candidate]}: {', '.join(f'{x.kind} {p.share(x):.0%}' for x in p.parts)}" for p in result.profiles
    )
    return f"Where the time goes. {'; '.join(each)}."


def roofline(result: Result) -> str:
    """Of the bundles' places below the roofs; there is a roofline."""
    assert result.roofline is not None
    labels = {f.name: result.summary.label(f) for f in result.summary.figures}
    each = (
        f"{labels[dot.name]} {figure(dot.operations_per_s / 1e9)} Gop/s at {figure(dot.intensity)} operations a byte"
        for dot in result.roofline.dots
        if dot.kind == "candidate"
    )
    return f"Roofline. {'; '.join(each)}."


def accuracy(found: Summary) -> str:
    """Of accuracy against latency and size."""
    each = (
        f"{found.label(f)} {f.accuracy:.1%}, {figure(f.p50_ms)} ms, {figure(f.size_bytes / 1e6)} MB"
        for f in found.figures
        if f.accuracy is not None
    )
    return f"Accuracy: {'; '.join(each)}."
