"""Tables of a bundle's manifest."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table

from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.cli.grid import fact, new_grid
from s2mlp_deploy.cli.lines import artifact_line, int8_line, network_line, preprocessing_line, tensor_line
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.system.wording import some

FLOAT64 = "the float64 reference"

GOLDEN_SOURCES = {
    "model": "the model that was repaired",
    "recording": "the recording of your own model",
    "itself": "its own outputs where it was made",
}
"""Where a repaired network's golden outputs come from, in words."""


def reference_of(manifest: Manifest) -> str:
    """What the golden outputs of a bundle are, in words."""
    return GOLDEN_SOURCES[manifest.spec.golden] if isinstance(manifest.spec, OnnxNetwork) else FLOAT64


def bundle(found: Bundle) -> RenderableType:
    """The manifest of a bundle."""
    manifest = found.manifest
    grid = bundle_grid(found)
    quantization = manifest.quantization
    network = dict(network_lines(manifest)) if isinstance(manifest.spec, OnnxNetwork) else _classifier_lines(manifest)
    lines = {
        "format": manifest.format,
        **network,
        "int8": int8_line(manifest, quantization) if quantization else "",
        "in float": ", ".join(quantization.float_layers) if quantization else "",
        "engine": ", ".join(f"{name} {value}" for name, value in (manifest.engine or {}).items()),
        "made with": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
        "signature": str(found.signature),
        "verdict": manifest.verdict,
    }
    for name, line in lines.items():
        if line:
            fact(grid, name, line)
    return grid


def _classifier_lines(manifest: Manifest) -> dict[str, str]:
    spec, source = manifest.classifier, manifest.source
    under = f", under {source.weights!r}" if source.weights else ""
    outputs = [entry for entry in (manifest.output, manifest.output_classes) if entry]
    return {
        "checkpoint": f"sha256 {source.sha256}, layout {source.layout}{under}",
        "shift": f"{manifest.lowering} lowering, {spec.semantics} semantics" if spec.shifts else "",
        "input": tensor_line(manifest.input),
        "output": ", ".join(map(tensor_line, outputs)),
        "images": preprocessing_line(manifest.images),
        "classes": some(manifest.labels, 10) if manifest.labels else f"{spec.classes}, not named",
    }


def network_lines(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """The source, the shift, inputs, outputs and claim of a network that no family describes."""
    network = manifest.spec
    assert isinstance(network, OnnxNetwork)
    yield "repaired from", f"an ONNX file, sha256 {manifest.source.sha256}"
    if network.shift:
        yield "shift", f"{network.shift} semantics"
    yield "inputs", ", ".join(map(tensor_line, network.inputs))
    yield "outputs", ", ".join(map(tensor_line, network.outputs))
    yield "held to", reference_of(manifest)


def bundle_grid(bundle: Bundle, *, unchanged: bool = True) -> Table:
    """A bundle in a few lines; ``unchanged`` says that its files were compared with their hashes."""
    manifest = bundle.manifest
    grid = new_grid()
    fact(grid, "bundle", str(bundle.directory))
    fact(grid, "artifact", artifact_line(bundle) + ", files unchanged" * unchanged)
    fact(grid, "model", network_line(manifest.spec))
    return grid
