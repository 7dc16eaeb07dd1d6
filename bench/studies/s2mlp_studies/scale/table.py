"""How a model grows, for people: what was measured, how fast it grows, and what is counted beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s2mlp_bench.summary import SPREAD
from s2mlp_deploy.cli.lines import model_line
from s2mlp_deploy.schema.size import format_size
from s2mlp_deploy.system.timing import Estimate
from s2mlp_deploy.system.wording import counted
from s2mlp_studies.scale import costs
from s2mlp_studies.scale.costs import Compared, Cost
from s2mlp_studies.scale.document import INTERVALS
from s2mlp_studies.scale.growth import Growth
from s2mlp_studies.scale.scaling import LONG_MS, MIXER, OVER, QUANTITIES, S2MLP, Over, Point, Scaling

UNKNOWN = "unknown"

WITH: dict[Over, str] = {"image size": "positions", "batch": "batch", "depth": "blocks"}
"""What a quantity is a power of."""


def render(found: Scaling, environment: Mapping[str, Any]) -> RenderableType:
    """All tables, and how they are to be read."""
    parts: list[RenderableType] = [*_heading(found, environment)]
    parts += [_measured(found, over) for over in OVER if len(found.plan.sweep(over)) > 1]
    if any(len(found.plan.sweep(over)) > 1 for over in OVER):
        parts.append(_growth(found))
    parts += [_sizes(found), *_patches(found), _presets()]
    return Group(*parts, *map(Text, _notes(found)), *_noise(found))


def _heading(found: Scaling, environment: Mapping[str, Any]) -> Iterable[Text]:
    versions = environment["versions"]
    yield Text(
        f"{environment['processor']}, {counted(environment['usable_cores'], 'core')}, load average {environment['load_average']}, "
        f"onnxruntime {versions.get('onnxruntime', UNKNOWN)}"
    )
    yield Text(model_line(found.spec))
    if found.no_mixer:
        yield Text(f"without an MLP-Mixer beside it: {found.no_mixer}", style="yellow")


def _measured(found: Scaling, over: Over) -> Table:
    base = found.plan.base
    blocks = found.sweep(S2MLP, "depth")[-1].blocks
    held = {
        "image size": f"image {format_size(base.size)}",
        "batch": f"batch {base.batch}",
        "depth": f"{counted(blocks, 'block')}",
    }
    others = ", ".join(words for name, words in held.items() if name != over)
    headings = [f"{model}, ms" for model in found.models]
    if MIXER in found.models:
        headings.append("MLP-Mixer / S²-MLP")
    headings += [f"{model}, MB" for model in found.models]
    first = ("image", "positions") if over == "image size" else (WITH[over],)
    table = _table(f"growing {over}: {others}, {_threads(found.plan.threads)}", *first, *headings)
    for points in zip(*(found.sweep(model, over) for model in found.models), strict=True):
        point = points[0]
        where = [format_size(point.setting.size)] if over == "image size" else []
        cells = [*where, str(point.extent(over)), *(_estimate(p.latency_ms) for p in points)]
        if MIXER in found.models:
            cells.append(_interval(found.mixer_over_s2mlp(point.setting), 2))
        table.add_row(*cells, *map(_memory, points))
    return table


def _growth(found: Scaling) -> Table:
    headings = [heading for model in found.models for heading in (f"{model}, exponent", "off by")]
    table = _table("how fast it grows: y = factor · xᵉˣᵖᵒⁿᵉⁿᵗ", "y", "x", *headings)
    for over in OVER:
        if len(found.plan.sweep(over)) < 2:
            continue
        for quantity in QUANTITIES:
            grown = [found.growth(model, over, quantity) for model in found.models]
            counted = INTERVALS[quantity] is None
            cells = [cell for g in grown for cell in _exponent(g, counted=counted)]
            table.add_row(quantity, WITH[over], *cells, end_section=quantity == QUANTITIES[-1])
    return table


def _exponent(grown: Growth | None, *, counted: bool) -> tuple[str, str]:
    if grown is None:
        return UNKNOWN, ""
    if counted:
        interval = " counted"
    elif grown.low is None or grown.high is None:
        interval = f" [{UNKNOWN}]"
    else:
        interval = f" [{grown.low:.3f}, {grown.high:.3f}]"
    return f"{round(grown.exponent, 3) + 0:.3f}{interval}", f"{grown.misfit:.1%}"


def _sizes(found: Scaling) -> Table:
    """Counted and measured, both as multiples of the first row."""
    with_mixer = MIXER in found.models
    of = ("G", "×", "time ×", "M")
    headings = [f"{model}, {of[0]}" if i == 0 else f"{of[i]}" for model in found.models for i in range(len(of))]
    table = _table("multiply-adds and parameters by image size, beside measured time", "image", "positions", *headings)
    sweeps = {model: found.sweep(model, "image size") for model in found.models}
    rows = costs.at_sizes(found.base_spec, [point.setting.size for point in sweeps[S2MLP]])
    for i, row in enumerate(rows):
        cells = _counted(row.s2mlp, rows[0].s2mlp, sweeps[S2MLP], i)
        if with_mixer and row.mixer and rows[0].mixer:
            cells += _counted(row.mixer, rows[0].mixer, sweeps[MIXER], i)
        table.add_row(format_size(row.image_size), str(row.positions), *cells)
    return table


def _counted(cost: Cost, first: Cost, points: Sequence[Point], index: int) -> list[str]:
    time = points[index].latency_ms.median / points[0].latency_ms.median
    return [_giga(cost.macs), f"{cost.macs / first.macs:.2f}", f"{time:.2f}", _mega(cost.parameters)]


def _patches(found: Scaling) -> Iterable[Table]:
    rows = costs.at_patches(found.base_spec)
    if len(rows) < 2:
        return
    headings = [f"{model}, {unit}" for model in found.models for unit in ("G", "M")]
    title = f"multiply-adds and parameters by patch, counted: image {format_size(found.spec.image_size)}"
    table = _table(title, "patch", "positions", *headings)
    for row in rows:
        table.add_row(format_size(row.patch), str(row.positions), *_costs(row))
    yield table


def _presets() -> Table:
    table = _table(
        "the paper's models, counted, and what the paper reports",
        "model",
        "S²-MLP, G",
        "paper, G",
        "S²-MLP, M",
        "paper, M",
        "MLP-Mixer, G",
        "MLP-Mixer, M",
    )
    for name, row in costs.presets().items():
        paper, other = costs.PAPER[name], row.mixer
        assert other is not None
        table.add_row(
            name,
            _giga(row.s2mlp.macs),
            f"{paper.macs / 1e9:.1f}",
            _mega(row.s2mlp.parameters),
            f"{paper.parameters / 1e6:.0f}",
            _giga(other.macs),
            _mega(other.parameters),
        )
    return table


def _costs(row: Compared) -> list[str]:
    return [text for cost in (row.s2mlp, row.mixer) if cost for text in (_giga(cost.macs), _mega(cost.parameters))]


def _notes(found: Scaling) -> Iterable[str]:
    rounds = len(found.points[0].samples_ms)
    yield (
        f"S²-MLP: one file for every size and batch, as s2mlp-export --dynamic-size --batch dynamic writes it (shift as "
        f"{found.lowering}), with the checkpoint's weights; with fewer blocks, the first of each stage."
    )
    if MIXER in found.models:
        yield (
            "MLP-Mixer: of the same width, depth and patch, token mixing of half the width, random weights. Each image size is "
            "another model, with other weights, in a file of its own."
        )
    yield (
        f"ms: median of {counted(rounds, 'interleaved round')} in one process, in an order drawn anew each round, with its 95% interval; "
        f"what takes less than {LONG_MS:.0f} ms runs twice in its turn, and the second counts. "
        "Ratios are formed within a round. MB: largest resident set of a process of its own (what running "
        "took on top of the loaded model)."
    )
    yield (
        "G: multiply-adds of one image, in 10⁹. M: parameters, in 10⁶. ×: times the first row. Exponents: least squares on "
        "logarithms; 95% intervals of latency's from rounds drawn again, of memory's from the regression. Off by: the largest "
        "distance of a point from the line; where that is large, it is no power law."
    )


def _noise(found: Scaling) -> Iterable[Text]:
    noisy = 0
    for point in found.points:
        low, middle, high = np.percentile(point.samples_ms, [25, 50, 75])
        noisy += (high - low) / middle > SPREAD
    if noisy:
        yield Text(
            f"NOISY: at {noisy} of {len(found.points)} points the middle half of the times spreads over more than {SPREAD:.0%} of "
            "the median; another run may differ by more than the intervals say",
            style="bold yellow",
        )


def _threads(count: int) -> str:
    return counted(count, "thread")


def _memory(point: Point) -> str:
    running_bytes = point.footprint.running_bytes
    running = UNKNOWN if running_bytes is None else f"{running_bytes / 1e6:.1f}"
    return f"{point.footprint.peak_bytes / 1e6:.0f} ({running})"


def _estimate(e: Estimate) -> str:
    """Three digits of the median, and as fine in the interval."""
    return _interval(e, 0 if e.median >= 100 else 1 if e.median >= 10 else 2 if e.median >= 1 else 3)


def _interval(e: Estimate, digits: int) -> str:
    return f"{e.median:.{digits}f} [{e.low:.{digits}f}, {e.high:.{digits}f}]"


def _giga(macs: int) -> str:
    return f"{macs / 1e9:#.4g}"


def _mega(parameters: int) -> str:
    return f"{parameters / 1e6:#.4g}"


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    return table
