"""``s2mlp-verify``: a bundle checked on the machine at hand."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from s2mlp_deploy.cli.help import section
from s2mlp_deploy.cli.options import (
    CertificateOption,
    JsonOption,
    KeyOption,
    PlotOption,
    RequireSignatureOption,
    check_option,
    output_option,
)
from s2mlp_deploy.cli.placement import DeviceOption, ProviderOption, Tf32Option, placement
from s2mlp_deploy.cli.terminal import ConsoleListener, command, show
from s2mlp_deploy.errors import UsageError

probe_option = section("Probe")
accuracy_option = section("Accuracy")


def verify(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", readable=False, help="A directory that s2mlp-export made.")
    ],
    per_block: Annotated[
        bool, check_option("--per-block", help="Show error against depth, and the first block that diverges.")
    ] = False,
    key: KeyOption = None,
    certificate: CertificateOption = None,
    require_signature: RequireSignatureOption = False,
    provider: ProviderOption = None,
    device: DeviceOption = None,
    tf32: Tf32Option = False,
    data: Annotated[
        Path | None,
        accuracy_option(
            metavar="DIR", help="Labelled images, one subfolder a class: accuracy is measured on them, too."
        ),
    ] = None,
    data_count: Annotated[
        int | None, accuracy_option(metavar="N", min=1, help="How many of them to use at most; else all.")
    ] = None,
    workers: Annotated[int, accuracy_option(metavar="N", min=1, help="Processes that share them.")] = 1,
    max_seconds: Annotated[
        float | None,
        probe_option(metavar="S", min=0.001, help="End with exit code 124 where the check takes longer."),
    ] = None,
    prometheus: Annotated[
        Path | None,
        probe_option(metavar="FILE.prom", help="Write the result for Prometheus' textfile collector, pass or fail."),
    ] = None,
    plot: PlotOption = None,
    force: Annotated[bool, output_option("--force", help="Replace a --plot that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a bundle on this machine: its signature and its files' hashes, then its logits. Needs no torch."""
    from s2mlp_deploy.bundle import signature
    from s2mlp_deploy.cli import layer_error
    from s2mlp_deploy.cli.health_probe import Probe
    from s2mlp_deploy.pipeline import verify as verifying
    from s2mlp_deploy.pipeline.health import SCHEMA_VERSION
    from s2mlp_deploy.pipeline.verified_accuracy import LabelledFolder, measure

    if force and not plot:
        raise UsageError("--force is for --plot: nothing else is written")
    if data is None and (data_count is not None or workers > 1):
        raise UsageError("--data-count and --workers are for --data: leave them out")
    where = placement(provider, device, tf32=tf32)
    probe = Probe(bundle, max_seconds, prometheus)
    with probe.watching():
        publisher = signature.trusted(key, certificate, require_signature=require_signature)
        if publisher and plot:
            signature.check(bundle, publisher)  # before the manifest is read
        if plot:
            layer_error.check(bundle, plot, replace=force)
        with ConsoleListener().step("checking the bundle"):
            result = verifying.verify(
                bundle,
                per_block=per_block or plot is not None,
                publisher=publisher,
                timed=as_json or prometheus is not None,
                placement=where,
            )
        accuracy = None
        if data and result.passed:
            with ConsoleListener().step("measuring accuracy"):
                accuracy = measure(result.bundle, LabelledFolder(data, data_count), workers, where)
        health = probe.found(result)
    if plot:
        curve = layer_error.curve(result.bundle, result.layers)
        layer_error.draw([curve], result.bundle.manifest.classifier, plot, replace=force)
    if as_json:
        show(
            {
                "schema_version": SCHEMA_VERSION,
                **asdict(health),
                "signature": asdict(result.bundle.signature),
                "preparation": asdict(result.preparation) if result.preparation else None,
                "cause": result.cause,
                "execution": asdict(result.execution) if result.execution else None,
                "checks": [vars(c) for c in result.verdict.checks],
                "distances": {case: vars(d) for case, d in result.verdict.distances.items()},
                "layers": {name: vars(d) for name, d in result.layers},
                "diverges_at": result.diverges_at,
                "plot": str(plot) if plot else None,
                "accuracy": asdict(accuracy) if accuracy else None,
            }
        )
    else:
        from s2mlp_deploy.cli import tables

        show(tables.verification(result))
        if accuracy:
            show(tables.accuracy_line(accuracy))
        if plot:
            show(tables.picture(plot))
    if not result.passed:
        raise typer.Exit(1)


main = command(
    verify,
    "best-onnx-fp32",
    "best-onnx-fp32 --key release.pub --require-signature --json",
)
