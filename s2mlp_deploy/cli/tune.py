"""``s2mlp-tune``: the fastest artifact of this machine that keeps the user's limits, as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from s2mlp_deploy.cli import option_values
from s2mlp_deploy.cli.help import section
from s2mlp_deploy.cli.options import (
    CalibrationCountOption,
    CalibrationMethodOption,
    CalibrationOption,
    CertificateOption,
    CropFractionOption,
    DataCountOption,
    DataOption,
    DirectionsOption,
    GoldenImagesOption,
    InterpolationOption,
    JsonOption,
    KeyOption,
    LabelsOption,
    LayoutOption,
    MeanOption,
    MinAgreementOption,
    ReferenceOption,
    RequireSignatureOption,
    ResizeOption,
    SemanticsOption,
    SignCertificateOption,
    SignOption,
    SizeOption,
    StdOption,
    WeightsOption,
    output_option,
)
from s2mlp_deploy.cli.terminal import ConsoleListener, command, show, torch_needed
from s2mlp_deploy.formats import registry
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.schema.precision import PRECISIONS

limit_option = section("Limits")
search_option = section("Where to look")


def tune(
    source: Annotated[
        Path,
        typer.Argument(metavar="CKPT|BUNDLE", readable=False, help="The checkpoint, or an ONNX bundle to compile."),
    ],
    max_accuracy_drop: Annotated[
        float | None,
        limit_option(metavar="POINTS", min=0, help="Accuracy that may be lost on --data, in points; else 0.5."),
    ] = None,
    max_latency: Annotated[str | None, limit_option(metavar="TIME", help="Time of a batch, as in 20ms.")] = None,
    max_size: Annotated[str | None, limit_option(metavar="SIZE", help="Size of the artifact, as in 30MB.")] = None,
    max_memory: Annotated[
        str | None,
        limit_option(metavar="SIZE", help="Peak memory of a process that loads and runs it, Python included."),
    ] = None,
    objective: Annotated[
        Literal["latency", "throughput", "size", "energy"],
        search_option(
            metavar="NAME",
            help="The least time of one image (latency), of one among eight that run together (throughput), the smallest "
            "artifact (size), or the least energy (energy).",
        ),
    ] = "latency",
    formats: Annotated[
        str | None,
        search_option(metavar="NAME,NAME", help=f"Else all that run here, of {', '.join(registry.names())}."),
    ] = None,
    precisions: Annotated[
        str | None,
        search_option(metavar="NAME,NAME", help=f"Else all that may win, of {', '.join(PRECISIONS)}."),
    ] = None,
    lowerings: Annotated[
        str | None,
        search_option(
            metavar="NAME,NAME",
            help=f"Else the usual one, and the others where they may win, of {', '.join(LOWERINGS)}.",
        ),
    ] = None,
    threads: Annotated[
        str | None,
        search_option(metavar="N,N", help="Else the runtime's own choice, one, and half of the cores."),
    ] = None,
    budget: Annotated[
        str,
        search_option(metavar="TIME", help="How long to look; candidates that are not tried by then are listed."),
    ] = "10min",
    shift_semantics: SemanticsOption = None,
    shift_directions: DirectionsOption = None,
    image_size: SizeOption = None,
    layout: LayoutOption = None,
    weights: WeightsOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    resize: ResizeOption = None,
    interpolation: InterpolationOption = None,
    crop_fraction: CropFractionOption = None,
    labels: LabelsOption = None,
    reference: ReferenceOption = None,
    data: DataOption = None,
    data_count: DataCountOption = 1000,
    golden_images: GoldenImagesOption = None,
    key: KeyOption = None,
    certificate: CertificateOption = None,
    require_signature: RequireSignatureOption = False,
    calibration: CalibrationOption = None,
    calibration_count: CalibrationCountOption = 256,
    calibration_method: CalibrationMethodOption = "minmax",
    min_agreement: MinAgreementOption = 0.99,
    output: Annotated[
        Path | None,
        output_option(
            "-o", "--output", metavar="DIR", help="The bundle; else STEM-tuned here. DIR.json has the report."
        ),
    ] = None,
    sign: SignOption = None,
    sign_certificate: SignCertificateOption = None,
    force: Annotated[
        bool, output_option("--force", help="Replace a bundle, a report or a picture that is there.")
    ] = False,
    keep: Annotated[bool, output_option("--keep", help="Keep the bundles of all candidates, in DIR.tuning.")] = False,
    png: Annotated[
        Path | None,
        output_option(metavar="FILE.png", help="Draw accuracy (else size) against time; or .svg, or .pdf."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the fastest artifact of this machine that keeps your limits, and publish it as a bundle."""
    from s2mlp_deploy.bundle import signature
    from s2mlp_deploy.pipeline.request import EvidenceOptions, OutputOptions, Source
    from s2mlp_deploy.pipeline.tune.request import Limits, Space, TuneRequest
    from s2mlp_deploy.quantization.settings import Int8

    stated = Source(
        source,
        layout,
        weights,
        shift_semantics,
        option_values.directions(shift_directions),
        image_size=option_values.size("--image-size", image_size),
        mean=option_values.floats("--mean", mean),
        std=option_values.floats("--std", std),
        resize=resize,
        interpolation=interpolation,
        crop_fraction=crop_fraction,
        labels=labels,
        publisher=signature.trusted(key, certificate, require_signature=require_signature),
    )
    limits = Limits(
        max_accuracy_drop,
        1e3 * option_values.seconds("--max-latency", max_latency) if max_latency is not None else None,
        option_values.size_bytes("--max-size", max_size),
        option_values.size_bytes("--max-memory", max_memory),
    )
    space = Space(
        option_values.names(formats),
        option_values.names(precisions),
        option_values.names(lowerings),
        option_values.numbers("--threads", threads) if threads is not None else None,
    )
    request = TuneRequest(
        stated,
        EvidenceOptions(reference, data, data_count, golden_images),
        Int8(calibration, calibration_count, calibration_method, min_agreement=min_agreement),
        limits,
        space,
        objective,
        option_values.seconds("--budget", budget),
        OutputOptions(output, force, sign=option_values.signing_key(sign, sign_certificate)),
        keep,
    )
    with torch_needed():
        if not stated.is_bundle:
            from s2mlp_deploy.pipeline import export_onnx  # noqa: F401
    from s2mlp_deploy.cli import tune_picture, tune_tables
    from s2mlp_deploy.pipeline.tune.tune import tune as find_best

    if png:
        tune_picture.check(png, replace=force)
    result = find_best(request, ConsoleListener())
    if png:
        tune_picture.draw(result.report, png, replace=force)
    if as_json:
        show(
            {
                "bundle": str(result.bundle.directory),
                "report": result.report.as_dict(),
                "png": str(png) if png else None,
            }
        )
        return
    show(tune_tables.tune(result, request, png))


main = command(
    tune,
    "best.pt --data val/",
    "best.pt --data val/ --calibration train/ --max-latency 20ms",
)
