"""``s2mlp-export``: bundles of a checkpoint, or of an ONNX bundle, in each format and precision given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from s2mlp_deploy.cli import format_options, option_values
from s2mlp_deploy.cli.help import one_of, section
from s2mlp_deploy.cli.options import (
    CalibrationCountOption,
    CalibrationMethodOption,
    CalibrationOption,
    CardOption,
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
    LicenseOption,
    MeanOption,
    MinAgreementOption,
    MlflowOption,
    PlotOption,
    ReferenceOption,
    RequireSignatureOption,
    ResizeOption,
    SbomOption,
    SemanticsOption,
    SignCertificateOption,
    SignOption,
    SizeOption,
    StdOption,
    WeightsOption,
    check_option,
    checkpoint_option,
    int8_option,
    output_option,
)
from s2mlp_deploy.cli.terminal import command, torch_needed
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.schema.choices import (
    InputKind,
    IoDtype,
    OutputKind,
    ShiftLowering,
    Target,
)
from s2mlp_deploy.schema.precision import PRECISIONS

artifact_option = section("Artifact")


def export(
    source: Annotated[
        Path,
        typer.Argument(metavar="CKPT|BUNDLE", readable=False, help="The checkpoint, or an ONNX bundle to compile."),
    ],
    format: Annotated[
        list[str],
        artifact_option(metavar="FORMAT", help=f"What to make; may be repeated. {one_of(registry.names())}"),
    ] = [ONNX],  # noqa: B006
    precision: Annotated[
        list[str] | None,
        artifact_option(
            metavar="PRECISION",
            help="Precision of weights and activations; may be repeated. Else fp32, or the bundle's own. "
            + one_of(tuple(PRECISIONS)),
        ),
    ] = None,
    data: DataOption = None,
    data_count: DataCountOption = 1000,
    reference: ReferenceOption = None,
    golden_images: GoldenImagesOption = None,
    output: Annotated[
        Path | None,
        output_option("-o", "--output", metavar="DIR", help="The bundle; else STEM-FORMAT-PRECISION here."),
    ] = None,
    force: Annotated[bool, output_option("--force", help="Replace a bundle (or a --plot) that is there.")] = False,
    image_size: SizeOption = None,
    layout: LayoutOption = None,
    weights: WeightsOption = None,
    shift_semantics: SemanticsOption = None,
    shift_directions: DirectionsOption = None,
    shift: Annotated[
        ShiftLowering,
        checkpoint_option(metavar="LOWERING", help=f"How the graph expresses the shift. {one_of(ShiftLowering)}"),
    ] = "auto",
    dynamic_size: Annotated[
        bool, artifact_option("--dynamic-size", help="One file for every height and width.")
    ] = False,
    batch: Annotated[
        str,
        artifact_option(
            metavar="N",
            help="Batch size: a number, dynamic for any, or MIN:OPT:MAX, a range for TensorRT's profile.",
        ),
    ] = "dynamic",
    mean: MeanOption = None,
    std: StdOption = None,
    resize: ResizeOption = None,
    interpolation: InterpolationOption = None,
    crop_fraction: CropFractionOption = None,
    labels: LabelsOption = None,
    input: Annotated[
        InputKind,
        artifact_option(
            metavar="KIND",
            help="What the artifact takes: prepared images (float), their bytes (uint8), or an image of any size (image).",
        ),
    ] = "float",
    answer: Annotated[
        OutputKind, artifact_option(metavar="KIND", help=f"What the artifact gives. {one_of(OutputKind)}")
    ] = "logits",
    io_dtype: Annotated[
        IoDtype,
        artifact_option(metavar="TYPE", help=f"Type of input and output, with --precision fp16. {one_of(IoDtype)}"),
    ] = "fp32",
    target: Annotated[
        Target | None,
        artifact_option(
            metavar="TARGET",
            help=f"What an int8 or fp16 graph is for; else what the format runs on, never this machine. {one_of(Target)}",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        artifact_option("-O", metavar="NAME=VALUE", help="An option of the format's own; may be repeated."),
    ] = None,
    calibration: CalibrationOption = None,
    calibration_count: CalibrationCountOption = 256,
    calibration_method: CalibrationMethodOption = "minmax",
    max_accuracy_drop: Annotated[
        float, int8_option(metavar="POINTS", min=0, help="Accuracy that may be lost on --data, in points.")
    ] = 0.5,
    min_agreement: MinAgreementOption = 0.99,
    quantize_ends: Annotated[
        bool, int8_option("--quantize-ends", help="Quantize the embeddings and the classifier, too.")
    ] = False,
    between: Annotated[
        IoDtype,
        int8_option(metavar="TYPE", help=f"Type between int8 products, with --target trt. {one_of(IoDtype)}"),
    ] = "fp32",
    allow_unverified_engine: Annotated[
        bool,
        check_option("--allow-unverified-engine", help="Publish an engine that cannot run here; a device verifies it."),
    ] = False,
    key: KeyOption = None,
    certificate: CertificateOption = None,
    require_signature: RequireSignatureOption = False,
    gate: Annotated[bool, check_option("--gate/--no-gate", help="Check parity; without, the bundle says so.")] = True,
    sbom: SbomOption = False,
    card: CardOption = False,
    license: LicenseOption = None,
    sign: SignOption = None,
    sign_certificate: SignCertificateOption = None,
    plot: PlotOption = None,
    latency: Annotated[
        bool, output_option("--latency", help="Time what was exported, side by side on this machine.")
    ] = False,
    mlflow: MlflowOption = None,
    as_json: JsonOption = False,
    **flags_of_formats: Any,
) -> None:
    """Export a checkpoint as a bundle whose numbers were checked against the checkpoint's own."""
    from s2mlp_deploy.bundle import signature
    from s2mlp_deploy.cli import export_request
    from s2mlp_deploy.pipeline.request import (
        EvidenceOptions,
        ExportRequest,
        FormatOptions,
        GraphOptions,
        OutputOptions,
        Source,
    )
    from s2mlp_deploy.schema.manifest import Interface

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
    precisions = export_request.precisions(
        stated,
        precision,
        {
            "io_dtype": io_dtype,
            "target": target,
            "calibration": calibration,
            "calibration_count": calibration_count,
            "calibration_method": calibration_method,
            "max_accuracy_drop": max_accuracy_drop,
            "min_agreement": min_agreement,
            "quantize_ends": quantize_ends,
            "between": between,
        },
    )
    profile = {"batch": batch} if ":" in batch else {}  # of engines, whose option is called like the command's
    settings = format_options.chosen({**flags_of_formats, **profile}, option or (), format)
    interface = Interface(input=input, output=answer)
    graph = GraphOptions(shift, dynamic_size, None if profile else option_values.batch(batch), interface)
    evidence = EvidenceOptions(reference, data, data_count, golden_images, gate, allow_unverified_engine)
    destination = OutputOptions(output, force, sbom, option_values.signing_key(sign, sign_certificate), card, license)
    requests = [
        ExportRequest(stated, graph, options, FormatOptions(name, settings[name]), evidence, destination)
        for name in format
        for options in precisions
    ]
    with torch_needed():
        from s2mlp_deploy.cli import export_results

        if not stated.is_bundle:
            from s2mlp_deploy.pipeline import export_onnx  # noqa: F401
    export_results.publish(requests, plot=plot, latency=latency, mlflow=mlflow, as_json=as_json)


def main() -> None:
    """The entry point: :func:`export` with a flag for each option of the formats of this project."""
    command(
        format_options.with_flags(export, before="as_json"),
        "best.pt --data val/",
        "best.pt --data val/ --precision int8 --calibration train/",
        "best.pt --data val/ --format web -o site",
        "best-onnx-fp32 --format litert",
    )()
