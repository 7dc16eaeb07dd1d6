"""LoadGen's results as a table."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from s2mlp_bench.mlperf.scenario import Outcome
from s2mlp_deploy.cli.grid import new_grid


def render(outcome: Outcome) -> RenderableType:
    """The verdict first, then the figures, and how far they may be called MLPerf's."""
    table = new_grid()
    for name, content in _rows(outcome):
        table.add_row(name, content if isinstance(content, Text) else Text(content))
    title = Text(f"{outcome.name}: MLPerf {outcome.scenario}, LoadGen {outcome.loadgen_version}", style="bold")
    return Group(title, table)


def _rows(outcome: Outcome) -> list[tuple[str, str | Text]]:
    rows: list[tuple[str, str | Text]] = [("verdict", _verdict(outcome))]
    rows += [("", f"{check.name}: {'yes' if check.met else 'NO'}") for check in outcome.checks]
    rows += [("", text) for text in outcome.recommendations]
    rows.append(("result", _result(outcome)))
    if outcome.p50_ms is not None:
        names = {"mean": outcome.mean_ms, "p50": outcome.p50_ms, "p90": outcome.p90_ms, "p99": outcome.p99_ms}
        rows.append(("latency", ", ".join(f"{name} {_figure(value)}" for name, value in names.items()) + " ms"))
    answered = f"{outcome.samples:,} in {outcome.queries:,} {'query' if outcome.queries == 1 else 'queries'}"
    together = f", up to {outcome.batch} together" if outcome.batch > 1 else ""
    rows.append(("images", f"{answered}{together}; {outcome.loaded:,} in memory, of {outcome.images:,} different ones"))
    rows.append(("answers", f"all checked, relative L2 {outcome.relative_l2:.1e} at most"))
    rows.append(("rules", "LoadGen's for an image classifier, all kept" if outcome.conforming else _left(outcome)))
    return rows


def _verdict(outcome: Outcome) -> Text:
    return Text("VALID", style="green") if outcome.valid else Text("INVALID", style="bold red")


def _result(outcome: Outcome) -> str:
    result = f"{outcome.metric_name} {_figure(outcome.metric)} {outcome.unit}"
    if outcome.early_stopping_ms is not None and outcome.scenario == "singlestream":
        result += f"; with 99% confidence no more than {_figure(outcome.early_stopping_ms)} ms"
    if outcome.bound_ms is not None and outcome.offered_qps is not None:
        late = f"99th percentile latency {_figure(outcome.p99_ms)} ms, bound {_figure(outcome.bound_ms)} ms"
        result += f" of {_figure(outcome.offered_qps)} offered; {late}"
    return result


def _left(outcome: Outcome) -> Text:
    return Text("NOT CONFORMING: " + "; ".join(outcome.deviations), style="yellow")


def _figure(value: float | None) -> str:
    """Three digits that mean something."""
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
