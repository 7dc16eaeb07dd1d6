"""``s2mlp-export``: bundles of a checkpoint, or of an ONNX bundle, in each format and precision given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from s2mlp_deploy.cli import format_options, option_values
from s2mlp_deploy.cli.help import one_of, section
from s2mlp_deploy.cli.options import (
    DirectionsOption,
    JsonOption,
    LayoutOption,
    PlotOption,
    SizeOption,
    WeightsOption,
    check_option,
    checkpoint_option,
    output_option,
)
from s2mlp_deploy.cli.terminal import ConsoleListener, command, show, torch_needed
from s2mlp_deploy.errors import Error, UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.schema.choices import (
    CalibrationMethod,
    InputKind,
    Interpolation,
    IoDtype,
    OutputKind,
    Resize,
    ShiftLowering,
    Target,
)
from s2mlp_deploy.schema.precision import FP32, PRECISIONS, having
from s2mlp_deploy.schema.shift import Semantics

if TYPE_CHECKING:
    from s2mlp_deploy.cli.plot import Curve

artifact_option = section("Artifact")
image_option = section("Images")
int8_option = section("With --precision int8")


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
    option: Annotated[
        list[str] | None,
        artifact_option("-O", metavar="NAME=VALUE", help="An option of the format's own; may be repeated."),
    ] = None,
    shift: Annotated[
        ShiftLowering,
        checkpoint_option(metavar="LOWERING", help=f"How the graph expresses the shift. {one_of(ShiftLowering)}"),
    ] = "auto",
    shift_semantics: Annotated[
        Literal[Semantics, "auto"] | None,
        checkpoint_option(
            metavar="SEMANTICS",
            help="The paper's shift (paper), the in-place code's (inplace), or whichever the evidence supports (auto); else "
            "as the layout declares, else paper.",
        ),
    ] = None,
    shift_directions: DirectionsOption = None,
    image_size: SizeOption = None,
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
    mean: Annotated[
        str | None,
        image_option(metavar="M,M,M", help="Mean of each channel, or one for all, of pixels in 0…1 (or 0…255)."),
    ] = None,
    std: Annotated[str | None, image_option(metavar="S,S,S", help="Standard deviation of each channel.")] = None,
    resize: Annotated[
        Resize | None,
        image_option(
            metavar="METHOD",
            help="How images come to the model's size: the shorter side and a centre crop, in one step (shorter) or as "
            "timm does (shorter-then-crop), or squashed (squash). Else as the checkpoint records, else shorter.",
        ),
    ] = None,
    interpolation: Annotated[
        Interpolation | None,
        image_option(
            metavar="FILTER",
            help=f"The filter, as Pillow calls it; else as recorded, else bicubic. {one_of(Interpolation)}",
        ),
    ] = None,
    crop_fraction: Annotated[
        float | None,
        image_option(metavar="SHARE", help="What a centre crop keeps (timm's crop_pct); else as recorded, else 1."),
    ] = None,
    labels: Annotated[
        Path | None,
        image_option(metavar="FILE", help="Class names: a line each, or JSON; else as the checkpoint records."),
    ] = None,
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
    layout: LayoutOption = None,
    weights: WeightsOption = None,
    reference: Annotated[
        Path | None,
        check_option(metavar="FILE", help="input and logits recorded from your model (.safetensors or .npz)."),
    ] = None,
    data: Annotated[
        Path | None,
        check_option(metavar="DIR", help="Labelled images, one subfolder a class: accuracy is checked on them."),
    ] = None,
    data_count: Annotated[int, check_option(metavar="N", min=1, help="How many of them to use at most.")] = 1000,
    golden_images: Annotated[
        Path | None,
        check_option(
            metavar="DIR", help="Images that travel in the bundle, for apps to test with; else some of --data."
        ),
    ] = None,
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
    calibration: Annotated[
        str | None,
        int8_option(
            metavar="DIR|FILE",
            help="Images (or prepared inputs: .npy, .npz, .safetensors) that ranges are taken from; or synthetic: noise, "
            "for measuring speed alone.",
        ),
    ] = None,
    calibration_count: Annotated[int, int8_option(metavar="N", min=1, help="How many of them to use at most.")] = 256,
    calibration_method: Annotated[
        CalibrationMethod,
        int8_option(
            metavar="METHOD",
            help=f"Take the whole range that occurs (minmax), or clip what is rare. {one_of(CalibrationMethod)}",
        ),
    ] = "minmax",
    max_accuracy_drop: Annotated[
        float, int8_option(metavar="POINTS", min=0, help="Accuracy that may be lost on --data, in points.")
    ] = 0.5,
    min_agreement: Annotated[
        float,
        int8_option(metavar="SHARE", min=0, max=1, help="Images that must keep their class, without --data, 0 to 1."),
    ] = 0.99,
    quantize_ends: Annotated[
        bool, int8_option("--quantize-ends", help="Quantize the embeddings and the classifier, too.")
    ] = False,
    allow_unverified_engine: Annotated[
        bool,
        check_option("--allow-unverified-engine", help="Publish an engine that cannot run here; a device verifies it."),
    ] = False,
    output: Annotated[
        Path | None,
        output_option("-o", "--output", metavar="DIR", help="The bundle; else STEM-FORMAT-PRECISION here."),
    ] = None,
    force: Annotated[bool, output_option("--force", help="Replace a bundle (or a --plot) that is there.")] = False,
    gate: Annotated[bool, check_option("--gate/--no-gate", help="Check parity; without, the bundle says so.")] = True,
    sbom: Annotated[
        bool, output_option("--sbom", help="Put a software bill of materials into the bundle (CycloneDX).")
    ] = False,
    plot: PlotOption = None,
    latency: Annotated[
        bool, output_option("--latency", help="Time what was exported, side by side on this machine.")
    ] = False,
    as_json: JsonOption = False,
    **flags_of_formats: Any,
) -> None:
    """Export a checkpoint as a bundle whose numbers were checked against the checkpoint's own."""
    from s2mlp_deploy.bundle.read import read_manifest
    from s2mlp_deploy.formats.base import Compiler
    from s2mlp_deploy.pipeline.request import (
        EvidenceOptions,
        ExportRequest,
        FormatOptions,
        GraphOptions,
        OutputOptions,
        Source,
        flags,
    )
    from s2mlp_deploy.quantization.settings import OPTIONS, Int8
    from s2mlp_deploy.schema.manifest import Interface

    from_bundle = Source(source).is_bundle
    own = read_manifest(source).precision if from_bundle else FP32.name
    precisions = precision or [own]
    if unknown := [kind for kind in precisions if kind not in PRECISIONS]:
        raise UsageError(f"--precision {unknown[0]!r}: expected {', '.join(PRECISIONS)}")
    wanted = [(name, kind) for name in format for kind in precisions]
    if len(set(wanted)) < len(wanted):
        raise UsageError("a --format or a --precision is given twice")
    if output and len(wanted) > 1:
        raise UsageError("-o names one bundle: leave it out, or give one --format and one --precision at a time")
    if crop_fraction is not None and not 0 < crop_fraction <= 1:
        raise UsageError(f"--crop-fraction {crop_fraction}: expected a share of the image, above 0 and up to 1")
    chosen = [PRECISIONS[kind] for kind in precisions]
    io_type = PRECISIONS[io_dtype].on_gpu.inputs
    if not any(io_type in row.io_types for row in chosen):
        raise UsageError(f"--io-dtype {io_dtype} is for --precision {having(lambda row: io_type in row.io_types)}")
    with torch_needed():
        from s2mlp_deploy.cli import layer_error, tables
        from s2mlp_deploy.pipeline import comparison
        from s2mlp_deploy.pipeline import latency as timing
        from s2mlp_deploy.pipeline.deploy import deploy_all

        if not from_bundle:
            from s2mlp_deploy.pipeline import export_onnx  # noqa: F401

    profile = {"batch": batch} if ":" in batch else {}  # of engines, whose option is called like the command's
    settings = format_options.chosen({**flags_of_formats, **profile}, option or (), format)
    if allow_unverified_engine and not any(isinstance(registry.find(f), Compiler) for f in format):
        raise UsageError(f"--allow-unverified-engine: --format {' or '.join(format)} makes no engine")
    for_calibrated = {
        "calibration": calibration,
        "calibration_count": calibration_count,
        "calibration_method": calibration_method,
        "max_accuracy_drop": max_accuracy_drop,
        "min_agreement": min_agreement,
        "quantize_ends": quantize_ends,
    }
    if target and not any(row.targets for row in chosen):
        raise UsageError(f"--target is for --precision {having(lambda row: row.targets)}")
    idle = [name for name, value in for_calibrated.items() if value != getattr(Int8(), name)]
    if idle and not any(row.calibrated for row in chosen):
        raise UsageError(f"{flags(idle)}: only for --precision {having(lambda row: row.calibrated)}")
    of_precisions: dict[str, Any] = {"io_dtype": io_dtype, "target": target, **for_calibrated}
    stated = Source(
        source,
        layout,
        weights,
        shift_semantics,
        option_values.directions(shift_directions),
        image_size=option_values.size("--image-size", image_size) if image_size is not None else None,
        mean=option_values.floats("--mean", mean) if mean is not None else None,
        std=option_values.floats("--std", std) if std is not None else None,
        resize=resize,
        interpolation=interpolation,
        crop_fraction=crop_fraction,
        labels=labels,
    )
    graph = GraphOptions(
        shift, dynamic_size, None if ":" in batch else option_values.batch(batch), Interface(input=input, output=answer)
    )
    evidence = EvidenceOptions(reference, data, data_count, golden_images, gate, allow_unverified_engine)
    requests = [
        ExportRequest(
            stated,
            graph,
            OPTIONS[kind](**{f.name: of_precisions[f.name] for f in fields(OPTIONS[kind])}),
            FormatOptions(name, settings[name]),
            evidence,
            OutputOptions(output, force, sbom),
        )
        for name, kind in wanted
    ]
    told = ConsoleListener()
    drawn = layer_error.plan(requests, plot, replace=force, warn=told.warn) if plot else ()
    results = []
    try:
        for result in deploy_all(requests, told):  # each bundle is shown once published, even if a later one fails
            results.append(result)
            if not as_json:
                show(tables.export(result))
    except Error as error:
        error.done = {"exports": [_export_json(result) for result in results]} if results else None
        raise
    bundles = [result.bundle for result in results]
    curves: Sequence[Curve] = ()
    if plot:
        with told.step("drawing error against depth"):
            curves = layer_error.curves([bundle for bundle in bundles if bundle.directory in drawn])
            layer_error.draw(curves, bundles[0].manifest.spec, plot, replace=force)
    latencies = None
    if latency:
        with told.step("timing what was exported"):
            latencies = timing.measure(bundles)
        if latencies is None:
            told.warn("nothing that was exported runs on this machine, so --latency has nothing to time")
    rows = comparison.side_by_side(results, latencies)
    if as_json:
        show(
            {
                "exports": [_export_json(r) for r in results],
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


def _export_json(result: Any) -> dict[str, Any]:
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


def main() -> None:
    """The entry point: :func:`export` with a flag for each option of the formats of this project."""
    command(format_options.with_flags(export, before="output"))()
