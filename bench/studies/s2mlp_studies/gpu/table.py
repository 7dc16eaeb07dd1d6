"""The report as tables, each row that was not run with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from s2mlp_bench.report.section import figure
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_studies.gpu.candidates import CONTENDERS
from s2mlp_studies.gpu.measure import Report, compute_ms, operations_per_s
from s2mlp_studies.gpu.parity import PRECISIONS
from s2mlp_studies.gpu.sheet import Row
from s2mlp_studies.tables import new_table

NOT_RUN = "not run"


def checks(report: Report) -> RenderableType:
    """The machine's GPU, the tests, parity, and the peaks."""
    spent = f"{report.seconds:.0f} of at most {report.budget_seconds:.0f} s"
    head = Text(f"{report.gpu}; --device {report.device}; {spent}")
    return Group(head, _tests(report), _parity(report), _peaks(report))


def _tests(report: Report) -> RenderableType:
    (row,) = report.of("tests")
    if row.not_run:
        return Text(f"tests marked gpu: {NOT_RUN}: {row.not_run}")
    failed, skipped = row.figures["failed"], row.figures["skipped"]
    lines = [f"tests marked gpu: {row.figures['passed']} passed, {len(failed)} failed, {sum(skipped.values())} skipped"]
    lines += [f"  failed: {name}" for name in failed]
    lines += [f"  {count} skipped: {reason}" for reason, count in skipped.items()]
    if stopped := row.figures["stopped"]:
        lines.append(f"  the others did not run: {stopped}")
    return Text("\n".join(lines))


def _parity(report: Report) -> RenderableType:
    table = new_table(
        "relative L2 from the float64 reference, the worst golden image", "precision", *LOWERINGS, "limit"
    )
    reasons = _Reasons()
    for runtime in dict.fromkeys(row.about[1] for row in report.of("parity")):
        for precision in PRECISIONS:
            rows = report.of("parity", runtime, precision)
            limits = [row.figures["limit"] for row in rows if "limit" in row.figures]
            cells = [reasons.cell(row, _distance) for row in rows]
            table.add_row(runtime, precision, *cells, f"{max(limits):.0e}" if limits else "")
    table.columns[1].justify = "left"
    return Group(table, Text("\n".join(reasons.lines)))


def _distance(row: Row) -> str:
    return f"{row.figures['relative_l2']:.1e}" if row.figures["kept"] else "WRONG"


def _peaks(report: Report) -> RenderableType:
    lines = []
    for row in report.of("peak"):
        found = f"{NOT_RUN}: {row.not_run}"
        if "operations_per_s" in row.figures:
            found = f"{figure(row.figures['operations_per_s'] / 1e12)} Top/s, {' × '.join(f'{n:,}' for n in row.figures['shape'])}"
        elif row.figures:
            found = f"{figure(row.figures['bytes_per_s'] / 1e9)} GB/s, read and written"
        lines.append(f"peak, {row.about[1]}: {found}")
    return Text("\n".join(lines))


def race(report: Report, model: str) -> RenderableType:
    """Milliseconds of each candidate at each batch, without copies, and how it stands to the first and to the peak."""
    batches = list(dict.fromkeys(row.about[2] for row in report.of("race", model)))
    parts = [part for batch in sorted(batches, key=int) for part in _batch(report, model, batch)]
    return Group(*parts, *_work(report, model))


def _work(report: Report, model: str) -> Iterator[RenderableType]:
    """The kernels and operators that one run starts."""
    rows = [row for row in report.of("work", model) if not row.not_run]
    if not rows:
        return
    table = new_table(f"one run at batch {rows[0].about[2]} starts", "kernels", "operators", "of these")
    for row in sorted(rows, key=lambda row: list(CONTENDERS).index(row.about[3])):
        kernels, operators = row.figures["kernels"], row.figures["operators"] or {}
        total = str(sum(operators.values())) if operators else ""
        most = ", ".join(f"{number} {name}" for name, number in operators.items())
        table.add_row(row.about[3], "" if kernels is None else str(kernels), total, most)
    table.columns[-1].justify = "left"
    yield table


def _batch(report: Report, model: str, batch: str) -> Iterator[RenderableType]:
    rows = {row.about[3]: row for row in report.of("race", model, batch)}
    headings = ("compute, ms", "with copies, ms", "images/s", "of peak", "relative L2")
    table, reasons = new_table(f"batch {batch}", *headings), _Reasons()
    for name in CONTENDERS:
        row = rows[name]
        if row.not_run:
            table.add_row(name, reasons.cell(row, lambda row: ""), *[""] * (len(headings) - 1))
        else:
            table.add_row(name, *_race_cells(report, row, int(batch)))
    yield table
    remarks = [f"{name}: {row.figures['remark']}" for name, row in rows.items() if row.figures.get("remark")]
    yield Text("\n".join([*remarks, *reasons.lines]))
    yield _conditions(report.of("condition", model, batch))


def _race_cells(report: Report, row: Row, batch: int) -> list[str]:
    ms, figures = compute_ms(row), row.figures
    assert ms is not None
    peaks: Mapping[str, Row] = {peak.about[1]: peak for peak in report.of("peak")}
    peak, rate = peaks.get(figures["precision"]), operations_per_s(row)
    known = peak is not None and rate is not None and "operations_per_s" in peak.figures
    share = f"{rate / peak.figures['operations_per_s']:.0%}" if known and peak and rate else ""
    distance = figures["distance"]
    return [
        figure(ms),
        figure(figures["p50_ms"]),
        figure(1e3 * batch / ms),
        share,
        "" if distance is None else f"{distance:.1e}",
    ]


def _conditions(rows: Sequence[Row]) -> Text:
    lines = []
    for row in rows:
        for device in row.figures.get("devices", ()):
            after, held = device["after"], device["throttled"]
            power = "unknown" if after["power_w"] is None else f"{after['power_w']:.0f} W"
            clock = "unknown" if after["clock_mhz"] is None else f"{after['clock_mhz']:.0f} MHz"
            back = "unknown" if held is None else ", ".join(held) or "nothing"
            lines.append(f"{after['device']}: {power}, clock {clock}, held back by {back}")
    return Text("\n".join(lines))


class _Reasons:
    """The reasons of rows that were not run, each once, with a number that their cells refer to."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def cell(self, row: Row, show: object) -> str:
        """The cell of ``row``: as ``show`` has it, or that it was not run, with the number of the reason."""
        if row.not_run:
            number = self._numbers.setdefault(row.not_run, len(self._numbers) + 1)
            return f"{NOT_RUN} ({number})"
        assert callable(show)
        return str(show(row))

    @property
    def lines(self) -> list[str]:
        """The reasons by their numbers."""
        return [f"({number}) {reason}" for reason, number in self._numbers.items()]
