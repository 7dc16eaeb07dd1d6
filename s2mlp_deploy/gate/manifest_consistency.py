"""Check that a manifest agrees with itself and with its artifact.

Apps rely on a manifest's inputs, outputs, classes and preprocessing, and comparing logits does not check them. But
these follow from the spec and the interface, an artifact describes its own inputs and outputs, and an ONNX model
carries spec, preprocessing and labels itself: where they disagree, one of them is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainValidator, TypeAdapter

from s2mlp_deploy.errors import BundleError, SpecError
from s2mlp_deploy.families.registry import read_network
from s2mlp_deploy.graph import io_signature
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.runtime.session import Description
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS, Interface, Manifest, Preprocessing
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.precision import precision
from s2mlp_deploy.schema.spec import Network, categories
from s2mlp_deploy.schema.tensor_entry import TensorEntry


def check(manifest: Manifest, artifact: Description | None, where: Path) -> None:
    """Compare the ``manifest`` at ``where`` with itself, and with the artifact's own description where it has one.

    Raises:
        BundleError: naming what differs.
    """
    found = [*_with_itself(manifest), *(_with_artifact(manifest, artifact) if artifact else ())]
    if found:
        raise BundleError(
            f"{where} does not describe the artifact beside it: {'; '.join(found)}. The bundle was changed or damaged: copy the "
            "bundle again"
        )


def _with_itself(manifest: Manifest) -> Iterator[str]:
    if isinstance(manifest.spec, OnnxNetwork):
        yield from _network_with_itself(manifest, manifest.spec)
        return
    spec, contract = manifest.classifier, manifest.images
    kind, entry = manifest.interface, manifest.input
    free = kind.input != "image" and any(isinstance(n, str) for n in entry.shape[1:])
    axes = Axes(manifest.batch, None if free else spec.image_size)
    io_types = precision(manifest.precision).io_types
    dtype = manifest.output.dtype if manifest.output.dtype in io_types else io_types[0]
    outputs = io_signature.output_entries(kind, spec, axes, dtype)
    for name, stated, expected in (
        ("input", entry, io_signature.input_entry(kind, spec, axes, dtype)),
        ("output", manifest.output, outputs[0]),
        ("output_classes", manifest.output_classes, outputs[1]),
    ):
        if stated != expected:
            yield f"{name} is {_text(stated)}, and of this model it is {_text(expected)}"
    classes = categories(spec.classes)
    if manifest.labels is not None and len(manifest.labels) not in (
        classes,
        spec.classes,
    ):  # once one logit had one label
        yield f"it has {len(manifest.labels)} labels for {classes} classes"
    if any(image.label is not None and image.label >= classes for image in manifest.golden_images):
        yield f"a golden image has a class beyond the {classes} that there are"
    if {len(contract.mean), len(contract.std)} != {spec.in_channels}:
        yield f"mean and std have {len(contract.mean)} and {len(contract.std)} values for {spec.in_channels} channels"
    if (contract.channel_order == "L") != (spec.in_channels == 1):
        yield f"the channel order is {contract.channel_order} for {spec.in_channels} channels"


def _network_with_itself(manifest: Manifest, network: OnnxNetwork) -> Iterator[str]:
    for name, stated, expected in (
        ("input", manifest.input, network.inputs[0]),
        ("output", manifest.output, network.outputs[0]),
    ):
        if stated != expected:
            yield f"{name} is {_text(stated)}, and of this network it is {_text(expected)}"
    for name, value in (("labels", manifest.labels), ("output_classes", manifest.output_classes)):
        if value is not None:
            yield f"{name} belongs to image classifiers, and this is another network"
    if manifest.golden_images or manifest.interface != FLOAT_LOGITS:
        yield "golden images and other interfaces belong to image classifiers, and this is another network"


def _stated(manifest: Manifest) -> list[TensorEntry]:
    """The inputs, then the outputs, that the manifest states."""
    if isinstance(manifest.spec, OnnxNetwork):
        return [*manifest.spec.inputs, *manifest.spec.outputs]
    return [entry for entry in (manifest.input, manifest.output, manifest.output_classes) if entry]


def _with_artifact(manifest: Manifest, artifact: Description) -> Iterator[str]:
    stated = _stated(manifest)
    if [_signature(entry) for entry in stated] != [
        _signature(entry) for entry in (*artifact.inputs, *artifact.outputs)
    ]:
        shown = ", ".join(map(_text, (*artifact.inputs, *artifact.outputs)))
        yield f"it states {', '.join(map(_text, stated))}, and the artifact has {shown}"
    recorded: dict[str, tuple[Any, object]] = {
        "spec": (Annotated[Network, PlainValidator(read_network)], manifest.spec),
        "preprocessing": (Preprocessing, manifest.preprocessing),
        "interface": (Interface, manifest.interface),
        "labels": (tuple[str, ...] | None, manifest.labels),
    }
    for name, (kind, stated_here) in recorded.items():
        text = artifact.metadata.get(f"s2mlp.{name}")
        try:
            differs = text is not None and TypeAdapter(kind).validate_json(text) != stated_here
        except (ValueError, SpecError):
            differs = True
        if differs:
            yield f"{name} differs from what the model itself records"
    if artifact.metadata.get("s2mlp.checkpoint_sha256", manifest.source.sha256) != manifest.source.sha256:
        yield "the model was made from another checkpoint"


def _signature(entry: TensorEntry) -> tuple[object, ...]:
    """Name, type and shape, whatever axes of any length are called."""
    return entry.name, entry.dtype, tuple(n if isinstance(n, int) else None for n in entry.shape)


def _text(entry: TensorEntry | None) -> str:
    if entry is None:
        return "nothing"
    return f"{entry.name} {entry.dtype} [{', '.join(map(str, entry.shape))}]" + f" {entry.layout}" * bool(entry.layout)
