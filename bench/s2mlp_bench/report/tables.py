"""The tables of a report: latency, cold starts, device times, roofline and profile, as sections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from s2mlp_bench.benchmark import Result
from s2mlp_bench.profile import kinds
from s2mlp_bench.report import names
from s2mlp_bench.report.section import Cell, Section, figure, interval
from s2mlp_bench.summary import Figures, Summary
from s2mlp_deploy.cli.lines import readable_size
from s2mlp_deploy.system.wording import counted

ACCURACY = "Accuracy: what the bundle's own report says; it was not measured again."


def latency(found: Summary) -> Section:
    """Milliseconds of each candidate, and how many times as fast as the first it is."""
    bounded, judged = any(f.of_bound for f in found.figures), any(f.accuracy is not None for f in found.figures)
    headings = ["p50", "p90", "p99", "mean", "minimum", "images/s", "× first", "95% interval"]
    headings += [*(["products"] if bounded else []), *(["accuracy"] if judged else [])]
    rows = [_latency_row(f, found, bounded=bounded, judged=judged) for f in found.figures]
    return _section(
        found, "Milliseconds a batch", headings, rows, [*_latency_notes(found, bounded=bounded, judged=judged)]
    )


def cold(found: Summary) -> Section | None:
    """The first start in a process of its own; None where none was measured."""
    if not any(f.cold for f in found.figures):
        return None
    rows: list[list[Cell]] = []
    for f in found.figures:
        c = f.cold
        started = [figure(c.load_ms), figure(c.first_ms), readable_size(c.peak_rss_bytes)] if c else [None] * 3
        rows.append([*found.keys(f), *started, readable_size(f.size_bytes)])
    headings = ("load, ms", "first batch, ms", "peak memory", "artifact")
    return _section(found, "A cold start, in a process of its own", headings, rows)


def on_device(found: Summary) -> Section | None:
    """Times by the device's own clock; None where no backend reports them."""
    rows: list[list[Cell]] = []
    for f in found.figures:
        if t := f.on_device:
            parts = (figure(t.to_device_ms), figure(t.compute_ms), figure(t.to_host_ms))
            compared = f.device_speed and f is not found.figures[0]
            shown = (
                [f"{f.device_speed.median:.2f}", interval(f.device_speed)] if f.device_speed and compared else ["", ""]
            )
            rows.append([*found.keys(f), *parts, *shown])
    headings = ("copy in", "compute", "copy out", "× first, compute", "95% interval")
    return _section(found, "Milliseconds a batch, by the device's own clock", headings, rows) if rows else None


def roofline(result: Result) -> Section | None:
    """The machine's peaks, and the rate of each bundle; None where they were not measured."""
    if result.roofline is None:
        return None
    found, figures = result.summary, {f.name: f for f in result.summary.figures}
    rows: list[list[Cell]] = []
    for dot in result.roofline.dots:
        if dot.kind == "candidate" and (roof := result.roofline.roof(dot)):
            rates = (roof.operations_per_s, roof.bytes_per_s, dot.operations_per_s)
            share = f"{dot.operations_per_s / roof.operations_per_s:.0%}"
            rows.append([*found.keys(figures[dot.name]), *(figure(rate / 1e9) for rate in rates), share])
    headings = ("peak, Gop/s", "memory, GB/s", "reached, Gop/s", "of peak")
    return _section(found, "What the machine can do, and does", headings, rows, list(_roofline_notes(result)))


def profile(result: Result) -> Section | None:
    """Shares of the time by kind of layer; None where none was taken."""
    if not result.profiles:
        return None
    found, figures = result.summary, {f.name: f for f in result.summary.figures}
    headings = kinds(result.profiles)
    rows: list[list[Cell]] = []
    for one in result.profiles:
        shares = {part.kind: _share(one.share(part)) for part in one.parts}
        rows.append([*found.keys(figures[one.candidate]), *(shares.get(kind, "") for kind in headings)])
    return _section(found, "Share of the time, by ONNX Runtime's own account", headings, rows)


def _section(
    found: Summary, title: str, headings: Sequence[str], rows: Sequence[Sequence[Cell]], notes: Sequence[str] = ()
) -> Section:
    """A table of candidates: who, at which settings, and then ``headings``."""
    keys = ("candidate", *found.swept)
    return Section(", ".join([title, *found.shared]), [*keys, *headings], rows, notes, len(keys))


def _latency_notes(found: Summary, *, bounded: bool, judged: bool) -> Iterator[str]:
    yield from found.shortening
    yield "× first: how many times as fast as the first candidate, image for image; the median of the ratios within a round."
    if same := [found.label(f) for f in found.figures[1:] if not f.differs]:
        yield f"No difference from the first is shown, since 1 lies in the interval: {'; '.join(same)}."
    if bounded:
        yield "Products: the share of its time that its matrix products take when they run alone."
    if judged:
        yield ACCURACY
    if engines := dict.fromkeys(found.short(f) for f in found.figures if f.accuracy_inherited):
        yield f"Accuracy of {', '.join(engines)}: that of the ONNX bundle that it was built from."


def _roofline_notes(result: Result) -> Iterator[str]:
    assert result.roofline is not None
    prefix, several = result.summary.prefix, len({roof.threads for roof in result.roofline.roofs}) > 1
    each = []
    for roof in result.roofline.roofs:
        threads = f" on {counted(roof.threads, 'thread')}" if several and roof.threads is not None else ""
        fewer = (
            f" on {counted(roof.reached_on, 'thread')}" if roof.reached_on and roof.reached_on != roof.threads else ""
        )
        device = f" on the {roof.device}" if len({r.device for r in result.roofline.roofs}) > 1 else ""
        each.append(f"{roof.precision}{device}{threads}: {roof.runtime}{fewer}, {names.without(prefix, roof.products)}")
    yield (
        "Peak: the fastest run of any products that were timed in turns with the candidates, of several shapes, in every runtime "
        f"here, and those of the bundles alone. {'; '.join(each)}."
    )
    if above := [dot for dot in result.roofline.dots if dot.kind == "candidate" and result.roofline.above(dot)]:
        labels = {f.name: result.summary.label(f) for f in result.summary.figures}
        yield (
            f"More than 100% of peak: {'; '.join(labels[dot.name] for dot in above)}. No machine does that: the products were "
            "slowed down by something else, so the peak is higher than what was measured."
        )


def _latency_row(f: Figures, found: Summary, *, bounded: bool, judged: bool) -> list[Cell]:
    times = [figure(value) for value in (f.p50_ms, f.p90_ms, f.p99_ms, f.mean_ms, f.minimum_ms)]
    cells: list[Cell] = [
        *found.keys(f),
        *times,
        figure(f.images_per_s),
        f"{f.speed.median:.2f}",
        "" if f is found.figures[0] else interval(f.speed),
    ]
    if bounded:
        cells.append(f"{f.of_bound.median:.0%}" if f.of_bound else ("" if f.kind == "baseline" else None))
    if judged:
        cells.append(f"{f.accuracy:.1%}" if f.accuracy is not None else ("" if f.kind == "baseline" else None))
    return cells


def _share(share: float) -> str:
    """Two digits, more than a profile resolves."""
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}"
