"""The standing of a race for people, as tables, and for machines, as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.profile import Profile
from bench.roofline import Roofline
from bench.standing import Figures, Standing
from s2mlp_deploy.render import size
from s2mlp_deploy.timing import Estimate

SHOWN = 4
"""Reasons why a machine is called noisy that the table lists."""


def render(
    found: Standing, environment: Mapping[str, Any], profiles: Sequence[Profile] = (), roofline: Roofline | None = None
) -> RenderableType:
    """All tables, what they were measured on, and how far they can be believed."""
    parts: list[RenderableType] = [_machine(environment), _latency(found)]
    if any(f.remark for f in found.figures):
        parts += [Text(f"  {found.label(f)}: {f.remark}", style="yellow") for f in found.figures if f.remark]
    if any(f.on_device for f in found.figures):
        parts.append(_on_device(found))
    if any(f.cold for f in found.figures):
        parts.append(_cold(found))
    if profiles:
        parts.append(_profiles(profiles, found))
    if roofline:
        parts.append(_roofs(roofline, found))
    parts.append(
        Text(
            f"{found.rounds} interleaved rounds after {found.warmup_rounds} of warm-up, in an order drawn anew each round. "
            "× first: how many times as fast as the first, image for image; median of the ratios within a round, with its "
            f"95% interval. Measuring itself takes {1e3 * found.overhead_ms:.1f} µs."
        )
    )
    if any(f.of_bound for f in found.figures):
        parts.append(Text("Products: the share of its time that its matrix products take when they run alone."))
    if not found.complete:
        parts.append(Text("INCOMPLETE: interrupted before the time was up", style="bold yellow"))
    if found.stable:
        parts.append(Text("the machine held still while it was measured", style="green"))
    else:
        parts.append(Text("NOISY: another run may differ by more than the intervals say", style="bold yellow"))
        parts += [Text(f"  {reason}") for reason in found.noise[:SHOWN]]
        if len(found.noise) > SHOWN:
            parts.append(Text(f"  and {len(found.noise) - SHOWN} more"))
    return Group(*parts)


def rows(found: Standing) -> list[dict[str, object]]:
    """A flat row for each contestant; what is not known is empty."""
    return [_row(f) for f in found.figures]


def _row(f: Figures) -> dict[str, object]:
    cold = f.cold
    return {
        "name": f.name, "kind": f.kind, "precision": f.precision, "batch": f.point.batch, "remark": f.remark,
        "p50_ms": f.p50_ms, "p90_ms": f.p90_ms, "p99_ms": f.p99_ms, "mean_ms": f.mean_ms, "minimum_ms": f.minimum_ms,
        "images_per_s": f.images_per_s, "operations_per_s": f.operations_per_s, "speed": f.speed.median,
        "speed_low": f.speed.low, "speed_high": f.speed.high, "of_bound": f.of_bound.median if f.of_bound else "",
        "size_bytes": f.size_bytes, "load_ms": cold.load_ms if cold else "", "first_ms": cold.first_ms if cold else "",
        "peak_rss_bytes": cold.peak_rss_bytes if cold else "", "accuracy": "" if f.accuracy is None else f.accuracy,
    }  # fmt: skip


def figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def interval(e: Estimate, digits: int = 2) -> str:
    """An estimate's interval."""
    return f"{e.low:.{digits}f} … {e.high:.{digits}f}"


def _machine(environment: Mapping[str, Any]) -> Text:
    features = environment["features"]
    known = " ".join(features) if isinstance(features, list) else features
    return Text(
        f"{environment['processor']}, {environment['usable_cores']} cores, {known or 'no vector extensions known'}, governor "
        f"{environment['governor']}, load average {environment['load_average']}"
    )


def _latency(found: Standing) -> Table:
    bounded = any(f.of_bound for f in found.figures)
    headings = ["p50", "p90", "p99", "mean", "minimum", "images/s", "× first", "95% interval"]
    table = _table(", ".join(["milliseconds a batch", *found.shared]), *headings, *(["products"] if bounded else []))
    for index, f in enumerate(found.figures):
        shown = interval(f.speed) + ("" if f.differs else ": no difference shown")
        times = [figure(value) for value in (f.p50_ms, f.p90_ms, f.p99_ms, f.mean_ms, f.minimum_ms)]
        cells = [*times, figure(f.images_per_s), f"{f.speed.median:.2f}", shown if index else ""]
        if bounded:
            cells.append(f"{f.of_bound.median:.0%}" if f.of_bound else "")
        table.add_row(found.label(f), *cells)
    return table


def _on_device(found: Standing) -> Table:
    table = _table("milliseconds a batch, by the device's own clock", "copy in", "compute", "copy out")
    for f in found.figures:
        if t := f.on_device:
            table.add_row(found.label(f), figure(t.to_device_ms), figure(t.compute_ms), figure(t.to_host_ms))
    return table


def _cold(found: Standing) -> Table:
    table = _table("a cold start, in a process of its own", "load, ms", "first batch, ms", "peak memory", "artifact")
    for f in found.figures:
        if c := f.cold:
            table.add_row(
                found.label(f), figure(c.load_ms), figure(c.first_ms), size(c.peak_rss_bytes), size(f.size_bytes)
            )
    return table


def _profiles(profiles: Sequence[Profile], found: Standing) -> Table:
    labels = {f.name: found.label(f) for f in found.figures}
    kinds = list(dict.fromkeys(part.kind for profile in profiles for part in profile.parts))
    table = _table("where the time goes, by ONNX Runtime's own account", *(labels[p.contestant] for p in profiles))
    for kind in kinds:
        cells = []
        for profile in profiles:
            part = next((part for part in profile.parts if part.kind == kind), None)
            cells.append(f"{profile.share(part):.1%}" if part else "")
        table.add_row(kind, *cells)
    return table


def _roofs(roofline: Roofline, found: Standing) -> Table:
    labels = {f.name: found.label(f) for f in found.figures}
    table = _table(
        "what the machine can do, and does", "threads", "peak, Gop/s", "memory, GB/s", "it does, Gop/s", "of peak"
    )
    for dot in roofline.dots:
        if dot.kind == "contestant" and (roof := roofline.roof(dot)):
            table.add_row(
                labels[dot.name], "all" if dot.threads is None else str(dot.threads), figure(roof.operations_per_s / 1e9),
                figure(roof.bytes_per_s / 1e9), figure(dot.operations_per_s / 1e9), f"{dot.operations_per_s / roof.operations_per_s:.0%}",
            )  # fmt: skip
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table
