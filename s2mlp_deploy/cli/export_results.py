"""Publish the bundles that ``s2mlp-export`` is to make, and show each, their comparison, their latency and their error by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from s2mlp_deploy.cli import layer_error, tables
from s2mlp_deploy.cli.plot import Curve
from s2mlp_deploy.cli.terminal import ConsoleListener, show
from s2mlp_deploy.errors import Error
from s2mlp_deploy.pipeline import comparison, logged_export, mlflow_log
from s2mlp_deploy.pipeline import latency as timing
from s2mlp_deploy.pipeline.deploy import deploy_all
from s2mlp_deploy.pipeline.request import Export, ExportRequest


def publish(
    requests: Sequence[ExportRequest], *, plot: Path | None, latency: bool, mlflow: str | None, as_json: bool
) -> None:
    """Publish a bundle for each request and show it; with ``plot``, draw the error of their layers, with ``latency``, time them, with
    ``mlflow``, log them.

    Raises:
        Error: as :func:`~s2mlp_deploy.pipeline.deploy.deploy_all`; ``done`` then has the bundles published before.
    """
    listener, replace = ConsoleListener(), requests[0].output.force
    drawn = layer_error.plan(requests, plot, replace=replace, warn=listener.warn) if plot else ()
    log = mlflow_log.connect(mlflow, requests[0].source.path.stem) if mlflow else None  # before any work is done
    results = _publish_each(requests, listener, as_json=as_json)
    bundles = [result.bundle for result in results]
    curves: Sequence[Curve] = ()
    if plot:
        with listener.step("drawing error against depth"):
            curves = layer_error.curves([bundle for bundle in bundles if bundle.directory in drawn])
            layer_error.draw(curves, bundles[0].manifest.classifier, plot, replace=replace)
    latencies = None
    if latency:
        with listener.step("timing what was exported"):
            latencies = timing.measure(bundles)
        if latencies is None:
            listener.warn("nothing that was exported runs on this machine, so --latency has nothing to time")
    rows = comparison.side_by_side(results, latencies)
    if log:
        with listener.step("logging to MLflow"):
            log.add(map(logged_export.run_of, requests, results, rows))
    if as_json:
        show(
            {
                "exports": [_export_json(result) for result in results],
                "comparison": [asdict(row) for row in rows],
                "latency": asdict(latencies.method) if latencies else None,
                "plot": _plot_json(plot, curves) if plot else None,
            }
        )
        return
    if len(rows) > 1:
        show(tables.comparison(rows))
    if latencies:
        show(tables.latencies(rows, latencies.method))
    if plot:
        show(tables.picture(plot))


def _publish_each(requests: Sequence[ExportRequest], listener: ConsoleListener, *, as_json: bool) -> list[Export]:
    """Publish the bundles one after another; each is shown once it is published, even if a later one fails."""
    results: list[Export] = []
    try:
        for result in deploy_all(requests, listener):
            results.append(result)
            if not as_json:
                show(tables.export(result))
    except Error as error:
        error.done = {"exports": [_export_json(result) for result in results]} if results else None
        raise
    return results


def _export_json(result: Export) -> dict[str, Any]:
    return {
        "bundle": str(result.bundle.directory),
        "passed": result.verdict.passed if result.verdict else None,
        "manifest": result.bundle.manifest.model_dump(mode="json"),
        "report": result.report.as_dict(),
    }


def _plot_json(file: Path, curves: Sequence[Curve]) -> dict[str, Any]:
    return {
        "file": str(file),
        "curves": [{**asdict(c), "layers": dict(c.layers), "in_float": sorted(c.in_float)} for c in curves],
    }
