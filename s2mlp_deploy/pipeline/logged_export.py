"""An export as MLflow logs it."""

from __future__ import annotations

from s2mlp_deploy.bundle.contents import MANIFEST
from s2mlp_deploy.pipeline.comparison import Row
from s2mlp_deploy.pipeline.mlflow_log import Run
from s2mlp_deploy.pipeline.request import Export, ExportRequest
from s2mlp_deploy.system.hashing import sha256


def run_of(request: ExportRequest, made: Export, row: Row) -> Run:
    """The run of the export that ``request`` gave; its key is its manifest's hash, which follows from the bundle's content.

    ``relative_l2`` is that of the worst golden case, and each case has one of its own.
    """
    manifest, report = made.bundle.manifest, made.report
    distances = {case: distance.relative_l2 for case, distance in report.distances.items()}
    milliseconds = row.latency.milliseconds if row.latency else None
    return Run(
        sha256(made.bundle.directory / MANIFEST),
        made.bundle.directory.name,
        {
            "checkpoint": str(request.source.path),
            "sha256": manifest.source.sha256,
            "format": manifest.format,
            "precision": manifest.precision,
            "target": manifest.quantization.target if manifest.quantization else None,
            "lowering": manifest.lowering,
        },
        {
            "size_bytes": report.size_bytes,
            "relative_l2": max(distances.values(), default=None),
            "limit": manifest.tolerance.relative_l2 if manifest.tolerance else None,
            "same_class": row.same_class,
            "accuracy": report.accuracy,
            "seconds": round(sum(report.seconds.values()), 3),
            "latency_ms": milliseconds.median if milliseconds else None,
            "latency_low_ms": milliseconds.low if milliseconds else None,
            "latency_high_ms": milliseconds.high if milliseconds else None,
            **{f"relative_l2/{case}": distance for case, distance in distances.items()},
        },
        str(made.bundle.directory),
    )
