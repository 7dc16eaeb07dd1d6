"""Refuse requests that this format, or any, cannot fulfil: every check that combines parts of a request."""

from __future__ import annotations

from dataclasses import replace

from s2mlp_deploy.bundle import signature
from s2mlp_deploy.errors import RuntimeMissingError, UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.base import Compiler, Exporter
from s2mlp_deploy.passes.recipe import RECIPES
from s2mlp_deploy.pipeline.model_card import check_license
from s2mlp_deploy.pipeline.request import ExportRequest, OutputOptions, Source, flags
from s2mlp_deploy.quantization.settings import Float16, Int8
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS
from s2mlp_deploy.schema.precision import PRECISIONS
from s2mlp_deploy.system.dependencies import pip_install


def checked(request: ExportRequest) -> tuple[ExportRequest, Exporter | Compiler]:
    """``request``, with a batch of one where it must be that, and its format.

    Raises:
        UsageError: where its parts do not go together.
        RuntimeMissingError: where a package that it takes is missing.
    """
    request = _one_image_at_a_time(request)
    check_source(request.source)
    target = registry.find(request.format.name)
    _check_format(request, target)
    _check_precision(request, target)
    target.refuse_interface(request.graph.interface)
    check_output(request.output)
    return request, target


def check_shared(requests: list[ExportRequest]) -> None:
    """Refuse requests made together that do not share one checkpoint and its golden inputs.

    Raises:
        UsageError: where they differ in a field that these depend on.
    """
    first, *others = requests
    for other in others:
        different = [
            *_differences(first.source, other.source),
            *(name for name in _differences(first.graph, other.graph) if name != "lowering"),
            *(name for name in _differences(first.evidence, other.evidence) if name != "allow_unverified_engine"),
            *(
                name
                for name in ("sbom", "sign", "card", "license")
                if getattr(first.output, name) != getattr(other.output, name)
            ),
        ]
        if different:
            raise UsageError(f"{flags(different)}: artifacts that are made together must have this in common")
    _check_places(requests)
    formats = dict.fromkeys(request.format.name for request in requests)
    allowed = any(request.evidence.allow_unverified_engine for request in requests)
    if allowed and not any(isinstance(registry.find(name), Compiler) for name in formats):
        raise UsageError(f"--allow-unverified-engine: --format {' or '.join(formats)} makes no engine")


def _check_places(requests: list[ExportRequest]) -> None:
    """Refuse requests of which one would write its bundle over another's."""
    if len({request.destination for request in requests}) == len(requests):
        return
    if any(request.output.directory for request in requests):
        raise UsageError("-o names one bundle: leave it out, or give one --format and one --precision at a time")
    raise UsageError("a --format or a --precision is given twice")


def _differences(one: object, other: object) -> list[str]:
    return [name for name, value in vars(one).items() if vars(other)[name] != value]


def _one_image_at_a_time(request: ExportRequest) -> ExportRequest:
    """Set a batch of one for an artifact that takes images of different sizes, which cannot share a batch."""
    batch = request.graph.batch
    if request.graph.interface.input != "image" or request.source.is_bundle:
        return request
    if batch not in (None, 1):
        raise UsageError(
            f"--input image takes one image of any size at a time, and --batch is {batch}: leave it out, or use --input uint8"
        )
    return replace(request, graph=replace(request.graph, batch=1))


def check_source(source: Source) -> None:
    """Refuse facts about ``source`` that cannot be of it.

    Raises:
        UsageError: for keys of a checkpoint, which is not signed, or a share of the image that is none.
    """
    if source.publisher and not source.is_bundle:
        raise UsageError(
            f"--key and --certificate are for signed bundles, and {source.path} is a checkpoint: leave them out"
        )
    fraction = source.crop_fraction
    if fraction is not None and not 0 < fraction <= 1:
        raise UsageError(f"--crop-fraction {fraction}: expected a share of the image, above 0 and up to 1")


def _check_format(request: ExportRequest, target: Exporter | Compiler) -> None:
    name, row = request.format.name, request.precision.row
    if row.name not in target.precisions:
        raise UsageError(
            f"--format {name} cannot be made with --precision {row.name}: expected "
            + " or ".join(p for p in target.precisions if p in PRECISIONS)
        )
    request.options_of(target)


def _check_precision(request: ExportRequest, target: Exporter | Compiler) -> None:
    precision = request.precision
    known = target.targets_of(precision.row)
    if isinstance(precision, Float16 | Int8) and precision.target and precision.target not in known:
        raise UsageError(
            f"--format {request.format.name} does not take {precision.row.name} graphs for --target {precision.target}: expected "
            + " or ".join(known)
        )
    if isinstance(precision, Int8) and precision.half and not request.source.is_bundle:
        recipe = RECIPES[request.target_of(target)]
        if recipe.int32_bias:
            raise UsageError(
                f"--between {precision.between} is for int8 graphs whose biases are floats, those for --target "
                f"{' or '.join(name for name, one in RECIPES.items() if not one.int32_bias)}, and this one is for {request.target_of(target)}"
            )
    if (
        isinstance(precision, Float16)
        and request.dtype != precision.row.io_types[0]
        and request.graph.interface != FLOAT_LOGITS
    ):
        raise UsageError(
            f"--io-dtype {precision.io_dtype} is for prepared images and logits: leave out --input and --answer"
        )
    if isinstance(precision, Int8) and precision.target and RECIPES[precision.target].whole:
        _check_whole(request)
    if isinstance(precision, Int8) and precision.calibration is None and not request.source.is_bundle:
        raise UsageError(
            "--precision int8 needs --calibration: images of the kind the model will see (a folder, or prepared inputs as "
            ".npy, .npz or .safetensors). Calibrating on noise would give wrong ranges"
        )


def _check_whole(request: ExportRequest) -> None:
    """Refuse an interface that is not int8, and free sizes, which integers alone do not compute."""
    if request.graph.interface != FLOAT_LOGITS:
        raise UsageError(
            "--target litert-micro takes prepared images and gives logits, both as int8: leave out --input and --answer"
        )
    if request.graph.dynamic_size:
        raise UsageError("--target litert-micro has one size of images for a file: leave out --dynamic-size")


def check_output(output: OutputOptions) -> None:
    """Refuse a model card, a bill of materials or a signature that cannot be made, before any work is done.

    Raises:
        RuntimeMissingError: where the package for it is missing.
        KeyFileError: where the key cannot sign.
        UsageError: where the licence is no identifier, or there is no card to name it.
    """
    if output.license is not None:
        if not output.card:
            raise UsageError("--license is for --card: the model card names the licence")
        check_license(output.license)
    if output.sbom:
        _check_sbom()
    if output.sign:
        signature.check_key(output.sign)


def _check_sbom() -> None:
    try:
        from s2mlp_deploy.bundle import sbom  # noqa: F401
    except ImportError as error:
        raise RuntimeMissingError(
            f"--sbom needs the package cyclonedx-python-lib ({error}): {pip_install('sbom')}"
        ) from error
