"""The commands. They parse, call, print and exit; nothing is decided here.

Results go to stdout (with ``--json``, one JSON document and nothing else), progress and warnings to
stderr. Exit codes: 0 done; 1 parity or accuracy gate failed; 2 usage; 3 bad input; 4 a runtime or
device is missing; 130 interrupted (143 by SIGTERM, 129 by SIGHUP).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from s2mlp_deploy import options
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.terminal import ConsoleListener, command, show, torch_needed

if TYPE_CHECKING:
    from s2mlp_deploy.manifest import Setting
    from s2mlp_deploy.plot import Curve


class Semantics(str, Enum):
    paper = "paper"
    inplace = "inplace"
    auto = "auto"


class Precision(str, Enum):
    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"


class IoDtype(str, Enum):
    fp32 = "fp32"
    fp16 = "fp16"


class Target(str, Enum):
    x86 = "x86"
    arm = "arm"
    trt = "trt"


class CalibrationMethod(str, Enum):
    minmax = "minmax"
    percentile = "percentile"
    mse = "mse"
    entropy = "entropy"


class OrtStyle(str, Enum):
    ort = "ort"
    onnx = "onnx"


class Provider(str, Enum):
    cpu = "cpu"
    coreml = "coreml"
    cuda = "cuda"
    directml = "directml"
    openvino = "openvino"
    qnn = "qnn"
    tensorrt = "tensorrt"
    xnnpack = "xnnpack"


class TritonBackend(str, Enum):
    onnxruntime = "onnxruntime"
    tensorrt = "tensorrt"


class Directions(str, Enum):
    four = "4"
    eight = "8"
    horizontal = "horizontal"
    vertical = "vertical"


class Resize(str, Enum):
    shorter = "shorter"
    shorter_then_crop = "shorter-then-crop"
    squash = "squash"


class Interpolation(str, Enum):
    bilinear = "bilinear"
    bicubic = "bicubic"
    lanczos = "lanczos"
    hamming = "hamming"
    box = "box"
    nearest = "nearest"


class InputKind(str, Enum):
    float = "float"
    uint8 = "uint8"
    image = "image"


class AnswerKind(str, Enum):
    logits = "logits"
    probabilities = "probabilities"
    top5 = "top5"


class ShiftLowering(str, Enum):
    auto = "auto"
    slice = "slice"
    conv = "conv"
    gather = "gather"
    pad = "pad"


CheckpointArgument = Annotated[
    Path, typer.Argument(metavar="CKPT", readable=False, help="The checkpoint: .pt, .pth, .bin or .safetensors.")
]
LayoutOption = Annotated[
    str | None,
    typer.Option(metavar="NAME|FILE.toml", help="How the checkpoint names its keys; found by itself if known."),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The entry of the checkpoint that holds the weights, if there are several."),
]
SizeOption = Annotated[
    str | None, typer.Option(metavar="N|HxW", help="Image size; else as the checkpoint records, else 224.")
]
DirectionsOption = Annotated[
    Directions | None, typer.Option(help="The direction set that the model was trained with; else 4.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
PlotOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE.png", help="Draw error against depth, one line a bundle; or .svg, or .pdf."),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", hidden=True)]


def inspect(
    checkpoint: CheckpointArgument,
    layout: LayoutOption = None,
    weights: WeightsOption = None,
    image_size: SizeOption = None,
    shift_directions: DirectionsOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what a checkpoint holds: layout, architecture, parameters, multiply-adds, warnings."""
    with torch_needed():
        from s2mlp_deploy import checkpoint as checkpoints
        from s2mlp_deploy import contract, layouts, render
        from s2mlp_deploy.manifest import SpecEntry
        from s2mlp_deploy.request import Request
    from s2mlp_deploy.spec import DIRECTIONS

    size = options.size("--image-size", image_size) if image_size is not None else None
    source = checkpoints.load(
        checkpoint,
        layout=layouts.find(layout) if layout is not None else None,
        wrapper=weights,
        image_size=size,
        offsets=DIRECTIONS[shift_directions.value] if shift_directions else None,
    )
    warnings = checkpoints.warnings(source)
    preprocessing = None
    try:
        request = Request(checkpoint, image_size=size)
        preprocessing = contract.preprocessing_for(source, request)
        warnings += contract.warnings(source, request, preprocessing)
    except UsageError as error:  # what an export would need an option for
        warnings = [*warnings, str(error)]
    entry = SpecEntry.of(source.spec).model_dump(mode="json")
    if as_json:
        show(render.inspection_json(source, entry, preprocessing, warnings))
    else:
        show(render.inspection(source, preprocessing, warnings))


def export(
    source: Annotated[
        Path,
        typer.Argument(metavar="CKPT|BUNDLE", readable=False, help="The checkpoint, or an ONNX bundle to compile."),
    ],
    format: Annotated[list[str], typer.Option(help="The artifact's format; may be repeated.")] = ["onnx"],  # noqa: B006
    precision: Annotated[
        list[Precision] | None,
        typer.Option(help="Precision of weights and activations; may be repeated. Else fp32, or the bundle's own."),
    ] = None,
    shift: Annotated[ShiftLowering, typer.Option(help="How the shift is expressed in the graph.")] = ShiftLowering.auto,
    shift_semantics: Annotated[
        Semantics | None,
        typer.Option(
            help="The paper's shift, the in-place code's, or whichever the evidence supports; else as the layout "
            "declares, else paper."
        ),
    ] = None,
    shift_directions: DirectionsOption = None,
    image_size: SizeOption = None,
    dynamic_size: Annotated[bool, typer.Option("--dynamic-size", help="One file for every height and width.")] = False,
    batch: Annotated[
        str, typer.Option(metavar="N|dynamic|MIN:OPT:MAX", help="Batch size; a range is for TensorRT's profile.")
    ] = "dynamic",
    mean: Annotated[
        str | None,
        typer.Option(metavar="M,M,M", help="Mean of each channel, or one for all, of pixels in 0…1 (or 0…255)."),
    ] = None,
    std: Annotated[str | None, typer.Option(metavar="S,S,S", help="Standard deviation of each channel.")] = None,
    resize: Annotated[
        Resize | None,
        typer.Option(
            help="How images come to the model's size: the shorter side and a centre crop, in one step or as timm does, "
            "or squashed. Else as the checkpoint records, else shorter."
        ),
    ] = None,
    interpolation: Annotated[
        Interpolation | None, typer.Option(help="The filter, as Pillow calls it; else as recorded, else bicubic.")
    ] = None,
    crop_fraction: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="What a centre crop keeps (timm's crop_pct); else as recorded, else 1."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Class names: a line each, or JSON; else as the checkpoint records."),
    ] = None,
    input: Annotated[
        InputKind, typer.Option(help="What the artifact takes: prepared images, their bytes, or an image of any size.")
    ] = InputKind.float,
    answer: Annotated[AnswerKind, typer.Option(help="What the artifact gives.")] = AnswerKind.logits,
    layout: LayoutOption = None,
    weights: WeightsOption = None,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="input and logits recorded from your model (.safetensors or .npz)."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Labelled images, one subfolder a class: accuracy is checked on them."),
    ] = None,
    data_count: Annotated[int, typer.Option(metavar="N", min=1, help="How many of them to use at most.")] = 1000,
    golden_images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Images that travel in the bundle, for apps to test with; else some of --data."
        ),
    ] = None,
    io_dtype: Annotated[IoDtype, typer.Option(help="Type of input and output, with --precision fp16.")] = IoDtype.fp32,
    target: Annotated[
        Target | None, typer.Option(help="What an int8 graph is for; else what the format runs on, never this machine.")
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|FILE|synthetic",
            help="Images (or prepared inputs: .npy, .npz, .safetensors) that int8 ranges are taken from.",
        ),
    ] = None,
    calibration_count: Annotated[int, typer.Option(metavar="N", min=1, help="How many of them to use at most.")] = 256,
    calibration_method: Annotated[
        CalibrationMethod, typer.Option(help="Take the whole range that occurs, or clip what is rare.")
    ] = CalibrationMethod.minmax,
    max_accuracy_drop: Annotated[
        float, typer.Option(metavar="POINTS", min=0, help="Accuracy that int8 may cost on --data, in points.")
    ] = 0.5,
    min_agreement: Annotated[
        float, typer.Option(metavar="SHARE", min=0, max=1, help="Images that must keep their class, without --data.")
    ] = 0.99,
    quantize_ends: Annotated[
        bool, typer.Option("--quantize-ends", help="Quantize the embeddings and the classifier, too.")
    ] = False,
    ort_style: Annotated[
        OrtStyle | None,
        typer.Option(help="With --format ort: ort, for phones and minimal builds, or an optimized onnx."),
    ] = None,
    provider: Annotated[
        Provider | None, typer.Option(help="With --format ort: what ONNX Runtime is to run the model on; else cpu.")
    ] = None,
    ort_web: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="With --format web: the folder dist of onnxruntime-web; else in node_modules."
        ),
    ] = None,
    compute_capability: Annotated[
        str | None,
        typer.Option(
            metavar="SM,SM", help="With --format trt-rtx: GPUs to build for, as in sm86,sm89; else sm80 and later."
        ),
    ] = None,
    workspace_mib: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="With TensorRT: memory that a layer's kernels may use.")
    ] = None,
    size_profile: Annotated[
        str | None,
        typer.Option(metavar="MIN:OPT:MAX", help="With TensorRT and --dynamic-size: image sizes, each N or HxW."),
    ] = None,
    opt_level: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=5, help="With --format trt: how long to look for fast kernels."),
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --format trt: kernel timings, read and kept.")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="With --format trt: run on later releases, too.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="With --format trt: run on all GPUs from Ampere on.")
    ] = False,
    strip_weights: Annotated[
        bool, typer.Option("--strip-weights", help="With TensorRT: leave the weights to the ONNX file in the bundle.")
    ] = False,
    tf32: Annotated[bool, typer.Option("--tf32", help="With TensorRT: round float32 products to TF32.")] = False,
    triton_backend: Annotated[
        TritonBackend | None,
        typer.Option(help="With --format triton: what is to run the model there; else onnxruntime."),
    ] = None,
    instances: Annotated[
        str | None,
        typer.Option(
            metavar="[cpu|gpu:]N", help="With --format triton: how often the model is loaded, and where; else cpu:1."
        ),
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="With --format triton: the largest batch it makes; else 8.")
    ] = None,
    preferred_batch: Annotated[
        str | None, typer.Option(metavar="N,N", help="With --format triton: the batches that it makes if it can.")
    ] = None,
    queue_delay_us: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="With --format triton: microseconds a request waits for others; else 0."),
    ] = None,
    allow_unverified_engine: Annotated[
        bool,
        typer.Option("--allow-unverified-engine", help="Publish an engine that cannot run here; a device verifies it."),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="The bundle; else STEM-FORMAT-PRECISION here.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle (or a --plot) that is there.")] = False,
    gate: Annotated[bool, typer.Option("--gate/--no-gate", help="Check parity; without, the bundle says so.")] = True,
    sbom: Annotated[
        bool, typer.Option("--sbom", help="Put a software bill of materials into the bundle (CycloneDX).")
    ] = False,
    plot: PlotOption = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Time what was exported, side by side on this machine.")
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Export a checkpoint as a bundle whose numbers were checked against the checkpoint's own."""
    from s2mlp_deploy import artifact, exporter
    from s2mlp_deploy.manifest import Interface
    from s2mlp_deploy.request import Request, flags

    from_bundle = Request(source).from_bundle
    own = artifact.read_manifest(source).precision if from_bundle else "fp32"
    precisions = [p.value for p in precision] if precision else [own]
    wanted = [(name, kind) for name in format for kind in precisions]
    if len(set(wanted)) < len(wanted):
        raise UsageError("a --format or a --precision is given twice")
    if output and len(wanted) > 1:
        raise UsageError("-o names one bundle: leave it out, or give one --format and one --precision at a time")
    if crop_fraction is not None and not 0 < crop_fraction <= 1:
        raise UsageError(f"--crop-fraction {crop_fraction}: expected a share of the image, above 0 and up to 1")
    if io_dtype is IoDtype.fp16 and "fp16" not in precisions:
        raise UsageError("--io-dtype fp16 is for --precision fp16")
    with torch_needed():
        from s2mlp_deploy import comparison, depth, render
        from s2mlp_deploy import latency as timing
        from s2mlp_deploy.pipeline import deploy_all

        if not from_bundle:
            from s2mlp_deploy import portable  # noqa: F401
    from s2mlp_deploy.spec import DIRECTIONS

    for_formats: dict[str, Setting | None] = {
        "ort_style": ort_style.value if ort_style else None, "provider": provider.value if provider else None,
        "ort_web": str(ort_web) if ort_web else None,
        "compute_capability": tuple(compute_capability.lower().split(",")) if compute_capability else None,
        "workspace_mib": workspace_mib, "size_profile": size_profile, "batch": batch if ":" in batch else None,
        "opt_level": opt_level, "timing_cache": str(timing_cache) if timing_cache else None,
        "version_compatible": version_compatible or None, "hardware_compatible": hardware_compatible or None,
        "strip_weights": strip_weights or None, "tf32": tf32 or None,
        "triton_backend": triton_backend.value if triton_backend else None, "instances": instances,
        "max_batch": max_batch, "queue_delay_us": queue_delay_us,
        "preferred_batch": tuple(preferred_batch.split(",")) if preferred_batch else None,
    }  # fmt: skip
    settings = {name: value for name, value in for_formats.items() if value is not None}
    if unused := [name for name in settings if not any(name in exporter.find(f).options for f in format)]:
        raise UsageError(f"{flags(unused)}: not for --format {' or '.join(format)}")
    if allow_unverified_engine and not any(isinstance(exporter.find(f), exporter.Compiler) for f in format):
        raise UsageError(f"--allow-unverified-engine: --format {' or '.join(format)} makes no engine")
    for_int8 = {
        "target": target.value if target else None, "calibration": calibration, "calibration_count": calibration_count,
        "calibration_method": calibration_method.value, "max_accuracy_drop": max_accuracy_drop,
        "min_agreement": min_agreement, "quantize_ends": quantize_ends,
    }  # fmt: skip
    defaults = {field.name: field.default for field in fields(Request)}
    if "int8" not in precisions and (idle := [name for name, v in for_int8.items() if v != defaults[name]]):
        raise UsageError(f"{flags(idle)}: only for --precision int8")
    by_precision: dict[str, dict[str, Any]] = {"fp16": {"io_dtype": io_dtype.value}, "int8": for_int8}
    requests = [
            Request(
                source, name, kind, output, force,
                {n: value for n, value in settings.items() if n in exporter.find(name).options},
                layout=layout, weights=weights, lowering=shift.value,
                semantics=shift_semantics.value if shift_semantics else None,
                offsets=DIRECTIONS[shift_directions.value] if shift_directions else None, dynamic_size=dynamic_size,
                image_size=options.size("--image-size", image_size) if image_size is not None else None,
                batch=None if ":" in batch else options.batch(batch),
                mean=options.floats("--mean", mean) if mean is not None else None,
                std=options.floats("--std", std) if std is not None else None,
                resize=resize.value if resize else None, interpolation=interpolation.value if interpolation else None,
                crop_fraction=crop_fraction, labels=labels, golden_images=golden_images,
                interface=Interface(input=input.value, output=answer.value),
                reference=reference, data=data, data_count=data_count, gate=gate, sbom=sbom,
                allow_unverified_engine=allow_unverified_engine, **by_precision.get(kind, {}),
            )
        for name, kind in wanted
    ]  # fmt: skip
    told = ConsoleListener()
    drawn = depth.plan(requests, plot, replace=force, warn=told.warn) if plot else ()
    results = []
    for result in deploy_all(requests, told):  # what is published is shown, whatever becomes of the rest
        results.append(result)
        if not as_json:
            show(render.export(result))
    bundles = [result.bundle for result in results]
    curves: Sequence[Curve] = ()
    if plot:
        with told.step("drawing error against depth"):
            curves = depth.curves([bundle for bundle in bundles if bundle.directory in drawn])
            depth.draw(curves, bundles[0].manifest.spec.spec(), plot, replace=force)
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
        show(render.comparison(rows))
    if latencies:
        show(render.latencies(rows, latencies.method))
    if plot:
        show(render.picture(plot))


def verify(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", readable=False, help="A directory that s2mlp-export made.")
    ],
    per_block: Annotated[
        bool, typer.Option("--per-block", help="Show error against depth, and the first block that diverges.")
    ] = False,
    plot: PlotOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a --plot that is there.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check a bundle on this machine: its files' hashes, then its logits. Needs no torch."""
    from s2mlp_deploy import depth, verification

    if force and not plot:
        raise UsageError("--force is for --plot: nothing else is written")
    if plot:
        depth.check(bundle, plot, replace=force)
    with ConsoleListener().step("checking the bundle"):
        result = verification.verify(bundle, per_block=per_block or plot is not None)
    if plot:
        curve = depth.curve(result.bundle, result.layers)
        depth.draw([curve], result.bundle.manifest.spec.spec(), plot, replace=force)
    if as_json:
        show(
            {
                "bundle": str(bundle),
                "passed": result.passed,
                "preparation": asdict(result.preparation) if result.preparation else None,
                "checks": [vars(c) for c in result.verdict.checks],
                "distances": {case: vars(d) for case, d in result.verdict.distances.items()},
                "layers": {name: vars(d) for name, d in result.layers},
                "diverges_at": result.diverges_at,
                "plot": str(plot) if plot else None,
            }
        )
    else:
        from s2mlp_deploy import render

        show(render.verification(result))
        if plot:
            show(render.picture(plot))
    if not result.passed:
        raise typer.Exit(1)


def doctor(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Show what this machine can export and run, and what is missing for the rest."""
    from s2mlp_deploy import doctor as doctors

    report = doctors.examine()
    show(report.to_json() if as_json else doctors.table(report))


def _export_json(result: Any) -> dict[str, Any]:
    return {
        "bundle": str(result.bundle.directory),
        "passed": result.verdict.passed if result.verdict else None,
        "manifest": result.bundle.manifest.model_dump(mode="json"),
        "report": result.report,
    }


def _plot_json(file: Path, curves: Sequence[Curve]) -> dict[str, Any]:
    return {
        "file": str(file),
        "curves": [{**asdict(c), "layers": dict(c.layers), "in_float": sorted(c.in_float)} for c in curves],
    }


inspect_main = command(inspect)
export_main = command(export)
verify_main = command(verify)
doctor_main = command(doctor)
