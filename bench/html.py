"""A contest as one HTML file that needs no other: a summary in words, pictures, tables, and how to repeat it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import pictures
from bench.contest import Result
from bench.standing import Figures, Standing
from bench.table import figure, interval
from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.render import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_IN = 4.6
"""Of a picture: shown on a phone it shrinks to two thirds, and its letters are still read."""


@dataclass(frozen=True)
class Section:
    """A table with a title; the first cell of a row names it."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def check() -> None:
    """That a report can be made here.

    Raises:
        RuntimeMissingError: where a package is missing.
    """
    pictures.check()
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise RuntimeMissingError(
            "--html needs jinja2, which is not installed: pip install 's2mlp-deploy[bench]'"
        ) from error


def render(result: Result, environment: Mapping[str, Any], *, command: str, extras: Sequence[Section] = ()) -> str:
    """The page; ``command`` is what was typed, ``extras`` stand behind the tables of the contest."""
    import jinja2

    standing = result.standing
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    ).get_template("report.html.j2")  # fmt: skip
    return template.render(
        title="Benchmark: " + ", ".join(dict.fromkeys(f.source for f in standing.figures if f.kind == "bundle")),
        machine=f"{environment['processor']}, {environment['usable_cores']} cores, load average {environment['load_average']}",
        complete=standing.complete,
        summary=list(summary(standing)),
        noise=standing.noise,
        pictures=[_picture(draw, alt, rows) for draw, alt, rows in _pictures(result)],
        sections=[*_sections(result), *extras],
        command=command,
        environment=[(name.replace("_", " "), _plain(value)) for name, value in environment.items()],
    )


def summary(standing: Standing) -> Iterator[str]:
    """What was found, in sentences."""
    first, *others = standing.figures
    right = [f for f in standing.figures if f.comparable]
    if len(right) > 1:
        fastest = max(right, key=lambda f: f.images_per_s)
        yield (
            f"Fastest, of those that compute the same: {standing.label(fastest)}, {figure(fastest.p50_ms)} ms a batch of "
            f"{fastest.point.batch}."
        )
    for f in others:
        if f.kind == "bundle":
            yield _compared(standing, f, first)
    for f in (f for f in standing.figures if f.of_bound):
        assert f.of_bound is not None
        yield f"Of {standing.label(f)}'s time, its matrix products alone take {f.of_bound.median:.0%}."
    for f in (f for f in standing.figures if not f.comparable):
        yield f"{standing.label(f)}: {f.remark}."


def _compared(standing: Standing, f: Figures, first: Figures) -> str:
    names = f"{standing.label(f)} against {standing.label(first)}"
    if not f.differs:
        return f"{names}: no difference shown ({interval(f.speed)} times as fast)."
    return f"{names}: {f.speed.median:.2f} times as fast (95%: {interval(f.speed)})."


def _pictures(result: Result) -> Iterator[tuple[Callable[[Axes], None], str, int]]:
    """What draws each, what it shows in words, and how many rows it has."""
    standing = result.standing
    count = len(standing.figures)
    yield lambda axes: pictures.ratios(axes, standing), "How many times as fast as the first each contestant is", count
    yield lambda axes: pictures.latencies(axes, result), "How the times of each contestant are distributed", count
    if roof := result.roofline:
        words = "Roofline: operations a second against operations a byte, for each bundle and its layers"
        yield lambda axes: pictures.roofline(axes, roof, standing), words, 10
    if result.profiles:
        yield lambda axes: pictures.profile(axes, result), "Milliseconds by kind of layer", len(result.profiles) + 4
    if sum(f.accuracy is not None for f in standing.figures) > 1:
        yield lambda axes: pictures.accuracy(axes, standing), "Accuracy against latency and size", 8


def _picture(draw: Callable[[Axes], None], alt: str, rows: int) -> dict[str, object]:
    """As an SVG that is an image of its own, so that nothing in a name can become part of the page."""
    import matplotlib as mpl

    height_in = max(2.6, 1.0 + 0.27 * rows)
    drawn = pictures.compose([draw], width_in=WIDTH_IN, height_in=height_in, size=8.5)
    content = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "s2mlp"}):
        drawn.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    data = base64.b64encode(content.getvalue()).decode()
    return {"data": data, "alt": alt, "width": round(96 * WIDTH_IN), "height": round(96 * height_in)}


def _sections(result: Result) -> Iterator[Section]:
    standing = result.standing
    headings = ["", "p50", "p90", "p99", "mean", "minimum", "images/s", "× first", "95% interval", "products", "remark"]
    shared = ", ".join(["Milliseconds a batch", *standing.shared])
    yield Section(shared, headings, [_latency_row(standing, f) for f in standing.figures], [_how(standing)])
    if any(f.on_device for f in standing.figures):
        rows = [
            [standing.label(f), *(figure(v) for v in (t.to_device_ms, t.compute_ms, t.to_host_ms))]
            for f in standing.figures
            if (t := f.on_device)
        ]
        yield Section("Milliseconds a batch, by the device's own clock", ["", "copy in", "compute", "copy out"], rows)
    if any(f.cold for f in standing.figures):
        rows = [
            [standing.label(f), figure(c.load_ms), figure(c.first_ms), size(c.peak_rss_bytes), size(f.size_bytes)]
            for f in standing.figures
            if (c := f.cold)
        ]
        yield Section(
            "A cold start, in a process of its own", ["", "load, ms", "first batch, ms", "peak memory", "artifact"], rows
        )  # fmt: skip
    if result.profiles:
        names = {f.name: standing.label(f) for f in standing.figures}
        kinds = dict.fromkeys(part.kind for profile in result.profiles for part in profile.parts)
        shares = [{part.kind: profile.share(part) for part in profile.parts} for profile in result.profiles]
        rows = [[kind, *(f"{share[kind]:.1%}" if kind in share else "" for share in shares)] for kind in kinds]
        headings = ["", *(names[profile.contestant] for profile in result.profiles)]
        yield Section("Where the time goes, by ONNX Runtime's own account", headings, rows)
    if result.roofline:
        names = {f.name: standing.label(f) for f in standing.figures}
        rows = [
            [
                names[dot.name], figure(roof.operations_per_s / 1e9), figure(roof.bytes_per_s / 1e9),
                figure(dot.operations_per_s / 1e9), f"{dot.operations_per_s / roof.operations_per_s:.0%}",
            ]
            for dot in result.roofline.dots
            if dot.kind == "contestant" and (roof := result.roofline.roof(dot))
        ]  # fmt: skip
        yield Section(
            "What the machine can do, and does",
            ["", "peak, Gop/s", "memory, GB/s", "it does, Gop/s", "of peak"], rows,
            ["Layers without arithmetic, such as the shift, have no place in a roofline: their share of the time is above."],
        )  # fmt: skip


def _latency_row(standing: Standing, f: Figures) -> list[str]:
    times = [figure(value) for value in (f.p50_ms, f.p90_ms, f.p99_ms, f.mean_ms, f.minimum_ms, f.images_per_s)]
    first = f is standing.figures[0]
    shown = "" if first else interval(f.speed) + ("" if f.differs else ", no difference shown")
    bound = f"{f.of_bound.median:.0%}" if f.of_bound else ""
    return [standing.label(f), *times, f"{f.speed.median:.2f}", shown, bound, f.remark]


def _how(standing: Standing) -> str:
    return (
        f"{standing.rounds} interleaved rounds after {standing.warmup_rounds} of warm-up, in an order drawn anew each round. "
        "× first: how many times as fast as the first, image for image; median of the ratios within a round. Products: the "
        "share of its time that its matrix products take when they run alone. Measuring itself takes "
        f"{1e3 * standing.overhead_ms:.1f} µs."
    )


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
