"""Findings in one line each, for tables of any width."""

from __future__ import annotations

from collections.abc import Sequence

from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.data.image_files import describe
from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.schema.manifest import Manifest, Preprocessing, Quantization
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.report import EngineReport, LabelledFolder, LeftOut
from s2mlp_deploy.schema.spec import Network, Spec
from s2mlp_deploy.schema.tensor_entry import TensorEntry
from s2mlp_deploy.system.wording import counted, some


def artifact_line(found: Bundle) -> str:
    """An artifact in a few words: its main file, what else belongs to it, its precision."""
    artifact, *others = found.artifact.files
    line = f"{artifact}, {readable_size((found.directory / artifact).stat().st_size)}"
    if others:
        line += f", with {counted(len(others), 'other file')}: {readable_size(found.size_bytes)}"
    return f"{line}, {found.manifest.precision}"


def int8_line(manifest: Manifest, quantization: Quantization) -> str:
    """The calibration of an int8 artifact, in a line."""
    count = quantization.calibration_images
    noise = manifest.verdict == "for benchmarks only"
    samples = f"{counted(count, 'sample')} of noise" if noise else counted(count, "image")
    return f"for {quantization.target}, {quantization.method} over {samples}"


def engine_line(engine: EngineReport, *, shifts: bool) -> str:
    """The figures of compilation: kernels and what they move, or what a backend left to the runtime."""
    if engine.not_delegated is not None:
        left = ", ".join(f"{name} ×{count}" for name, count in engine.not_delegated.items())
        on_npu = "" if engine.delegated is None else f"{counted(engine.delegated, 'operator')} on the NPU; "
        return f"{on_npu}left to the runtime's own kernels: {left or 'nothing'}"
    moved = f"{readable_size(engine.moved_bytes)} of activations moved"
    if not shifts:
        return f"{counted(engine.kernels, 'kernel')}; {moved}"
    return (
        f"{counted(engine.kernels, 'kernel')}, {engine.shift_kernels} of them only shift; {moved}, "
        f"{readable_size(engine.shift_moved_bytes)} by those"
    )


def network_line(network: Network) -> str:
    """The network of a bundle in one line."""
    if isinstance(network, OnnxNetwork):
        sizes = counted(len(network.inputs), "input"), counted(len(network.outputs), "output")
        return f"ONNX network, {', '.join(sizes)}, {network.parameters:,} parameters"
    assert isinstance(network, Spec)
    return model_line(network)


def model_line(spec: Spec) -> str:
    """A model in one line."""
    outputs = counted(spec.classes, "class") if spec.classes > 1 else "1 logit for 2 classes"
    directions = " and ".join(dict.fromkeys(shift.directions for shift in spec.shifts))
    return (
        f"{family_of(spec).title}, {counted(len(spec.embeddings), 'stage')}, {counted(spec.depth, 'block')}, "
        f"{spec.parameters():,} parameters, {outputs}" + f", shift directions {directions}" * bool(directions)
    )


def shift_line(spec: Spec) -> str:
    """The choices in a model's structure: semantics of a shift, and border and the rest where they are not the paper's."""
    borders = dict.fromkeys(shift.border for shift in spec.shifts if shift.border != "keep")
    parts = [f"{spec.semantics} semantics"] if spec.semantics else []
    return ", ".join([*parts, *(f"border {border}" for border in borders), *family_of(spec).peculiarities(spec)])


def tensor_line(entry: TensorEntry) -> str:
    """An input or output in a few words."""
    layout = "" if entry.layout in (None, "NCHW") else f" {entry.layout}"
    return f"{entry.name} {list(entry.shape)} {entry.dtype}{layout}"


def left_out_line(tensors: Sequence[LeftOut]) -> str:
    """Tensors of a checkpoint that are no weights, and why each is none."""
    return some([f"{tensor.key[:100]} {list(tensor.shape)}, {tensor.why}" for tensor in tensors], 6, "; ")


def preprocessing_line(contract: Preprocessing) -> str:
    """The preparation of images in a line, with the values that were assumed."""
    ways = {
        "shorter": "shorter side, centre crop",
        "shorter-then-crop": "shorter side, then centre crop",
        "squash": "squashed",
    }
    crop = "" if contract.crop_fraction == 1 else f" of {contract.crop_fraction:g}"
    numbers = (
        f"{name} {', '.join(f'{v:g}' for v in values)}"
        for name, values in (("mean", contract.mean), ("std", contract.std))
    )
    assumed = f" (assumed: {', '.join(contract.assumed)})" if contract.assumed else ""
    return f"{ways[contract.resize]}{crop}, {contract.interpolation}, {contract.channel_order}, {', '.join(numbers)}{assumed}"


def labelled_line(data: LabelledFolder, labels: Sequence[str] | None) -> str:
    """The assumptions made about a folder of labelled images, in a line; empty where there are none."""
    parts = []
    if data.named_by == "order":
        parts.append(
            f"classes assumed in the order of the subfolders: {some([*data.classes], 5)} (not named in the bundle: pass the folder with "
            "--labels, too)"
        )
    if data.respelled:
        parts.append(f"subfolders taken for labels that are spelled otherwise: {some(data.respelled, 5)}")
    if data.left_out:
        parts.append(f"left out: {describe(data.left_out)}")
    if data.without_images:
        names = [labels[i] if labels and i < len(labels) else str(i) for i in data.without_images]
        parts.append(f"no images of class {some(names, 5)}")
    return "; ".join(parts)


def readable_size(size_bytes: int) -> str:
    """Bytes as people read them."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.1f} kB"


def or_dash(value: float | None, style: str) -> str:
    """``value`` in the format ``style``; a dash where it is not known."""
    return "–" if value is None else format(value, style)
