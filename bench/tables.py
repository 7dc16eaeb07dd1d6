"""The tables of a contest: the figures that the pictures show, and those that they do not."""

from __future__ import annotations

from bench.contest import Result
from bench.profile import kinds
from bench.section import Cell, Section, figure, interval
from bench.standing import Figures, Standing
from s2mlp_deploy.render import size


def latency(found: Standing) -> Section:
    """Milliseconds of each contestant, and how many times as fast as the first it is."""
    bounded, judged = any(f.of_bound for f in found.figures), any(f.accuracy is not None for f in found.figures)
    headings = ["contestant", "p50", "p90", "p99", "mean", "minimum", "images/s", "× first", "95% interval"]
    headings += [*(["products"] if bounded else []), *(["accuracy"] if judged else [])]
    notes = [
        "× first: how many times as fast as the first contestant, image for image; the median of the ratios within a round."
    ]
    if bounded:
        notes.append("Products: the share of its time that its matrix products take when they run alone.")
    if judged:
        notes.append("Accuracy: what the bundle's own report says; it was not measured again.")
    rows = [_latency_row(f, found, bounded=bounded, judged=judged) for f in found.figures]
    return Section(", ".join(["Milliseconds a batch", *found.shared]), headings, rows, notes)


def cold(found: Standing) -> Section | None:
    """The first start in a process of its own; None where none was measured."""
    if not any(f.cold for f in found.figures):
        return None
    rows: list[list[Cell]] = []
    for f in found.figures:
        c = f.cold
        started = [figure(c.load_ms), figure(c.first_ms), size(c.peak_rss_bytes)] if c else [None] * 3
        rows.append([found.label(f), *started, size(f.size_bytes)])
    headings = ("contestant", "load, ms", "first batch, ms", "peak memory", "artifact")
    return Section("A cold start, in a process of its own", headings, rows)


def on_device(found: Standing) -> Section | None:
    """Times by the device's own clock; None where no device tells them."""
    rows: list[list[Cell]] = []
    for f in found.figures:
        if t := f.on_device:
            rows.append([found.label(f), figure(t.to_device_ms), figure(t.compute_ms), figure(t.to_host_ms)])
    headings = ("contestant", "copy in", "compute", "copy out")
    return Section("Milliseconds a batch, by the device's own clock", headings, rows) if rows else None


def roofline(result: Result) -> Section | None:
    """What the machine can do, and what each bundle does; None where that was not measured."""
    if result.roofline is None:
        return None
    labels = {f.name: result.standing.label(f) for f in result.standing.figures}
    rows: list[list[Cell]] = []
    for dot in result.roofline.dots:
        if dot.kind == "contestant" and (roof := result.roofline.roof(dot)):
            rows.append(
                [
                    labels[dot.name], "all" if dot.threads is None else str(dot.threads),
                    figure(roof.operations_per_s / 1e9), figure(roof.bytes_per_s / 1e9), figure(dot.operations_per_s / 1e9),
                    f"{dot.operations_per_s / roof.operations_per_s:.0%}",
                ]
            )  # fmt: skip
    headings = ("bundle", "threads", "peak, Gop/s", "memory, GB/s", "reached, Gop/s", "of peak")
    return Section("What the machine can do, and does", headings, rows)


def profile(result: Result) -> Section | None:
    """Shares of the time by kind of layer; None where that was not asked for."""
    if not result.profiles:
        return None
    labels = {f.name: result.standing.label(f) for f in result.standing.figures}
    shares = [{part.kind: f"{p.share(part):.1%}" for part in p.parts} for p in result.profiles]
    rows = [[kind, *(share.get(kind, "") for share in shares)] for kind in kinds(result.profiles)]
    return Section(
        "Share of the time, by ONNX Runtime's own account",
        ("layers", *(labels[p.contestant] for p in result.profiles)),
        rows,
    )


def _latency_row(f: Figures, found: Standing, *, bounded: bool, judged: bool) -> list[Cell]:
    first = f is found.figures[0]
    shown = interval(f.speed) + ("" if f.differs else ": no difference shown")
    times = [figure(value) for value in (f.p50_ms, f.p90_ms, f.p99_ms, f.mean_ms, f.minimum_ms)]
    cells: list[Cell] = [
        found.label(f),
        *times,
        figure(f.images_per_s),
        f"{f.speed.median:.2f}",
        "" if first else shown,
    ]
    if bounded:
        cells.append(f"{f.of_bound.median:.0%}" if f.of_bound else ("" if f.kind == "baseline" else None))
    if judged:
        cells.append(f"{f.accuracy:.1%}" if f.accuracy is not None else ("" if f.kind == "baseline" else None))
    return cells
